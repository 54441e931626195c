"""What bounds a layer as a function of its zeros: formulas scanned in plain loops, the codec."""

from __future__ import annotations

from collections import Counter
from math import log2

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton.chip import Chip, load_chip
from lepton.codec.decoder import Decoder
from lepton.codec.weights import codings
from lepton.isa.instructions import WeightFormat
from lepton.report.faster_bounds import LayerLoads, NonZeros

CHIPS = ("edge", "edge-sparse", "like-u55-256", "like-u85-1024-sparse", "nano")
STEPS = 1000


def counts_of(values: NDArray[np.int8]) -> NDArray[np.int64]:
    return np.bincount(values.view(np.uint8), minlength=256)


def drawn(scale: float, size: int = 20_000, seed: int = 0) -> NDArray[np.int8]:
    """Return values like those of trained weights, none of them 0."""
    values = np.random.default_rng(seed).laplace(0, scale, size).round().clip(-127, 127)
    return values[values != 0].astype(np.int8)


# --- the formulas of the docstring, value by value --------------------------------------------


def naive_width(values: list[int], share: float, group: int, masked: bool, numbers: bool) -> float:
    """Return the mean width of the widest of a group's symbols."""
    at_most: Counter[int] = Counter()
    for rank, (value, count) in enumerate(Counter(values).most_common()):
        symbol = rank + 1 if numbers else 2 * value if value > 0 else -2 * value - 1
        at_most[max((symbol - 1).bit_length(), 2) if masked else symbol.bit_length()] += count
    mean, before, below = 0.0, 0.0, 0
    for width in range(9):
        below += at_most[width]
        chance = (share + (1 - share) * below / len(values)) ** group
        mean += width * (chance - before)
        before = chance
    # what is left of the chance that the group has zeros alone counts as width 0
    return mean


def naive_formats(
    loads: LayerLoads, values: list[int], chip: Chip, share: float
) -> list[tuple[float, float]]:
    """Return bits of a weight and decoder cycles by format."""
    buffer = chip.weight_buffer
    every = loads.elements / buffer.decoder_bytes_per_cycle
    made = [(8.0, every)]
    if buffer.entropy_lanes:
        entropy = -sum(n / len(values) * log2(n / len(values)) for n in Counter(values).values())
        two = 0.0 if share in (0, 1) else -share * log2(share) - (1 - share) * log2(1 - share)
        cycles = loads.elements / buffer.entropy_lanes + 16 * loads.streams
        made.append((two + (1 - share) * entropy, cycles))
    for numbers in (False, True) if len(set(values)) < 32 else (False,):
        best, is_masked = 99.0, False
        for group in (8, 16, 32, 64, 128, 256):
            if 2 * group >= buffer.decoder_bytes_per_cycle:
                plain = naive_width(values, share, group, False, numbers)
                width = naive_width(values, share, group, True, numbers)
                filled = 1 - share**group
                under = filled + (1 - share) * width / filled if share < 1 else 0.0
                if 4 / group + min(plain, under) < best:
                    best, is_masked = 4 / group + min(plain, under), under < plain
        skipped = is_masked and chip.sparsity is not None
        made.append((best, every * max(1 - share, 1 / 8) if skipped else every))
    return made


def naive_largest(loads: LayerLoads, values: list[int], chip: Chip, share: float) -> str:
    """Return the resource that is busy longest."""
    best = (float("inf"), float("inf"), 0.0)
    for bits, decode in naive_formats(loads, values, chip, share):
        memory = loads.byte_cycles * min(bits, 8) / 8
        best = min(best, (max(memory, decode), memory, decode), key=lambda item: item[:2])
    issued = max(1 - share, 1 / chip.sparsity.window) if chip.sparsity else 1.0
    uses = {
        "compute": loads.matmul_cycles * issued + loads.depthwise_cycles,
        "weight bandwidth": best[1],
        "activation bandwidth": loads.activation_cycles,
        "decode": best[2],
        "vector": loads.vector_cycles,
    }
    return max(uses, key=lambda name: uses[name])


