"""The analytic tier: beside the simulator, the chips' own figures, and point by point."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from lepton.chip import Chip, load_chip
from lepton.compiler import graph as ir
from lepton.compiler import schedule
from lepton.compiler.allocate import place_lifetimes
from lepton.compiler.lifetimes import bytes_crossing, lifetimes_of, storage_of, with_replaced
from lepton.compiler.steps import NpuStep
from lepton.compiler.views import views_of
from lepton.cost.action_names import Action
from lepton.cost.area import part_areas
from lepton.cost.energy import COMPONENTS, action_energies
from lepton.cost.energy_estimate import prices
from lepton.explore import Space, parse_space
from lepton.explore.analytic import AnalyticTier
from lepton.explore.analytic.machine import AREA_SECTIONS, COUNT, ENERGY_SECTIONS, Machine, Machines
from lepton.explore.analytic.network import LAYER, WORKING_SHARES, Network
from lepton.explore.events import EventTier
from lepton.explore.metrics import CHIP_METRICS, chip_metrics
from lepton.explore.space import Setting, Workload
from tests.explore.spaces import RESNET8, front_of, grid

MIXED = """\
base = "edge-sparse"
[parameters]
array.rows = [8, 32, 512]
array.columns = [16, 32, 512]
array.clock_mhz = [500, 1000, 1000.000001]
cores = [1, 2]
scratchpad.size_kib = [64, 1000, 300000]
scratchpad.banks = [16, 24]
weight_buffer.size_kib = [16, 128]
weight_buffer.decoder_bytes_per_cycle = [16, 32]
memory.dram.channels = [1, 3, 4]
memory.dram.standard = ["lpddr5-6400", "hbm2"]
dma.outstanding = [4, 4096]
vector.lanes = [16, 64]
sparsity.lanes = [4, 3]
technology.node = ["7nm", "16nm"]
"""


def _some(space: Space, count: int, seed: int = 0) -> np.ndarray:
    return space.points(np.random.default_rng(seed).integers(0, space.size, count))


def _rank(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.asarray(spearmanr(a, b))[0])


@pytest.mark.parametrize("model", ["digits", RESNET8])
def test_ranks_as_the_simulator(model: str) -> None:
    """Latency and energy put chips in the simulator's order."""
    space, front = grid(), front_of(model)
    points = space.points(np.arange(0, space.size, 7))
    tier = EventTier([Workload(model, space.workloads[0].model)], [front])
    runs = [tier.run(0, space.chip(point), Setting()) for point in points.tolist()]
    held = np.array([not run.failure for run in runs])
    assert held.sum() > 15
    made = AnalyticTier([front], [1.0]).evaluate(space, points)
    clock = np.array([float(space.chip(point).array.clock_mhz) for point in points.tolist()])
    simulated = np.array([run.cycles for run in runs]) / clock / 1000
    assert _rank(made.metrics["latency_ms"][held], simulated[held]) > 0.9
    joules = np.array([run.joules for run in runs])
    assert _rank(made.metrics["energy_mj"][held], joules[held]) > 0.9


def test_batch_is_one_by_one() -> None:
    space, tier = grid(), AnalyticTier([front_of("digits")], [1.0])
    points = space.points(np.arange(0, space.size, 5))
    together = tier.evaluate(space, points)
    for number, point in enumerate(points):
        alone = tier.evaluate(space, point[None])
        assert alone.cycles[0] == together.cycles[number]
        for name, values in alone.metrics.items():
            assert values[0] == pytest.approx(together.metrics[name][number], rel=1e-12)


def test_two_workloads_are_means() -> None:
    space, fronts = grid(), [front_of("digits"), front_of(RESNET8)]
    points = space.points(np.arange(0, space.size, 11))
    both = AnalyticTier(fronts, [3.0, 1.0]).evaluate(space, points)
    each = [AnalyticTier([front], [1.0]).evaluate(space, points) for front in fronts]
    expected = sum(w * one.metrics["latency_ms"] for w, one in zip((0.75, 0.25), each, strict=True))
    np.testing.assert_allclose(both.metrics["latency_ms"], expected)
    np.testing.assert_allclose(both.metrics["inferences_per_s"], 1000 / expected)


def test_illegal_points_have_no_metrics() -> None:
    space = parse_space("[parameters]\narray.rows = [8192, 32]", "s")
    tier = AnalyticTier([front_of("digits")], [1.0])
    made = tier.evaluate(space, np.array([[0], [1], [0]]))
    np.testing.assert_array_equal(np.isnan(made.metrics["latency_ms"]), [True, False, True])
    assert np.isnan(tier.evaluate(space, np.array([[0]])).metrics["area_mm2"]).all()


def test_legal_points_are_found_side_by_side() -> None:
    """Looking at memories and units apart finds what looking at whole chips does."""
    space = parse_space(MIXED, "s")
    points = _some(space, 600)
    expected = [not space.faults(point) for point in points.tolist()]
    assert 0 < sum(expected) < 600
    np.testing.assert_array_equal(space.are_legal(points), expected)


