`include "isa_fields.vh"
// Loads the weights of a pass, a row per cycle, while the pass before streams. Its counter walks
// (kernel row, kernel column, channel), so with every row of weights it also describes to the
// address generator where that row's operands lie. A stationary operand in the scratchpad is loaded
// through the feed's read port, hence while no pass streams; a transposed one column by column.
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
    input  logic                                 pass_fetched,
    input  logic                                 can_begin_instruction,
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
    // the weights: a row, or with by_column a column, from weight buffer or scratchpad
    output logic                                 read_buffer,
    output logic                                 read_scratchpad,
    output logic                                 by_column,
    output logic [     $clog2(ALL_COLUMNS)-1:0]  load_column,
    output logic [                        27:0]  weight_address,
    output logic [ $clog2(ALL_COLUMNS+1)-1:0]    weight_bytes
);
  localparam ROW = $clog2(ROWS);

  // waiting: for the feed; walked, columns_loaded: that part of the load is over
  logic waiting, loading, loaded, loaded_last, first, walked, columns_loaded;
  logic [27:0] row_address, column_address, columns_address, block_address;
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
  wire walking = loading && !walked;
  wire walk_ends = walking && (row == ROW'(ROWS - 1) || reduction_ends);
  wire columns_end = 17'(load_column) + 17'd1 == 17'(weight_bytes);
  wire block_ends = (walked || walk_ends) && (!by_column || columns_loaded || columns_end);
  wire block_last = walking ? reduction_ends : loaded_last;
  wire in_scratchpad = is_in_scratchpad(word[`STATIONARY]);
  // whether the feed's port is free from the next cycle on
  wire feed_free = first_pass ? can_begin_instruction && !pass_begins : pass_fetched;
  wire [16:0] columns_left = 17'(word[`COLUMNS]) - column;
  wire [16:0] next_column = column + 17'(ALL_COLUMNS);

  assign block_ready = (loading && block_ends) || loaded;
  assign last_pass = block_last && columns_left <= 17'(ALL_COLUMNS);
  assign first_of_reduction = first;
  assign row_valid = walking;
  assign by_column = word[`STATIONARY] == `STATIONARY_SCRATCHPAD_TRANSPOSED;
  assign read_buffer = walking && word[`STATIONARY] == `STATIONARY_BUFFER;
  assign read_scratchpad = loading && in_scratchpad && !(by_column && columns_loaded);
  assign weight_address = by_column ? column_address : row_address;
  assign row_begins_word =
      row == '0 || (channel == '0 && (!packed_taps || kernel_x == '0));
  assign row_offset = tap_offset + OFFSET'(channel);
  assign weight_bytes = columns_left < 17'(ALL_COLUMNS) ? ($clog2(ALL_COLUMNS + 1))'(columns_left)
                                                        : ($clog2(ALL_COLUMNS + 1))'(ALL_COLUMNS);

  function automatic logic is_in_scratchpad(input logic [1:0] stationary);
    is_in_scratchpad = stationary == `STATIONARY_SCRATCHPAD ||
                       stationary == `STATIONARY_SCRATCHPAD_TRANSPOSED;
  endfunction

  // the walk: one row further in every cycle
  always_ff @(posedge clock) begin
    if (take || (walking && reduction_ends)) begin
      channel <= '0;
      kernel_x <= '0;
      kernel_y <= '0;
      line_offset <= '0;
      tap_offset <= '0;
      row_x <= '0;
      row_y <= '0;
      row_address <= take ? take_word[`STATIONARY_ADDRESS]
                          : word[`STATIONARY_ADDRESS] + 28'(next_column);
    end else if (walking) begin
      row_address <= row_address + (in_scratchpad ? 28'(word[`STATIONARY_PITCH])
                                                  : 28'(word[`COLUMNS]));
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

  // the columns of a transposed block: columns_address is the first of all rows, block_address of
  // the block's rows
  wire [27:0] next_columns_address =
      columns_address + 28'(ALL_COLUMNS) * 28'(word[`STATIONARY_PITCH]);
  wire [27:0] next_block_address =
      block_last ? next_columns_address : block_address + 28'(ROWS);
  always_ff @(posedge clock) begin
    if (take) begin
      load_column <= '0;
      columns_address <= take_word[`STATIONARY_ADDRESS];
      block_address <= take_word[`STATIONARY_ADDRESS];
      column_address <= take_word[`STATIONARY_ADDRESS];
    end else if (pass_begins) begin
      load_column <= '0;
      if (block_last) columns_address <= next_columns_address;
      block_address <= next_block_address;
      column_address <= next_block_address;
    end else if (loading) begin
      load_column <= load_column + 1'b1;
      column_address <= column_address + 28'(word[`STATIONARY_PITCH]);
    end
  end

  // the sequence of blocks: those of the reduction first, then the next columns
  always_ff @(posedge clock) begin
    if (reset) begin
      busy <= 1'b0;
      waiting <= 1'b0;
      loading <= 1'b0;
      loaded <= 1'b0;
    end else begin
      if (waiting && feed_free) begin
        waiting <= 1'b0;
        loading <= 1'b1;
      end
      if (walking) begin
        row <= row + 1'b1;
        loaded_last <= reduction_ends;
        walked <= walk_ends;
      end
      if (loading) begin
        columns_loaded <= columns_loaded || columns_end;
        if (block_ends) begin
          loading <= 1'b0;
          loaded <= 1'b1;
        end
      end
      if (pass_begins) begin
        busy <= !last_pass;
        loaded <= 1'b0;
        loading <= !last_pass && !in_scratchpad;
        waiting <= !last_pass && in_scratchpad;
        first <= block_last;
        first_pass <= 1'b0;
        if (block_last) column <= next_column;
      end
      if (take) begin
        busy <= 1'b1;
        word <= take_word;
        loading <= !is_in_scratchpad(take_word[`STATIONARY]) ||
                   (can_begin_instruction && !pass_begins);
        waiting <= is_in_scratchpad(take_word[`STATIONARY]) &&
                   !(can_begin_instruction && !pass_begins);
        first <= 1'b1;
        first_pass <= 1'b1;
        column <= '0;
      end
      if (take || pass_begins) begin
        row <= '0;
        walked <= 1'b0;
        columns_loaded <= 1'b0;
      end
    end
  end
endmodule
