`include "isa_fields.vh"
// The matrix unit: queue, semaphores, weight loader, address generator, line buffer, systolic
// arrays, zero-point correction and accumulators, with its scratchpad and its weight buffer.
//
// ROWS, FEED_WORDS and the columns of all arrays are powers of two; a row of weights of all arrays
// is at most FEED_WORDS words of ROWS bytes.
module matrix_unit #(
    parameter ROWS = 4,
    parameter COLUMNS = 4,
    parameter ARRAYS = 1,
    parameter FEED_WORDS = 1,
    parameter QUEUE_DEPTH = 8,
    parameter SCRATCHPAD_BYTES = 8192,
    parameter WEIGHT_BYTES = 8192,
    parameter ACCUMULATORS = 4096
) (
    input  logic                             clock,
    input  logic                             reset,
    // dispatch
    input  logic                             push_valid,
    output logic                             push_ready,
    input  logic [           `WORD_BITS-1:0] push_word,
    // semaphores: signals of other units, and this unit's own
    input  logic [          `SEMAPHORES-1:0] signal_in,
    output logic [          `SEMAPHORES-1:0] signal_out,
    // the instruction at the head is taken; the one before it has streamed; the oldest retires
    output logic                             taken,
    output logic                             streamed,
    output logic                             retired,
    // writes of other units, whole aligned words; reads of accumulators while the unit is idle
    input  logic                             scratchpad_write,
    input  logic [                     27:0] scratchpad_address,
    input  logic [               8*ROWS-1:0] scratchpad_word,
    input  logic                             weights_write,
    input  logic [                     27:0] weights_address,
    input  logic [     8*ARRAYS*COLUMNS-1:0] weights_word,
    input  logic                             accumulator_read,
    input  logic [                     23:0] accumulator_address,
    output logic [                     31:0] accumulator_value
);
  localparam ALL = ARRAYS * COLUMNS;
  localparam ROW = $clog2(ROWS);
  localparam OFFSET = 42;
  localparam COLUMN = $clog2(ALL);
  localparam COUNT = $clog2(ALL + 1);
  localparam META = 3 + 10 + COUNT + 24;
  // cycles from the beginning of a pass until its first operand can be in the array
  localparam ISSUE = 4;

  // --- queue -----------------------------------------------------------------------------------
  logic head_valid, ready, busy, block_ready, first_pass, last_pass, pass_begins;
  logic [`WORD_BITS-1:0] head_word, load_word;

  instruction_queue #(`WORD_BITS, QUEUE_DEPTH) queue (
      .clock, .reset, .push_valid, .push_ready, .push_word, .head_valid, .head_word, .pop(taken)
  );

  semaphores #(`SEMAPHORES) waits (
      .clock,
      .reset,
      .signal(signal_in | signal_out),
      .wait_mask(head_word[`WAIT]),
      .ready,
      .take(taken)
  );

  assign taken = head_valid && ready && (!busy || (pass_begins && last_pass));

  // --- control ---------------------------------------------------------------------------------
  logic can_begin_pass, can_begin_instruction, pass_fetched, instruction_fetched;
  logic first_of_reduction, row_valid, row_begins_word;
  logic [16:0] column;
  logic [ROW-1:0] row;
  logic [OFFSET-1:0] row_offset;
  logic [15:0] row_y, row_x;
  logic [27:0] weight_address[1];
  logic [COUNT-1:0] weight_bytes[1];
  logic read_buffer, read_scratchpad, by_column;
  logic [COLUMN-1:0] load_column;

  weight_loader #(ROWS, ALL, OFFSET) loader (
      .clock, .reset, .take(taken), .take_word(head_word), .pass_begins, .pass_fetched,
      .can_begin_instruction, .busy, .word(load_word),
      .block_ready, .first_pass, .last_pass, .first_of_reduction, .column, .row_valid, .row,
      .row_begins_word, .row_offset, .row_y, .row_x, .read_buffer, .read_scratchpad, .by_column,
      .load_column, .weight_address(weight_address[0]), .weight_bytes(weight_bytes[0])
  );

  assign pass_begins =
      busy && block_ready && (first_pass ? can_begin_instruction : can_begin_pass);

  logic [FEED_WORDS-1:0] fetch;
  logic [27:0] fetch_address[FEED_WORDS];
  logic [$clog2(ROWS+1)-1:0] fetch_bytes[FEED_WORDS];
  logic [ROW-1:0] fetch_row[FEED_WORDS];
  logic [ROWS-1:0] in_tile;
  logic step_begins, step_ends, ifm_unsigned;
  logic [META-1:0] meta;
  logic signed [8:0] ifm_zero_point;

  address_generator #(ROWS, ALL, FEED_WORDS, OFFSET, META) generator (
      .clock, .reset, .row_valid, .row, .row_begins_word, .row_offset, .row_y, .row_x,
      .begins(pass_begins), .begin_word(load_word), .begin_first_of_reduction(first_of_reduction),
      .begin_last_pass(last_pass), .begin_column(column), .can_begin_pass, .can_begin_instruction,
      .pass_fetched, .instruction_fetched, .fetch, .fetch_address, .fetch_bytes, .fetch_row,
      .in_tile, .step_begins, .step_ends, .meta, .ifm_unsigned, .ifm_zero_point
  );

  // --- operands --------------------------------------------------------------------------------
  logic [8*ROWS-1:0] fetched[FEED_WORDS];
  logic signed [9:0] x[ROWS];
  logic [META-1:0] x_meta;
  logic swap;

  // The loader has the read port while no pass streams.
  logic [FEED_WORDS-1:0] read;
  logic [27:0] read_address[FEED_WORDS];
  logic [$clog2(ROWS+1)-1:0] read_bytes[FEED_WORDS];
  always_comb
    for (int j = 0; j < FEED_WORDS; j++) begin
      read[j] = read_scratchpad ? j == 0 || (!by_column && j * ROWS < ALL) : fetch[j];
      read_address[j] = read_scratchpad ? weight_address[0] + 28'(j * ROWS) : fetch_address[j];
      read_bytes[j] = read_scratchpad ? ($clog2(ROWS + 1))'(ROWS) : fetch_bytes[j];
    end

  sliced_memory #(ROWS, FEED_WORDS, SCRATCHPAD_BYTES) scratchpad (
      .clock, .write(scratchpad_write), .write_address(scratchpad_address),
      .write_word(scratchpad_word), .read, .read_address, .read_bytes, .read_word(fetched)
  );

  line_buffer #(ROWS, FEED_WORDS, META) lines (
      .clock, .fetch, .fetch_bytes, .fetch_row, .in_tile, .step_begins, .step_ends, .meta,
      .ifm_unsigned, .ifm_zero_point, .fetched, .x, .x_meta
  );

  delay #(1, ISSUE) swap_delay (clock, pass_begins, swap);

  // --- weights ---------------------------------------------------------------------------------
  logic [8*ALL-1:0] weights_read[1];
  logic [7:0] weights_now[ALL];
  logic [7:0] load_weight[ALL];
  logic [7:0] column_now[ROWS];
  logic [7:0] column_weight[ROWS];
  logic ones_read, unsigned_read, scratchpad_read, load, column_load;
  logic [ROW-1:0] load_row;
  logic [COLUMN-1:0] column_index;

  sliced_memory #(ALL, 1, WEIGHT_BYTES) weight_buffer (
      .clock, .write(weights_write), .write_address(weights_address), .write_word(weights_word),
      .read(read_buffer), .read_address(weight_address), .read_bytes(weight_bytes),
      .read_word(weights_read)
  );

  // A row of weights, or a column, as the array holds them: signed.
  logic [7:0] row_read[ALL];
  always_comb
    for (int c = 0; c < ALL; c++) begin
      row_read[c] = weights_read[0][8*c+:8];
      if (scratchpad_read) row_read[c] = fetched[c/ROWS][8*(c%ROWS)+:8];
      row_read[c][7] = row_read[c][7] ^ unsigned_read;
      if (ones_read) row_read[c] = 8'd1;
    end

  always_ff @(posedge clock) begin
    ones_read <= load_word[`STATIONARY] == `STATIONARY_ONES;
    unsigned_read <= load_word[`WEIGHT_UNSIGNED];
    scratchpad_read <= read_scratchpad;
    weights_now <= row_read;
    load_weight <= weights_now;
    for (int r = 0; r < ROWS; r++)
      column_now[r] <= fetched[0][8*r+:8] ^ {unsigned_read, 7'd0};
    column_weight <= column_now;
  end
  delay #(1 + ROW, ISSUE - 1) row_delay (
      clock, {row_valid && !by_column, row}, {load, load_row}
  );
  delay #(1 + COLUMN, ISSUE - 1) column_delay (
      clock, {read_scratchpad && by_column, load_column}, {column_load, column_index}
  );

  // --- array -----------------------------------------------------------------------------------
  logic signed [31:0] sums[ALL];
  logic signed [31:0] row_sum;

  systolic_array #(ROWS, COLUMNS, ARRAYS) arrays (
      .clock, .x, .swap, .load, .load_row, .load_weight, .column_load, .column_index,
      .column_weight, .sums, .row_sum
  );

  // --- zero point of the weights, and accumulation ---------------------------------------------
  // What belongs to the operands goes along with them: into the array in cycle e, to the row sum
  // in e + ROWS, to the accumulators' read in e + ROWS + COLUMNS - 2 and to their write one later.
  logic [META-1:0] sum_meta, read_meta, write_meta;
  delay #(META, ROWS) sum_meta_delay (clock, x_meta, sum_meta);
  delay #(META, ROWS + COLUMNS - 2) read_meta_delay (clock, x_meta, read_meta);
  delay #(META, 1) write_meta_delay (clock, read_meta, write_meta);

  wire signed [9:0] sum_zero_point = sum_meta[24+COUNT+:10];
  wire signed [31:0] correction_early = row_sum * 32'(sum_zero_point);
  logic signed [31:0] correction;
  delay #(32, COLUMNS - 1) correction_delay (clock, correction_early, correction);

  wire write_valid = write_meta[META-2];
  wire overwrite = write_meta[META-3];
  logic signed [31:0] old_sums[ALL];
  logic signed [31:0] new_sums[ALL];
  always_comb
    for (int c = 0; c < ALL; c++)
      new_sums[c] = (overwrite ? 32'sd0 : old_sums[c]) + sums[c] - correction;

  accumulators #(ALL, ACCUMULATORS) sums_memory (
      .clock,
      .read_address(accumulator_read ? accumulator_address : read_meta[23:0]),
      .read_sums(old_sums),
      .write(write_valid),
      .write_address(write_meta[23:0]),
      .write_count(write_meta[24+:COUNT]),
      .write_sums(new_sums)
  );
  assign accumulator_value = old_sums[0];

  // --- completion ------------------------------------------------------------------------------
  assign retired = write_meta[META-1] && write_valid;
  delay #(1, ISSUE) streamed_delay (clock, instruction_fetched, streamed);

  // the masks of the instructions under way, oldest first, to be signalled at retirement
  logic mask_push, mask_valid, mask_ready;
  logic [`SEMAPHORES-1:0] mask_pushed, mask;
  always_ff @(posedge clock) begin
    mask_push <= taken && !reset;
    mask_pushed <= head_word[`SIGNAL];
  end
  instruction_queue #(`SEMAPHORES, 4 + (ROWS + COLUMNS) / 4) masks (
      .clock, .reset, .push_valid(mask_push), .push_ready(mask_ready), .push_word(mask_pushed),
      .head_valid(mask_valid), .head_word(mask), .pop(retired)
  );
  assign signal_out = retired && mask_valid ? mask : '0;

`ifndef SYNTHESIS
  always_ff @(posedge clock)
    if (!reset) begin
      assert (!mask_push || mask_ready)
      else $error("more instructions under way than masks");
      assert (!taken || head_word[`OPCODE] == `OPCODE_MATMUL)
      else $error("not a matmul");
      assert (!(read_scratchpad && fetch != '0))
      else $error("loader and feed read at once");
    end
`endif
endmodule
