"""Compiler caches: programs are the same with them, and only what was read tells chips apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from lepton.chip import Chip, load_chip
from lepton.codec import Decoder, encode_weights
from lepton.compiler import cache as caching
from lepton.compiler.cache import CompilerCache, Plans, Recent, Schedules, Streams, content_digest
from lepton.compiler.compile import CompileOptions, compile_front, compile_model
from lepton.compiler.dump import no_dump
from lepton.compiler.front import FrontModel, front_model
from lepton.compiler.importers import import_model
from lepton.compiler.stored import StoredWeights, coding_preference
from lepton.errors import CompileError, ImportFailure
from lepton.isa.instructions import WeightFormat
from lepton.models import digits_model_path
from lepton.program import Objective

DIGITS, NANO = digits_model_path(), load_chip("nano")
QUICK = CompileOptions(effort=0)


def changed(part: Any) -> Iterator[Any]:
    """Yield copies of a chip, or a part of it, each with one number doubled."""
    for item in fields(part):
        value = getattr(part, item.name)
        if is_dataclass(value):
            yield from (replace(part, **{item.name: other}) for other in changed(value))
        elif isinstance(value, tuple):
            values = cast(tuple[Any, ...], value)
            for index, inner in enumerate(values):
                for other in changed(inner) if is_dataclass(inner) else ():
                    both = *values[:index], other, *values[index + 1 :]
                    yield replace(part, **{item.name: both})
        elif isinstance(value, int | Fraction) and not isinstance(value, bool):
            yield replace(part, **{item.name: 2 * value})


def made(front: FrontModel, chip: Chip, cache: CompilerCache) -> bytes | str:
    """Return a program's bytes, or why there is none."""
    try:
        return compile_front(front, chip, QUICK, no_dump, cache).program.to_bytes()
    except CompileError as error:
        return str(error)


def test_any_change_of_a_chip_gives_the_program_that_it_gives_without_a_cache(
    tmp_path: Path,
) -> None:
    pytest.importorskip("ai_edge_litert")
    from tests.compiler.test_cascade import Chain, small_chip

    chain = Chain(3)
    chain.cascade("epa")
    chain.layer("CONV_2D", 12, 3, 1)
    chain.layer("DEPTHWISE_CONV_2D", 0, 3, 1)
    model = chain.w.builder.build([x for x, _ in chain.w.inputs.values()], [chain.end])
    chip = small_chip()
    path = tmp_path / "chain.tflite"
    path.write_bytes(model)
    front = front_model(import_model(path), chip)
    cache = CompilerCache()
    first = made(front, chip, cache)
    assert made(front, chip, cache) == first
    others = [made(front, other, cache) for other in changed(chip)]
    assert others == [made(front, other, CompilerCache()) for other in changed(chip)]
    assert len(set(others)) > len(others) // 2


def test_programs_for_each_objective_are_the_same_with_one_cache() -> None:
    finer, cache = replace(NANO, technology=replace(NANO.technology, node="7nm")), CompilerCache()
    for chip in (NANO, finer):
        for each in Objective:
            options = replace(QUICK, optimize=each)
            expected = compile_model(DIGITS, chip, options, CompilerCache())
            assert compile_model(DIGITS, chip, options, cache).to_bytes() == expected.to_bytes()


def test_objectives_share_the_codings_and_not_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    block = np.random.default_rng(0).normal(0, 20, 4096).astype(np.int8).view(np.uint8)
    # behind a fast memory what is largest comes soonest
    decoder, streams = Decoder(16, 8, Fraction(64)), Streams()
    soonest = StoredWeights(decoder, streams)
    smallest = StoredWeights(decoder, streams, coding_preference(NANO, Objective.SIZE))
    formats = soonest.stream(block).format, smallest.stream(block).format
    assert formats == (WeightFormat.GROUPED, WeightFormat.ENTROPY)
    monkeypatch.setattr(caching, "codings", None)
    assert smallest.share(block) < soonest.share(block)


