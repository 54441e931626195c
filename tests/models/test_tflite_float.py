"""The float networks of TFLite files, against LiteRT's reference kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.compression.recipes import classifier_of_pixels
from lepton.models.tflite_float import float_network, float_tflite
from lepton.runtime.golden import tflite_interpreter
from tests.conftest import data_path
from tests.tflite_builder import Tensor, TfliteBuilder, run_reference

Floats = NDArray[np.float32]
IMAGES = 200


def answers(model: onnx.ModelProto, images: Floats) -> list[Floats]:
    """Return what ONNX Runtime gives for [n, ...] one by one; images are [n, h, w, c]."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(model.SerializeToString())
    fed = images.transpose(0, 3, 1, 2) if images.ndim == 4 else images
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: fed[at : at + 1]})[0][0] for at in range(len(fed))]
    return [np.asarray(row) for row in rows]


def without_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    assert model.graph.node[-1].op_type == "Softmax"
    model.graph.output[0].name = model.graph.node[-1].input[0]
    del model.graph.node[-1]
    return model


class Reference:
    """LiteRT on a file, with codes as the numbers they stand for, to the softmax's input."""

    def __init__(self, path: Path) -> None:
        self._engine = tflite_interpreter(path.read_bytes(), keep_all=True)
        self._given = self._engine.get_input_details()[0]
        operators = self._engine._get_ops_details()
        assert operators[-1]["op_name"] == "SOFTMAX"
        details = {row["index"]: row for row in self._engine.get_tensor_details()}
        self._logits = details[int(operators[-1]["inputs"][0])]
        self.step = float(self._logits["quantization"][0])

    def codes(self, values: Floats) -> NDArray[Any]:
        scale, point = self._given["quantization"]
        return np.clip(np.rint(values / scale) + point, -128, 127).astype(np.int8)

    def numbers(self, codes: NDArray[Any]) -> Floats:
        scale, point = self._given["quantization"]
        return ((codes.astype(np.float32) - point) * scale).astype(np.float32)

    def logits(self, codes: NDArray[Any]) -> Floats:
        """Return the logits [classes] of one input."""
        self._engine.set_tensor(self._given["index"], codes[None])
        self._engine.invoke()
        scale, point = self._logits["quantization"]
        found = self._engine.get_tensor(self._logits["index"])[0]
        return ((found.astype(np.float32) - point) * scale).astype(np.float32)


def cifar(reference: Reference) -> NDArray[Any]:
    with np.load(data_path("cifar10/test_first1000.npz")) as held:
        key = next(name for name in held.files if held[name].ndim == 4)
        images = held[key][:IMAGES]
    if images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)
    return reference.codes(images.astype(np.float32))


def words(reference: Reference) -> NDArray[Any]:
    del reference
    with np.load(data_path("mlperf_tiny/kws01_inputs.npz")) as held:
        return held["x"][:IMAGES]


@pytest.mark.parametrize(
    ("name", "inputs"), [("pretrainedResnet_large_int8", cifar), ("kws_ref_model", words)]
)
def test_int8_files_answer_as_litert_to_rounding(
    name: str, inputs: Callable[[Reference], NDArray[Any]]
) -> None:
    path = data_path(f"mlperf_tiny/{name}.tflite")
    reference = Reference(path)
    codes = inputs(reference)
    wanted = np.array([reference.logits(row) for row in codes])
    found = np.array(answers(without_softmax(float_tflite(path)), reference.numbers(codes)))
    assert np.mean(wanted.argmax(1) == found.argmax(1)) >= 0.97
    assert np.abs(found - wanted).mean() <= 2 * reference.step


@pytest.mark.parametrize(
    ("quantized", "plain", "shape", "pixels"),
    [
        ("vww_96_int8", "vww_96_float", (96, 96, 3), 1.0),
        ("pretrainedResnet_quant", "pretrainedResnet", (32, 32, 3), 255.0),
    ],
)
def test_an_int8_file_gives_back_the_float_network_that_it_was_made_of(
    quantized: str, plain: str, shape: tuple[int, ...], pixels: float
) -> None:
    paths = [data_path(f"mlperf_tiny/{name}.tflite") for name in (quantized, plain)]
    images = np.random.default_rng(0).random((10, *shape), np.float32) * np.float32(pixels)
    rows = np.array(answers(float_tflite(paths[0]), images))
    wanted = [run_reference(paths[1].read_bytes(), image[None])[0][0] for image in images]
    assert np.abs(rows - wanted).mean() <= 0.01


