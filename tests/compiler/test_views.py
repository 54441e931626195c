"""Tensors that lie in others: parts of concatenations and of split tensors; replaced operands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lepton.chip import load_chip
from lepton.compiler import graph as ir
from lepton.compiler import schedule
from lepton.compiler.lifetimes import (
    bytes_crossing,
    lifetimes_of,
    root_of,
    storage_of,
    with_replaced,
)
from lepton.compiler.views import View, packed_view, views_of
from lepton.isa.instructions import Binary, BinaryMode
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
    monkeypatch.setattr(schedule, "views_of", lambda graph: {})
    copied = graph_program(graph, chip)
    copies = [sum(i.mnemonic == "copy" for i in made.decoded) for made in (program, copied)]
    if axis == 2:
        assert copies[0] == copies[1]
    else:
        assert copies[0] == 0 < copies[1]
        assert simulate_timing(program).cycles < simulate_timing(copied).cycles


def test_parts_of_parts_know_where_they_lie():
    views = views_of(nested(3))
    assert views == {
        "inner": View("whole", 0, 6 * 5 * 48, 5 * 48, 48),
        "c": View("whole", 24, 6 * 5 * 48, 5 * 48, 48),
        "d": View("whole", 36, 6 * 5 * 48, 5 * 48, 48),
        "a": View("inner", 0, 6 * 5 * 48, 5 * 48, 48),
        "b": View("inner", 12, 6 * 5 * 48, 5 * 48, 48),
    }
    storage = storage_of(nested(3), views)
    assert {root_of(storage, name) for name in views} == {"whole"}
    assert views_of(nested(1))["d"].offset == 18 * 5 * 12


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
    assert list(views_of(graph)) == ["free"]
    assert packed_view(free) == View("free", 0, 16, 8, 4)


def test_bytes_cross_once_for_what_is_made_in_place():
    graph = nested(3)
    plain = bytes_crossing(graph, storage_of(graph, {}), {}, {})
    views = views_of(graph)
    joined = bytes_crossing(graph, storage_of(graph, views), {}, views)
    assert plain - joined == 2 * 360 * (2 + 4)


def divided(axis: int) -> ir.Graph:
    """Return y = table(a) + table(b), z = table(c), where a, b, c are slices of a table of x."""
    shape = [1, 6, 5, 12]
    whole = table(tensor("x", *shape[1:]), "whole", 1)
    nodes: list[ir.Node] = [whole]
    for number, name in enumerate("abc"):
        begin, size = [0, 0, 0, 0], list(shape)
        size[axis] = shape[axis] // 3
        begin[axis] = number * size[axis]
        part = ir.Tensor(name, (size[0], size[1], size[2], size[3]), False, 0.5, 0)
        nodes.append(
            ir.Slice(
                name=name,
                inputs=(whole.output,),
                output=part,
                begin=(begin[0], begin[1], begin[2], begin[3]),
                step=(1, 1, 1, 1),
            )
        )
        nodes.append(table(part, f"{name}'", number + 2))
    outputs = tuple(node.output for node in nodes[2::2])
    return ir.Graph(tuple(nodes), whole.inputs, outputs, {})


@pytest.mark.parametrize("room", [1024, 4], ids=["inside", "in a memory"])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_values_are_those_of_slices(axis: int, room: int, monkeypatch: pytest.MonkeyPatch):
    edge = load_chip("edge")
    chip = replace(edge, scratchpad=replace(edge.scratchpad, size_kib=room))
    graph = divided(axis)
    program = graph_program(graph, chip)
    check(program)
    x = np.random.default_rng(axis).integers(-128, 128, (1, 6, 5, 12)).astype(np.int8)
    found = run_values(program, {"x": x})
    size = x.shape[axis] // 3
    for number, name in enumerate("abc"):
        part = np.take(x, range(number * size, (number + 1) * size), axis).view(np.uint8)
        tables = [np.roll(np.arange(256, dtype=np.uint8), shift) for shift in (1, number + 2)]
        assert (found[f"{name}'"].view(np.uint8) == tables[1][tables[0][part]]).all()
    monkeypatch.setattr(schedule, "views_of", lambda graph: {})
    copied = graph_program(graph, chip)
    copies = [sum(i.mnemonic == "copy" for i in made.decoded) for made in (program, copied)]
    # rows must lie at one distance: what is cut along columns is copied; 5 columns: of 1 each
    assert copies[0] == (copies[1] if axis == 2 else 0)
    assert copies[1] > 0


def test_slices_of_parts_and_of_reshaped_tensors():
    graph = nested(3)
    whole = next(node for node in graph.nodes if node.name == "inner").output
    part = ir.Slice(
        name="s",
        inputs=(whole,),
        output=tensor("s", 2, 5, 6),
        begin=(0, 3, 0, 12),
        step=(1, 1, 1, 1),
    )
    z = table(part.output, "z", 1)
    made = ir.Graph((*graph.nodes, part, z), graph.inputs, (*graph.outputs, z.output), {})
    assert views_of(made)["s"] == View("inner", 3 * 5 * 48 + 12, 6 * 5 * 48, 5 * 48, 48)
    flat = ir.Reshape(name="flat", inputs=(part.output,), output=tensor("flat", 1, 1, 60))
    made = replace(made, nodes=(*made.nodes, flat))
    assert "s" not in views_of(made)
    odd = replace(part, step=(1, 1, 1, 2))
    made = ir.Graph((*graph.nodes, odd, z), graph.inputs, (*graph.outputs, z.output), {})
    assert "s" not in views_of(made)


def adding(name: str, a: ir.Tensor, b: ir.Tensor) -> ir.Binary:
    return ir.Binary(
        name=name,
        inputs=(a, b),
        output=replace(a, name=name, constant=None),
        mode=BinaryMode.MAXIMUM,
        parameters=np.zeros(0, np.uint8),
    )


def replacing() -> ir.Graph:
    """Return y = table(max(max(a, b), a')), where a, b are tables of x and a' one of a."""
    x = tensor("x", 6, 5, 12)
    a, b = table(x, "a", 1), table(x, "b", 2)
    c = table(a.output, "c", 3)
    d = adding("d", a.output, b.output)
    e = adding("e", d.output, c.output)
    y = table(e.output, "y", 4)
    return ir.Graph((a, b, c, d, e, y), (x,), (y.output,), {})


def test_results_take_the_place_of_what_is_read_no_more():
    graph = replacing()
    storage = with_replaced(graph, {}, {}, ())
    # c is read behind a's last reader but one, so it needs a place; x and y are on the edge
    assert storage == {"d": "a", "e": "a"}
    assert with_replaced(graph, {}, {}, {3}) == {"e": "d"}
    assert with_replaced(graph, {}, {"a": packed_view(tensor("a", 6, 5, 12))}, ())["d"] == "b"
    [a] = [item for item in lifetimes_of(graph, storage, {}) if item.name == "a"]
    assert (a.first, a.last) == (0, 5)


def test_nothing_takes_the_place_of_what_is_read_later_or_must_stay():
    x = tensor("x", 2, 2, 4)
    k = replace(tensor("k", 2, 2, 4), constant=np.zeros((1, 2, 2, 4), np.uint8))
    a, b = table(x, "a", 1), table(x, "b", 2)
    flat = ir.Reshape(name="flat", inputs=(b.output,), output=tensor("flat", 1, 1, 16))
    small = tensor("small", 1, 1, 4)
    nodes = (
        a, b, flat,
        adding("c", k, a.output), # a is an output
        adding("d", x, x),
        adding("e", b.output, k), # flat, the same bytes, is read later
        adding("f", replace(b.output, name="d"), small),
        table(flat.output, "g", 1),
    )  # fmt: skip
    outputs = (a.output, *(node.output for node in nodes[-1:]))
    graph = ir.Graph(nodes, (x, small), outputs, {})
    assert with_replaced(graph, storage_of(graph, {}), {}, ()) == {"flat": "b", "f": "d"}


@pytest.mark.parametrize("room", [1024, 4, 2], ids=["inside", "partly", "in a memory"])
def test_values_where_results_replace_operands(room: int, monkeypatch: pytest.MonkeyPatch):
    edge = load_chip("edge")
    chip = replace(edge, scratchpad=replace(edge.scratchpad, size_kib=room))
    graph = replacing()
    monkeypatch.setattr(
        schedule,
        "_divisions",
        lambda work: (schedule.Division(share, False, True) for share in (0.25, 0.5, 1.0)),
    )
    program = graph_program(graph, chip)
    check(program)
    x = np.random.default_rng(room).integers(-128, 128, (1, 6, 5, 12)).astype(np.int8)
    shift = [
        lambda values, by=by: np.roll(np.arange(256, dtype=np.uint8), by)[
            values.view(np.uint8)
        ].view(np.int8)
        for by in range(5)
    ]
    a, b = shift[1](x), shift[2](x)
    want = shift[4](np.maximum(np.maximum(a, b), shift[3](a)))
    assert (run_values(program, {"x": x})["y"] == want).all()
    if room == 1024:
        assert any(isinstance(i, Binary) and i.ofm in (i.a, i.b) for i in program.decoded)
