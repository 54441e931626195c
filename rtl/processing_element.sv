// One multiplier of the array: a weight in use, the next one in the shadow register. `swap` travels
// with the operands; the operand that comes with it already meets the new weight.
module processing_element #(
    parameter X_BITS = 10
) (
    input  logic                     clock,
    input  logic signed [X_BITS-1:0] x_in,
    input  logic                     swap_in,
    input  logic signed [      31:0] sum_in,
    input  logic                     load,
    input  logic signed [       7:0] load_weight,
    output logic signed [X_BITS-1:0] x_out,
    output logic                     swap_out,
    output logic signed [      31:0] sum_out
);
  logic signed [7:0] weight, shadow;

  wire signed [7:0] used = swap_in ? shadow : weight;

  always_ff @(posedge clock) begin
    x_out <= x_in;
    swap_out <= swap_in;
    weight <= used;
    if (load) shadow <= load_weight;
    sum_out <= sum_in + 32'(x_in * used);
  end
endmodule
