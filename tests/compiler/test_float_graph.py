"""Rewrites of float graphs before they are quantized, beside ONNX Runtime on the original."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from lepton.compiler.float_graph import in_float, simplify
from lepton.models.onnx_writer import GraphWriter

KNOWN = {"Add", "Conv", "Gemm", "LayerNormalization", "MatMul", "Mul", "Reshape", "Sigmoid"}
KNOWN |= {"Softmax", "Tanh"}


def writer(*shape: int) -> GraphWriter:
    made = GraphWriter("graph", 0)
    made.feed("x", shape)
    return made


def numbers(made: GraphWriter, name: str, *shape: int) -> str:
    """Add constants between 0.5 and 1.5, that may be variances too."""
    values = np.random.default_rng(len(name)).random(shape, np.float32) + np.float32(0.5)
    return made.constant(name, values)


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a simplified copy, which must compute what the model does."""
    import onnxruntime as ort

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    simplify(copy.graph)
    onnx.checker.check_model(copy, full_check=True)
    shape = [extent.dim_value for extent in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    before, after = (
        np.asarray(ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0])
        for m in (model, copy)
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    return copy


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph.node))


def left_in_float(model: onnx.ModelProto) -> set[str]:
    return set(in_float(model.graph, KNOWN))


def test_a_sum_becomes_additions() -> None:
    made = writer(1, 4)
    squared = made.add("Mul", "m", "x", "x")
    total = made.add("Sum", "s", "x", squared, "x")
    model = made.finish([made.add("Sum", "y", total)])
    assert kinds(simplified(model)) == {"Mul": 1, "Add": 2, "Sum": 1}


@pytest.mark.parametrize("is_output", [False, True])
def test_a_batch_norm_and_what_scales_it_become_a_depthwise_convolution(is_output: bool) -> None:
    made = writer(1, 3, 4, 5)
    norm = made.add(
        "BatchNormalization", "n", "x", *(numbers(made, n, 3) for n in ("g", "bb", "mmm", "vvvv"))
    )
    scaled = made.add("Mul", "m", norm, numbers(made, "scale", 3, 1, 1))
    shifted = made.add("Add", "a", numbers(made, "offset", 1, 3, 1, 1), scaled)
    last = made.add("Mul", "y", shifted, numbers(made, "columns", 5))
    model = made.finish([last, *([scaled] if is_output else [])])
    wanted = {"Conv": 1, "Mul": 1} | ({"Add": 1} if is_output else {})
    copy = simplified(model)
    assert kinds(copy) == wanted
    (conv,) = (node for node in copy.graph.node if node.op_type == "Conv")
    assert {attribute.name: attribute.i for attribute in conv.attribute}["group"] == 3
    assert not {"g", "mmm"} & {item.name for item in copy.graph.initializer}


@pytest.mark.parametrize(("shape", "flat"), [((4, 6), 0), ((1, 4, 6), 2), ((2, 2, 3, 6), 2)])
def test_a_product_and_its_bias_become_one(shape: tuple[int, ...], flat: int) -> None:
    made = writer(*shape)
    product = made.add("MatMul", "p", "x", made.weights("w", (6, 5), 6))
    model = made.finish([made.add("Add", "y", made.biases("b", 5), product)])
    wanted = {"Gemm": 1, "Reshape": flat} if flat else {"Gemm": 1}
    assert kinds(simplified(model)) == wanted


def test_a_product_whose_sum_is_read_twice_stays() -> None:
    made = writer(4, 6)
    product = made.add("MatMul", "p", "x", made.weights("w", (6, 5), 6))
    total = made.add("Add", "a", product, made.biases("b", 5))
    model = made.finish([made.add("Mul", "y", total, product)])
    assert kinds(simplified(model)) == {"MatMul": 1, "Add": 1, "Mul": 1}


def test_a_bias_that_adds_a_dimension_stays() -> None:
    made = writer(4, 6)
    product = made.add("MatMul", "p", "x", made.weights("w", (6, 5), 6))
    model = made.finish([made.add("Add", "y", product, numbers(made, "b", 1, 1, 5))])
    assert kinds(simplified(model)) == {"MatMul": 1, "Add": 1}


def test_layers_that_share_a_bias_get_their_own() -> None:
    made = writer(4, 6)
    weights, bias = made.weights("w", (6, 6), 6), made.biases("b", 6)
    first = made.add("Gemm", "first", "x", weights, bias)
    model = made.finish([made.add("Gemm", "y", first, weights, bias)])
    assert len({node.input[2] for node in simplified(model).graph.node}) == 2


def layer(made: GraphWriter, name: str, tensor: str) -> str:
    return made.add("MatMul", name, tensor, made.weights(f"{name}/w", (6, 6), 6))


def test_an_expression_of_one_tensor_stays_in_float() -> None:
    made = writer(4, 6)
    one = made.constant("one", np.array(1, np.float32))
    inner = layer(made, "inner", "x")
    gate = made.add("Add", "gate", made.add("Erf", "erf", inner), one)
    model = made.finish([layer(made, "y", made.add("Mul", "gelu", inner, gate))])
    assert left_in_float(model) == {"erf", "gate", "gelu"}


def test_single_functions_and_those_of_two_tensors_are_quantized() -> None:
    made = writer(4, 6)
    inner, other = layer(made, "inner", "x"), layer(made, "other", "x")
    product = made.add("Mul", "product", made.add("Sigmoid", "gate", inner), other)
    rows = made.add("Add", "rows", made.add("Tanh", "tanh", product), made.biases("b", 6))
    model = made.finish([layer(made, "y", rows)])
    assert left_in_float(model) == set()


def test_a_layer_clamps_what_it_computes() -> None:
    made = writer(4, 6)
    two = made.constant("two", np.array(2, np.float32))
    active = made.add("Relu", "relu", layer(made, "inner", "x"))
    model = made.finish([layer(made, "y", made.add("Mul", "m", active, two))])
    assert left_in_float(model) == set()


def test_an_expression_that_the_model_ends_in_is_quantized() -> None:
    made = writer(4, 6)
    inner = layer(made, "inner", "x")
    gate = made.add("Sigmoid", "gate", inner)
    model = made.finish([made.add("Mul", "y", inner, gate)])
    assert left_in_float(model) == set()


def test_the_last_softmax_and_norms_stay_in_float() -> None:
    made = writer(4, 6)
    first = made.add("Softmax", "first", layer(made, "inner", "x"), axis=-1)
    scale, bias = numbers(made, "scale", 6), made.biases("bias", 6)
    norm = made.add("LayerNormalization", "norm", first, scale, bias, axis=-1)
    last = made.add("Softmax", "last", layer(made, "outer", norm), axis=-1)
    model = made.finish([made.reshape("y", last, (24,))])
    assert left_in_float(model) == {"norm", "last"}
