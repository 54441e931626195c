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
