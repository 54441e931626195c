"""Networks on several cores: the values of one core, whatever is split along which dimension."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm")

from lepton.chip import Chip, Dram, load_chip
from lepton.compiler import compile as compiling
from lepton.compiler import graph as ir
from lepton.compiler.compile import CompileOptions, compile_model
from lepton.compiler.parts import Part, is_stretch, split_evenly
from lepton.compiler.shard import Layout, core_of
from lepton.compiler.shard_choice import choices_of, layout_of
from lepton.cost.estimate import estimate_program
from lepton.isa import assemble, disassemble, encode_all
from lepton.isa.footprints import cores_of
from lepton.program import Program, load_program
from lepton.runtime.execute import HostRegions
from lepton.simulator import check, run_values, simulate_timing
from tests.resnet50 import resnet50
from tests.tflite_graphs import KINDS, draw_graph, tiny_chip

CHAINS = 18
"""Random chains of operators, each on two, three and four cores."""


def scaled(chip: Chip, cores: int) -> Chip:
    """Return a chip of so many cores with as many times the bandwidth of each memory."""
    memories = [
        replace(memory, channels=memory.channels * cores)
        if isinstance(memory, Dram)
        else replace(memory, bytes_per_cycle=memory.bytes_per_cycle * cores)
        for memory in chip.memories
    ]
    return replace(chip, cores=cores, memories=tuple(memories))


def compiled(path: Path, chip: Chip, effort: int = 0) -> Program:
    """Return a checked program, through the bytes of its file."""
    made = load_program(compile_model(path, chip, CompileOptions(effort=effort)).to_bytes())
    check(made)
    return made


@pytest.mark.parametrize("seed", range(CHAINS))
def test_any_split_gives_the_values_of_one_core(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list(KINDS)[seed * 5 % len(KINDS)]
    graph = draw_graph(seed, KINDS[first].dtypes[0], first, 5)
    path = tmp_path / "graph.tflite"
    path.write_bytes(graph.model)
    chip = (tiny_chip(), load_chip("edge"))[seed % 2]
    alone = compiled(path, chip)
    wanted = run_values(alone, graph.inputs, HostRegions(alone))
    draw = random.Random(seed)

    def any_layouts(region: ir.Graph, several: Chip) -> list[list[Layout]]:
        made: list[Layout | None] = []
        for node in region.nodes:
            choices = choices_of(node, several)
            split = draw.choice(choices[:-1]) if choices[:-1] and draw.random() < 0.8 else None
            made.append(layout_of(node, split, several))
        return [[layout for layout in made if layout is not None]]

    monkeypatch.setattr(compiling, "layouts_of", any_layouts)
    for cores in (2, 3, 4):
        made = compiled(path, replace(chip, cores=cores))
        found = run_values(made, graph.inputs, HostRegions(made))
        assert all(np.array_equal(wanted[name], found[name]) for name in wanted), cores


def test_a_program_of_several_cores_has_a_stream_for_each(tmp_path: Path) -> None:
    graph = draw_graph(3, "int8", "CONV_2D", 1)
    path = tmp_path / "graph.tflite"
    path.write_bytes(graph.model)
    made = compiled(path, replace(load_chip("edge"), cores=4))
    halts = [item.mnemonic for item in made.decoded].count("halt")
    assert halts == 4 * len([region for region in made.regions if region.device == "npu"])
    assert set(cores_of(made.table, 4).tolist()) == {0, 1, 2, 3}
    assert encode_all(assemble(disassemble(made.decoded))) == made.instructions
    trace = simulate_timing(made)
    assert trace.queues[0] == "0.load0" and trace.queues[-1] == "3.vector"


@pytest.mark.parametrize("cores", [2, 4])
def test_visual_wake_words_on_several_cores(cores: int) -> None:
    if "LEPTON_DATA" not in os.environ:
        pytest.skip("LEPTON_DATA does not say where the models are")
    path = Path(os.environ["LEPTON_DATA"]) / "mlperf_tiny/vww_96_int8.tflite"
    alone = compiled(path, load_chip("edge"), 1)
    shared = compiled(path, scaled(load_chip("edge"), cores), 1)
    name = alone.inputs[0]
    image = np.random.default_rng(0).integers(-128, 128, (1, 96, 96, 3)).astype(np.int8)
    image = image.view(np.dtype(alone.tensor_by_name[name].dtype))
    wanted, found = (run_values(program, {name: image}) for program in (alone, shared))
    assert all(np.array_equal(wanted[output], found[output]) for output in wanted)
    cycles = [simulate_timing(program).cycles for program in (alone, shared)]
    assert cycles[1] < 0.8 * cycles[0]


def test_resnet_50_scales_with_cores(tmp_path: Path) -> None:
    path = tmp_path / "resnet50.tflite"
    path.write_bytes(resnet50())
    cycles: list[int] = []
    for cores in (1, 2, 4):
        made = compiled(path, scaled(load_chip("edge"), cores))
        cycles.append(simulate_timing(made).cycles)
        assert abs(estimate_program(made).cycles - cycles[-1]) < 0.05 * cycles[-1]
    one, two, four = cycles
    assert one >= 1.8 * two
    assert one >= 3.2 * four


def test_images_of_a_batch_go_to_cores_of_their_own() -> None:
    tensor = ir.Tensor("x", (6, 4, 4, 8), False, 1.0, 0)
    node = ir.Reshape(name="r", inputs=(tensor,), output=replace(tensor, name="y"))
    layout = layout_of(node, 0, scaled(load_chip("edge"), 4))
    assert layout is not None
    assert [part.n for part in layout if part is not None] == [(0, 1), (1, 3), (3, 4), (4, 6)]


def test_a_core_has_its_share_of_the_bandwidth() -> None:
    chip = scaled(load_chip("edge"), 4)
    assert core_of(chip).memories == load_chip("edge").memories
    assert core_of(chip).peak_macs_per_cycle * 4 == chip.peak_macs_per_cycle


@pytest.mark.parametrize("sizes", [(7, 2, 1), (100, 3, 32), (9, 4, 4), (4, 4, 9)])
def test_spans_cover_an_extent(sizes: tuple[int, int, int]) -> None:
    extent, count, step = sizes
    spans = split_evenly(extent, count, step)
    assert spans is not None and len(spans) == count
    assert spans[0][0] == 0 and spans[-1][1] == extent
    assert all(a[1] == b[0] for a, b in pairwise(spans)) and all(a < b for a, b in spans)
    assert split_evenly(2, 3) is None


@pytest.mark.parametrize("seed", range(50))
def test_a_stretch_is_what_lies_in_one_piece(seed: int) -> None:
    draw = np.random.default_rng(seed)
    shape = tuple(int(extent) for extent in draw.integers(1, 4, 4))
    spans = [sorted(draw.choice(extent + 1, 2, replace=False).tolist()) for extent in shape]
    part = Part(*((start, stop) for start, stop in spans))
    places = np.arange(np.prod(shape)).reshape(shape)[tuple(slice(*span) for span in part)]
    is_one_piece = np.array_equal(np.diff(places.ravel()), np.ones(places.size - 1))
    assert is_stretch((shape[0], shape[1], shape[2], shape[3]), part) == is_one_piece