def test_figures_of_many_chips_are_those_of_each() -> None:
    space = parse_space(MIXED, "s")
    points = _some(space, 400, 1)
    points = points[space.are_legal(points)]
    machines = Machines(space, points)
    for number, point in enumerate(points.tolist()):
        chip = space.chip(point)
        for name in CHIP_METRICS:
            assert machines.chip_metrics[name][number] == pytest.approx(chip_metrics(chip)[name])
        each = prices(chip)
        found = machines.prices[number]
        assert found[COUNT.MACS] == pytest.approx(
            each.actions[Action.MAC] + each.actions[Action.OPERAND_SHIFT]
        )
        assert found[COUNT.CYCLES] == pytest.approx(each.cycle_pj)
        row = Machine(*machines.rows[number])
        assert (row.rows, row.scratchpad) == (chip.array.rows, chip.scratchpad.size_bytes)
        assert row.weight_buffer == chip.weight_buffer.elements
        rate = row.tensors_unit / row.tensors_cycles
        assert rate == pytest.approx(chip.memory_bytes_per_cycle[0], rel=0.2)


def _changed(chip: Chip, section: str) -> Chip:
    """Return a chip all of whose numbers in a section are twice as large."""
    part = getattr(chip, section)
    doubled = {
        item.name: 2 * getattr(part, item.name)
        for item in dataclasses.fields(part)
        if str(item.type) in ("int", "Fraction")
    }
    return dataclasses.replace(chip, **{section: dataclasses.replace(part, **doubled)})


SECTIONS = (
    *("array", "accumulators", "vector", "weight_buffer", "scratchpad", "dma", "control"),
    "sparsity",
)


@pytest.mark.parametrize("section", SECTIONS)
def test_areas_and_energies_depend_on_their_sections_only(section: str) -> None:
    chip = load_chip("edge-sparse")
    other = _changed(chip, section)
    for name, sections in AREA_SECTIONS.items():
        assert (part_areas(chip)[name] == part_areas(other)[name]) or section in sections
    old, new = action_energies(chip), action_energies(other)
    for name, sections in ENERGY_SECTIONS.items():
        number = COMPONENTS.index(name)
        assert (old[number] == new[number]).all() or section in sections


def test_counts_of_the_model() -> None:
    """MACs and weights are the model's, and no chip beats its peak."""
    space, front = grid(), front_of(RESNET8)
    tier = AnalyticTier([front], [1.0])
    (network,) = tier.networks
    points = space.points(np.arange(0, space.size, 13))
    machines = Machines(space, points)
    counts = tier.counts(network, machines)
    np.testing.assert_allclose(counts[:, COUNT.MACS], network.macs)
    peak = machines.rows[:, 0] * machines.rows[:, 2]
    assert (counts[:, COUNT.CYCLES] > network.macs / peak).all()
    weights = sum(
        node.weights.size
        for step in front.steps
        if isinstance(step, NpuStep)
        for node in step.graph.nodes
        if isinstance(node, ir.Convolution)
    )
    assert (counts[:, COUNT.STREAMED] >= weights).all()
    assert network.rows[:, LAYER["weights"]].sum() <= weights


def test_residency_is_the_compilers() -> None:
    """The division of the scratchpad is that of least traffic among all that the compiler tries."""
    assert WORKING_SHARES == schedule._WORKING_SHARES
    front = front_of(RESNET8)
    network = Network(front)
    (graph,) = [step.graph for step in front.steps if isinstance(step, NpuStep)]
    for kib in (8, 16, 32, 64, 128, 512):
        size, found = kib * 1024, network.residency(kib * 1024)
        ranked: list[tuple[float, float]] = []
        for share in WORKING_SHARES:
            views = views_of(graph)
            for replaces in (False, True):
                storage = storage_of(graph, views)
                storage = with_replaced(graph, storage, views, ()) if replaces else storage
                room = size - int(size * share)
                held = place_lifetimes(lifetimes_of(graph, storage, {}), room)
                crossing = bytes_crossing(graph, storage, held, views)
                ranked.append((crossing * (1 + 0.1 / share), share))
        assert found.tile_share == min(ranked)[1]
        layers = sum(1 for row in network._found for item in row if item is not None)
        assert 0 < found.counts.sum() <= layers


def test_more_of_anything_is_not_slower_by_much() -> None:
    """Twice the channels, or the scratchpad, never costs more than a hundredth."""
    front = front_of(RESNET8)
    for path, values in (("memory.flash.bytes_per_cycle", "[1, 2, 4, 8]"),
                         ("scratchpad.size_kib", "[32, 64, 128, 256]")):  # fmt: skip
        space = parse_space(f'base = "nano"\n[parameters]\n{path} = {values}', "s")
        made = AnalyticTier([front], [1.0]).evaluate(space, space.points(np.arange(4)))
        cycles = made.cycles[:, 0]
        assert all(math.isfinite(c) for c in cycles)
        assert (np.diff(cycles) <= 0.01 * cycles[:-1]).all()
