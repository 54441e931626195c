"""The float networks of int8 QDQ files, against ONNX Runtime and the float files before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lepton.errors import InputError
from lepton.models import model_path, trained_networks
from lepton.models.int8 import golden_session, run_each
from lepton.models.mirroring import mirrored_model, single_model
from lepton.models.onnx_float import float_onnx
from lepton.models.onnx_writer import GraphWriter
from lepton.models.quantization import quantize_model

Floats = NDArray[np.float32]
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (40, 3, 8, 8)).astype(np.float32)


def answers(model: onnx.ModelProto, images: Floats) -> Floats:
    return run_each(golden_session(model.SerializeToString()), {"x": images})


def branched(clips: bool) -> onnx.ModelProto:
    """Return a network with ReLUs before a sum, a pooling and a product, and none after them."""
    g = GraphWriter("net", 1)
    x = g.feed("x", (1, 3, 8, 8))

    def rectified(name: str, value: str) -> str:
        if not clips:
            return g.add("Relu", name, value)
        limits = [g.constant(f"{name}.{at}", np.array(at, np.float32)) for at in (0, 6)]
        return g.add("Clip", name, value, *limits)

    def convolved(name: str, value: str, channels: int, gain: float) -> str:
        weights = g.weights(f"{name}.w", (8, channels, 3, 3), 9 * channels, gain)
        return g.add("Conv", name, value, weights, g.biases(f"{name}.b", 8), pads=[1, 1, 1, 1])

    first = rectified("a", convolved("c1", x, 3, 8.0))
    second = convolved("c2", first, 8, 1.0)
    third = rectified("d", g.add("Add", "sum", first, second))
    pooled = g.add("Flatten", "f", g.add("GlobalAveragePool", "p", third), axis=1)
    rows = g.add("Gemm", "y", pooled, g.weights("m", (5, 8), 8), g.biases("n", 5), transB=1)
    return g.finish([rows])


@pytest.mark.parametrize("clips", [False, True])
def test_a_quantized_network_is_read_as_it_was(clips: bool) -> None:
    source = branched(clips)
    made = float_onnx(quantize_model(source, IMAGES))
    kinds = [node.op_type for node in made.graph.node]
    rectifier = "Clip" if clips else "Relu"
    assert kinds == [
        "Conv", rectifier, "Conv", "Add", rectifier, "GlobalAveragePool", "Flatten", "Gemm",
    ]  # fmt: skip
    wanted, found = answers(source, IMAGES), answers(made, IMAGES)
    # weights were rounded to 8 bits, activations are not
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())
    assert np.abs(found - wanted).max() > 0
    onnx.checker.check_model(made, full_check=True)


def test_codes_become_what_onnx_says_they_are() -> None:
    codes = RNG.integers(-128, 128, (6, 3, 2, 2)).astype(np.int8)
    scale = RNG.uniform(0.1, 1, 6).astype(np.float32)
    point = RNG.integers(-9, 9, 6).astype(np.int8)
    bias = RNG.integers(-999, 999, 6).astype(np.int32)
    constants = {"w_quantized": codes, "s": scale, "z": point, "b_quantized": bias, "zero": 0}
    constants |= {"one": np.array(0.5, np.float32), "zero": np.array(0, np.int32)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w_quantized", "s", "z"], ["w'"], axis=0),
        helper.make_node("DequantizeLinear", ["b_quantized", "one", "zero"], ["b'"]),
        helper.make_node("Conv", ["x", "w'", "b'"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 8, 8]), ("y", [1, 6, 7, 7]))
    ]
    stored = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    made = float_onnx(model)
    assert [node.op_type for node in made.graph.node] == ["Conv"]
    assert sorted(item.name for item in made.graph.initializer) == ["b", "w"]
    np.testing.assert_allclose(answers(made, IMAGES), answers(model, IMAGES), rtol=1e-6, atol=1e-4)


def images_of(name: str) -> Floats:
    """Return test images for a trained network."""
    from lepton.models import load_digits_holdout
    from lepton.models.datasets import load_cifar10, load_mnist
    from tests.conftest import data_path

    if name == "digits":
        return load_digits_holdout()[0][:100]
    if name.startswith("resnet8"):
        data = load_cifar10(data_path("cifar10/test_first1000.npz"))
    else:
        data = load_mnist(data_path("mnist"), "test")
    return data.take(slice(0, 100)).batch(slice(None))[0]


@pytest.mark.parametrize("name", [n for n in trained_networks() if n[0] in "dlmr"])
def test_shipped_networks_answer_in_float_as_in_int8(name: str) -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    from lepton.models.onnx_module import from_onnx

    path = model_path(name)
    made, images = float_onnx(path), images_of(name)
    if name == "mnist_autoencoder":
        images = images.reshape(len(images), -1)
    feed = {item.name: images for item in made.graph.input}
    wanted = run_each(golden_session(path), feed)
    found = run_each(golden_session(made.SerializeToString()), feed)
    assert np.corrcoef(wanted.reshape(-1), found.reshape(-1))[0, 1] > 0.99
    assert np.mean(wanted.argmax(1) == found.argmax(1)) >= (0.9 if found.shape[1] == 10 else 0)
    single = single_model(made)
    assert (single is made) == (name != "resnet8_compressed")
    alone = run_each(golden_session(single.SerializeToString()), feed)
    with torch.no_grad():
        batch = from_onnx(single).eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(batch, alone, rtol=1e-4, atol=1e-4 * np.abs(alone).max())


def test_a_mirrored_network_is_what_is_inside() -> None:
    source = branched(False)
    both = mirrored_model(source)
    np.testing.assert_array_equal(answers(single_model(both), IMAGES), answers(source, IMAGES))
    inside = single_model(float_onnx(quantize_model(both, IMAGES)))
    wanted = answers(source, IMAGES)
    np.testing.assert_allclose(answers(inside, IMAGES), wanted, atol=0.02 * np.abs(wanted).max())
    assert single_model(source) is source


def test_float_models_stay_and_integer_operators_are_refused(tmp_path: Path) -> None:
    source = branched(False)
    assert float_onnx(source) == source
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"], name="product")
    ends = [
        helper.make_tensor_value_info("x", TensorProto.INT8, [1, 4]),
        helper.make_tensor_value_info("y", TensorProto.INT32, [1, 2]),
    ]
    stored = [numpy_helper.from_array(np.ones((4, 2), np.int8), "w")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with pytest.raises(InputError, match="MatMulInteger 'product' has no float form here"):
        float_onnx(model)
    made = quantize_model(source, IMAGES)
    for item in list(made.graph.initializer):
        if item.name == "x_scale":
            made.graph.initializer.remove(item)
            made.graph.node.insert(
                0, helper.make_node("Constant", [], ["x_scale"], value_float=0.5)
            )
    with pytest.raises(InputError, match="has a scale that is computed"):
        float_onnx(made)
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(Exception, match="is not an ONNX model"):
        float_onnx(tmp_path / "bad.onnx")
