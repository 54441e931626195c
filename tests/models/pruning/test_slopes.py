"""Gradients and sensitivities beside finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.pruning.slopes import loss_curvatures, loss_slopes, output_slopes, slopes_for

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
nn = torch.nn
STEP = 1e-6


@pytest.fixture
def network() -> Any:
    """A convolution, a batch norm and a dense layer, smooth and in float64."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    return nn.Sequential(*layers).double()


def weights_of(network: Any) -> dict[str, Any]:
    return {"conv": network[0].weight, "dense": network[4].weight}


def differences(network: Any, weight: Any, function: Any) -> Any:
    """Central differences of a function of the network, `[*weight.shape, …]`."""
    rows = []
    for at in range(weight.numel()):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[at] += sign * STEP
                ends.append(np.asarray(function(network)))
                weight.view(-1)[at] -= sign * STEP
        rows.append((ends[0] - ends[1]) / (2 * STEP))
    return np.stack(rows).reshape(*weight.shape, *rows[0].shape)


def batches() -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((size, 1, 3, 3)), rng.integers(0, 3, size)) for size in (4, 1, 3)]


def test_loss_slopes_are_finite_differences_of_the_mean_loss(network: Any) -> None:
    def mean_loss(network: Any) -> float:
        network.eval()
        images = torch.from_numpy(np.concatenate([batch for batch, _ in batches()]))
        labels = torch.from_numpy(np.concatenate([target for _, target in batches()]))
        return float(nn.functional.cross_entropy(network(images), labels))

    network.train()
    before = network[1].running_mean.clone()
    made = loss_slopes(network, weights_of(network), batches())
    assert network.training
    assert torch.equal(network[1].running_mean, before)
    for name, weight in weights_of(network).items():
        expected = differences(network, weight, mean_loss)
        np.testing.assert_allclose(made[name], expected, rtol=0, atol=1e-8)
        assert np.abs(expected).max() > 1e-3


def test_curvatures_are_finite_differences_of_the_divergence(network: Any) -> None:
    images = torch.from_numpy(np.concatenate([batch for batch, _ in batches()]))
    network.eval()
    with torch.no_grad():
        chances = torch.softmax(network(images), -1)
    made = loss_curvatures(network, weights_of(network), batches() * 400)
    for name, weight in weights_of(network).items():
        expected = np.zeros(weight.shape)
        for at in range(weight.numel()):
            with torch.no_grad():
                for sign in (1, -1):
                    weight.view(-1)[at] += sign * 1e-4
                    logs = torch.log_softmax(network(images), -1)
                    divergence = (chances * (chances.log() - logs)).sum(-1).mean()
                    expected.reshape(-1)[at] += float(divergence) / 1e-8
                    weight.view(-1)[at] -= sign * 1e-4
        np.testing.assert_allclose(made[name], expected, rtol=0.3, atol=0.02 * expected.max())


def test_curvatures_of_even_chances_are_the_hessian() -> None:
    # of two classes at chances of a half, (d ln p_y / dw)^2 is x^2 / 4 for either label, and so is
    # the Hessian p (1 - p) x^2 of cross-entropy: nothing hangs on the labels drawn
    inputs = np.random.default_rng(3).standard_normal((7, 5))
    layer = nn.Linear(5, 2).double()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    made = loss_curvatures(layer, dict(layer.named_parameters()), [(x[None], [0]) for x in inputs])
    expected = [sum(x[j] ** 2 for x in inputs) / 4 / len(inputs) for j in range(5)]
    np.testing.assert_allclose(made["weight"], [expected] * 2, rtol=1e-12)
    np.testing.assert_allclose(made["bias"], [0.25, 0.25], rtol=1e-12)


def test_curvatures_of_a_softmax_regression_are_its_hessian() -> None:
    rng = np.random.default_rng(4)
    inputs = rng.standard_normal((16, 3)) + 0.5
    layer = nn.Linear(3, 4).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(rng.standard_normal((4, 3))))
        layer.bias.zero_()
    logits = inputs @ layer.weight.detach().numpy().T
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.zeros((4, 3))
    for k in range(4):
        for j in range(3):
            for x, p in zip(inputs, chances, strict=True):
                expected[k, j] += p[k] * (1 - p[k]) * x[j] ** 2 / len(inputs)
    targets = torch.zeros(16, dtype=torch.long)
    hessian = torch.autograd.functional.hessian(
        lambda w: nn.functional.cross_entropy(torch.from_numpy(inputs) @ w.T, targets),
        layer.weight.detach(),
    )
    np.testing.assert_allclose(np.einsum("kjkj->kj", hessian.numpy()), expected, rtol=1e-9)
    # 1,000 drawings of 32 labels: a standard error of sqrt(2 / 1,000), 4.5 % of each
    data = [(np.tile(inputs, (2_000, 1)), [0])]
    made = loss_curvatures(layer, {"w": layer.weight}, data)
    np.testing.assert_allclose(made["w"], expected, rtol=0.15)


def test_output_slopes_are_finite_differences_of_every_output(network: Any) -> None:
    images = np.concatenate([batch for batch, _ in batches()])[:3]

    def outputs(network: Any) -> Any:
        network.eval()
        with torch.no_grad():
            return network(torch.from_numpy(images)).numpy()

    made = output_slopes(network, weights_of(network), images)
    for name, weight in weights_of(network).items():
        slopes = differences(network, weight, outputs)
        expected = np.abs(slopes).sum(axis=-1).mean(axis=-1)
        np.testing.assert_allclose(made[name], expected, rtol=0, atol=1e-7)


def test_only_what_a_criterion_needs_is_measured(network: Any) -> None:
    weights = weights_of(network)
    assert slopes_for("l1", network, weights, None, None)["conv"].loss is None
    assert slopes_for("saliency", network, weights, batches(), None)["conv"].loss is not None
    assert slopes_for("sensitivity", network, weights, batches(), None)["conv"].outputs is not None
    found = slopes_for("curvature", network, weights, batches(), None)
    assert found["conv"].curvature is not None and found["conv"].loss is None
    with pytest.raises(InputError, match="'curvature' is of cross-entropy"):
        slopes_for("curvature", network, weights, batches(), lambda made, _: made.sum())
    with pytest.raises(InputError, match="'gradient' needs data"):
        slopes_for("gradient", network, weights, None, None)
