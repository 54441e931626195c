// A memory of 2 x WORDS slices; word w of WORD bytes is line w / slices of slice w % slices. In a
// cycle each slice reads one line, so WORDS unaligned words can be read: each is in two adjacent
// slices, from which a rotator takes it. The requests of a cycle must not need two lines of one
// slice.
module sliced_memory #(
    parameter WORD = 8,
    parameter WORDS = 1,
    parameter BYTES = 1024,
    parameter ADDRESS = 28
) (
    input  logic                       clock,
    input  logic                       write,
    input  logic [        ADDRESS-1:0] write_address,
    input  logic [         8*WORD-1:0] write_word,
    input  logic [          WORDS-1:0] read,
    input  logic [        ADDRESS-1:0] read_address [WORDS],
    input  logic [ $clog2(WORD+1)-1:0] read_bytes   [WORDS],
    output logic [         8*WORD-1:0] read_word    [WORDS]
);
  localparam SLICES = 2 * WORDS;
  localparam LINES = BYTES / (WORD * SLICES);
  localparam BYTE = $clog2(WORD);
  localparam SLICE = $clog2(SLICES);
  localparam LINE = $clog2(LINES);

  logic [LINE-1:0] line[SLICES];
  logic [8*WORD-1:0] lines_read[SLICES];
  logic [BYTE-1:0] byte_read[WORDS];
  logic [SLICE-1:0] slice_read[WORDS];

  // Which line each slice reads.
  always_comb begin
    for (int s = 0; s < SLICES; s++) begin
      line[s] = '0;
      for (int j = 0; j < WORDS; j++) begin
        if (read[j] && touches(s, read_address[j], read_bytes[j]))
          line[s] = line_of(s, read_address[j]);
      end
    end
  end

  function automatic logic [SLICE-1:0] slice_of(input logic [ADDRESS-1:0] address);
    slice_of = address[BYTE+:SLICE];
  endfunction

  function automatic logic straddles(input logic [ADDRESS-1:0] address,
                                     input logic [$clog2(WORD+1)-1:0] bytes);
    straddles = 32'(address[BYTE-1:0]) + 32'(bytes) > WORD;
  endfunction

  function automatic logic touches(input int s, input logic [ADDRESS-1:0] address,
                                   input logic [$clog2(WORD+1)-1:0] bytes);
    touches = slice_of(address) == SLICE'(s) ||
              (slice_of(address) + 1'b1 == SLICE'(s) && straddles(address, bytes));
  endfunction

  function automatic logic [LINE-1:0] line_of(input int s, input logic [ADDRESS-1:0] address);
    line_of = address[BYTE+SLICE+:LINE] + LINE'(slice_of(address) != SLICE'(s) && s == 0);
  endfunction

  generate
    for (genvar s = 0; s < SLICES; s++) begin : g_slice
      logic [8*WORD-1:0] lines[LINES];
      always_ff @(posedge clock) begin
        if (write && write_address[BYTE+:SLICE] == SLICE'(s))
          lines[write_address[BYTE+SLICE+:LINE]] <= write_word;
        lines_read[s] <= lines[line[s]];
      end
    end
  endgenerate

  always_ff @(posedge clock)
    for (int j = 0; j < WORDS; j++) begin
      byte_read[j]  <= read_address[j][BYTE-1:0];
      slice_read[j] <= slice_of(read_address[j]);
    end

  logic [16*WORD-1:0] pair[WORDS];
  always_comb
    for (int j = 0; j < WORDS; j++) begin
      pair[j] = {lines_read[slice_read[j]+1'b1], lines_read[slice_read[j]]};
      read_word[j] = pair[j][8*32'(byte_read[j])+:8*WORD];
    end

`ifndef SYNTHESIS
  // No two requests of a cycle need two lines of one slice.
  always_ff @(posedge clock)
    for (int s = 0; s < SLICES; s++)
      for (int j = 0; j < WORDS; j++)
        if (read[j] && touches(s, read_address[j], read_bytes[j]))
          assert (line_of(s, read_address[j]) == line[s])
          else $error("slice %0d is asked for two lines", s);
`endif
endmodule