def test_another_chip_takes_the_front_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, wide = CompilerCache(), replace(NANO, array=replace(NANO.array, columns=32))
    compile_model(DIGITS, NANO, QUICK, cache)
    expected = compile_model(DIGITS, wide, QUICK, CompilerCache())

    def refused(*_: object) -> None:
        raise AssertionError("imported again")

    monkeypatch.setattr("lepton.compiler.importers.import_model", refused)
    assert compile_model(DIGITS, wide, QUICK, cache).to_bytes() == expected.to_bytes()
    with pytest.raises(AssertionError, match="imported again"):
        compile_model(DIGITS, NANO, CompileOptions(shapes={"x": [1]}), cache)


def test_a_model_that_changes_is_imported_again(tmp_path: Path) -> None:
    cache, path = CompilerCache(), tmp_path / "digits.onnx"
    path.write_bytes(DIGITS.read_bytes())
    compile_model(path, NANO, QUICK, cache)
    path.write_bytes(b"damaged")
    with pytest.raises(ImportFailure):
        compile_model(path, NANO, QUICK, cache)


def pool_model(folder: Path) -> Path:
    """Write a maximum over 15 x 15 pixels."""
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[15, 15])
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.INT8, (1, 4, extent, extent))
        for name, extent in (("x", 20), ("y", 6))
    )
    graph = helper.make_graph([node], "pool", [x], [y])
    path = folder / "pool.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def test_a_front_serves_the_chips_of_which_the_rules_say_the_same(tmp_path: Path) -> None:
    path = pool_model(tmp_path)
    front = front_model(import_model(path), NANO)
    sizes = {
        kib: replace(NANO, scratchpad=replace(NANO.scratchpad, size_kib=kib)) for kib in (1, 99)
    }
    assert {kib: front.suits(chip) for kib, chip in sizes.items()} == {1: False, 99: True}
    cache = CompilerCache()
    for chip in (NANO, *sizes.values(), NANO):
        program = compile_model(path, chip, QUICK, cache)
        assert program.to_bytes() == compile_model(path, chip, QUICK, CompilerCache()).to_bytes()


def test_a_search_is_done_again_where_a_field_that_it_read_differs() -> None:
    schedules, searched = Schedules(), list[int]()

    def search(chip: Chip) -> Plans:
        searched.append(chip.array.rows)
        return [(float(chip.array.rows), "plan")]

    deeper = replace(NANO, control=replace(NANO.control, queue_depth=99))
    taller = replace(NANO, array=replace(NANO.array, rows=99))
    chips = (NANO, deeper, taller, NANO, taller)
    found = [schedules.plans("layer", chip, search)[0][0] for chip in chips]
    rows = NANO.array.rows
    assert found == [rows, rows, 99, rows, 99]
    assert searched == [rows, 99]
    schedules.plans("other layer", NANO, search)
    assert searched == [rows, 99, rows]


def test_a_faster_memory_takes_the_sizes_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    block = np.random.default_rng(0).normal(0, 20, 4096).astype(np.int8).view(np.uint8)
    slow, fast = Decoder(16, 8, Fraction(1)), Decoder(16, 8, Fraction(64))
    streams, digest = Streams(), content_digest(block)
    for decoder in (slow, fast):
        found, expected = streams.stream(block, digest, decoder), encode_weights(block, decoder)
        assert found.format == expected.format
        np.testing.assert_array_equal(found.content, expected.content)
        *size, elements = streams.size(lambda block=block: block, digest, decoder)
        assert size == [expected.format, expected.content.size]
        assert elements == block.size
    monkeypatch.setattr(caching, "codings", None)
    assert [streams.stream(block, digest, d).format for d in (slow, fast)] == [
        WeightFormat.ENTROPY,
        WeightFormat.GROUPED,
    ]


def test_what_was_used_longest_ago_is_forgotten() -> None:
    recent: Recent[str, int] = Recent(10, lambda value: value)
    for name, value in (("a", 4), ("b", 3), ("a", 5)):
        recent.put(name, value)
    assert (recent.get("a"), recent.get("b")) == (5, 3)
    recent.put("c", 4)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (None, 3, 4)
    recent.put("d", 11)
    assert [recent.get(name) for name in "abcd"] == [None] * 4
