"""Operands of concatenations that are made where the result wants them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lepton.chip import load_chip
from lepton.compiler import graph as ir
from lepton.compiler import schedule
from lepton.compiler.joins import View, joins_of, packed_view
from lepton.compiler.lifetimes import bytes_crossing, root_of, storage_of
from lepton.simulator import check, run_values, simulate_timing
from tests.random_layers import graph_program


def tensor(name: str, *shape: int) -> ir.Tensor:
    return ir.Tensor(name, (1, shape[0], shape[1], shape[2]), False, 0.5, 0)


def table(source: ir.Tensor, name: str, shift: int) -> ir.Lut:
    """Return a table that adds to every byte."""
    values = np.roll(np.arange(256, dtype=np.uint8), shift)
    return ir.Lut(name=name, inputs=(source,), output=replace(source, name=name), tables=values)


def concat(name: str, axis: int, *parts: ir.Tensor) -> ir.Concat:
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    output = ir.Tensor(name, (shape[0], shape[1], shape[2], shape[3]), False, 0.5, 0)
    return ir.Concat(name=name, inputs=parts, output=output, axis=axis, tables=(None,) * len(parts))


def nested(axis: int) -> ir.Graph:
    """Return y = table([[a, b], c, a + 4]), where a, b, c are tables of the input."""
    x = tensor("x", 6, 5, 12)
    a, b, c = (table(x, name, shift) for name, shift in (("a", 1), ("b", 2), ("c", 3)))
    d = table(a.output, "d", 4)
    inner = concat("inner", axis, a.output, b.output)
    whole = concat("whole", axis, inner.output, c.output, d.output)
    y = table(whole.output, "y", 5)
    return ir.Graph((a, b, c, d, inner, whole, y), (x,), (y.output,), {})


def expected(x: np.ndarray, axis: int) -> np.ndarray:
    """Return what `nested` computes."""

    def shifted(values: np.ndarray, shift: int) -> np.ndarray:
        lut = np.roll(np.arange(256, dtype=np.uint8), shift)
        return lut[values.view(np.uint8)].view(np.int8)

    a, b, c = (shifted(x, shift) for shift in (1, 2, 3))
    return shifted(np.concatenate([a, b, c, shifted(a, 4)], axis=axis), 5)


@pytest.mark.parametrize("room", [1024, 4], ids=["inside", "in a memory"])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_values_are_those_of_a_concatenation(axis: int, room: int, monkeypatch: pytest.MonkeyPatch):
    edge = load_chip("edge")
    chip = replace(edge, scratchpad=replace(edge.scratchpad, size_kib=room))
    graph = nested(axis)
    program = graph_program(graph, chip)
    check(program)
    x = np.random.default_rng(axis).integers(-128, 128, (1, 6, 5, 12)).astype(np.int8)
    assert (run_values(program, {"x": x})["y"] == expected(x, axis)).all()
    monkeypatch.setattr(schedule, "joins_of", lambda graph: {})
    copied = graph_program(graph, chip)
    copies = [sum(i.mnemonic == "copy" for i in made.decoded) for made in (program, copied)]
    if axis == 2:
        assert copies[0] == copies[1]
    else:
        assert copies[0] == 0 < copies[1]
        assert simulate_timing(program).cycles < simulate_timing(copied).cycles


def test_parts_of_parts_know_where_they_lie():
    views = joins_of(nested(3))
    assert views == {
        "inner": View("whole", 0, 6 * 5 * 48, 5 * 48, 48),
        "c": View("whole", 24, 6 * 5 * 48, 5 * 48, 48),
        "d": View("whole", 36, 6 * 5 * 48, 5 * 48, 48),
        "a": View("inner", 0, 6 * 5 * 48, 5 * 48, 48),
        "b": View("inner", 12, 6 * 5 * 48, 5 * 48, 48),
    }
    storage = storage_of(nested(3), views)
    assert {root_of(storage, name) for name in views} == {"whole"}
    assert joins_of(nested(1))["d"].offset == 18 * 5 * 12


def test_operands_that_must_lie_elsewhere_are_copied():
    x = tensor("x", 2, 2, 4)
    made = [table(x, name, 1) for name in ("reshaped", "twice", "rescaled", "out", "free")]
    reshaped, twice, rescaled, out, free = (node.output for node in made)
    flat = ir.Reshape(name="flat", inputs=(reshaped,), output=tensor("flat", 1, 1, 16))
    constant = replace(tensor("k", 2, 2, 4), constant=np.zeros((1, 2, 2, 4), np.uint8))
    joined = concat("z", 3, reshaped, twice, twice, rescaled, out, x, constant, free)
    lut = np.arange(256, dtype=np.uint8)
    joined = replace(joined, tables=(None, None, None, lut, None, None, None, None))
    graph = ir.Graph((*made, flat, joined), (x,), (out, joined.output, flat.output), {})
    assert list(joins_of(graph)) == ["free"]
    assert packed_view(free) == View("free", 0, 16, 8, 4)


def test_bytes_cross_once_for_what_is_made_in_place():
    graph = nested(3)
    plain = bytes_crossing(graph, storage_of(graph, {}), {}, {})
    views = joins_of(graph)
    joined = bytes_crossing(graph, storage_of(graph, views), {}, views)
    assert plain - joined == 2 * 360 * (2 + 4)
