"""A float ONNX graph as a torch module: the outputs of ONNX Runtime, and the same graph back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton.errors import ImportFailure, InputError, LeptonError
from lepton.models.encoder import EncoderShape, encoder_samples, transformer_encoder
from lepton.models.onnx_module import from_onnx, read_float_model, to_onnx
from lepton.models.onnx_writer import GraphWriter
from tests.conftest import data_path

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
ort: Any = pytest.importorskip("onnxruntime", reason="ONNX Runtime is the golden")

REAL = {
    "mlperf_tiny_onnx/pretrainedResnet_float.onnx": (1, 3, 32, 32),
    "kws_onnx/DS_CNN_S.onnx": (1, 49, 10),
    "mnist_onnx/model.onnx": (1, 1, 28, 28),
}


def golden(model: Any, *inputs: Any) -> Any:
    session = ort.InferenceSession(model.SerializeToString())
    names = [item.name for item in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


def computed(module: Any, *inputs: Any) -> Any:
    with torch.no_grad():
        return module(*(torch.from_numpy(item) for item in inputs)).numpy()


def single(
    kind: str, shape: Sequence[int], constants: Sequence[Any] = (), opset: int = 17, **given: Any
) -> Any:
    """A model of one operator whose first input is fed."""
    names = [f"c{at}" if item is not None else "" for at, item in enumerate(constants)]
    node = helper.make_node(kind, ["x", *names], ["y"], **given)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.asarray(item), name)
            for item, name in zip(constants, names, strict=True)
            if item is not None
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def drawn(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


IMAGE = (2, 4, 9, 7)
W = drawn(6, 4, 3, 3)
CASES: dict[str, tuple[Any, ...]] = {
    "conv": ("Conv", IMAGE, [W, drawn(6)], {"pads": [1, 0, 1, 0]}),
    "conv uneven": ("Conv", IMAGE, [W], {"pads": [0, 1, 1, 2], "strides": [2, 1]}),
    "conv same": ("Conv", IMAGE, [W], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "conv same upper": ("Conv", IMAGE, [W], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "conv dilated": ("Conv", IMAGE, [W], {"dilations": [2, 2]}),
    "conv grouped": ("Conv", IMAGE, [drawn(6, 2, 3, 3)], {"group": 2}),
    "conv1d": ("Conv", (2, 4, 9), [drawn(6, 4, 3)], {"strides": [2]}),
    "transposed": (
        "ConvTranspose",
        IMAGE,
        [drawn(4, 3, 3, 3), drawn(3)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]},
    ),
    "transposed uneven": (
        "ConvTranspose",
        IMAGE,
        [drawn(4, 3, 3, 3)],
        {"strides": [2, 2], "pads": [0, 0, 1, 1], "group": 2},
    ),
    "gemm": ("Gemm", (3, 5), [drawn(5, 4), drawn(4)], {}),
    "gemm turned": ("Gemm", (3, 5), [drawn(4, 5)], {"transB": 1}),
    "gemm row bias": ("Gemm", (3, 5), [drawn(4, 5), drawn(1, 4)], {"transB": 1}),
    "gemm scaled": ("Gemm", (3, 5), [drawn(4, 5), drawn(1, 4)], {"transB": 1, "alpha": 0.5}),
    "matmul": ("MatMul", (2, 3, 5), [drawn(5, 4)], {}),
    "batch norm": (
        "BatchNormalization",
        IMAGE,
        [drawn(4), drawn(4, 1)[:, 0], drawn(2, 2).ravel(), np.square(drawn(4)) + 0.1],
        {"epsilon": 1e-3},
    ),
    "layer norm": ("LayerNormalization", IMAGE, [drawn(7), drawn(7)], {"epsilon": 1e-3}),
    "instance norm": ("InstanceNormalization", IMAGE, [drawn(4), drawn(4)], {}),
    "lrn": ("LRN", IMAGE, [], {"size": 3, "alpha": 0.3}),
    "max pool": ("MaxPool", IMAGE, [], {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]}),
    "max pool ceil": (
        "MaxPool",
        IMAGE,
        [],
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    ),
    "average pool": ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "average pool same": (
        "AveragePool",
        IMAGE,
        [],
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "average pool padded": (
        "AveragePool",
        IMAGE,
        [],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1, "strides": [2, 2]},
    ),
    "average pool ceil": (
        "AveragePool",
        IMAGE,
        [],
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 0, 0]},
    ),
    "global average": ("GlobalAveragePool", IMAGE, [], {}),
    "global max": ("GlobalMaxPool", IMAGE, [], {}),
    "clip": ("Clip", IMAGE, [np.float32(-0.5), np.float32(0.5)], {}),
    "clip above": ("Clip", IMAGE, [None, np.float32(0.5)], {}),
    "prelu": ("PRelu", IMAGE, [drawn(4, 1, 1)], {}),
    "hard sigmoid": ("HardSigmoid", IMAGE, [], {"alpha": 0.3}),
    "gelu": ("Gelu", IMAGE, [], {"approximate": "tanh", "opset": 20}),
    "softmax": ("Softmax", IMAGE, [], {"axis": 1}),
    "old softmax": ("Softmax", IMAGE, [], {"opset": 11}),
    "old log softmax": ("LogSoftmax", IMAGE, [], {"opset": 11, "axis": 2}),
    "reduce": ("ReduceMean", IMAGE, [], {"axes": [2, 3], "keepdims": 0}),
    "reduce sum": ("ReduceSum", IMAGE, [np.array([1])], {}),
    "reduce l2": ("ReduceL2", IMAGE, [], {"axes": [-1]}),
    "flatten": ("Flatten", IMAGE, [], {"axis": 2}),
    "flatten from the end": ("Flatten", IMAGE, [], {"axis": -1}),
    "reshape": ("Reshape", IMAGE, [np.array([0, 2, -1, 7])], {}),
    "squeeze": ("Squeeze", (1, 3, 1), [np.array([0])], {}),
    "unsqueeze": ("Unsqueeze", (2, 3), [np.array([-1, 0])], {}),
    "transpose": ("Transpose", IMAGE, [], {}),
    "slice": (
        "Slice",
        IMAGE,
        [np.array([-1, 1]), np.array([-100, 5]), np.array([1, 3]), np.array([-2, 2])],
        {},
    ),
    "slice to nothing less": ("Slice", IMAGE, [np.array([0]), np.array([99]), np.array([2])], {}),
    "pad": ("Pad", IMAGE, [np.array([0, 1, 2, 0, 0, 0, 0, 3]), np.float32(2)], {}),
    "pad reflect": ("Pad", IMAGE, [np.array([0, 0, 2, 0, 0, 0, 0, 3])], {"mode": "reflect"}),
    "resize": (
        "Resize",
        IMAGE,
        [None, np.array([1, 1, 2, 3], np.float32)],
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
    ),
    "depth to space": ("DepthToSpace", (1, 8, 3, 2), [], {"blocksize": 2}),
    "depth to space crd": ("DepthToSpace", (1, 8, 3, 2), [], {"blocksize": 2, "mode": "CRD"}),
    "space to depth": ("SpaceToDepth", (1, 2, 4, 6), [], {"blocksize": 2}),
    "gather": ("Gather", IMAGE, [np.array([[0, -1], [2, 1]])], {"axis": 1}),
    "expand": ("Expand", (2, 1, 3), [np.array([2, 4, 1])], {}),
    **{kind: (kind, IMAGE, [], {}) for kind in ("Elu", "Selu", "Celu", "Erf", "HardSwish")},
    **{kind: (kind, IMAGE, [], {}) for kind in ("LeakyRelu", "Softplus", "Softsign", "Tanh")},
    **{kind: (kind, IMAGE, [drawn(4, 1, 1)], {}) for kind in ("Add", "Sub", "Mul", "Div", "Max")},
}


@pytest.mark.parametrize("name", CASES)
def test_operators_equal_onnx_runtime(name: str) -> None:
    kind, shape, constants, given = CASES[name]
    model = single(kind, shape, constants, **given)
    x = drawn(*shape)
    made = from_onnx(model)
    expected = golden(model, x)
    assert computed(made, x).shape == expected.shape
    np.testing.assert_allclose(computed(made, x), expected, rtol=0, atol=1e-5)
    assert to_onnx(made).SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("conv", "Conv2d"),
        ("conv uneven", "Conv2d"),
        ("conv same", "Conv2d"),
        ("conv1d", "Conv1d"),
        ("transposed", "ConvTranspose2d"),
        ("gemm", "Linear"),
        ("gemm turned", "Linear"),
        ("gemm row bias", "Linear"),
        ("matmul", "Linear"),
        ("batch norm", "BatchNorm2d"),
    ],
)
def test_layers_are_torchs_own(name: str, layer: str) -> None:
    kind, shape, constants, given = CASES[name]
    made = from_onnx(single(kind, shape, constants, **given))
    assert layer in {type(item).__name__ for item in made.modules()}
    assert not made.free


@pytest.mark.parametrize("file", REAL)
def test_real_networks_equal_onnx_runtime(file: str) -> None:
    model = read_float_model(data_path(file))
    made = from_onnx(model)
    x = drawn(*REAL[file])
    np.testing.assert_allclose(computed(made, x), golden(model, x), rtol=0, atol=1e-4)
    assert to_onnx(made).SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("file", REAL)
def test_a_batch_is_its_images_one_by_one(file: str) -> None:
    made = from_onnx(data_path(file))
    batch = drawn(3, *REAL[file][1:])
    alone = np.concatenate([computed(made, batch[at : at + 1]) for at in range(3)])
    np.testing.assert_allclose(computed(made, batch), alone, rtol=0, atol=1e-4)


def test_encoder_equals_onnx_runtime() -> None:
    shape = EncoderShape(layers=2, tokens=12, width=32, heads=4, inner=48)
    model = transformer_encoder(shape)
    made = from_onnx(model)
    x = encoder_samples(shape, 1)[0]
    np.testing.assert_allclose(computed(made, x), golden(model, x), rtol=0, atol=1e-4)
    assert sum(isinstance(item, torch.nn.Linear) for item in made.modules()) == 12
    # scale and bias of four norms, and the biases of twelve products
    assert len(made.free) == 4 * 2 + 12
    assert not any("root" in key or "half" in key for key in made.free)


def network() -> Any:
    """Layers whose weights lie in the file as torch has them, turned, reshaped and shared."""
    writer = GraphWriter("drawn", 3)
    x = writer.feed("x", (1, 3, 6, 6))
    w = writer.weights("w", (4, 3, 3, 3), 27)
    x = writer.add("Conv", "first", x, w, writer.biases("b", 4), pads=[1, 1, 1, 1])
    parts = [writer.constant(f"bn{at}", np.abs(drawn(4 + at))[:4]) for at in range(4)]
    x = writer.add("Relu", "relu", writer.add("BatchNormalization", "bn", x, *parts))
    flat = writer.reshape("flat", x, (1, 144))
    table = writer.weights("table", (4, 36, 5), 144)
    target = writer.constant("target", np.array([144, 5]))
    x = writer.add("MatMul", "product", flat, writer.add("Reshape", "folded", table, target))
    x = writer.add("Add", "sum", x, writer.biases("late", 5))
    square = writer.weights("square", (5, 5), 5)
    x = writer.add("Gemm", "shared1", x, square, transB=1)
    x = writer.add("Gemm", "shared2", x, square, transB=1)
    return writer.finish([writer.add("Gemm", "shared3", x, square)])


def test_trained_parameters_return_to_the_graph() -> None:
    model = network()
    made = from_onnx(model)
    x = drawn(1, 3, 6, 6)
    np.testing.assert_allclose(computed(made, x), golden(model, x), rtol=0, atol=1e-5)
    assert made.layers["shared1"].weight is made.layers["shared2"].weight
    made.train()
    optimizer = torch.optim.SGD(made.parameters(), 0.01)
    made(torch.from_numpy(drawn(4, 3, 6, 6))).square().sum().backward()
    assert all(item.grad is not None for item in made.parameters())
    optimizer.step()
    made.eval()
    trained = to_onnx(made)
    assert [node.name for node in trained.graph.node] == [node.name for node in model.graph.node]
    changed = {
        new.name
        for new, old in zip(trained.graph.initializer, model.graph.initializer, strict=True)
        if new.raw_data != old.raw_data
    }
    # the bias before a batch norm in training has no gradient but rounding
    assert changed | {"b"} == {"w", "b", "bn0", "bn1", "bn2", "bn3", "table", "late", "square"}
    np.testing.assert_allclose(golden(trained, x), computed(made, x), rtol=0, atol=1e-5)
    again = from_onnx(trained)
    np.testing.assert_array_equal(computed(again, x), computed(made, x))


def test_a_module_can_be_copied_and_parametrized() -> None:
    class Half(torch.nn.Module):
        def forward(self, weight: Any) -> Any:
            return weight / 2

    made: Any = copy.deepcopy(from_onnx(network()))
    torch.nn.utils.parametrize.register_parametrization(made.layers["first"], "weight", Half())
    weight = made.layers["first"].weight.detach().numpy()
    saved = next(item for item in to_onnx(made).graph.initializer if item.name == "w")
    np.testing.assert_array_equal(numpy_helper.to_array(saved), weight)


def test_embeddings_are_looked_up() -> None:
    node = helper.make_node("Gather", ["table", "ids"], ["y"], name="words")
    graph = helper.make_graph(
        [node],
        "words",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(drawn(7, 4), "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = from_onnx(model)
    ids = np.array([[0, 6, -1], [3, -7, 2]])
    assert isinstance(made.layers["words"], torch.nn.Embedding)
    np.testing.assert_array_equal(computed(made, ids), golden(model, ids))


def test_dropout_drops_in_training_only() -> None:
    made: Any = from_onnx(single("Dropout", (1, 1000), [np.float32(0.25), np.bool_(False)]))
    x = torch.ones(1, 1000)
    assert torch.equal(made(x), x)
    torch.manual_seed(0)
    dropped = int((made.train()(x) == 0).sum())
    assert 200 < dropped < 300


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (single("Det", (2, 2)), "Det 'y' has no trainable form: replace it"),
        (
            single("QuantizeLinear", (2, 2), [np.float32(1), np.int8(0)]),
            "the model is quantized; give the float model",
        ),
        (single("Softmax", (2, 2), opset=6), "opset 6; opsets 7 to"),
        (single("Conv", (1, 2, 3, 3), [W], foreign=1), "is not a valid ONNX model"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(model: Any, message: str) -> None:
    with pytest.raises(ImportFailure, match=message) as caught:
        from_onnx(model)
    assert "\n" not in str(caught.value)


def test_values_that_do_not_fit_name_the_operator() -> None:
    made = from_onnx(single("Add", (2, 3), [drawn(3)]))
    with pytest.raises(ImportFailure, match="Add 'y' cannot be computed"):
        made(torch.ones(2, 4))


def test_a_file_that_would_fill_the_memory_is_refused() -> None:
    writer = GraphWriter("flood", 0)
    shape = writer.constant("shape", np.array([1 << 20, 1 << 20]))
    x = writer.add(
        "Add", "sum", writer.feed("x", (1, 1)), writer.add("ConstantOfShape", "z", shape)
    )
    with pytest.raises(ImportFailure, match="would make 1099511627776 elements"):
        from_onnx(writer.finish([x]))


def test_only_our_modules_return() -> None:
    with pytest.raises(InputError, match="not Linear"):
        to_onnx(torch.nn.Linear(1, 1))


def test_files_that_are_not_there_or_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        from_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_bytes(b"hello, this is no model")
    with pytest.raises(ImportFailure, match="is not an ONNX model"):
        from_onnx(tmp_path / "text.onnx")


def test_damaged_models_are_refused_or_legal() -> None:
    whole = network().SerializeToString()
    rng = np.random.default_rng(0)
    for case in range(60):
        damaged = bytearray(whole)
        if case % 3 == 0:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            for at in rng.integers(0, len(whole), 3):
                damaged[at] = rng.integers(256)
        try:
            module = from_onnx(bytes(damaged))
            computed(module, drawn(1, 3, 6, 6))
        except LeptonError as error:
            assert "\n" not in str(error)
        except TypeError as error:
            assert "inputs, not 1" in str(error)
