// Counting semaphores: a signal counts in the cycle in which it arrives.
module semaphores #(
    parameter COUNT = 56,
    parameter BITS = 16
) (
    input  logic             clock,
    input  logic             reset,
    input  logic [COUNT-1:0] signal,
    input  logic [COUNT-1:0] wait_mask,
    output logic             ready,
    input  logic             take
);
  logic [BITS-1:0] counters[COUNT];

  always_comb begin
    ready = 1'b1;
    for (int i = 0; i < COUNT; i++)
      if (wait_mask[i] && counters[i] == 0 && !signal[i]) ready = 1'b0;
  end

  always_ff @(posedge clock)
    for (int i = 0; i < COUNT; i++)
      counters[i] <= reset ? '0 : counters[i] + BITS'(signal[i]) - BITS'(take && wait_mask[i]);
endmodule
