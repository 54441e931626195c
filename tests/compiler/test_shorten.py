"""Shorter streams where no cycle is lost, and the codec's limit on a whole network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.codec import OBJECTIVES, VELA, limit_bytes, measured
from benchmarks.edit_weights import EDITS, edited, narrow, pruned, shared, two_of_four
from benchmarks.vela import SYSTEMS
from lepton.chip import load_chip
from lepton.codec import Decoder, encode_weights
from lepton.compiler import shorten
from lepton.compiler.cache import content_digest
from lepton.compiler.compile import CompileOptions, compile_model
from lepton.compiler.shorten import shortened
from lepton.compiler.stored import StoredWeights
from lepton.cost.estimate import estimate_program
from lepton.isa.instructions import WeightFormat, Weights
from lepton.program import Program
from lepton.runtime.execute import simulate
from lepton.runtime.golden import random_inputs
from lepton.simulator.timing import simulate_timing
from tests.compiler import importer_models as made
from tests.conftest import data_path

EDGE = load_chip("edge")


def layer(seed: int, share: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Return a convolution's weights, the smallest of them 0."""
    rng = np.random.default_rng(seed)
    weights = np.rint(rng.laplace(0, 18, (64, 64, 3, 3))).clip(-127, 127)
    far = np.abs(weights)
    weights = np.where(far < np.quantile(far, share), 0, weights).astype(np.int8)
    return weights, np.full(64, 0.01), 0


@pytest.fixture(scope="module")
def model() -> object:
    return made.qdq("Conv", [(1, 64, 16, 16)], [layer(0, 0.9)], scales=(0.05, 0.3))


def streams(program: Program) -> list[Weights]:
    return [item for item in program.decoded if isinstance(item, Weights)]


def test_what_the_array_hides_is_stored_shortest(model: object) -> None:
    plain, short = (compile_model(model, EDGE, CompileOptions(effort=effort)) for effort in (0, 1))
    assert all(item.format == WeightFormat.GROUPED for item in streams(plain))
    assert all(item.format == WeightFormat.ENTROPY for item in streams(short))
    assert len(short.constants) < 0.75 * len(plain.constants)
    assert estimate_program(short).cycles <= 1.0001 * estimate_program(plain).cycles


def test_streams_that_somebody_waits_for_stay(
    model: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = compile_model(model, EDGE, CompileOptions(effort=0))
    monkeypatch.setattr(shorten, "_SLOWER", -0.5)
    monkeypatch.setattr(shorten, "_SLOWEST", -0.5)
    monkeypatch.setattr(shorten, "_LEAST_PADDING", 2.0)
    store = StoredWeights(Decoder.of(EDGE))
    assert shortened(plain, store, lambda: pytest.fail("nothing is chosen")) is plain


def test_padding_goes_where_it_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    narrow = np.where(rng.random((64, 256, 1, 1)) < 0.9, 0, rng.integers(-9, 9, (64, 256, 1, 1)))
    conv = (narrow.astype(np.int8), np.full(64, 0.01), 0)
    model = made.qdq("Conv", [(1, 256, 16, 16)], [conv], scales=(0.05, 0.3))
    chip = load_chip("like-u55-256")
    packed = compile_model(model, chip, CompileOptions(effort=1))
    monkeypatch.setattr(shorten, "_LEAST_PADDING", 2.0)
    padded = compile_model(model, chip, CompileOptions(effort=1))
    assert not any(item.address % 64 for item in streams(padded))
    assert not any(item.address % 4 for item in streams(packed))
    assert len(packed.constants) < len(padded.constants)
    assert simulate_timing(packed).cycles <= 1.003 * simulate_timing(padded).cycles
    inputs = random_inputs(packed, 5)
    one, other = (simulate(each, inputs).outputs for each in (packed, padded))
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("cycles", "saved", "allowed"),
    [
        (1000.1, 0, True),
        (1000.11, 0, False),
        (1000.5, 20, True),
        (1000.51, 20, False),
        (1002, 900, True),
        (1002.01, 900, False),
    ],
)
def test_a_byte_has_a_price(cycles: float, saved: int, allowed: bool) -> None:
    """0.025 % of the cycles for each percent of the bytes, 0.01 % for none, 0.2 % at most."""
    assert shorten.Limit(1000, 1000).allows(cycles, saved) == allowed


def test_a_block_is_stored_shortest_until_it_is_no_more() -> None:
    weights = layer(1, 0.9)[0].view(np.uint8).reshape(-1)[:8192]
    decoder = Decoder.of(EDGE)
    store, soonest = StoredWeights(decoder), encode_weights(weights, decoder)
    assert store.stream(weights).format == soonest.format == WeightFormat.GROUPED
    digest = content_digest(weights)
    format, size, elements = store.shortest(digest)
    assert elements == weights.size
    store.shorten([digest])
    assert (store.stream(weights).format, store.stream(weights).content.size) == (format, size)
    assert size < soonest.content.size
    store.shorten(())
    assert store.stream(weights).format == soonest.format


@pytest.mark.parametrize("edit", [name for name in EDITS if name != "dense"])
def test_edits_keep_what_they_say(edit: str) -> None:
    rng = np.random.default_rng(2)
    weights = np.rint(rng.normal(0, 30, (8, 3, 3, 8))).clip(-127, 127).astype(np.int8)
    changed = EDITS[edit](weights)
    assert changed.shape == weights.shape and changed.dtype == np.int8
    if edit.endswith("%"):
        assert np.count_nonzero(changed == 0) >= weights.size * int(edit[:2]) // 100
        kept = changed != 0
        assert np.array_equal(changed[kept], weights[kept])
    elif edit.endswith("clusters"):
        assert len(np.unique(changed)) <= int(edit[:2])
    elif edit == "2:4":
        assert (np.count_nonzero(changed.reshape(-1, 4), axis=1) <= 2).all()
    else:
        assert np.array_equal(np.unique(changed % 8), [0])


def test_edits_by_hand() -> None:
    row = np.array([[5, -3, 3, 1, 0, 0, -128, 127]], np.int8)
    assert two_of_four(row).tolist() == [[5, 0, 3, 0, 0, 0, -128, 127]]
    assert pruned(row, 50).tolist() == [[5, 0, 3, 0, 0, 0, -128, 127]]
    assert narrow(row, 5).tolist() == [[8, 0, 0, 0, 0, 0, -120, 120]]
    assert shared(np.array([[0, 1, 10, 11]], np.int8), 2).tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize(
    ("chip", "objective"),
    [*(("edge", each) for each in OBJECTIVES), *((system, "latency") for system in SYSTEMS)],
)
@pytest.mark.parametrize("edit", list(EDITS))
def test_resnet_stays_within_the_limit(
    tmp_path: Path, edit: str, objective: str, chip: str
) -> None:
    content = data_path("mlperf_tiny/pretrainedResnet_quant.tflite").read_bytes()
    changed, weights = edited(content, EDITS[edit])
    path = tmp_path / "edited.tflite"
    path.write_bytes(changed)
    stored = measured(path, chip, objective)
    assert stored.dense <= min(limit_bytes(weights), sum(each.size for each in weights))
    if chip in SYSTEMS:
        place = list(SYSTEMS).index(chip), list(EDITS).index(edit)
        assert stored.every < VELA["mlperf_tiny/pretrainedResnet_quant"][place[0]][place[1]]
