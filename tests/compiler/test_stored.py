"""Compiled programs store their weights as streams."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from lepton.chip import load_chip
from lepton.codec import Decoder, WeightStream, decode_weights, stored_bytes
from lepton.compiler.compile import compile_model
from lepton.compiler.stored import StoredWeights
from lepton.isa.instructions import WeightFormat, Weights
from lepton.program import load_program
from lepton.report.summary import summarize
from lepton.runtime.execute import simulate
from lepton.runtime.golden import GoldenModel, random_inputs
from tests.compiler import importer_models as made

SHAPE = (32, 16, 3, 3)
"""Of the weights of a convolution, output channels first."""


def weights_of(share: float) -> np.ndarray:
    """Return int8 weights of which about so many are not 0."""
    rng = np.random.default_rng(3)
    return np.where(rng.random(SHAPE) < share, rng.integers(-127, 128, SHAPE), 0).astype(np.int8)


def test_a_sparse_layer_is_stored_in_fewer_bytes() -> None:
    programs = []
    for share in (1.0, 0.1):
        weights = (weights_of(share), np.full(32, 0.01), 0)
        model = made.qdq("Conv", [(1, 16, 8, 8)], [weights], scales=(0.05, 0.3))
        programs.append(compile_model(model, load_chip("nano")))
    dense, sparse = (summarize(program) for program in programs)
    size = int(np.prod(SHAPE))
    assert dense.weight_bytes_raw == sparse.weight_bytes_raw == dense.weight_bytes_stored == size
    assert sparse.weight_bytes_stored < 0.26 * size
    streams = [item for item in programs[1].decoded if isinstance(item, Weights)]
    assert sum(item.stream_bytes for item in streams) == sparse.weight_bytes_stored
    found: list[int] = []
    for item in streams:
        start = item.address - programs[1].constants_address
        content = programs[1].constants[start : start + item.stream_bytes]
        stream = WeightStream(WeightFormat(item.format), content)
        found += decode_weights(stream, item.reduction * item.columns).tolist()
    assert sorted(found) == sorted(weights_of(0.1).view(np.uint8).ravel().tolist())


@pytest.mark.parametrize(
    ("chip", "format"),
    [
        *itertools.product(("edge", "server"), (WeightFormat.GROUPED, WeightFormat.PALETTE)),
        *itertools.product(("nano",), (WeightFormat.ENTROPY, WeightFormat.ENTROPY_PALETTE)),
    ],
)
def test_outputs_are_those_of_the_golden_library(
    format: WeightFormat, chip: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    shared = rng.choice(np.array([-127, -64, -31, 0, 40, 99, 127], np.int8), SHAPE)
    if format == WeightFormat.ENTROPY_PALETTE:
        shared = np.where(rng.random(SHAPE) < 0.6, np.int8(-64), shared)
    narrow = rng.integers(-13, 19, SHAPE, dtype=np.int8)
    bell = np.rint(rng.normal(0, 30, SHAPE)).astype(np.int8)
    chosen = {WeightFormat.GROUPED: narrow, WeightFormat.ENTROPY: bell}.get(format, shared)
    weights = (chosen, np.full(32, 0.01), 0)
    path = tmp_path / "model.onnx"
    model = made.qdq("Conv", [(1, 16, 8, 8)], [weights], scales=(0.05, 2.0), pads=[1] * 4)
    path.write_bytes(model.SerializeToString())
    program = load_program(compile_model(path, load_chip(chip)).to_bytes())
    formats = {item.format for item in program.decoded if isinstance(item, Weights)}
    assert formats == {format}
    inputs = random_inputs(program, 1)
    found = simulate(program, inputs).outputs
    expected = GoldenModel(path).run(inputs)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_the_share_is_that_of_the_whole_layer() -> None:
    streams = StoredWeights(Decoder(16))
    sparse, full = weights_of(0.1).view(np.uint8), weights_of(1.0).view(np.uint8)
    for _ in range(2):
        whole = streams.stream(sparse).content.size / sparse.size
        assert streams.share(sparse) == round(whole, 2)
        assert streams.share(sparse) == pytest.approx((1 + 8 * 0.1) / 8, rel=0.1)
        assert streams.share(full) == 1.0


def test_a_large_layers_share_is_that_of_its_samples() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 12, (3, 3, 256, 512)).round().astype(np.int8).view(np.uint8)
    decoder = Decoder.of(load_chip("edge"))
    stored = StoredWeights(decoder)
    whole = stored_bytes(weights, decoder) / weights.size
    assert abs(stored.share(weights) - whole) < 0.02
    assert stored.share(weights) == round(stored.share(weights), 2)
