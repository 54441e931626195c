// A value CYCLES cycles later.
module delay #(
    parameter WIDTH = 1,
    parameter CYCLES = 1
) (
    input  logic             clock,
    input  logic [WIDTH-1:0] in,
    output logic [WIDTH-1:0] out
);
  generate
    if (CYCLES == 0) begin : g_wire
      assign out = in;
    end else begin : g_registers
      logic [WIDTH-1:0] stages[CYCLES];
      always_ff @(posedge clock) begin
        stages[0] <= in;
        for (int i = 1; i < CYCLES; i++) stages[i] <= stages[i-1];
      end
      assign out = stages[CYCLES-1];
    end
  endgenerate
endmodule
