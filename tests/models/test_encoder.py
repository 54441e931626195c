"""The transformer encoder: its sizes, its weights, and that all of its products reach the NPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lepton.chip import load_chip
from lepton.compiler.calibrate import plain_samples, quantize_model
from lepton.compiler.compile import compile_model
from lepton.models.encoder import EncoderShape, encoder_samples, transformer_encoder
from lepton.runtime.execute import HostRegions
from lepton.runtime.golden import GoldenModel
from lepton.simulator import check, run_values

SMALL = EncoderShape(layers=2, tokens=12, width=32, heads=4, inner=48)


def test_defaults_are_bert_base() -> None:
    shape = EncoderShape()
    products = 4 * 768 * 768 + 2 * 768 * 3072 + 2 * 128 * 768
    assert shape.macs == 12 * 128 * products


def test_weights_follow_the_seed() -> None:
    made = [transformer_encoder(SMALL, seed).SerializeToString() for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


def test_signals_neither_vanish_nor_grow() -> None:
    import onnxruntime as ort

    samples = encoder_samples(SMALL, 2)
    session = ort.InferenceSession(transformer_encoder(SMALL).SerializeToString())
    encoded = np.asarray(session.run(None, {"embedded": samples[0]})[0])
    assert encoded.shape == samples[0].shape
    assert 0.9 < encoded.std() < 1.1
    assert np.abs(encoded - samples[0]).mean() > 0.5


def test_calibrated_encoder_is_its_golden_s(tmp_path: Path) -> None:
    source, copy = tmp_path / "float.onnx", tmp_path / "copy.onnx"
    source.write_bytes(transformer_encoder(SMALL).SerializeToString())
    samples = encoder_samples(SMALL)
    quantize_model(source, plain_samples(samples), copy)
    program = compile_model(copy, load_chip("nano"))
    check(program)
    assert sum(o.macs for o in program.operators if o.device == "npu") == SMALL.macs
    host, golden = HostRegions(program), GoldenModel(copy)
    for sample in samples:
        ours = run_values(program, {"embedded": sample}, host)["encoded"]
        assert ours.tobytes() == golden.run({"embedded": sample})["encoded"].tobytes()
