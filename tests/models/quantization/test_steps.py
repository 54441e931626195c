"""Steps by entropy and curvature, and training from them, against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.quantization import AwareOptions, train_quantized

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
nn = torch.nn

from lepton.models.quantization.torch_fake import SteppedWeights  # noqa: E402 (it imports torch)
from lepton.models.quantization.torch_steps import (  # noqa: E402 (it imports torch)
    channel_curvatures,
    entropy_bits,
    steps_at_entropy,
)


def small() -> Any:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5))


def test_entropy_of_known_parts() -> None:
    assert entropy_bits(np.array([[0, 0, 0, 0], [5, 5, -1, 127]])) == 1.75
    assert entropy_bits(np.arange(256) - 128) == 8
    assert entropy_bits(np.zeros(7)) == 0


def test_curvatures_are_those_of_a_softmax() -> None:
    # of p = softmax(W x): E_y (d ln p_y / dW_kj)^2 = p_k (1 - p_k) x_j^2
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 4), torch.randn(2, 3)
    batches = [(x[[0, 1] * 4],) for n in range(2_000)]
    before = torch.get_rng_state()
    found = channel_curvatures(layer, batches, 0)["weight"]
    assert torch.equal(torch.get_rng_state(), before) and layer.training
    chances = torch.softmax(layer(x), -1).detach()
    each = (chances * (1 - chances))[:, :, None] * x.square()[:, None, :]
    np.testing.assert_allclose(found, each.mean((0, 2)), rtol=0.15)
    np.testing.assert_array_equal(channel_curvatures(layer, batches, 0)["weight"], found)


def test_steps_reach_the_entropy_and_follow_the_curvatures() -> None:
    network = small()
    curvatures = {
        "0.weight": np.array([1, 4, 16, 1, 0, 1e8], np.float32),
        "3.weight": np.full(5, 4, np.float32),
    }
    for bits in (1.0, 2.5, 4.0):
        steps = steps_at_entropy(network, curvatures, bits)
        first, last = steps["0.weight"], steps["3.weight"]
        np.testing.assert_allclose(first[:4] / first[0], [1, 0.5, 0.25, 1], rtol=1e-6)
        np.testing.assert_allclose(last, first[1], rtol=1e-6)
        # nothing depends on the fifth channel; the extremes of the sixth have the greatest code
        assert first[4] == first[0]
        values = network[0].weight.detach().numpy()
        assert first[5] == pytest.approx(np.abs(values[5]).max() / 127)
        codes = np.rint(values / first[:, None, None, None])
        codes_last = np.rint(network[3].weight.detach().numpy() / last[:, None])
        total = entropy_bits(codes) * codes.size + entropy_bits(codes_last) * codes_last.size
        assert bits - 0.05 < total / (codes.size + codes_last.size) <= bits
    with pytest.raises(InputError, match=r"cannot have an entropy of 7\.9 bits each"):
        steps_at_entropy(network, curvatures, 7.9)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_weights_are_multiples_of_their_steps(axis: int | None) -> None:
    torch.manual_seed(1)
    weight = torch.randn(3, 4, 2)
    steps = np.array([0.25] if axis is None else [0.3, 0.001, 0.5, 0.7][: weight.shape[axis]])
    rounder = SteppedWeights(steps.astype(np.float32), axis, 3)
    gains = 0.1 * torch.randn(len(steps))
    rounder.gains.data.copy_(gains.reshape(rounder.gains.shape))
    shape = [1, 1, 1]
    shape[axis or 0] = len(steps)
    scale = (steps * np.exp(gains.numpy())).reshape(shape)
    latent = rounder.right_inverse(weight).detach().requires_grad_()
    made = rounder(latent)
    raw = np.rint(weight.numpy() / scale)
    codes = raw.clip(-127, 127)
    np.testing.assert_allclose(made.detach(), codes * scale, rtol=1e-5)
    stored = rounder.stored(made.detach())
    np.testing.assert_array_equal(stored.codes, codes)
    np.testing.assert_allclose(stored.values, made.detach(), rtol=1e-5)
    slopes = torch.randn(3, 4, 2)
    made.backward(slopes)
    assert latent.grad is not None and rounder.gains.grad is not None
    passed = slopes.numpy() * (np.abs(raw) <= 127)
    np.testing.assert_allclose(latent.grad, passed * 10 * scale, rtol=1e-5)
    others = tuple(place for place in range(3) if place != axis)
    expected = (slopes.numpy() * codes * scale).sum(others, keepdims=True)
    np.testing.assert_allclose(
        rounder.gains.grad.reshape(-1), expected.reshape(-1), rtol=1e-4, atol=1e-6
    )


def test_a_network_trains_from_steps() -> None:
    network, x = small(), torch.randn(32, 2, 6, 6)
    target = network(x).detach()
    steps = {"0.weight": np.full(6, 0.3, np.float32), "3.weight": np.full(5, 0.2, np.float32)}
    losses: list[float] = []

    def fine_tune(aware: Any) -> None:
        optimizer = torch.optim.Adam(aware.parameters(), 1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            loss = (aware(x) - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))

    trained = train_quantized(network, [x[:1]], fine_tune, AwareOptions(8, None, steps=steps))
    assert losses[-1] < losses[0] / 2
    for name, item in trained.weights.items():
        np.testing.assert_allclose(item.scale, steps[name], rtol=0.5)
        assert (item.scale != steps[name]).all()
        np.testing.assert_array_equal(network.get_parameter(name).detach(), item.values)
    with pytest.raises(InputError, match="no weights 'w'"):
        train_quantized(
            network, [x[:1]], lambda _: None, AwareOptions(steps={"w": steps["0.weight"]})
        )
