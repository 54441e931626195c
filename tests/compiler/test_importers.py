"""The importers against ONNX Runtime and LiteRT, their canonical form, names and error texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")
pytest.importorskip("onnx")
pytest.importorskip("tflite")

from lepton.compiler.importers import import_model, source_name, source_of, tensor_name
from lepton.compiler.importers.onnx import import_onnx
from lepton.compiler.importers.tflite import import_tflite
from lepton.errors import ImportFailure
from tests.compiler import importer_models as made
from tests.compiler.importer_cases import ONNX_CASES, TFLITE_CASES, WEIGHTS, qlinear


def bindings(module: Any) -> list[Any]:
    """Return the bindings of `main`."""
    return [binding for block in module["main"].body.blocks for binding in block.bindings]


def calls(module: Any) -> list[Any]:
    """Return the operator calls of `main`."""
    return [b.value for b in bindings(module) if hasattr(getattr(b.value, "op", None), "name")]


def kinds(module: Any) -> list[str]:
    """Return the operators of `main` in order, without the `relax.` prefix."""
    return [call.op.name.removeprefix("relax.") for call in calls(module)]


def random_input(shape: Sequence[int], dtype: str, seed: int = 0) -> Any:
    """Return a random input that covers the whole range of a quantized type."""
    generator = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return (generator.standard_normal(shape) * 3).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max + 1, shape).astype(dtype)


def inputs_of(module: Any) -> list[Any]:
    """Return random inputs for `main`."""
    types = [parameter.ty for parameter in module["main"].params]
    return [
        random_input([int(extent) for extent in kind.shape], str(kind.dtype), seed)
        for seed, kind in enumerate(types)
    ]


# Done on the quantized tensor itself: no dequantize between the two quantized values.
MOVED = {"max pool", "reshape", "transpose", "slice", "split", "concat", "pad", "pad reflect"}
MOVED |= {"gather", "resize nearest"}


@pytest.mark.parametrize("case", ONNX_CASES)
def test_onnx_operator_equals_onnxruntime(case: str) -> None:
    data = ONNX_CASES[case]().SerializeToString()
    imported = import_onnx(data, case, {})
    inputs = inputs_of(imported.module)
    expected = made.run_onnx(data, dict(zip(imported.inputs, inputs, strict=True)))
    for ours, golden in zip(made.run_module(imported.module, inputs), expected, strict=True):
        assert ours.shape == golden.shape
        # One step of the output grid (at most 0.3): a tie may round the other way in float.
        steps = np.abs(ours - golden) / (0.3 if "conv" in case else 0.05)
        assert steps.max() < 4.1 and np.mean(ours != golden) < 0.03
    names = kinds(imported.module)
    assert "call_tir" not in names
    if case in MOVED:
        middle = names[names.index("quantize") + 1 : names.index("dequantize")]
        assert "dequantize" not in middle and "quantize" in names and names[-1] == "dequantize"


QLINEAR = {
    "QLinearAdd": {},
    "QLinearMul": {},
    "QLinearConcat": {"axis": 1},
    "QLinearSigmoid": {},
    "QLinearLeakyRelu": {"alpha": 0.2},
    "QLinearGlobalAveragePool": {},
    "QLinearAveragePool": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "QLinearSoftmax": {"axis": -1, "opset": 13},
}


@pytest.mark.parametrize("kind", QLINEAR)
def test_qoperator_equals_onnxruntime(kind: str) -> None:
    data = qlinear(kind, **QLINEAR[kind]).SerializeToString()
    imported = import_onnx(data, kind, {})
    inputs = inputs_of(imported.module)
    golden = made.run_onnx(data, dict(zip(imported.inputs, inputs, strict=True)))[0]
    ours = made.run_module(imported.module, inputs)[0]
    assert np.abs(ours.astype(int) - golden.astype(int)).max() <= 1
    assert np.mean(ours != golden) < 0.05
    assert set(map(source_name, calls(imported.module))) == {f"{kind}_y"}


@pytest.mark.parametrize("case", TFLITE_CASES)
def test_tflite_operator_equals_reference_kernels(case: str) -> None:
    data = TFLITE_CASES[case]()
    imported = import_tflite(data, case, {})
    inputs = inputs_of(imported.module)
    ours = made.run_module(imported.module, inputs)[0].astype(int)
    golden = made.run_tflite(data, inputs)[0].astype(int)
    assert ours.shape == golden.shape and np.ptp(golden) > 1
    # The reference kernels round differently (fixed point; pooling: halves away from zero).
    assert np.abs(ours - golden).max() <= 1 and np.mean(ours != golden) < 0.2
    assert imported.outputs == ("y",) and imported.golden == "tflite"
    assert set(map(source_name, calls(imported.module))) == {"y"}


def test_tflite_conv_form() -> None:
    module = import_tflite(TFLITE_CASES["conv relu6"](), "m", {}).module
    expected = ["dequantize", "dequantize", "nn.conv2d", "dequantize", "add", "quantize", "clip"]
    assert kinds(module) == expected
    call = bindings(module)[1].value
    assert call.args[0].value.numpy().shape == (3, 3, 5, 6) and int(call.attrs.axis) == 3
    scales = np.linspace(0.01, 0.02, 6).astype(np.float32)
    assert np.array_equal(call.args[1].value.numpy(), scales)


def test_onnx_conv_form() -> None:
    module = import_onnx(ONNX_CASES["conv"](), "m", {}).module
    conv = ["dequantize", "dequantize", "nn.conv2d", "dequantize", "add", "quantize"]
    assert kinds(module) == ["quantize", *conv, "dequantize"]
    bias = bindings(module)[4].value
    assert bias.args[0].value.numpy().shape == (1, 6, 1, 1) and int(bias.attrs.axis) == 1
    assert str(bias.args[2].value.numpy().dtype) == "int32"


def test_every_user_owns_its_dequantize() -> None:
    module = import_onnx(ONNX_CASES["hard swish"](), "m", {}).module
    variables = {b.var: b.value for b in bindings(module)}
    uses: dict[Any, int] = {}
    for binding in bindings(module):
        for operand in getattr(binding.value, "args", ()):
            if operand in variables and "dequantize" in str(getattr(variables[operand], "op", "")):
                uses[operand] = uses.get(operand, 0) + 1
    assert uses and set(uses.values()) == {1}


def test_names_survive_partitioning() -> None:
    from tvm import relax
    from tvm.relax.dpl import is_const, is_op, wildcard

    def dq(data: Any) -> Any:
        return is_op("relax.dequantize")(data, is_const(), is_const())

    conv = is_op("relax.nn.conv2d")(dq(wildcard()), dq(is_const()))
    total = is_op("relax.add")(conv, dq(is_const()))
    pattern = is_op("relax.quantize")(total, is_const(), is_const())
    module = import_onnx(ONNX_CASES["conv"](), "m", {}).module
    fuse = relax.transform.FuseOpsByPattern([("lepton.conv", pattern)], bind_constants=True)
    merged = relax.transform.MergeCompositeFunctions()(fuse(module))
    regions = [f for name, f in merged.functions_items() if name.name_hint != "main"]
    assert [source_name(region) for region in regions] == ["the_op"]
    assert [tensor_name(region) for region in regions] == ["yq0"]


def dynamic() -> Any:
    """Return a model with a dynamic batch."""
    from onnx import TensorProto

    relu = made.node("Relu", ["x"], "y")
    inputs = [("x", TensorProto.FLOAT, ("N", 3, 4, 4))]
    return made.onnx_model([relu], {}, inputs, [("y", TensorProto.FLOAT)])


def test_initializers_among_the_inputs_are_no_inputs() -> None:
    from onnx import helper

    model = ONNX_CASES["conv"]()
    (x,) = model.graph.input
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    made_of = import_onnx(model, "m", {})
    assert list(made_of.inputs) == [x.name]
    assert len(made_of.module["main"].params) == 1


def external() -> Any:
    """Return a model whose weights are in another file."""
    model = ONNX_CASES["conv"]()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    return model


def unknown() -> Any:
    """Return a model with an operator that nobody knows."""
    from onnx import TensorProto

    strange = made.node("Teleport", ["x"], "y", domain="org.example")
    model = made.onnx_model([strange], {}, [("x", 1, (1, 2))], [("y", TensorProto.FLOAT)])
    model.opset_import.add(domain="org.example", version=1)
    return model


def old() -> Any:
    """Return a model of an opset that is too old."""
    model = dynamic()
    model.opset_import[0].version = 5
    return model


def resized(scale: float) -> Any:
    """Return a model that enlarges 5 rows by a scale."""
    scales = np.array([1, 1, scale, 2], np.float32)
    return made.qdq("Resize", [(1, 2, 5, 4)], [None, scales], mode="linear")


def scaled(scale: float) -> Any:
    """Return a model that quantizes with a scale."""
    constants = {"s": np.float32(scale), "z": np.zeros((), np.int8)}
    quantize = made.node("QuantizeLinear", ["x", "s", "z"], "y")
    return made.onnx_model([quantize], constants, [("x", 1, (1, 2))], [("y", 3)])


def sum_of(other: str, kind: int = 1, shape: tuple[Any, ...] = (1, 2)) -> Any:
    """Return a model y = x + other, z = relu(y)."""
    nodes = [made.node("Add", ["x", other], "y"), made.node("Relu", ["y"], "z")]
    return made.onnx_model(nodes, {}, [("x", kind, shape)], [("z", kind)])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: scaled(np.nan), "QuantizeLinear_y': its scale 's' must be positive .*, not nan"),
        (lambda: scaled(np.inf), "must be positive and finite, not inf"),
        (lambda: scaled(0), r"must be positive and finite, not 0\.0"),
        (lambda: sum_of("z"), "Add 'Add_y' reads 'z', which a later node makes"),
        (lambda: sum_of("u"), "Add 'Add_y' reads 'u', which nothing makes"),
        (lambda: sum_of("x", kind=8), "input 'x' holds texts; only numbers"),
        (lambda: sum_of("x", shape=(-1, 2)), r"may be negative, as in \[-1, 2\]"),
        (lambda: sum_of("x", shape=("N", "T")), "--shape x=1,T with your sizes in place of T"),
        (
            lambda: made.qdq("AveragePool", [(1, 4, 8, 8)], kernel_shape=[3, 3], ceil_mode=65),
            "ceil_mode must be 0 or 1, not 65",
        ),
        (dynamic, r"input 'x' has a dynamic dimension \('N' .*--shape x=1,3,4,4"),
        (external, "is stored in another file"),
        (unknown, r"not supported: Teleport \('Teleport_y'\)"),
        (old, "uses ONNX opset 5; opsets 7 to"),
    ],
)
def test_onnx_errors(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ImportFailure, match=text):
        import_onnx(make(), "model", {})


@pytest.mark.parametrize("scale", [1.5, 2.0000002])
def test_resize_leaves_scales_that_move_the_coordinates_to_the_host(scale: float) -> None:
    imported = import_onnx(resized(scale), "model", {})
    assert "lepton.onnx_node" in kinds(imported.module)
    assert "image.resize2d" not in kinds(imported.module)


@pytest.mark.parametrize("scale", [2.0, 1.4, 0.6])
def test_resize_takes_scales_that_are_ratios_of_sizes(scale: float) -> None:
    imported = import_onnx(resized(scale), "model", {})
    assert int(imported.module["main"].ret_ty.shape[2]) == round(5 * scale)


def test_shapes_fix_dynamic_dimensions() -> None:
    imported = import_onnx(dynamic(), "model", {"x": (2, 3, 4, 4)})
    assert [int(extent) for extent in imported.module["main"].ret_ty.shape] == [2, 3, 4, 4]
    with pytest.raises(ImportFailure, match="has no input 'z'; its inputs are x"):
        import_onnx(dynamic(), "model", {"z": (1,)})
    with pytest.raises(ImportFailure, match=r"has shape \?,3,4,4; --shape x=1,5,4,4 does not fit"):
        import_onnx(dynamic(), "model", {"x": (1, 5, 4, 4)})


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.onnx", b"hello, this is no model", "is not an ONNX model|is not a valid ONNX model"),
        ("a.onnx", b"", "is not an ONNX model"),
        ("a.tflite", b"hello, this is no model at all", "the mark TFL3 is missing"),
        ("a.tflite", b"\xff\xff\xff\x7fTFL3" + bytes(32), "its root lies outside the file"),
        ("a.pt2", b"PK", "torch.export.load"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, name: str, data: bytes, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ImportFailure, match=text):
        import_model(path)


def test_missing_file_and_wrong_object(tmp_path: Path) -> None:
    with pytest.raises(ImportFailure, match="cannot be read"):
        import_model(tmp_path / "none.onnx")
    with pytest.raises(ImportFailure, match="not dict"):
        import_model({})


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_files_fail_cleanly(tmp_path: Path, share: float) -> None:
    for name, data in (
        ("a.tflite", TFLITE_CASES["conv"]()),
        ("a.onnx", ONNX_CASES["conv"]().SerializeToString()),
    ):
        path = tmp_path / name
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImportFailure):
            import_model(path)


def test_relax_module_comes_through() -> None:
    first = import_onnx(ONNX_CASES["conv"](), "m", {})
    again = import_model(first.module)
    assert kinds(again.module) == kinds(first.module)
    inputs = inputs_of(first.module)
    ours, theirs = (made.run_module(item.module, inputs)[0] for item in (first, again))
    assert np.array_equal(ours, theirs)
    assert "the_op" in again.source_names.values()


def real_models() -> list[str]:
    """List the real models, relative to LEPTON_DATA."""
    root = os.environ.get("LEPTON_DATA")
    folders = ("mlperf_tiny", "mlperf_tiny_onnx", "mobilenet", "mnist_onnx")
    if root is None:
        return []
    found = [path for folder in folders for path in (Path(root) / folder).glob("*.*")]
    return sorted(
        str(path.relative_to(root)) for path in found if path.suffix in (".onnx", ".tflite")
    )


@pytest.mark.parametrize("name", real_models() or [None])
def test_real_model(name: str | None) -> None:
    if name is None:
        pytest.skip("LEPTON_DATA is not set")
    path = Path(os.environ["LEPTON_DATA"]) / name
    imported = import_model(path)
    assert imported.inputs and imported.outputs and imported.tensor_names
    assert "call_tir" not in kinds(imported.module)
    assert all(source_of(value) is not None for value in calls(imported.module))


def test_torch_program() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch.ao.quantization.fx._decomposed")
    library = torch.ops.quantized_decomposed

    def rounded(value: Any, scale: float) -> Any:
        limits = (scale, 3, -128, 127, torch.int8)
        return library.dequantize_per_tensor(library.quantize_per_tensor(value, *limits), *limits)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weights", torch.from_numpy(WEIGHTS[0]))
            self.register_buffer("scales", torch.from_numpy(WEIGHTS[1]))
            self.register_buffer("points", torch.zeros(6, dtype=torch.int64))
            self.bias = torch.nn.Parameter(torch.linspace(-3, 3, 6))

        def forward(self, data: Any) -> Any:
            parameters = (self.scales, self.points, 0, -127, 127, torch.int8)
            weights = library.dequantize_per_channel(self.weights, *parameters)
            result = torch.conv2d(rounded(data, 0.05), weights, self.bias, padding=1)
            return rounded(torch.max_pool2d(rounded(torch.relu(result), 0.3), 2), 0.3)

    data = torch.from_numpy(random_input((1, 4, 8, 8), "float32"))
    imported = import_model(torch.export.export(Network().eval(), (data,)))
    conv = ["dequantize", "dequantize", "nn.conv2d", "dequantize", "add", "nn.relu", "quantize"]
    assert kinds(imported.module) == ["quantize", *conv, "nn.max_pool2d", "dequantize"]
    ours = made.run_module(imported.module, [data.numpy()])[0]
    expected = Network()(data).detach().numpy()
    assert np.abs(ours - expected).max() < 0.31 and np.mean(ours != expected) < 0.02
