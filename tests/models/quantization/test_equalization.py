"""Equalization, bias correction and folding: what changes and what must not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.quantization import (
    IntegerWeights,
    correct_biases,
    equalize,
    equalizing_factors,
    fold_batch_norms,
    measure_sensitivity,
)

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
nn = torch.nn


def test_factors_make_ranges_equal() -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((4, 3, 2)) * [[[5]], [[1]], [[0.1]], [[1]]]
    second = rng.standard_normal((6, 4, 3))
    second[:, 3] = 0
    factors = equalizing_factors(first, second)
    for channel in range(4):
        r1 = max(abs(x) for x in first[channel].flatten())
        r2 = max(abs(x) for x in second[:, channel].flatten())
        expected = (r1 * r2) ** 0.5 / r2 if r2 else 1
        assert factors[channel] == pytest.approx(expected, rel=1e-6)
        if r2:
            assert r1 / factors[channel] == pytest.approx(r2 * factors[channel], rel=1e-5)


class Mixed(nn.Module):
    """Depthwise and dense convolutions, a residual sum, a linear layer behind images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.point = nn.Conv2d(4, 6, 1)
        self.norm = nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(6 * 16, 5)
        self.last = nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.stem(x))
        x = nn.functional.relu(self.depthwise(x))
        x = self.norm(self.point(x)).relu()
        x = self.pool((x + self.inner_norm(self.inner(x))).relu())
        return self.last(torch.relu(self.hidden(torch.flatten(x, 1))))


def mixed() -> Any:
    torch.manual_seed(0)
    network = Mixed()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(-2, 2)
                module.bias.normal_()
        network.stem.weight *= torch.tensor([10, 1, 0.1, 3]).reshape(-1, 1, 1, 1)
    return network.eval()


def test_folding_keeps_what_a_network_computes() -> None:
    network, x = mixed(), torch.randn(3, 2, 8, 8)
    before = network(x)
    assert fold_batch_norms(network, [x]) == 2
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-4)


def test_a_result_that_is_read_twice_is_not_folded() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

        def forward(self, x: Any) -> Any:
            y = self.layer(x)
            return self.norm(y) + y

    network, x = Twice(), torch.randn(2, 3)
    assert fold_batch_norms(network, [x]) == 0
    assert isinstance(network.norm, nn.BatchNorm1d)


def test_equalization_keeps_what_a_network_computes() -> None:
    network, x = mixed(), torch.randn(3, 2, 8, 8)
    fold_batch_norms(network, [torch.zeros(1, 2, 8, 8)])
    before = network(x).detach()
    # stem - depthwise - point, and hidden - last; the sum ends the others
    assert equalize(network, [x]) == 3
    torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-4)
    ranges = network.stem.weight.abs().amax((1, 2, 3))
    read = network.depthwise.weight.abs().amax((1, 2, 3))
    torch.testing.assert_close(ranges, read, rtol=1e-3, atol=0)


def test_unequal_channels_round_better_once_equalized() -> None:
    torch.manual_seed(2)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 8)
    ).eval()
    x = torch.randn(16, 3, 6, 6)
    before = network(x).detach()
    factors = torch.logspace(-2, 2, 16)
    with torch.no_grad():
        network[0].weight *= factors.reshape(-1, 1, 1, 1)
        network[0].bias *= factors
        network[4].weight /= factors.repeat_interleave(4)

    def error() -> float:
        return float((rounded(network)(x) - before).square().mean().detach())

    unequal = error()
    assert equalize(network, [x]) == 1
    assert error() < unequal / 10


def rounded(network: Any, bits: int = 6) -> Any:
    """Return a copy whose weights have n bits and one scale for each layer."""
    made = copy.deepcopy(network)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                codes = IntegerWeights.of_values(module.weight.numpy(), bits, None)
                module.weight.copy_(torch.from_numpy(codes.values))
    return made


def test_corrected_biases_leave_no_mean_error() -> None:
    network = mixed()
    fold_batch_norms(network, [torch.zeros(1, 2, 8, 8)])
    network.inner.bias = None
    batches = [torch.rand(8, 2, 8, 8) for _ in range(3)]
    quantized = rounded(network, 3)
    weights = quantized.stem.weight.clone()
    correct_biases(network, quantized, lambda: batches)
    assert torch.equal(quantized.stem.weight, weights)
    for path in ("stem", "inner", "hidden", "last"):
        means = [channel_means(net, path, batches) for net in (network, quantized)]
        np.testing.assert_allclose(means[0], means[1], atol=1e-4)


def channel_means(network: Any, path: str, batches: list[Any]) -> list[float]:
    made: list[Any] = []
    handle = network.get_submodule(path).register_forward_hook(
        lambda _m, _i, y: made.append(y.detach())
    )
    for batch in batches:
        network(batch)
    handle.remove()
    return [float(torch.cat(made)[:, c].mean()) for c in range(made[0].shape[1])]


def test_replaced_weights_are_refused() -> None:
    from torch.nn.utils import parametrize

    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    parametrize.register_parametrization(network[2], "weight", nn.Identity())

    def measure(given: Any, _example: Any) -> Any:
        return measure_sensitivity(given, lambda _: 0.0)

    for function in (equalize, fold_batch_norms, measure):
        with pytest.raises(InputError, match=r"weight '2.weight' is parametrized"):
            function(network, [torch.randn(1, 3)])


@pytest.mark.parametrize("kept", ["returned", "in place", "called twice", "shared reader", "tied"])
def test_what_is_read_elsewhere_is_no_pair(kept: str) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            y = self.first(x)
            if kept == "returned":
                return self.second(torch.relu(y)), y
            if kept == "in place":
                return self.second(y.relu_())
            if kept == "called twice":
                return self.second(torch.relu(self.first(torch.relu(y))))
            if kept == "tied":
                return nn.functional.linear(self.second(torch.relu(y)), self.first.weight)
            return self.second(torch.relu(y)) + y.sum()

    assert equalize(Pair(), [torch.randn(2, 4)]) == (kept == "in place")
