"""Random small TFLite graphs, compiled for small chips, beside LiteRT's reference kernels.

`make campaign` runs many more of them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.chip import Chip, load_chip
from lepton.compiler.compile import compile_model
from lepton.program import Program, load_program
from lepton.runtime.execute import HostRegions
from lepton.simulator import check, run_values
from tests.tflite_builder import TfliteBuilder, run_reference
from tests.tflite_graphs import KINDS, RandomGraph, draw_graph, tiny_chip

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference")

CHAINS = 150
SINGLES = 2
OPERATORS = [(kind, dtype) for kind in KINDS for dtype in KINDS[kind].dtypes]

HOST = {"DIV", "GATHER", "L2_NORMALIZATION", "MIRROR_PAD", "REVERSE_V2"}
"""Operators of which the host runs all or some; every other one must be the NPU's whole."""

ONE_STEP = {"L2_NORMALIZATION"}
"""Where the host computes these, in float, a result may be one step away from the kernel's."""

NOT_IN_CHAINS = {*ONE_STEP, "DIV"}
FIRSTS = [kind for kind in KINDS if kind not in NOT_IN_CHAINS]


@cache
def chip(number: int) -> Chip:
    """Return one of the chips that force tiling."""
    return (tiny_chip(), load_chip("nano"), load_chip("like-u55-256"))[number % 3]


def compiled(graph: RandomGraph, number: int, folder: Path) -> Program:
    """Return the checked program of a graph, through the bytes of its file."""
    path = folder / "graph.tflite"
    path.write_bytes(graph.model)
    made = load_program(compile_model(path, chip(number)).to_bytes())
    check(made)
    return made


def distance(made: Program, graph: RandomGraph) -> int:
    """Return the largest difference between our bytes and the reference's."""
    ours = np.asarray(run_values(made, graph.inputs, HostRegions(made))[made.outputs[0]])
    theirs = run_reference(graph.model, *graph.inputs.values())[0]
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    return int(np.abs(ours.astype(np.int32) - theirs.astype(np.int32)).max())


def run_operator(kind: str, dtype: str, seed: int, folder: Path) -> None:
    """Compare one operator with random parameters; only those of `HOST` may be the host's."""
    graph = draw_graph(seed, dtype, kind)
    made = compiled(graph, seed + len(kind), folder)
    host = [operator for operator in made.operators if operator.device == "host"]
    assert kind in HOST or not host
    assert all(operator.reason for operator in host)
    if kind != "DIV":
        assert distance(made, graph) <= (kind in ONE_STEP and bool(host))


def run_chain(seed: int, folder: Path) -> None:
    """Compare a chain of operators, every byte."""
    rng = np.random.default_rng(seed)
    first = FIRSTS[seed % len(FIRSTS)]
    dtypes = KINDS[first].dtypes
    dtype = dtypes[int(rng.integers(len(dtypes)))]
    graph = draw_graph(seed, dtype, first, int(rng.integers(2, 7)), NOT_IN_CHAINS)
    # the chip turns at another pace than the first operator
    assert distance(compiled(graph, seed // 2, folder), graph) == 0, graph.kinds


@pytest.mark.parametrize("seed", range(SINGLES))
@pytest.mark.parametrize(("kind", "dtype"), OPERATORS)
def test_an_operator(kind: str, dtype: str, seed: int, tmp_path: Path) -> None:
    run_operator(kind, dtype, seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(CHAINS))
def test_a_chain(seed: int, tmp_path: Path) -> None:
    run_chain(seed, tmp_path)


def test_chains_reach_every_operator() -> None:
    assert 2 * len(FIRSTS) <= CHAINS


@pytest.mark.parametrize(
    ("kind", "dtype", "reason"),
    [
        ("SUM", "int8", "LiteRT's integer sum of int8 is wrong"),
        ("DIV", "uint8", "the vector unit has no mode for divide"),
    ],
)
def test_operators_without_an_integer_golden(
    kind: str, dtype: str, reason: str, tmp_path: Path
) -> None:
    builder = TfliteBuilder()
    x = builder.input("x", [1, 4, 5, 6], dtype, 0.1, 3)
    y = builder.tensor("y", [1, 4, 5, 6] if kind == "DIV" else [1, 1, 1, 6], dtype, 0.2, 1)
    options: dict[str, Any] = {"keep_dims": True} if kind == "SUM" else {}
    inputs = [x]
    if kind == "DIV":
        inputs.append(builder.input("z", [1, 4, 5, 6], dtype, 0.1, 0))
        builder.operator(kind, inputs, [y])
    else:
        axes = builder.constant("axes", np.array([1, 2], np.int32))
        builder.operator(kind, [x, axes], [y], **options)
    path = tmp_path / "graph.tflite"
    path.write_bytes(builder.build(inputs, [y]))
    made = compile_model(path, load_chip("nano"))
    assert [region.device for region in made.regions] == ["host"]
    reasons = {operator.reason for operator in made.operators if operator.device == "host"}
    assert any(reason in text for text in reasons), reasons