def loads_of(rng: np.random.Generator, chip: Chip, values: NDArray[np.int8]) -> LayerLoads:
    """Return a layer of which several resources are busy about as long."""
    elements = float(rng.integers(1_000, 300_000))
    cycles = elements / Decoder.of(chip).memory_bytes_per_cycle
    others = cycles * np.exp(rng.uniform(-4, 1, 4))
    return LayerLoads(
        float(others[0]), float(others[1]) if rng.random() < 0.2 else 0.0, float(cycles), elements,
        float(rng.integers(1, 20)), float(others[2]) / 4, float(others[3]) / 4,
        NonZeros(counts_of(values)),
    )  # fmt: skip


@pytest.mark.parametrize("name", CHIPS)
def test_turns_are_those_of_a_scan(name: str) -> None:
    chip, rng = load_chip(name), np.random.default_rng(len(name))
    found = 0
    for number in range(3):
        values = drawn((3, 12, 50)[number], size=90, seed=number)
        loads = loads_of(rng, chip, values)
        plain = [int(value) for value in values]
        largest = [naive_largest(loads, plain, chip, k / STEPS) for k in range(STEPS + 1)]
        scanned = [
            (k / STEPS, largest[k - 1], largest[k])
            for k in range(1, STEPS + 1)
            if largest[k] != largest[k - 1]
        ]
        turns = loads.turns(chip)
        assert [(turn.before, turn.after) for turn in turns] == [item[1:] for item in scanned]
        for turn, (share, _, _) in zip(turns, scanned, strict=True):
            assert share - 1 / STEPS <= turn.share <= share
        found += len(turns)
    assert found


@pytest.mark.parametrize("scale", [2, 10, 40])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8, 0.95])
def test_bits_are_about_those_of_the_codec(scale: float, share: float) -> None:
    """Streams of the codec have headers, and tables of counts that are rounded."""
    rng, values = np.random.default_rng(1), drawn(scale)
    block = np.where(rng.random(len(values)) < share, 0, values).astype(np.int8)
    decoder = Decoder(32, 32)
    made = {coding.format: coding.size_bytes for coding in codings(block.view(np.uint8), decoder)}
    chip = load_chip("edge")
    loads = LayerLoads(0, 0, 1, len(block), 1, 0, 0, NonZeros(counts_of(block)))
    formats = loads._formats(Decoder.of(chip), np.array([share]))  # pyright: ignore[reportPrivateUsage]
    bits = [float(item[0][0]) for item in formats]
    for format, expected in zip(
        (WeightFormat.ENTROPY, WeightFormat.GROUPED), bits[1:3], strict=True
    ):
        if format in made:
            assert 8 * made[format] / len(block) == pytest.approx(expected, rel=0.06, abs=0.03)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_turns_do_not_depend_on_the_zeros_that_there_are(share: float) -> None:
    chip, values = load_chip("edge-sparse"), drawn(20, 100_000)
    pruned = np.where(np.random.default_rng(7).random(len(values)) < share, 0, values)
    counts = (counts_of(values), counts_of(pruned.astype(np.int8)))
    before, after = (
        LayerLoads(9_000, 0, 10_000, 100_000, 4, 100, 50, NonZeros(each)).turns(chip)
        for each in counts
    )
    assert before
    assert [(t.before, t.after) for t in before] == [(t.before, t.after) for t in after]
    assert [t.share for t in before] == pytest.approx([t.share for t in after], abs=0.01)


def test_a_layer_of_one_resource_has_no_turn() -> None:
    loads = LayerLoads(0, 9_000, 100, 100, 1, 10, 10, NonZeros(counts_of(drawn(9))))
    for name in CHIPS:
        assert loads.turns(load_chip(name)) == ()


def test_weights_that_are_all_0_have_turns_as_well() -> None:
    loads = LayerLoads(500, 0, 1_000, 1_000, 1, 10, 10, NonZeros(np.zeros(256, np.int64)))
    assert [turn.after for turn in loads.turns(load_chip("edge"))][-1:] in ([], ["compute"])
