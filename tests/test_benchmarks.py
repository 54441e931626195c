"""What the benchmarks compute of what they measure: tables, limits, pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import (
    activations,
    networks,
    pipelining,
    placement,
    roofline,
    serving,
    sparse_speed,
    sweep,
    vela,
)
from benchmarks.compile_time import stack
from benchmarks.exactness import attributed, reconciled
from benchmarks.measure import Ended, best, run_python
from benchmarks.page import (
    Limit,
    figure,
    limits_table,
    markdown_table,
    replace_part,
    replace_section,
)
from benchmarks.scalesim import Comparison, Found
from benchmarks.simulation_speed import HEADING, PAGE
from benchmarks.speed_tables import Cold, Ideal, Network, Spent, Warm, bursts, limits, peers_table
from lepton.chip import Dataflow, Flat
from lepton.compiler.activations import Activations, Fidelity
from lepton.compiler.importers.layer_table import TableLayer
from lepton.report.summary import summarize
from lepton.runtime.serving import Stage, Tenant, Way
from lepton.runtime.split import read_network
from lepton.simulator import simulate_timing
from tests.programs import hand_program, tensor


def network(name: str, *, bursts: float = 0, timing_s: float = 0.01) -> Network:
    """Return a network of a million cycles that keeps every limit."""
    warm = Warm(1000, 1_000_000, bursts, timing_s / 2, timing_s, 0.1, 0.1, 990_000, 0.001)
    return Network(name, "edge", warm, Cold(1.0, 1.0, 300, 1.2, 1.1, 320))


LAYER = TableLayer("layer", (1, 2), (1, 1), 3, 4, 1, True)


def comparison(ours: Found, theirs: Found) -> Comparison:
    return Comparison((LAYER,), 32, Dataflow.OUTPUT_STATIONARY, ours, theirs)


def test_a_stack_has_two_operators_per_layer_on_the_npu(tmp_path: Path) -> None:
    from lepton.chip import load_chip
    from lepton.compiler.compile import compile_model

    program = compile_model(stack(3, tmp_path / "stack.onnx"), load_chip("edge"))
    kinds = [operator.kind for operator in program.operators]
    assert (kinds.count("convolution"), kinds.count("binary")) == (3, 3)


def test_figures_keep_three_digits() -> None:
    assert [figure(v) for v in (0.012345, 1.5, 99.94, 1234567)] == [
        *("0.0123", "1.5", "99.9", "1,234,567")
    ]


def test_a_table_aligns_numbers_to_the_right() -> None:
    assert markdown_table(("name", "s"), [("a", 0.5)], 1) == (
        "| name | s |\n| --- | ---: |\n| a | 0.5 |"
    )


@pytest.mark.parametrize(
    ("measured", "is_least", "is_met"),
    [(2, False, True), (2.01, False, False), (2, True, True), (1.99, True, False)],
)
def test_a_limit_is_met_up_to_itself(measured: float, is_least: bool, is_met: bool) -> None:
    limit = Limit("x", 2, measured, is_least)
    assert limit.is_met == is_met
    assert limits_table([limit]).endswith("| yes |" if is_met else "| **no** |")


def test_the_last_part_of_a_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\ntext\n\n## Figures\n\nold\n")
    replace_part(page, "## Figures", "new")
    replace_part(page, "## Figures", "newer")
    assert page.read_text() == "# Page\n\ntext\n\n## Figures\n\nnewer\n"
    with pytest.raises(ValueError, match="has no line '## Tables'"):
        replace_part(page, "## Tables", "new")


def test_the_page_has_the_part_that_is_written() -> None:
    assert PAGE.read_text(encoding="utf-8").count(f"\n{HEADING}\n") == 1


def test_precisions_stand_beside_their_targets() -> None:
    asked = Activations("auto", sqnr_db=27.0)
    row = activations.Row(
        "n", asked, 1, 14, Fidelity(26.61, 0.986), 0.881, 0.9, 23368, 3.5e-4, 0, 4.6
    )
    whole = replace(row, asked=Activations("int16"), accuracy=None, cycles=0)
    lines = activations.table([row, whole]).splitlines()[2:]
    assert lines == [
        "| n | auto, 27 dB | 1 of 14 | 26.6 | 98.6 % | 88.1 % | 90.0 % | 23,368 | 0.35 | 0 | 4.6 |",
        "| n | int16 | 1 of 14 | 26.6 | 98.6 % | - | 90.0 % | - | 0.35 | 0 | 4.6 |",
    ]


def test_best_returns_the_result_of_the_function() -> None:
    run = best(lambda: 7, 2)
    assert run.result == 7
    assert 0 <= run.cpu_s < 60


def test_a_process_is_measured_and_its_failure_told() -> None:
    ended = run_python(["-c", "print('out'); x = bytearray(50 << 20)"])
    assert ended.output.strip() == "out"
    assert ended.peak_mb > 50
    assert min(ended.wall_s, ended.cpu_s) > 0
    with pytest.raises(RuntimeError, match=r"failed: .*no such thing"):
        run_python(["-c", "raise SystemExit('no such thing')"])


def test_every_limit_of_kept_ones_is_met() -> None:
    runs = [network("ResNet-50 table"), network("MobileNetV2")]
    ideal = Ideal("32 x 32", "output-stationary", 1_000_000, 0.0, 0.001)
    made = limits(
        runs,
        {"timing": Spent(20, 35), "values": Spent(5, 5)},
        [ideal],
        [comparison(Found((9,), 1e-3), Found((9,), 4))],
    )
    assert all(limit.is_met for limit in made)
    names = [limit.name for limit in made]
    assert len(names) == len(set(names)) == 11


def test_cycles_per_second_have_a_limit_where_memory_traffic_is_low() -> None:
    runs = [network("few", bursts=125_000, timing_s=0.042), network("many", bursts=125_001)]
    rates = {limit.name: limit for limit in limits(runs, {}, [], []) if "per CPU s" in limit.name}
    name = "M cycles per CPU s, few on edge"
    assert list(rates) == [name]
    assert not rates[name].is_met


def test_a_peer_that_was_not_run_is_said_to_be_missing() -> None:
    assert "--scalesim" in peers_table([])
    made = peers_table([comparison(Found((9,), 0.5), Found((9,), 2000.0))])
    assert "| 32 x 32 output-stationary | 9 | 0.5 | 2,000 | 4,000 |" in made


def test_other_cycles_than_the_peer_are_seen() -> None:
    assert comparison(Found((1, 2), 1), Found((1, 2), 1)).is_equal
    assert not comparison(Found((1, 2), 1), Found((2, 1), 1)).is_equal


ROW = "row_bytes=64 rows=1 planes=1"
STORE = f"load {ROW} signal=1\nstore address=0x100 {ROW} wait=1\nhalt"


def test_bursts_of_a_flat_memory_are_its_bytes_by_burst() -> None:
    program = hand_program(STORE, inputs=(tensor("x", (64,), 0),))
    # the SRAM has bursts of 32 bytes; the instructions come from the flash
    flash = program.chip.memories[1]
    assert isinstance(flash, Flat)
    fetched = len(program.stream) / flash.burst_bytes
    assert bursts(program.chip, simulate_timing(program)) == 4 + fetched


def test_cycles_that_are_not_attributed_are_seen() -> None:
    program = hand_program(STORE, inputs=(tensor("x", (64,), 0),))
    trace = simulate_timing(program)
    assert all(attributed(trace, len(program.operators)))
    assert reconciled(program, trace) == [False]  # it says 1 MAC and has no matmul
    trace.records["stall_fetch"][1] += 2 * trace.cycles
    assert not all(attributed(trace, len(program.operators)))


def test_vela_table_says_which_rows_reach_the_factor():
    rows = [vela.Row("a", "like-u55-256", cycles, 0.5, 125) for cycles in (100, 101)]
    lines = vela.table(rows).splitlines()[2:]
    assert [line.split(" | ")[4:6] for line in lines] == [["1.25", "yes"], ["1.24", "**no**"]]


def row(
    network: networks.Network,
    on_npu: float = 1.0,
    compile_mb: float = 100,
    calibrate_mb: float = 1024 + 6 * 10,
    touched: int = 2080,
) -> networks.Row:
    found = networks.Equality(2_000_000, on_npu, 1234, 4, 0.001, 1.0, 0.75, (touched, 2000), 0.01)
    calibrated = Ended("", "", 2, 1, calibrate_mb) if network.is_float else None
    return networks.Row(network, 10.0, found, Ended("", "", 2, 1.5, compile_mb), calibrated)


def test_a_network_s_row_says_what_it_costs() -> None:
    spotter = next(item for item in networks.NETWORKS if item.is_recurrent)
    line = networks.table([row(spotter)]).splitlines()[-1]
    assert line == (
        f"| {spotter.name} | ML-KWS-for-MCU | 10 | 2 | 100 % | 0.1 % | 100 % | 75 % | 1,234 "
        "| 2.03 | 4 % | 1 % | 1.5 | 100 | 1 | 1,084 |"
    )


def test_networks_that_miss_a_limit_are_named() -> None:
    recurrent = next(item for item in networks.NETWORKS if item.is_recurrent)
    plain = next(item for item in networks.NETWORKS if not item.is_recurrent and item.is_float)
    assert networks.limits([row(recurrent, 0.9), row(plain, 0.97)]) == []
    missed = networks.limits(
        [
            row(recurrent, 0.89), row(plain, 0.96), row(plain, 1, 1600), row(plain, 1, 1, 1085),
            row(plain, touched=2120),
        ]
    )  # fmt: skip
    assert [text.partition(": ")[2] for text in missed] == [
        "89 % of the MACs are on the NPU",
        "96 % of the MACs are on the NPU",
        "compilation takes 1,600 MB",
        "calibration takes 1,085 MB of 1,084",
        "the scratchpad is 6 % above what is alive at once",
    ]


def test_a_network_says_which_package_it_lacks() -> None:
    network = networks.Network("n", "here", lambda folder: (folder, np.zeros(1)))
    assert network.lacks == ""
    assert replace(network, needs=("json", "no_such_package")).lacks == "no_such_package"
    assert all(item.needs for item in networks.NETWORKS if "PyTorch" in item.source)


def test_float_outputs_may_differ_by_rounding() -> None:
    theirs = np.array([1.0, 2.0, 3.0], np.float32)
    assert networks.compared(theirs + np.array([0, 1e-6, 1e-3], np.float32), theirs) == 1
    assert networks.compared(np.array([1, 2]), np.array([1, 3])) == 1


def test_the_networks_page_has_the_part_that_is_written() -> None:
    text = networks.PAGE.read_text(encoding="utf-8")
    assert text.count(f"\n{networks.HEADING}\n") == 1
    assert len({network.name for network in networks.NETWORKS}) == len(networks.NETWORKS)


def test_a_batch_reaches_inputs_and_reshapes() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6])
    shape = numpy_helper.from_array(np.array([1, 6]), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    graph = helper.make_graph([node], "flatten", [x], [y], [shape])
    made = roofline.with_batch(helper.make_model(graph), 4)
    extents = [
        [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*made.graph.input, *made.graph.output)
    ]
    assert extents == [[4, 2, 3], [4, 6]]
    assert numpy_helper.to_array(made.graph.initializer[0]).tolist() == [4, 6]


def test_a_network_beyond_its_roofline_is_named() -> None:
    case = roofline.Case("resnet50", "edge", 1.25)
    text = roofline.table([(case, roofline.Measured(130, 100, {"pool": 25, "binary": 5}))])
    assert "| resnet50 on edge, batch 1: cycles / roofline | <= 1.25 | 1.3 | **no** |" in text
    assert "| 130 | 100 | 1.300 | pool 25, binary 5 |" in text


def test_the_sparse_table_compares_with_the_dense_network_and_with_vela() -> None:
    program = hand_program("halt")
    whole = summarize(program, simulate_timing(program))
    counted = replace(whole, macs=8, bound_cycles=50)
    rows = [
        sparse_speed.Row(name, edit, chip, replace(counted, cycles=n, effective_macs=n // 50), 400)
        for name in (sparse_speed.RESNET, sparse_speed.MOBILENET)
        for chip in sparse_speed.CHIPS
        for edit, n in (("dense", 200), ("2:4", 100), ("90 %", 50))
    ]
    lines = sparse_speed.table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert lines[3].endswith("| like-u55-256 | 100 | 2.00 | 0.250 | 50 | 2.00 | 400 | 4.00 |")


def test_compute_bound_layers_are_those_in_which_the_array_works() -> None:
    text = "matmul channels=4 kernel_height=1 kernel_width=1 ofm_height=1 ofm_width=90 columns=4 "
    program = hand_program(
        f"{text} ifm_height=1 ifm_width=90 ifm_pixel_pitch=4 ifm_row_pitch=360 stride_y=1 "
        "stride_x=1 dilation_y=1 dilation_x=1 accumulator_pitch=4 stationary=ones\nhalt"
    )
    operators = tuple(replace(operator, macs=1440) for operator in program.operators)
    program = replace(program, operators=operators)
    whole = summarize(program, simulate_timing(program))
    (layer,) = whole.layers
    busy = replace(whole, layers=(replace(layer, cycles=100, busy={"matrix": 96}),))
    idle = replace(whole, layers=(replace(layer, cycles=100, busy={"matrix": 90}),))
    assert sparse_speed.compute_bound(busy, idle) == [(*busy.layers, *idle.layers)]
    slow = replace(whole, layers=(replace(layer, busy={"matrix": 90}, dram_bytes=(0, 12 * 91)),))
    assert sparse_speed.compute_bound(busy, slow) == []
    assert sparse_speed.compute_bound(idle, busy) == []


def test_limits_of_placement_count_mixed_networks_only() -> None:
    graphs = placement.Graphs(200, 199, (0.1,), (1.0,))
    cpu = [placement.Predicted(n, p, 100) for n, p in (("a", 90), ("b", 120), ("c", 130))]
    npu = [
        placement.Placed("mixed", "edge", True, 3, 100, 121, 150, 0.0),
        placement.Placed("mixed", "nano", True, 3, 100, 100, 150, 0.0),
        placement.Placed("int8", "nano", False, 3, 100, 900, 150, 0.0),
    ]
    found = placement.limits(graphs, cpu, npu, placement.Beside("resnet", 2, 125, 100))
    assert [item.measured for item in found] == pytest.approx([1, 0.2, 1.0, 1.1, 1.25])
    assert [item.is_met for item in found][:3] == [False, False, True]
    table = placement.mean_ratios([*npu, replace(npu[0], npu_first=100, cpu_first=100)])
    assert [line.split("|")[1:-1] for line in table.splitlines()[2:]] == [
        [" edge ", " 2 ", " 1 ", " 1.1 "], [" nano ", " 1 ", " 1 ", " 1 "],
    ]  # fmt: skip


def test_limits_of_pipelining_count_balanced_networks_and_wrong_results() -> None:
    rows = [
        pipelining.Pipelined("balanced_4.onnx", "npu cpu", 3, 0.9, 180, 200, 100, 32, 32),
        pipelining.Pipelined("other.onnx", "npu cpu", 3, 0.9, 120, 200, 100, 32, 31),
    ]
    found = pipelining.limits(rows)
    assert [item.measured for item in found] == [1.8, 1]
    assert [item.is_met for item in found] == [True, False]


def test_a_balanced_network_has_layers_for_both_devices(tmp_path: Path) -> None:
    network = read_network(pipelining.balanced_network(tmp_path, 3, 2))
    layers = [unit for unit in network.units if unit.kind == "Conv"]
    # what the first float layer reads is still quantized
    assert [unit.is_integer for unit in layers] == [True] * 4 + [False]


def test_scenarios_of_serving_run_both_policies() -> None:
    ways = tuple(
        Way((Stage(device, taken, ("x",), ("y",)),), ("y",), device)
        for device, taken in enumerate((1000, 1000, 5000))
    )
    tenants = [Tenant(name, ways, 1.0, deadline_ns=10_000) for name in "abc"]
    rows = [r for s in serving.SCENARIOS for r in serving.compared(s, tenants, 300)]
    assert [row.policy for row in rows] == ["static", "dynamic"] * len(serving.SCENARIOS)
    assert sum(row.unserved for row in rows) == 0
    failed = [row for row in rows if row.scenario == "a device fails"]
    assert failed[1].mean_ms < failed[0].mean_ms


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# P\n\n## F\n\n### A\n\nold\n\n#### deeper\n\nold\n\n### B\n\nb\n\n## G\n\ng\n"
    )
    replace_section(page, "### A", "new")
    kept = "# P\n\n## F\n\n### A\n\nnew\n\n### B\n\n"
    assert page.read_text() == f"{kept}b\n\n## G\n\ng\n"
    replace_section(page, "### B", "newer")
    replace_section(page, "### B", "newest")
    assert page.read_text() == f"{kept}newest\n\n## G\n\ng\n"
    replace_section(page, "## G", "last")
    assert page.read_text() == f"{kept}newest\n\n## G\n\nlast\n"
    with pytest.raises(ValueError, match="has no line '### C'"):
        replace_section(page, "### C", "new")


def test_the_page_of_sweeps_has_a_section_for_every_part() -> None:
    text = sweep.PAGE.read_text()
    assert list(sweep.HEADINGS) == list(sweep.PARTS)
    for heading in sweep.HEADINGS.values():
        assert text.count(f"\n{heading}\n\nMeasured on ") == 1