@pytest.mark.parametrize(
    ("name", "shape"),
    [("pretrainedResnet", (32, 32, 3)), ("vww_96_float", (96, 96, 3)), ("ad01_fp32", (640,))],
)
def test_float_files_answer_as_litert(name: str, shape: tuple[int, ...]) -> None:
    path = data_path(f"mlperf_tiny/{name}.tflite")
    images = np.random.default_rng(1).standard_normal((5, *shape)).astype(np.float32)
    found = answers(float_network(path), images)
    for row, image in zip(found, images, strict=True):
        (wanted,) = run_reference(path.read_bytes(), image[None])
        np.testing.assert_allclose(row, wanted[0], rtol=1e-5, atol=1e-4)


def test_pixels_of_a_tflite_classifier_are_scaled_and_the_softmax_goes() -> None:
    path = data_path("mlperf_tiny/pretrainedResnet_large_int8.tflite")
    made, plain = classifier_of_pixels(path, 255), without_softmax(float_tflite(path))
    images = np.random.default_rng(2).random((3, 32, 32, 3), np.float32)
    for ours, wanted in zip(answers(made, images), answers(plain, images * 255), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-4)


def draw(*shape: int) -> Floats:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


WINDOW: dict[str, Any] = {"padding": "SAME", "stride_h": 2, "stride_w": 3}
DILATED: dict[str, Any] = {"dilation_h_factor": 2, "dilation_w_factor": 2}


def float_file() -> bytes:
    """Return a float file with every operator: odd extents, odd paddings, a flattened image."""
    b = TfliteBuilder()
    x = b.input("x", [1, 11, 13, 3], "float32")
    tensors: dict[str, Tensor] = {}

    def made(name: str, *shape: int) -> Tensor:
        # a name that others have too, as files may
        tensors[name] = b.tensor("t" if name in "bc" else name, shape, "float32")
        return tensors[name]

    first = [x, b.constant("w", draw(4, 4, 3, 3)), b.constant("w", draw(4))]
    relu6: dict[str, Any] = {"fused_activation_function": "RELU6"}
    b.operator("CONV_2D", first, [made("a", 1, 6, 5, 4)], **WINDOW, **relu6)
    second = [tensors["a"], b.constant("d", draw(1, 3, 3, 8)), b.constant("e", draw(8))]
    dilated: dict[str, Any] = {
        "padding": "SAME",
        "stride_h": 1,
        "stride_w": 1,
        "depth_multiplier": 2,
    } | DILATED
    b.operator("DEPTHWISE_CONV_2D", second, [made("b", 1, 6, 5, 8)], **dilated)
    b.operator("RELU", [tensors["b"]], [made("c", 1, 6, 5, 8)])
    sums = [tensors["b"], tensors["c"]]
    b.operator("ADD", sums, [made("s", 1, 6, 5, 8)], fused_activation_function="RELU")
    pool: dict[str, Any] = {"filter_height": 3, "filter_width": 2} | WINDOW
    b.operator("AVERAGE_POOL_2D", [tensors["s"]], [made("p", 1, 3, 2, 8)], **pool)
    b.operator("RELU6", [tensors["p"]], [made("q", 1, 3, 2, 8)])
    shape = b.constant("flat", np.array([1, 48], np.int32))
    b.operator("RESHAPE", [tensors["q"], shape], [made("r", 1, 48)], new_shape=[1, 48])
    product = [tensors["r"], b.constant("m", draw(5, 48)), b.constant("n", draw(5))]
    b.operator("FULLY_CONNECTED", product, [made("f", 1, 5)])
    b.operator("SOFTMAX", [tensors["f"]], [made("y", 1, 5)], beta=1.0)
    return b.build([x], [tensors["y"]])


def test_every_operator_answers_as_litert() -> None:
    images = draw(4, 11, 13, 3)
    model = float_tflite(float_file())
    for row, image in zip(answers(model, images), images, strict=True):
        (wanted,) = run_reference(float_file(), image[None])
        np.testing.assert_allclose(row, wanted[0], rtol=1e-4, atol=1e-6)


