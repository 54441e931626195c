"""Random quantized ONNX graphs through compiler, binary and simulator, against ONNX Runtime.

The first seeds here, all with `make campaign`. A failure prints the smallest spec found that still
fails: `run_case(<that spec>)` repeats it.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="ONNX Runtime is the golden")
pytest.importorskip("tvm")

from lepton.chip import Chip, load_chip
from lepton.chip.toml import parse_chip
from lepton.compiler.compile import compile_model
from lepton.errors import CompileError, InputError
from lepton.isa import assemble, disassemble, encode_all
from lepton.program import Program, load_program
from lepton.runtime.execute import HostRegions
from lepton.runtime.golden import onnx_session
from lepton.simulator import check, simulate_program
from tests.campaign_parts import SAMPLE, Counts, onnx_verdict
from tests.onnx_graphs import Graph, Spec, StepSpec, draw_spec, piece_model, shrink
from tests.onnx_piece import Array, Piece

_TINY = """
name = "{name}"
description = "so small that every operator is tiled"
[array]
rows = {rows}
columns = {columns}
count = 1
clock_mhz = 500
feed_words = 4
issue_cycles = 4
[accumulators]
size_kib = {accumulators}
banks = 4
[vector]
lanes = 8
latency_cycles = 4
softmax_cycles_per_element = 4
[weight_buffer]
size_kib = {weights}
decoder_bytes_per_cycle = 8
entropy_lanes = 4
[scratchpad]
size_kib = {scratchpad}
banks = 4
port_bytes = 16
[dma]
load_channels = 1
store_channels = 1
burst_bytes = 32
outstanding = 2
setup_cycles = 4
[control]
queue_depth = 4
fetch_bytes = 64
fetch_outstanding = 1
[placement]
program = "flash"
constants = "flash"
activations = ["sram"]
[[memory]]
kind = "flat"
name = "sram"
size_mib = 2
clock_mhz = 500
bytes_per_cycle = 8
ports = 1
burst_bytes = 32
read_latency_cycles = 32
write_latency_cycles = 32
reads_in_flight = 4
writes_in_flight = 4
[[memory]]
kind = "flat"
name = "flash"
size_mib = 64
clock_mhz = 500
bytes_per_cycle = 1
ports = 1
burst_bytes = 128
read_latency_cycles = 64
write_latency_cycles = 64
reads_in_flight = 2
writes_in_flight = 1
[sources]
array = "test"
accumulators = "test"
vector = "test"
weight_buffer = "test"
scratchpad = "test"
dma = "test"
control = "test"
placement = "test"
memory = "test"
"memory.sram" = "test"
"memory.flash" = "test"
"""
_SIZES = {
    "tiny-2": {"rows": 4, "columns": 4, "accumulators": 1, "weights": 1, "scratchpad": 2},
    "tiny-4": {"rows": 4, "columns": 4, "accumulators": 1, "weights": 1, "scratchpad": 4},
    "tiny-8": {"rows": 8, "columns": 8, "accumulators": 2, "weights": 2, "scratchpad": 16},
}
CHIPS = ("tiny-4", "tiny-8", "tiny-8", "nano", "like-u55-256", "edge")


@functools.cache
def chip(name: str) -> Chip:
    """Return a preset, or one of the tiny chips of this test."""
    size = _SIZES.get(name)
    if size is None:
        return load_chip(name)
    return parse_chip(_TINY.format(name=name, **size), f"{name}.toml")


class Difference(AssertionError):
    """A case whose result is wrong."""


# --- the golden --------------------------------------------------------------------------------


def _run_piece(piece: Piece, values: dict[str, Array]) -> list[Array]:
    """Return the golden results of one step on given codes."""
    inputs = [values[value.name] for value in piece.inputs]
    if piece.formula is not None:
        return [piece.formula(inputs)]
    session = onnx_session(piece_model(piece).SerializeToString())
    feeds = {value.name: values[value.name] for value in piece.inputs}
    return list(session.run([value.name for value in piece.outputs], feeds))


def _compare(piece: Piece, ours: Array, golden: Array, counts: Counts) -> None:
    """Compare one result: every byte, or within 1 where the step says so."""
    gap = np.abs(ours.astype(np.int64) - golden.astype(np.int64))
    wrong = int(np.count_nonzero(gap))
    if piece.tolerant:
        counts[f"compared {piece.kind}"] += gap.size
        counts[f"different {piece.kind}"] += wrong
    if gap.max(initial=0) > (1 if piece.tolerant else 0):
        at = np.unravel_index(int(gap.argmax()), gap.shape)
        raise Difference(
            f"{piece.kind}: {wrong} of {gap.size} elements differ, by {gap.max()} at most: "
            f"{[int(i) for i in at]} is {ours[at]}, the golden's {golden[at]}"
        )


def _by_steps(graph: Graph, codes: Array, ours: dict[str, Array], counts: Counts) -> None:
    """Compare step by step; behind a tolerant step the golden goes on with our bytes."""
    values = {graph.source.name: codes}
    for piece in graph.pieces:
        golden = _run_piece(piece, values)
        for value, array in zip(piece.outputs, golden, strict=True):
            values[value.name] = array
            if value.name in ours:
                _compare(piece, ours[value.name], array, counts)
                values[value.name] = ours[value.name]


def _goes_by_steps(graph: Graph, model: Any) -> bool:
    """Return whether steps have goldens of their own, or the library spoils the whole graph.

    It merges a Pad into the MaxPool behind it, and then refuses more padding than kernel.
    """
    if any(piece.formula is not None or piece.tolerant for piece in graph.pieces):
        return True
    if {"Pad", "MaxPool"} <= {piece.kind for piece in graph.pieces}:
        try:
            onnx_session(model.SerializeToString())
        except InputError as error:
            return "Pad should be smaller than kernel" in str(error)
    return False


def _whole(graph: Graph, model: Any, feeds: dict[str, Array], ours: dict[str, Array]) -> None:
    """Compare the whole graph's results with the whole graph in ONNX Runtime."""
    session = onnx_session(model.SerializeToString())
    maker = {value.name: piece for piece in graph.pieces for value in piece.outputs}
    for name, golden in zip(ours, session.run(list(ours), feeds), strict=True):
        if not np.array_equal(ours[name], golden):
            piece = maker[name.removeprefix("real_")]
            wrong = int(np.count_nonzero(ours[name] != golden))
            raise Difference(f"{piece.kind} (whole graph): {wrong} of {golden.size} differ")


