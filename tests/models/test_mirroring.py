"""Mirrored answers: their values, what the chip stores and computes for them, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import lepton
from lepton.errors import InputError
from lepton.models.int8 import golden_session, run_each
from lepton.models.mirroring import mirrored_model

PIXELS = 2 * 6 * 6
"""Of the convolution's output."""


def network(
    opset: int = 13, batch: int | str = 1, rows: int = -1, images: int = 1
) -> onnx.ModelProto:
    """Return a convolution, a Reshape to so many rows and a product, or a sum of several images."""
    draw = np.random.default_rng(0)
    constants = {
        "w": draw.standard_normal((2, 3, 3, 3)).astype(np.float32) / 3,
        "shape": np.array([rows, PIXELS], np.int64),
        "v": draw.standard_normal((PIXELS, 4)).astype(np.float32) / 8,
    }
    names = [f"x{number}" for number in range(images)]
    nodes = [
        helper.make_node("Sum", names, ["x"]),
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    if images == 1:
        del nodes[0]
        nodes[0].input[0] = "x0"
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (batch, 3, 8, 8)) for name in names
    ]
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, 4))
    stored = [numpy_helper.from_array(item, name) for name, item in constants.items()]
    graph = helper.make_graph(nodes, "net", given, [made], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def flat() -> onnx.ModelProto:
    """Return a network that makes one row of all values of its batch."""
    model = network()
    shapes = {"shape": [PIXELS], "out": [1, 4]}
    kept = [item for item in model.graph.initializer if item.name != "shape"]
    del model.graph.initializer[:]
    added = [numpy_helper.from_array(np.array(dims), name) for name, dims in shapes.items()]
    model.graph.initializer.extend([*kept, *added])
    model.graph.node[-1].output[0] = "row"
    model.graph.node.append(helper.make_node("Reshape", ["row", "out"], ["y"]))
    return model


def across() -> onnx.ModelProto:
    """Return a network whose answer for an image depends on the others of its batch."""
    model = network()
    model.graph.node.insert(1, helper.make_node("Softmax", ["h"], ["s"], axis=0))
    model.graph.node[2].input[0] = "s"
    return model


def open_size() -> onnx.ModelProto:
    """Return a network whose images have any height."""
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return model


def computed(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    (made,) = ReferenceEvaluator(model).run(None, {"x0": image})
    return np.asarray(made)


def drawn(count: int = 1) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("opset", [9, 13, 18, 21])
@pytest.mark.parametrize(("batch", "rows"), [(1, -1), ("n", -1), (1, 1)])
def test_the_answer_is_the_mean_of_both(opset: int, batch: int | str, rows: int) -> None:
    model, image = network(opset, batch, rows), drawn()
    before = model.SerializeToString()
    made = mirrored_model(model)
    wanted = (computed(model, image) + computed(model, image[..., ::-1])) / 2
    np.testing.assert_allclose(computed(made, image), wanted, atol=1e-6)
    assert np.abs(wanted - computed(model, image)).max() > 0.01
    ends = (made.graph.input[0], made.graph.output[0])
    dims = [[dim.dim_value for dim in end.type.tensor_type.shape.dim] for end in ends]
    assert dims == [[1, 3, 8, 8], [1, 4]]
    assert model.SerializeToString() == before


def test_the_chip_stores_the_weights_once_and_gives_the_bytes_of_the_golden() -> None:
    from lepton.models.quantization import quantize_model

    model, samples = network(), {"x0": drawn(16)}
    stored: list[int] = []
    for plain in (model, mirrored_model(model)):
        int8 = quantize_model(plain, samples)
        program = lepton.compile(int8, "edge", optimize="size")
        stored.append(sum(item.stored_bytes for item in program.operators if item.weight_bytes))
        given = {"x0": samples["x0"][:1]}
        made = lepton.simulate(program, given).outputs
        (wanted,) = golden_session(int8.SerializeToString()).run(None, given)
        np.testing.assert_array_equal(next(iter(made.values())), wanted)
    assert stored[0] == stored[1]


def turned(
    perm: tuple[int, ...] | None, before: tuple[onnx.NodeProto, ...] = ()
) -> onnx.ModelProto:
    """Return the network for images of other axes, which a Transpose brings into order."""
    model = network()
    options: dict[str, Any] = {} if perm is None else {"perm": perm}
    node = helper.make_node("Transpose", ["t" if before else "x0"], ["x"], **options)
    model.graph.node[0].input[0] = "x"
    nodes = [*before, node, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    sizes: tuple[str | int, ...] = ("w", 8, 3, 1)
    if perm is not None:
        sizes = tuple((1, 3, 8, 8)[axis] for axis in np.argsort(perm))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x0", TensorProto.FLOAT, sizes))
    return model


LAYERS = (
    helper.make_node("Mul", ["x0", "x0"], ["s"]),
    helper.make_node("Shape", ["s"], ["n"]),
    helper.make_node("Relu", ["s"], ["t"]),
)


@pytest.mark.parametrize(
    ("perm", "axis", "before"),
    [
        ((0, 3, 1, 2), 2, ()),
        ((0, 3, 1, 2), 2, LAYERS),
        ((0, 1, 3, 2), 2, ()),
        ((0, 3, 2, 1), 1, ()),
    ],
)
def test_the_width_is_mirrored_whatever_axis_it_is(
    perm: tuple[int, ...], axis: int, before: tuple[onnx.NodeProto, ...]
) -> None:
    model = turned(perm, before)
    made = mirrored_model(model)
    image = drawn().transpose(np.argsort(perm))
    answers = [computed(model, given) for given in (image, np.flip(image, axis))]
    np.testing.assert_allclose(computed(made, image), sum(answers) / 2, atol=1e-6)
    # the same answers as for the image in order, mirrored as such: nothing of the test's own axes
    if not before:
        plain = computed(mirrored_model(network()), drawn())
        np.testing.assert_allclose(computed(made, image), plain, atol=1e-6)


def test_training_mirrors_the_same_axis() -> None:
    torch = pytest.importorskip("torch", reason="the training extra is not installed")
    from lepton.models.mirroring import width_axis
    from lepton.models.onnx_module import from_onnx
    from lepton.models.torch_mirroring import MirrorMean

    model, image = turned((0, 3, 1, 2)), drawn().transpose(0, 2, 3, 1)
    whole = MirrorMean(from_onnx(model), width_axis(model))
    with torch.no_grad():
        found = whole(torch.from_numpy(image.copy())).numpy()
    np.testing.assert_allclose(found, computed(mirrored_model(model), image), atol=1e-5)


def test_files_of_an_old_version_stay_valid() -> None:
    model, image = network(9), drawn()
    model.ir_version = 3
    for item in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(item.name, item.data_type, tuple(item.dims))
        )
    made = mirrored_model(model)
    onnx.checker.check_model(made, full_check=True)
    wanted = (computed(model, image) + computed(model, image[..., ::-1])) / 2
    found = run_each(golden_session(made.SerializeToString()), {"x0": image})
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("is_through", [False, True])
def test_reshaped_constants_and_shapes_of_integers(is_through: bool) -> None:
    model, image = network(rows=1), drawn()
    kept = [item for item in model.graph.initializer if item.name != "shape"]
    del model.graph.initializer[:]
    bias = numpy_helper.from_array(np.array([0.5, -2], np.float32), "bias")
    model.graph.initializer.extend([*kept, bias])
    nodes = list(model.graph.node)
    nodes[1].input[0] = "sum"
    read = "same" if is_through else "bias"
    added = [
        helper.make_node("Constant", [], ["shape"], value_ints=[1, PIXELS]),
        helper.make_node("Constant", [], ["channels"], value_ints=[1, 2, 1, 1]),
        helper.make_node("Identity", ["bias"], ["same"]),
        helper.make_node("Reshape", [read, "channels"], ["b"]),
        nodes[0],
        helper.make_node("Add", ["h", "b"], ["sum"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend([*added, *nodes[1:]])
    wanted = (computed(model, image) + computed(model, image[..., ::-1])) / 2
    np.testing.assert_allclose(computed(mirrored_model(model), image), wanted, atol=1e-6)


def two_ways() -> onnx.ModelProto:
    """Return a network that reads a square image and its transpose."""
    model = network()
    model.graph.node.insert(0, helper.make_node("Transpose", ["x0"], ["t"], perm=[0, 1, 3, 2]))
    model.graph.node.insert(1, helper.make_node("Conv", ["t", "w"], ["h2"]))
    model.graph.node[2].output[0] = "h1"
    model.graph.node.insert(3, helper.make_node("Add", ["h1", "h2"], ["h"]))
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (network(images=2), "not 2 inputs and 1 outputs"),
        (network(batch=4), "one image at a time, not of 4"),
        (flat(), "take two images at once"),
        (across(), "keep two images of a batch apart"),
        (mirrored_model(network()), "answers for mirror images already"),
        (two_ways(), r"an image whose width is one axis, and this network reads axes \[2, 3\] as"),
        (turned(None), r"reads axes \[0\] as the width"),
        (open_size(), r"images of one size, not of \[1, 3, 0, 8\]"),
    ],
)
def test_other_networks_are_refused(model: onnx.ModelProto, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        mirrored_model(model)


def test_a_network_of_rows_is_refused() -> None:
    model = network()
    del model.graph.node[:3]
    model.graph.node[0].input[0] = "x0"
    row = helper.make_tensor_value_info("x0", TensorProto.FLOAT, (1, PIXELS))
    model.graph.input[0].CopyFrom(row)
    with pytest.raises(InputError, match=r"with \[2, 2\] dimensions"):
        mirrored_model(model)
