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
from lepton.models.quantization.torch_feedback import (  # noqa: E402 (it imports torch)
    feedback_codes,
    input_products,
)
from lepton.models.quantization.torch_steps import (  # noqa: E402 (it imports torch)
    channel_curvatures,
    entropy_bits,
    round_finely,
    round_to_entropy,
)

WEIGHTS = ("0.weight", "3.weight")


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
    batches = [(x[[0, 1] * 4],) for _ in range(2_000)]
    before = torch.get_rng_state()
    found = channel_curvatures(layer, batches, 0)["weight"]
    assert torch.equal(torch.get_rng_state(), before) and layer.training
    chances = torch.softmax(layer(x), -1).detach()
    each = (chances * (1 - chances))[:, :, None] * x.square()[:, None, :]
    np.testing.assert_allclose(found, each.mean((0, 2)), rtol=0.15)
    np.testing.assert_array_equal(channel_curvatures(layer, batches, 0)["weight"], found)


def test_8_bits_with_feedback_keep_the_outputs_better() -> None:
    network, nearest = small(), small()
    before = {name: network.get_parameter(name).detach().numpy().copy() for name in WEIGHTS}
    x = torch.rand(64, 2, 6, 6, generator=torch.Generator().manual_seed(5))
    wanted = network(x).detach()
    steps = round_finely(network, input_products(network, [(x,)]))
    assert round_finely(nearest, {}).keys() == steps.keys() == set(WEIGHTS)
    for name, values in before.items():
        rows = values.reshape(len(values), -1)
        np.testing.assert_allclose(steps[name], np.abs(rows).max(1) / 127, rtol=1e-6)
        codes = np.rint(rows / steps[name][:, None])
        found = nearest.get_parameter(name).detach().numpy().reshape(rows.shape)
        np.testing.assert_allclose(found, codes * steps[name][:, None], rtol=1e-5, atol=1e-8)
        made = network.get_parameter(name).detach().numpy().reshape(rows.shape)
        parts = made / steps[name][:, None]
        np.testing.assert_allclose(parts, np.rint(parts), atol=1e-3)
        assert np.abs(parts).max() < 127.5 and not np.array_equal(made, found)
    errors = [float((item(x) - wanted).square().mean().detach()) for item in (network, nearest)]
    assert errors[0] < 0.7 * errors[1]


def test_steps_reach_the_entropy_and_follow_the_curvatures() -> None:
    curvatures = {
        "0.weight": np.array([1, 4, 16, 1, 0, 1e8], np.float32),
        "3.weight": np.full(5, 4, np.float32),
    }
    for bits in (1.0, 2.5, 4.0):
        network = small()
        before = {name: network.get_parameter(name).detach().numpy().copy() for name in curvatures}
        steps = round_to_entropy(network, curvatures, bits, {})
        first, last = steps["0.weight"], steps["3.weight"]
        np.testing.assert_allclose(first[:4] / first[0], [1, 0.5, 0.25, 1], rtol=1e-6)
        np.testing.assert_allclose(last, first[1], rtol=1e-6)
        # nothing depends on the fifth channel; the extremes of the sixth have the greatest code
        assert first[4] == first[0]
        assert first[5] == pytest.approx(np.abs(before["0.weight"][5]).max() / 127)
        total = size = 0.0
        for name, weights in before.items():
            scale = steps[name].reshape(-1, *[1] * (weights.ndim - 1))
            codes = np.rint(weights / scale)
            made = network.get_parameter(name).detach().numpy()
            np.testing.assert_allclose(made, codes * scale, rtol=1e-6)
            total, size = total + entropy_bits(codes) * codes.size, size + codes.size
        assert bits - 0.05 < total / size <= bits
    with pytest.raises(InputError, match=r"cannot have an entropy of 7\.9 bits each"):
        round_to_entropy(small(), curvatures, 7.9, {})


def test_feedback_keeps_the_entropy_and_the_outputs() -> None:
    x = torch.randn(64, 2, 6, 6) + 1
    curvatures = {"0.weight": np.ones(6, np.float32), "3.weight": np.ones(5, np.float32)}
    errors: list[float] = []
    for known in ({}, input_products(small(), [(x,)])):
        network = small()
        wanted = network(x).detach()
        steps = round_to_entropy(network, curvatures, 3.0, known)
        found = {name: network.get_parameter(name).detach().numpy() for name in steps}
        codes = [
            np.rint(made / steps[name].reshape(-1, *[1] * (made.ndim - 1)))
            for name, made in found.items()
        ]
        total = sum(entropy_bits(item) * item.size for item in codes)
        assert 2.9 < total / sum(item.size for item in codes) <= 3
        errors.append(float((network(x) - wanted).square().mean().detach()))
    assert errors[1] < errors[0] / 2


def test_products_are_those_of_loops() -> None:
    torch.manual_seed(5)
    conv = nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
    grouped, linear = nn.Conv2d(3, 3, 1, groups=3), nn.Linear(7, 4)
    network, x = nn.Sequential(conv, grouped, linear), torch.randn(5, 2, 6, 7)
    made = input_products(network, [(x[:3],), (x[3:],)])
    assert set(made) == {"0.weight", "2.weight"}
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (2, 2)))
    rows: list[Any] = []
    for image in padded:
        for top in range(0, padded.shape[2] - 1, 2):
            for left in range(padded.shape[3] - 4):
                rows.append(image[:, top : top + 2, left : left + 5 : 2].reshape(-1))
    np.testing.assert_allclose(
        made["0.weight"], np.mean([np.outer(r, r) for r in rows], 0), rtol=1e-4
    )
    # a row times what it is multiplied with is what the layer makes, but for the bias
    outputs = np.stack(rows) @ conv.weight.detach().numpy().reshape(3, -1).T
    own = (conv(x) - conv.bias[:, None, None]).detach().permute(0, 2, 3, 1).reshape(-1, 3)
    np.testing.assert_allclose(outputs, own, rtol=1e-4, atol=1e-5)
    inner = grouped(conv(x)).detach().numpy().reshape(-1, 7)
    np.testing.assert_allclose(made["2.weight"], inner.T @ inner / len(inner), rtol=1e-4, atol=1e-6)


def test_feedback_is_the_least_squares_answer() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 6)).astype(np.float32)
    steps = np.array([0.5, 1.0, 0.02], np.float32)
    inputs = rng.standard_normal((40, 6)) @ rng.standard_normal((6, 6))
    products = inputs.T @ inputs / 40
    made = feedback_codes(values, steps, products)
    damped = products + 0.01 * np.diag(products).mean() * np.eye(6)
    for row, step, codes in zip(values.astype(float), steps.astype(float), made, strict=True):
        found: list[float] = []
        for at in range(6):
            # the weights not yet rounded are where the error of those before is least
            error = np.array(found) * step - row[:at]
            rest = row[at:] - np.linalg.solve(damped[at:, at:], damped[at:, :at] @ error)
            found.append(float(np.clip(np.rint(rest[0] / step), -127, 127)))
        assert codes.tolist() == found
    plain = np.rint(values / steps[:, None])
    np.testing.assert_array_equal(feedback_codes(values, steps, np.eye(6)), plain.clip(-127, 127))

    def error(codes: Any) -> Any:
        off = values - codes * steps[:, None]
        return np.einsum("ni,ij,nj->n", off, products, off)

    assert (error(made)[:2] < error(plain)[:2]).all()


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