# --- one case ----------------------------------------------------------------------------------


def _check_program(program: Program) -> Program:
    """Save, load, check and disassemble a program; return the loaded one."""
    loaded = load_program(program.to_bytes())
    assert encode_all(assemble(disassemble(loaded.decoded))) == loaded.instructions
    check(loaded)
    return loaded


def _expect_on_npu(program: Program, graph: Graph) -> None:
    """Raise if anything but the float edges is on the host."""
    allowed = {piece.on_host for piece in graph.pieces if piece.on_host}
    if graph.spec.is_float or allowed:
        allowed |= {"quantize", "dequantize"}
    wrong = [
        f"{operator.kind}: {operator.reason}"
        for operator in program.operators
        if operator.device == "host" and operator.kind not in allowed
    ]
    if wrong:
        raise Difference(f"on the host: {'; '.join(wrong)}")


def _feeds(graph: Graph, codes: Array) -> dict[str, Array]:
    """Return the inputs of the whole model."""
    if not graph.spec.is_float:
        return {"x": codes}
    params = graph.source.tensor.params
    real = (codes.astype(np.float32) - np.float32(params.zero_point)) * params.scale
    return {"real_x": real.astype(np.float32)}


def _compiled(model: Any, spec: Spec, counts: Counts) -> Program:
    """Compile; what says that it does not fit a tiny chip's scratchpad must fit a small one's."""
    try:
        return compile_model(model, chip(spec.chip))
    except CompileError as error:
        if spec.chip not in _SIZES or "scratchpad" not in str(error):
            raise
        counts["too large"] += 1
        return compile_model(model, chip("nano"))


def run_case(spec: Spec, counts: Counts | None = None) -> None:
    """Compile, save, load, check, run and compare one graph.

    Raises:
        Difference: a byte, the device of an operator or a cycle count is wrong.
    """
    counts = Counter() if counts is None else counts
    graph = Graph(spec)
    model = graph.model()
    program = _check_program(_compiled(model, spec, counts))
    _expect_on_npu(program, graph)
    codes = graph.draw(spec.seed)
    feeds = _feeds(graph, codes)
    host = HostRegions(program)
    result = simulate_program(program, feeds, host, checked=True)
    alone = simulate_program(program, None, host, checked=True)
    values = simulate_program(program, feeds, host, timing=False, checked=True)
    assert result.trace is not None and alone.trace is not None
    if result.trace.cycles != alone.trace.cycles:
        raise Difference("values change the cycles")
    if any(not np.array_equal(values.outputs[k], v) for k, v in result.outputs.items()):
        raise Difference("timing changes the values")
    ours: dict[str, Array] = {name: np.asarray(v) for name, v in result.outputs.items()}
    if _goes_by_steps(graph, model):
        _by_steps(graph, codes, _as_codes(graph, ours), counts)
    else:
        _whole(graph, model, feeds, ours)
    counts["graphs"] += 1
    counts.update(f"operator {piece.kind}" for piece in graph.pieces)


