// ARRAYS weight-stationary arrays of ROWS x COLUMNS side by side, fed with the same operands.
//
// An operand vector, or a swap, given in cycle e is in row r and column c in cycle e + r + c; a row
// of weights given in cycle l is written into column c in cycle l + c. The sums of the vector are
// out in cycle e + ROWS + COLUMNS - 1, all columns at once, the sum of its operands (the row-sum
// column) in cycle e + ROWS. A column of weights given in cycle l is written into row r in l + r.
module systolic_array #(
    parameter ROWS = 4,
    parameter COLUMNS = 4,
    parameter ARRAYS = 1,
    parameter X_BITS = 10
) (
    input  logic                           clock,
    input  logic signed [      X_BITS-1:0] x          [ROWS],
    input  logic                           swap,
    input  logic                           load,
    input  logic        [$clog2(ROWS)-1:0] load_row,
    input  logic        [             7:0] load_weight[ARRAYS*COLUMNS],
    input  logic                           column_load,
    input  logic [$clog2(ARRAYS*COLUMNS)-1:0] column_index,
    input  logic        [             7:0] column_weight[ROWS],
    output logic signed [            31:0] sums       [ARRAYS*COLUMNS],
    output logic signed [            31:0] row_sum
);
  localparam ROW = $clog2(ROWS);
  localparam COLUMN = $clog2(ARRAYS * COLUMNS);

  logic signed [X_BITS-1:0] x_skewed[ROWS];
  logic swap_skewed[ROWS];
  logic signed [31:0] partial[ROWS];
  logic row_loads[ROWS];
  logic [COLUMN-1:0] row_index[ROWS];
  logic [7:0] row_weight[ROWS];

  generate
    for (genvar r = 0; r < ROWS; r++) begin : g_skew
      delay #(X_BITS + 1, r) skew (clock, {x[r], swap}, {x_skewed[r], swap_skewed[r]});
      delay #(1 + COLUMN + 8, r) load_skew (
          clock,
          {column_load, column_index, column_weight[r]},
          {row_loads[r], row_index[r], row_weight[r]}
      );
      always_ff @(posedge clock)
        partial[r] <= (r == 0 ? 32'sd0 : partial[r==0?0 : r-1]) + 32'(x_skewed[r]);
    end
  endgenerate
  assign row_sum = partial[ROWS-1];

  generate
    for (genvar a = 0; a < ARRAYS; a++) begin : g_array
      // wires [row][column]: x and swap between columns, sums between rows
      logic signed [X_BITS-1:0] x_between[ROWS][COLUMNS+1];
      logic swap_between[ROWS][COLUMNS+1];
      logic signed [31:0] sum_between[ROWS+1][COLUMNS];
      for (genvar r = 0; r < ROWS; r++) begin : g_edge
        assign x_between[r][0] = x_skewed[r];
        assign swap_between[r][0] = swap_skewed[r];
      end
      for (genvar c = 0; c < COLUMNS; c++) begin : g_column
        logic loads;
        logic [ROW-1:0] loaded_row;
        logic [7:0] loaded_weight;
        delay #(1 + ROW + 8, c) skew (
            clock,
            {load, load_row, load_weight[a*COLUMNS+c]},
            {loads, loaded_row, loaded_weight}
        );
        assign sum_between[0][c] = 32'sd0;
        for (genvar r = 0; r < ROWS; r++) begin : g_row
          wire by_column = row_loads[r] && row_index[r] == COLUMN'(a * COLUMNS + c);
          processing_element #(X_BITS) element (
              .clock,
              .x_in(x_between[r][c]),
              .swap_in(swap_between[r][c]),
              .sum_in(sum_between[r][c]),
              .load(by_column || (loads && loaded_row == ROW'(r))),
              .load_weight(by_column ? row_weight[r] : loaded_weight),
              .x_out(x_between[r][c+1]),
              .swap_out(swap_between[r][c+1]),
              .sum_out(sum_between[r+1][c])
          );
        end
        delay #(32, COLUMNS - 1 - c) deskew (clock, sum_between[ROWS][c], sums[a*COLUMNS+c]);
      end
    end
  endgenerate
endmodule
