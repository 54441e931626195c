`include "isa_fields.vh"
// Loads the weights of a pass, a row per cycle, while the pass before streams. Its counter walks
// (kernel row, kernel column, channel), so with every row of weights it also describes to the
// address generator where that row's operands lie.
module weight_loader #(
    parameter ROWS = 4,
    parameter ALL_COLUMNS = 4,
    parameter OFFSET = 42
) (
    input  logic                                 clock,
    input  logic                                 reset,
    input  logic                                 take,
    input  logic [              `WORD_BITS-1:0]  take_word,
    input  logic                                 pass_begins,
    // the instruction being loaded, and the block that is or will be ready
    output logic                                 busy,
    output logic [              `WORD_BITS-1:0]  word,
    output logic                                 block_ready,
    output logic                                 first_pass,
    output logic                                 last_pass,
    output logic                                 first_of_reduction,
    output logic [                        16:0]  column,
    // a row of the block
    output logic                                 row_valid,
    output logic [            $clog2(ROWS)-1:0]  row,
    output logic                                 row_begins_word,
    output logic [                  OFFSET-1:0]  row_offset,
    output logic [                        15:0]  row_y,
    output logic [                        15:0]  row_x,
    output logic [                        27:0]  weight_address,
    output logic [ $clog2(ALL_COLUMNS+1)-1:0]    weight_bytes
);
  localparam ROW = $clog2(ROWS);

  logic loading, loaded, loaded_last, first;
  logic [15:0] channel;
  logic [7:0] kernel_x, kernel_y;
  logic [OFFSET-1:0] line_offset, tap_offset;

  // products of the fields
  wire [31:0] tap_step = 32'(word[`DILATION_X]) * 32'(word[`IFM_PIXEL_PITCH]);
  wire [31:0] line_step = 32'(word[`DILATION_Y]) * 32'(word[`IFM_ROW_PITCH]);
  wire packed_taps = word[`IFM_PIXEL_PITCH] == word[`CHANNELS] && word[`DILATION_X] == 8'd1;

  wire channel_ends = channel + 16'd1 == word[`CHANNELS];
  wire line_ends = channel_ends && kernel_x + 8'd1 == word[`KERNEL_WIDTH];
  wire reduction_ends = line_ends && kernel_y + 8'd1 == word[`KERNEL_HEIGHT];
  wire block_ends = row == ROW'(ROWS - 1) || reduction_ends;
  wire block_last = loading ? reduction_ends : loaded_last;
  wire [16:0] columns_left = 17'(word[`COLUMNS]) - column;
  wire [16:0] next_column = column + 17'(ALL_COLUMNS);

  assign block_ready = (loading && block_ends) || loaded;
  assign last_pass = block_last && columns_left <= 17'(ALL_COLUMNS);
  assign first_of_reduction = first;
  assign row_valid = loading;
  assign row_begins_word =
      row == '0 || (channel == '0 && (!packed_taps || kernel_x == '0));
  assign row_offset = tap_offset + OFFSET'(channel);
  assign weight_bytes = columns_left < 17'(ALL_COLUMNS) ? ($clog2(ALL_COLUMNS + 1))'(columns_left)
                                                        : ($clog2(ALL_COLUMNS + 1))'(ALL_COLUMNS);

  // the walk: one row further in every cycle of loading
  always_ff @(posedge clock) begin
    if (take || (loading && reduction_ends)) begin
      channel <= '0;
      kernel_x <= '0;
      kernel_y <= '0;
      line_offset <= '0;
      tap_offset <= '0;
      row_x <= '0;
      row_y <= '0;
      weight_address <= take ? take_word[`STATIONARY_ADDRESS]
                             : word[`STATIONARY_ADDRESS] + 28'(next_column);
    end else if (loading) begin
      weight_address <= weight_address + 28'(word[`COLUMNS]);
      channel <= channel_ends ? '0 : channel + 16'd1;
      if (line_ends) begin
        kernel_x <= '0;
        kernel_y <= kernel_y + 8'd1;
        row_x <= '0;
        row_y <= row_y + 16'(word[`DILATION_Y]);
        line_offset <= line_offset + OFFSET'(line_step);
        tap_offset <= line_offset + OFFSET'(line_step);
      end else if (channel_ends) begin
        kernel_x <= kernel_x + 8'd1;
        row_x <= row_x + 16'(word[`DILATION_X]);
        tap_offset <= tap_offset + OFFSET'(tap_step);
      end
    end
  end

  // the sequence of blocks: those of the reduction first, then the next columns
  always_ff @(posedge clock) begin
    if (reset) begin
      busy <= 1'b0;
      loading <= 1'b0;
      loaded <= 1'b0;
    end else begin
      if (loading) begin
        row <= row + 1'b1;
        loaded_last <= reduction_ends;
        if (block_ends) begin
          loading <= 1'b0;
          loaded <= 1'b1;
        end
      end
      if (pass_begins) begin
        loaded <= 1'b0;
        loading <= !last_pass;
        busy <= !last_pass;
        row <= '0;
        first <= block_last;
        first_pass <= 1'b0;
        if (block_last) column <= next_column;
      end
      if (take) begin
        busy <= 1'b1;
        word <= take_word;
        loading <= 1'b1;
        row <= '0;
        first <= 1'b1;
        first_pass <= 1'b1;
        column <= '0;
      end
    end
  end
endmodule
