"""Transposed convolutions as convolutions of phases, beside ONNX Runtime's float kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.program import Program
from lepton.runtime.execute import HostRegions
from lepton.runtime.golden import onnx_session
from lepton.simulator import check, run_values
from tests.compiler import importer_models as made
from tests.onnx_builder import draw_scale

EDGE = load_chip("edge")

X = np.random.default_rng(0).standard_normal((1, 8, 6, 7)).astype(np.float32) * np.float32(3)
SCALES = (0.0513, 0.4377)


def model(kernel: int, bias: Any = None, is_per_channel: bool = True, **attributes: Any) -> Any:
    """Return an 8 -> 5 transposed convolution between quantize and dequantize."""
    scale = np.float32(0.0107)
    scales = np.linspace(0.5, 1, 5).astype(np.float32) * scale if is_per_channel else scale
    constants: list[Any] = [(made.int8_weights(8, 5, kernel, kernel), scales, 1)]
    if bias is not None:
        grid = np.asarray(np.float32(SCALES[0]) * scales, np.float32)
        constants.append((bias, grid, 0) if bias.dtype == np.int32 else bias)
    return made.qdq("ConvTranspose", [X.shape], constants, scales=SCALES, **attributes)


def operators(program: Program, device: str) -> set[str]:
    return {operator.kind for operator in program.operators if operator.device == device}


SIZES = [(2, 2, 0, 0), (3, 2, 1, 1), (4, 2, 1, 0), (3, 1, 1, 0), (2, 3, 0, 0), (5, 3, 2, 1)]


@pytest.mark.parametrize("is_per_channel", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "pad", "extra"), [*SIZES, (7, 2, 3, 0)])
def test_every_phase_is_computed(
    kernel: int, stride: int, pad: int, extra: int, is_per_channel: bool
) -> None:
    bias = np.arange(-2000, 3000, 1000).astype(np.int32)
    sizes = {"strides": [stride] * 2, "pads": [pad] * 4, "output_padding": [extra] * 2}
    data = model(kernel, bias, is_per_channel, **sizes)
    program = compile_model(data, load_chip("nano"))
    check(program)
    assert operators(program, "host") == {"quantize", "dequantize"}
    ours = run_values(program, {"x0": X}, HostRegions(program))[program.outputs[0]]
    theirs = onnx_session(data.SerializeToString()).run(None, {"x0": X})[0]
    assert ours.shape == theirs.shape
    # the golden sums in float: what lies on a tie may round the other way
    codes = np.rint((ours - theirs) / np.float32(SCALES[1]))
    assert np.abs(codes).max() <= 1
    assert np.count_nonzero(codes) <= 1


def test_paddings_may_differ() -> None:
    data = model(4, strides=[2, 3], pads=[0, 2, 3, 1])
    program = compile_model(data, EDGE)
    assert operators(program, "host") == {"quantize", "dequantize"}
    ours = run_values(program, {"x0": X}, HostRegions(program))[program.outputs[0]]
    theirs = onnx_session(data.SerializeToString()).run(None, {"x0": X})[0]
    assert ours.shape == theirs.shape
    assert np.count_nonzero(np.rint((ours - theirs) / np.float32(SCALES[1]))) <= 1


def test_a_float_bias_is_put_on_the_grid() -> None:
    data = model(3, np.linspace(-2, 2, 5).astype(np.float32), strides=[2, 2])
    assert operators(compile_model(data, load_chip("nano")), "host") == {"quantize", "dequantize"}


@pytest.mark.parametrize(
    "attributes", [{"dilations": [2, 2]}, {"group": 1, "pads": [4] * 4, "strides": [1, 1]}]
)
def test_what_cannot_be_split_runs_on_the_host(attributes: dict[str, Any]) -> None:
    program = compile_model(model(3, **attributes), load_chip("nano"))
    assert "nn.conv2d_transpose" in operators(program, "host")


def differences(seed: int) -> tuple[int, int]:
    """Return how many results of a random operator differ from the golden's, by 1, and of how many.

    Scales are log-uniform and, every other time, of one decimal digit, which makes many ties.
    """
    rng = np.random.default_rng(seed)
    kernel, stride = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    extra = int(rng.integers(stride))
    pad = int(rng.integers((kernel + 1) // 2))
    inputs, outputs = int(rng.integers(1, 24)), int(rng.integers(1, 12))
    shape = (1, inputs, int(rng.integers(3, 10)), int(rng.integers(3, 10)))
    scales = (draw_scale(rng, -2, -1), draw_scale(rng, -3, -2))
    target = np.sqrt(inputs * kernel**2) * scales[0] * scales[1] * 2000 / stride
    weights = rng.integers(-127, 128, (inputs, outputs, kernel, kernel)).astype(np.int8)
    data = made.qdq(
        "ConvTranspose",
        [shape],
        [(weights, scales[1], 0)],
        scales=(scales[0], float(f"{target:.0e}")),
        strides=[stride] * 2,
        pads=[pad] * 4,
        output_padding=[extra] * 2,
    )
    program = compile_model(data, EDGE)
    assert "nn.conv2d_transpose" not in operators(program, "host")
    x = rng.standard_normal(shape).astype(np.float32) * np.float32(60 * scales[0])
    ours = run_values(program, {"x0": x}, HostRegions(program))[program.outputs[0]]
    theirs = onnx_session(data.SerializeToString()).run(None, {"x0": x})[0]
    codes = np.rint((ours - theirs) / np.float32(float(f"{target:.0e}")))
    assert np.abs(codes).max() <= 1
    return int(np.count_nonzero(codes)), ours.size


def test_few_results_differ_from_the_float_kernel() -> None:
    found = [differences(seed) for seed in range(8)]
    assert sum(different for different, _ in found) <= sum(count for _, count in found) // 1000
