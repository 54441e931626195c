// int32 accumulators in LANES lanes; element a is line a / LANES of lane a % LANES, so LANES
// consecutive elements, wherever they begin, are one line of each lane. A block is read in one
// cycle and written in the next; a read of a line that is being written returns the new value.
module accumulators #(
    parameter LANES = 4,
    parameter ELEMENTS = 1024,
    parameter ADDRESS = 24
) (
    input  logic                             clock,
    input  logic        [       ADDRESS-1:0] read_address,
    output logic signed [              31:0] read_sums    [LANES],
    input  logic                             write,
    input  logic        [       ADDRESS-1:0] write_address,
    input  logic        [$clog2(LANES+1)-1:0] write_count,
    input  logic signed [              31:0] write_sums   [LANES]
);
  localparam LANE = $clog2(LANES);
  localparam LINES = ELEMENTS / LANES;
  localparam LINE = $clog2(LINES);

  logic signed [31:0] lane_read[LANES];
  logic [LANE-1:0] first_read;

  generate
    for (genvar l = 0; l < LANES; l++) begin : g_lane
      logic signed [31:0] lines[LINES];
      // the element of the block that is in this lane
      wire [LANE-1:0] read_index = LANE'(l) - read_address[LANE-1:0];
      wire [LANE-1:0] write_index = LANE'(l) - write_address[LANE-1:0];
      wire [ADDRESS-1:0] read_element = read_address + ADDRESS'(read_index);
      wire [ADDRESS-1:0] write_element = write_address + ADDRESS'(write_index);
      wire [LINE-1:0] read_line = read_element[LANE+:LINE];
      wire [LINE-1:0] write_line = write_element[LANE+:LINE];
      wire lane_write = write && 32'(write_index) < 32'(write_count);

      always_ff @(posedge clock) begin
        if (lane_write) lines[write_line] <= write_sums[write_index];
        lane_read[l] <= lane_write && write_line == read_line ? write_sums[write_index]
                                                               : lines[read_line];
      end
`ifndef SYNTHESIS
      initial for (int i = 0; i < LINES; i++) lines[i] = '0;
`endif
    end
  endgenerate

  always_ff @(posedge clock) first_read <= read_address[LANE-1:0];
  always_comb
    for (int c = 0; c < LANES; c++) read_sums[c] = lane_read[LANE'(c)+first_read];
endmodule
