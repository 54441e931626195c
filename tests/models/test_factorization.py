"""Convolutions as two: what the factors lose, and the graphs that have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from lepton.errors import InputError
from lepton.models.factorization import Factors, factors_of, lost_part, with_factors

KERNELS = (6, 4, 3, 3)


def drawn(seed: int, shape: tuple[int, ...] = KERNELS) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def plain_kernels(factors: Factors, channels: int) -> np.ndarray:
    """Return the kernels of two convolutions, tap by tap in plain loops."""
    depthwise, pointwise = factors
    rank = len(depthwise) // channels
    made = np.zeros((len(pointwise), channels, *depthwise.shape[2:]))
    for o, c, y, x in np.ndindex(*made.shape):
        for r in range(rank):
            made[o, c, y, x] += pointwise[o, c * rank + r, 0, 0] * depthwise[c * rank + r, 0, y, x]
    return made


def convolution(weights: np.ndarray, **attributes: Any) -> onnx.ModelProto:
    """Return a convolution with a bias, a ReLU and a second convolution of the result."""
    outputs, channels = weights.shape[0], weights.shape[1] * attributes.get("group", 1)
    constants = {"w": weights, "b": drawn(8, (outputs,)), "v": drawn(9, (2, outputs, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], "first", **attributes),
        helper.make_node("Relu", ["h"], ["g"]),
        helper.make_node("Conv", ["g", "v"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, channels, 8, 8)),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2, None, None)),
    ]
    initializers = [numpy_helper.from_array(item, name) for name, item in constants.items()]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def computed(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    (made,) = ReferenceEvaluator(model).run(None, {"x": image})
    return np.asarray(made)


def test_kernels_are_what_two_convolutions_compute() -> None:
    factors = factors_of(drawn(0), 2)
    assert factors.depthwise.shape == (8, 1, 3, 3) and factors.pointwise.shape == (6, 8, 1, 1)
    assert factors.weights == 4 * 2 * (9 + 6)
    np.testing.assert_allclose(factors.kernels(4), plain_kernels(factors, 4), atol=1e-12)


@pytest.mark.parametrize("shape", [KERNELS, (12, 2, 3, 3), (5, 3, 1, 3)])
def test_all_ranks_are_the_kernels_again(shape: tuple[int, ...]) -> None:
    kernels = drawn(1, shape)
    factors = factors_of(kernels, min(shape[0], shape[2] * shape[3]))
    np.testing.assert_allclose(plain_kernels(factors, shape[1]), kernels, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_what_is_lost_are_the_singular_values_left_out(rank: int) -> None:
    kernels = drawn(2)
    lost = 0.0
    for channel in range(kernels.shape[1]):
        values = np.linalg.svd(kernels[:, channel].reshape(6, 9).astype(float), compute_uv=False)
        lost += float(np.sum(values[rank:] ** 2))
    error = kernels - plain_kernels(factors_of(kernels, rank), 4)
    assert np.sum(error**2) == pytest.approx(lost, rel=1e-6)
    assert lost_part(kernels, factors_of(kernels, rank), np.eye(36)) == pytest.approx(
        lost / np.sum(kernels.astype(float) ** 2), rel=1e-6
    )


def test_each_filter_and_its_column_have_one_norm() -> None:
    depthwise, pointwise = factors_of(drawn(3), 3)
    below = np.linalg.norm(depthwise.reshape(12, -1), axis=1)
    np.testing.assert_allclose(np.linalg.norm(pointwise[:, :, 0, 0], axis=0), below)


def test_a_channel_of_zeros_stays_zero() -> None:
    kernels = drawn(4)
    kernels[:, 1] = 0
    for products in (None, np.eye(36)):
        made = factors_of(kernels, 2, products)
        assert all(np.isfinite(part).all() for part in made)
        np.testing.assert_allclose(made.kernels(4)[:, 1], 0, atol=1e-9)


def test_sweeps_come_near_a_least_error_of_the_outputs() -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    kernels, mixed = drawn(5), drawn(6, (36, 36)).astype(float)
    products = mixed @ mixed.T / 36
    made = factors_of(kernels, 2, products)
    first = lost_part(kernels, factors_of(kernels, 2), products)
    found = lost_part(kernels, made, products)
    assert found < 0.9 * first
    # descent from there, by slopes that another library derives, gains less than a tenth
    parts = [torch.from_numpy(part.copy()).requires_grad_() for part in made]
    wanted, spread = torch.from_numpy(kernels).double(), torch.from_numpy(products)

    def loss() -> Any:
        depthwise, pointwise = parts
        made = torch.einsum(
            "ocr,crk->ock", pointwise.reshape(6, 4, 2), depthwise.reshape(4, 2, 9)
        ).reshape(6, -1)
        error, whole = made - wanted.reshape(6, -1), wanted.reshape(6, -1)
        return (error @ spread * error).sum() / (whole @ spread * whole).sum()

    assert float(loss().detach()) == pytest.approx(found, rel=1e-6)
    optimizer = torch.optim.LBFGS(parts, max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    assert float(loss().detach()) > 0.9 * found


@pytest.mark.parametrize("rank", [0, 7])
def test_a_rank_that_kernels_do_not_have_is_refused(rank: int) -> None:
    with pytest.raises(InputError, match=rf"\[6, 4, 3, 3\] have ranks 1 to 6, not {rank}"):
        factors_of(drawn(0), rank)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 0, 1, 1], "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2], "kernel_shape": [3, 3]},
        {"dilations": [2, 1], "group": 1},
    ],
)
def test_the_graph_computes_the_same_at_full_rank(attributes: Mapping[str, Any]) -> None:
    model, image = convolution(drawn(0), **attributes), drawn(7, (1, 4, 8, 8))
    made = with_factors(model, {"w": factors_of(drawn(0), 6)})
    onnx.checker.check_model(made)
    assert [node.op_type for node in made.graph.node] == ["Conv", "Conv", "Relu", "Conv"]
    names = [item.name for item in made.graph.initializer]
    assert sorted(names) == ["b", "v", "w.depthwise", "w.pointwise"]
    np.testing.assert_allclose(computed(made, image), computed(model, image), rtol=1e-3, atol=1e-4)
    smaller = with_factors(model, {"w": factors_of(drawn(0), 1)})
    assert not np.allclose(computed(smaller, image), computed(model, image), atol=0.1)


def test_what_cannot_be_factorized_is_refused() -> None:
    factors = factors_of(drawn(0), 1)
    grouped = convolution(drawn(0, (6, 2, 3, 3)), group=2)
    for model, name in ((convolution(drawn(0)), "b"), (convolution(drawn(0)), "u"), (grouped, "w")):
        with pytest.raises(InputError, match=f"'{name}' is not the weight"):
            with_factors(model, {name: factors})


def test_a_module_trains_its_factors() -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    from lepton.models.torch_factorization import factorize_model

    model, images = convolution(drawn(0), pads=[1, 1, 1, 1]), drawn(7, (3, 4, 8, 8))
    seen: list[list[tuple[int, ...]]] = []

    def train(module: Any) -> None:
        seen.append(sorted(tuple(item.shape) for item in module.parameters()))
        before = module(torch.from_numpy(images))
        optimizer = torch.optim.SGD(module.parameters(), 0.01)
        (before**2).mean().backward()
        optimizer.step()
        outputs.append(module(torch.from_numpy(images)).detach().numpy())

    outputs: list[np.ndarray] = []
    made = factorize_model(model, {"w": 2}, (torch.from_numpy(images),), train)
    assert seen == [sorted([(8, 1, 3, 3), (6, 8, 1, 1), (6,), (2, 6, 1, 1)])]
    np.testing.assert_allclose(
        np.concatenate([computed(made, image[None]) for image in images]),
        outputs[0], rtol=1e-3, atol=1e-4,
    )  # fmt: skip
    untrained = factorize_model(model, {"w": 6}, (torch.from_numpy(images),))
    np.testing.assert_allclose(
        computed(untrained, images[:1]), computed(model, images[:1]), rtol=1e-3, atol=1e-4
    )
    with pytest.raises(InputError, match="'u' is not the weight"):
        factorize_model(model, {"u": 2}, (torch.from_numpy(images),))