def _as_codes(graph: Graph, ours: dict[str, Array]) -> dict[str, Array]:
    """Return results as codes: float ones are dequantized codes, and go back exactly."""
    if not graph.spec.is_float:
        return ours
    made: dict[str, Array] = {}
    for value in graph.results:
        params = value.tensor.params
        codes = np.rint(ours[f"real_{value.name}"] / params.scale) + params.zero_point
        made[value.name] = codes.astype(value.dtype)
    return made


def failure(spec: Spec) -> str:
    """Return what is wrong with a case, "" if nothing is."""
    try:
        run_case(spec)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _describe(spec: Spec, message: str) -> str:
    """Return a failure with its smallest reproducer."""
    kind = message.split(":")[0]
    small = shrink(spec, lambda candidate: failure(candidate).startswith(kind))
    return f"seed {spec.seed}: {message}\n  smallest: {failure(small)}\n  {small!r}"


def forms(spec: Spec) -> list[Spec]:
    """Return a graph between (de)quantizes and, where that makes a difference, of QLinear*."""
    both = [replace(spec, is_qoperator=is_qoperator) for is_qoperator in (False, True)]
    models = [Graph(form).model().SerializeToString() for form in both]
    return both if models[0] != models[1] else both[:1]


def run_seed(seed: int) -> Counts:
    """Run a seed's graph in its forms; return what was counted.

    Raises:
        Difference: with the smallest spec found that still fails.
    """
    counts: Counts = Counter()
    for spec in forms(draw_spec(seed, CHIPS)):
        try:
            run_case(spec, counts)
        except Exception as error:
            raise Difference(_describe(spec, f"{type(error).__name__}: {error}")) from error
    return counts


# --- the tests ---------------------------------------------------------------------------------


def test_a_step_draws_the_same_again() -> None:
    spec = draw_spec(7, CHIPS)
    models = [Graph(spec).model().SerializeToString() for _ in range(2)]
    assert models[0] == models[1]


def test_a_failure_shrinks_to_the_step_that_fails() -> None:
    spec = next(s for s in map(lambda n: draw_spec(n, CHIPS), range(100)) if len(s.steps) > 3)
    kind = spec.steps[0].kind
    small = shrink(spec, lambda candidate: any(step.kind == kind for step in candidate.steps))
    assert [step.kind for step in small.steps] == [kind]
    assert np.prod(small.shape) <= np.prod(spec.shape)


@pytest.mark.parametrize("kind", ["Gemm", "MatMul", "MatMul2", "Conv"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_reduction_longer_than_the_scratchpad(kind: str, dtype: str) -> None:
    shape = (1, 3000, 2, 2) if kind == "Conv" else (2, 5000)
    for seed in range(4):
        steps = (StepSpec(kind, seed, 0),)
        counts: Counts = Counter()
        run_case(Spec(seed, shape, dtype, False, False, False, "tiny-2", steps), counts)
        assert counts["too large"] == 0


@pytest.mark.parametrize("seed", [1, 2, 4, 7, 11])
def test_graphs_on_the_smallest_chip(seed: int) -> None:
    counts: Counts = Counter()
    run_case(replace(draw_spec(seed, CHIPS), chip="tiny-2"), counts)
    assert counts["too large"] == 0


@pytest.mark.parametrize("seed", [395, 1670, 4085, 4165])
def test_graphs_that_once_were_wrong(seed: int) -> None:
    run_case(draw_spec(seed, CHIPS))


@pytest.mark.parametrize(
    "spec",
    [
        Spec(
            seed=1431, shape=(1, 1, 1, 1), dtype="uint8", is_qoperator=False, is_float=False,
            is_open=False, chip="edge", steps=(StepSpec("MaxPool", 1244979888, 2),),
        ),
        Spec(
            seed=1661, shape=(1, 1, 1, 1), dtype="int8", is_qoperator=True, is_float=False,
            is_open=False, chip="edge",
            steps=(StepSpec("Pad", 1076346828, 0), StepSpec("MaxPool", 1311118794, 1)),
        ),
    ],
    ids=["a window in the padding alone", "more padding than kernel"],
)  # fmt: skip
def test_a_max_pool(spec: Spec) -> None:
    run_case(spec)


@pytest.mark.slow
def test_random_graphs_equal_onnx_runtime() -> None:
    counts: Counts = Counter()
    for seed in range(SAMPLE):
        counts += run_seed(seed)
    assert not onnx_verdict(counts)