def test_it_runs_on_batches_and_can_be_trained() -> None:
    torch = pytest.importorskip("torch", reason="the training extra is not installed")
    from lepton.models.onnx_module import from_onnx

    images, model = draw(4, 11, 13, 3), float_tflite(float_file())
    module = from_onnx(model)
    found = module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(found.detach().numpy(), answers(model, images), rtol=1e-4, atol=1e-6)
    found[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def int8_file(over: tuple[int, ...] = (1, 2), keep: bool = True) -> bytes:
    """Return uint8 convolution with a zero point, per-channel product, mean: exact in float."""
    b = TfliteBuilder()
    x = b.input("x", [1, 2, 2, 2], "float32")
    q = b.tensor("q", [1, 2, 2, 2], "int8", 1.0, 3)
    b.operator("QUANTIZE", [x], [q])
    codes = np.array([[120, -7], [3, 4]], np.int8)
    w = b.constant("w", codes.reshape(2, 1, 1, 2), np.array([0.5, 2.0]), 0, 0)
    bias = b.constant("bias", np.array([4, -1], np.int32), np.array([0.5, 2.0]), 0, 0)
    c = b.tensor("c", [1, 2, 2, 2], "int8", 8.0, 0)
    b.operator("CONV_2D", [q, w, bias], [c], padding="VALID", stride_h=1, stride_w=1)
    shape = [1, 1, 1, 2] if keep else [1, 2]
    m = b.tensor("m", shape, "int8", 8.0, 0)
    axes = b.constant("axes", np.array(over, np.int32))
    b.operator("MEAN", [c, axes], [m], keep_dims=keep)
    y = b.tensor("y", shape, "float32")
    b.operator("DEQUANTIZE", [m], [y])
    return b.build([x], [y])


@pytest.mark.parametrize("keep", [True, False])
def test_codes_become_the_numbers_they_stand_for(keep: bool) -> None:
    (found,) = answers(float_tflite(int8_file(keep=keep)), draw(1, 2, 2, 2))
    matrix = np.array([[60, -3.5], [6, 8]])
    wanted = draw(1, 2, 2, 2)[0].mean((0, 1)) @ matrix.T + [2, -2]
    np.testing.assert_allclose(found.reshape(-1), wanted, rtol=1e-5)


def test_unsigned_codes_have_their_zero_point() -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 2], "uint8", 1.0, 0)
    w = b.constant("w", np.array([[130, 125]], np.uint8), 0.25, 128)
    y = b.tensor("y", [1, 1], "uint8", 1.0, 0)
    b.operator("FULLY_CONNECTED", [x, w, None], [y])
    (found,) = answers(float_tflite(b.build([x], [y])), np.array([[3, 5]], np.float32))
    assert found.item() == 3 * 0.5 - 5 * 0.75


def test_numbers_beyond_float32_are_refused() -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 1], "int8", 1.0, 0)
    w = b.constant("w", np.array([[127]], np.int8), 1e37, 0)
    y = b.tensor("y", [1, 1], "int8", 1e37, 0)
    b.operator("FULLY_CONNECTED", [x, w, None], [y])
    with pytest.raises(InputError, match="constant 'w' of the model stands for numbers that float"):
        float_tflite(b.build([x], [y]))


def one_operator(kind: str, shape: list[int], made: list[int], **options: Any) -> bytes:
    b = TfliteBuilder()
    x, y = b.input("x", shape, "float32"), b.tensor("y", made, "float32")
    b.operator(kind, [x], [y], **options)
    return b.build([x], [y])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (one_operator("TANH", [1, 4], [1, 4]), "TANH 'y' of the model has no float form"),
        (one_operator("SOFTMAX", [1, 4], [1, 4], beta=2.0), "SOFTMAX 'y' .* beta other than 1"),
        (one_operator("SOFTMAX", [4], [4], beta=1.0), "input 'x' .* neither images nor rows"),
        (
            one_operator("RESHAPE", [1, 4], [2, 2], new_shape=[2, 2]),
            r"RESHAPE 'y' .* makes \[2, 2\] of \[1, 4\]",
        ),
        (
            one_operator("RESHAPE", [1, 2, 2, 2], [1, 8], new_shape=[1, 8]),
            "output 'y' of the model is flattened images",
        ),
        (
            one_operator("RESHAPE", [1, 2, 2, 1], [1, 2, 2, 1], new_shape=[1, 2, 2, 1]),
            "output 'y' of the model is made by no layer",
        ),
        (int8_file(over=(1,), keep=True)[:0], "the model is no sound TFLite model"),
        (float_file()[:900], "the model is no sound TFLite model"),
    ],
)
def test_what_has_no_float_form_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        float_tflite(content)
    assert "\n" not in str(raised.value)


def test_activations_inside_other_than_relu_are_refused() -> None:
    b = TfliteBuilder()
    x, y = b.input("x", [1, 4], "float32"), b.tensor("y", [1, 4], "float32")
    b.operator("ADD", [x, x], [y], fused_activation_function="RELU_N1_TO_1")
    with pytest.raises(InputError, match=r"ADD 'y' .* an activation inside other than RELU"):
        float_tflite(b.build([x], [y]))


def test_damaged_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    content, rng = float_file(), np.random.default_rng(3)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(8, len(content), 4):
            damaged[place] = rng.integers(256)
        try:
            float_tflite(bytes(damaged))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused
    missing = tmp_path / "missing.tflite"
    with pytest.raises(InputError, match=r"missing\.tflite: cannot be read"):
        float_network(missing)
