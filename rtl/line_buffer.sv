// Gathers the words of a step into one operand per row. It holds two steps of ROWS operands: the
// one being gathered, and the one that enters the array. A tap outside the tile becomes the zero
// point, hence 0. A fetch in cycle a that ends its step is in the array in cycle a + 3.
module line_buffer #(
    parameter ROWS = 4,
    parameter FEED_WORDS = 1,
    parameter META = 64
) (
    input  logic                              clock,
    // cycle a: what is fetched
    input  logic        [     FEED_WORDS-1:0] fetch,
    input  logic        [$clog2(ROWS+1)-1:0]  fetch_bytes[FEED_WORDS],
    input  logic        [  $clog2(ROWS)-1:0]  fetch_row  [FEED_WORDS],
    input  logic        [           ROWS-1:0] in_tile,
    input  logic                              step_begins,
    input  logic                              step_ends,
    input  logic        [           META-1:0] meta,
    input  logic                              ifm_unsigned,
    input  logic signed [                8:0] ifm_zero_point,
    // cycle a + 1: the words
    input  logic        [         8*ROWS-1:0] fetched    [FEED_WORDS],
    // cycle a + 3
    output logic signed [                9:0] x          [ROWS],
    output logic        [           META-1:0] x_meta
);
  localparam BYTES = $clog2(ROWS + 1);
  localparam ROW = $clog2(ROWS);

  // cycle a + 1: each row takes its byte of the word that covers it
  logic [FEED_WORDS-1:0] read;
  logic [BYTES-1:0] read_bytes[FEED_WORDS];
  logic [ROW-1:0] read_row[FEED_WORDS];
  logic [ROWS-1:0] read_in_tile;
  logic read_begins, read_ends;
  logic [META-1:0] read_meta;
  logic [ROWS-1:0] covered;
  logic [7:0] bytes[ROWS];

  always_ff @(posedge clock) begin
    read <= fetch;
    read_bytes <= fetch_bytes;
    read_row <= fetch_row;
    read_in_tile <= in_tile;
    read_begins <= step_begins;
    read_ends <= step_ends;
    read_meta <= meta;
  end

  always_comb
    for (int r = 0; r < ROWS; r++) begin
      covered[r] = 1'b0;
      bytes[r] = '0;
      for (int j = 0; j < FEED_WORDS; j++)
        if (read[j] && r >= 32'(read_row[j]) && r < 32'(read_row[j]) + 32'(read_bytes[j])) begin
          covered[r] = 1'b1;
          bytes[r] = fetched[j][8*ROW'(r-32'(read_row[j]))+:8];
        end
    end

  // cycle a + 2: zero point and padding, and the step is put together
  logic [ROWS-1:0] now_covered, now_in_tile;
  logic [7:0] now_bytes[ROWS];
  logic now_begins, now_ends;
  logic [META-1:0] now_meta;
  logic signed [9:0] gathered[ROWS];
  logic signed [9:0] held[ROWS];

  always_ff @(posedge clock) begin
    now_covered <= covered;
    now_in_tile <= read_in_tile;
    now_bytes <= bytes;
    now_begins <= read_begins;
    now_ends <= read_ends;
    now_meta <= read_meta;
  end

  always_comb
    for (int r = 0; r < ROWS; r++) begin
      gathered[r] = now_begins ? 10'sd0 : held[r];
      if (now_covered[r])
        gathered[r] = now_in_tile[r]
            ? $signed({{2{now_bytes[r][7] && !ifm_unsigned}}, now_bytes[r]}) - 10'(ifm_zero_point)
            : 10'sd0;
    end

  always_ff @(posedge clock) begin
    held <= gathered;
    for (int r = 0; r < ROWS; r++) x[r] <= now_ends ? gathered[r] : 10'sd0;
    x_meta <= now_ends ? now_meta : '0;
  end
endmodule
