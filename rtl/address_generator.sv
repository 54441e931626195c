`include "isa_fields.vh"
// Walks the output pixels of a pass. Each pixel is a step: the words of the block's rows, fetched
// in order, in a cycle as many as fit together. The rows' descriptions are double-buffered like
// the weights.
module address_generator #(
    parameter ROWS = 4,
    parameter ALL_COLUMNS = 4,
    parameter FEED_WORDS = 1,
    parameter OFFSET = 42,
    parameter META = 64
) (
    input  logic                               clock,
    input  logic                               reset,
    // a row of the block being loaded
    input  logic                               row_valid,
    input  logic [           $clog2(ROWS)-1:0] row,
    input  logic                               row_begins_word,
    input  logic [                 OFFSET-1:0] row_offset,
    input  logic [                       15:0] row_y,
    input  logic [                       15:0] row_x,
    // the pass that begins
    input  logic                               begins,
    input  logic [             `WORD_BITS-1:0] begin_word,
    input  logic                               begin_first_of_reduction,
    input  logic                               begin_last_pass,
    input  logic [                       16:0] begin_column,
    output logic                               can_begin_pass,
    output logic                               can_begin_instruction,
    output logic                               pass_fetched,
    output logic                               instruction_fetched,
    // the fetch of this cycle
    output logic [             FEED_WORDS-1:0] fetch,
    output logic [                       27:0] fetch_address[FEED_WORDS],
    output logic [         $clog2(ROWS+1)-1:0] fetch_bytes  [FEED_WORDS],
    output logic [           $clog2(ROWS)-1:0] fetch_row    [FEED_WORDS],
    output logic [                   ROWS-1:0] in_tile,
    output logic                               step_begins,
    output logic                               step_ends,
    output logic [                   META-1:0] meta,
    output logic                               ifm_unsigned,
    output logic signed [                 8:0] ifm_zero_point
);
  localparam ROW = $clog2(ROWS);
  localparam BYTES = $clog2(ROWS + 1);
  // bytes of a line of all slices, and how many consecutive ones never touch two lines of a slice
  localparam RING = 2 * FEED_WORDS * ROWS;
  localparam SPAN = RING - ROWS + 1;
  localparam COUNT = $clog2(ALL_COLUMNS + 1);
  // cycles from the last fetch of an instruction until the next may begin, less one
  localparam PAUSE = 3;

  // Descriptions of the two blocks: words, and the tap of each row.
  logic [OFFSET-1:0] word_offset[2][ROWS];
  logic [ROW-1:0] word_row[2][ROWS];
  logic [BYTES-1:0] word_bytes[2][ROWS];
  logic [BYTES-1:0] word_count[2];
  logic [15:0] tap_y[2][ROWS];
  logic [15:0] tap_x[2][ROWS];
  logic loading, streaming;

  wire [BYTES-1:0] words_before = row == '0 ? '0 : word_count[loading];
  wire [ROW-1:0] new_word = ROW'(words_before);
  wire [ROW-1:0] old_word = ROW'(words_before - 1'b1);

  always_ff @(posedge clock)
    if (row_valid) begin
      tap_y[loading][row] <= row_y;
      tap_x[loading][row] <= row_x;
      if (row_begins_word) begin
        word_offset[loading][new_word] <= row_offset;
        word_row[loading][new_word] <= row;
        word_bytes[loading][new_word] <= BYTES'(1);
        word_count[loading] <= words_before + 1'b1;
      end else begin
        word_bytes[loading][old_word] <= word_bytes[loading][old_word] + 1'b1;
      end
    end

  // The pass under way.
  logic active, first_of_reduction, last_pass;
  logic [`WORD_BITS-1:0] word;
  logic [16:0] column;
  logic [1:0] pause;
  logic [BYTES-1:0] next_word;
  logic [15:0] ofm_x, ofm_y;
  logic [27:0] line_address, address;
  logic signed [25:0] line_y, line_x;
  logic [23:0] accumulator;

  // Words that fit together: a word and its successors, up to the first that needs another line of
  // a slice that one before it needs, wherever the pixel lies.
  function automatic logic fit(input logic [OFFSET-1:0] a, input logic [BYTES-1:0] a_bytes,
                               input logic [OFFSET-1:0] b, input logic [BYTES-1:0] b_bytes);
    logic signed [OFFSET-1:0] a_end, b_end, low, high;
    logic [$clog2(RING)-1:0] distance;
    a_end = a + OFFSET'(a_bytes);
    b_end = b + OFFSET'(b_bytes);
    low = $signed(a) < $signed(b) ? $signed(a) : $signed(b);
    high = a_end > b_end ? a_end : b_end;
    distance = ($clog2(RING))'(b - a);
    fit = high - low <= OFFSET'(SPAN) ||
          (32'(distance) >= ROWS - 1 + 32'(a_bytes) &&
           32'(distance) + ROWS - 1 + 32'(b_bytes) <= RING);
  endfunction

  logic [BYTES-1:0] candidate[FEED_WORDS];
  logic [BYTES-1:0] taken;
  always_comb begin
    fetch = '0;
    taken = '0;
    for (int j = 0; j < FEED_WORDS; j++) begin
      candidate[j] = next_word + BYTES'(j);
      fetch_row[j] = word_row[streaming][ROW'(candidate[j])];
      fetch_bytes[j] = word_bytes[streaming][ROW'(candidate[j])];
      fetch_address[j] = address + 28'(word_offset[streaming][ROW'(candidate[j])]);
      fetch[j] = active && 32'(next_word) + j < 32'(word_count[streaming]) &&
                 (j == 0 || fetch[j==0?0 : j-1]);
      for (int i = 0; i < j; i++)
        if (!fit(word_offset[streaming][ROW'(candidate[i])], fetch_bytes[i],
                 word_offset[streaming][ROW'(candidate[j])], fetch_bytes[j]))
          fetch[j] = 1'b0;
      taken = taken + BYTES'(fetch[j]);
    end
  end

  // Which rows' taps are inside the tile.
  always_comb
    for (int r = 0; r < ROWS; r++) begin
      logic signed [25:0] y, x;
      y = line_y + $signed(26'(tap_y[streaming][r]));
      x = line_x + $signed(26'(tap_x[streaming][r]));
      in_tile[r] = y >= 0 && y < $signed(26'(word[`IFM_HEIGHT])) &&
                  x >= 0 && x < $signed(26'(word[`IFM_WIDTH]));
    end

  wire line_ends = ofm_x + 16'd1 == word[`OFM_WIDTH];
  wire pass_ends = line_ends && ofm_y + 16'd1 == word[`OFM_HEIGHT];
  wire [16:0] columns_left = 17'(word[`COLUMNS]) - column;
  wire [COUNT-1:0] count = columns_left < 17'(ALL_COLUMNS) ? COUNT'(columns_left)
                                                          : COUNT'(ALL_COLUMNS);
  // the zero point of the weights as the array holds them, which is less 128 if they are unsigned
  wire signed [9:0] weight_zero_point =
      word[`STATIONARY] == `STATIONARY_ONES ? 10'sd0
      : 10'($signed(word[`WEIGHT_ZERO_POINT])) - (word[`WEIGHT_UNSIGNED] ? 10'sd128 : 10'sd0);

  assign step_begins = active && next_word == '0;
  assign step_ends = active && next_word + taken == word_count[streaming];
  assign pass_fetched = step_ends && pass_ends;
  assign instruction_fetched = pass_fetched && last_pass;
  assign can_begin_pass = !active || pass_fetched;
  assign can_begin_instruction = !active && pause == '0;
  assign ifm_unsigned = word[`IFM_UNSIGNED];
  assign ifm_zero_point = word[`IFM_ZERO_POINT];
  assign meta = {
    instruction_fetched,
    step_ends,
    first_of_reduction && !word[`ACCUMULATE],
    weight_zero_point,
    count,
    accumulator
  };

  // Set-up of a pass.
  wire signed [25:0] first_y = -26'($signed(begin_word[`PAD_TOP]));
  wire signed [25:0] first_x = -26'($signed(begin_word[`PAD_LEFT]));
  wire [27:0] first_address = begin_word[`IFM]
      - 28'($signed(begin_word[`PAD_TOP])) * 28'(begin_word[`IFM_ROW_PITCH])
      - 28'($signed(begin_word[`PAD_LEFT])) * 28'(begin_word[`IFM_PIXEL_PITCH]);
  wire [27:0] line_step = 28'(word[`STRIDE_Y]) * 28'(word[`IFM_ROW_PITCH]);
  wire [27:0] pixel_step = 28'(word[`STRIDE_X]) * 28'(word[`IFM_PIXEL_PITCH]);

  always_ff @(posedge clock) begin
    if (reset) begin
      active <= 1'b0;
      pause <= '0;
      loading <= 1'b0;
    end else begin
      if (pass_fetched) active <= 1'b0;
      if (instruction_fetched) pause <= 2'(PAUSE);
      else if (pause != '0) pause <= pause - 1'b1;
      if (begins) begin
        active <= 1'b1;
        streaming <= loading;
        loading <= !loading;
      end
    end
    if (begins) begin
      word <= begin_word;
      first_of_reduction <= begin_first_of_reduction;
      last_pass <= begin_last_pass;
      column <= begin_column;
      next_word <= '0;
      ofm_x <= '0;
      ofm_y <= '0;
      line_y <= first_y;
      line_x <= first_x;
      line_address <= first_address;
      address <= first_address;
      accumulator <= begin_word[`ACCUMULATOR] + 24'(begin_column);
    end else if (active) begin
      next_word <= step_ends ? '0 : next_word + taken;
      if (step_ends) begin
        accumulator <= accumulator + 24'(word[`ACCUMULATOR_PITCH]);
        if (line_ends) begin
          ofm_x <= '0;
          ofm_y <= ofm_y + 16'd1;
          line_y <= line_y + $signed(26'(word[`STRIDE_Y]));
          line_x <= -26'($signed(word[`PAD_LEFT]));
          line_address <= line_address + line_step;
          address <= line_address + line_step;
        end else begin
          ofm_x <= ofm_x + 16'd1;
          line_x <= line_x + $signed(26'(word[`STRIDE_X]));
          address <= address + pixel_step;
        end
      end
    end
  end
endmodule
