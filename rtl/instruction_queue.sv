// The queue in front of the unit. A word is at the head in the cycle in which it is pushed into an
// empty queue; a full queue takes a word in the cycle in which its head leaves.
module instruction_queue #(
    parameter WIDTH = 512,
    parameter DEPTH = 8
) (
    input  logic             clock,
    input  logic             reset,
    input  logic             push_valid,
    output logic             push_ready,
    input  logic [WIDTH-1:0] push_word,
    output logic             head_valid,
    output logic [WIDTH-1:0] head_word,
    input  logic             pop
);
  localparam POINTER = DEPTH > 1 ? $clog2(DEPTH) : 1;
  localparam COUNT = $clog2(DEPTH + 1);

  logic [WIDTH-1:0] words[DEPTH];
  logic [POINTER-1:0] head, tail;
  logic [COUNT-1:0] count;

  wire empty = count == 0;
  wire push = push_valid && push_ready;

  assign push_ready = count != COUNT'(DEPTH) || pop;
  assign head_valid = !empty || push_valid;
  assign head_word = empty ? push_word : words[head];

  function automatic [POINTER-1:0] next(input [POINTER-1:0] at);
    next = at == POINTER'(DEPTH - 1) ? '0 : at + 1'b1;
  endfunction

  always_ff @(posedge clock) begin
    if (reset) begin
      head  <= '0;
      tail  <= '0;
      count <= '0;
    end else begin
      if (push) begin
        words[tail] <= push_word;
        tail <= next(tail);
      end
      if (pop) head <= next(head);
      count <= count + COUNT'(push) - COUNT'(pop);
    end
  end
endmodule
