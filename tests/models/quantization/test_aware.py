"""Quantization-aware training against formulas, and against the file that comes of it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.quantization import (
    AwareOptions,
    FileOptions,
    IntegerWeights,
    Scheme,
    Uniform,
    quantize_model,
    train_quantized,
)
from tests.sequential_onnx import run_onnx, sequential_onnx

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
nn = torch.nn


def fake(weight: Any, bits: int, axis: int | None = 0, learned: bool = False) -> Any:
    from lepton.models.quantization.torch_fake import FakeWeights

    return FakeWeights(weight, bits, axis, learned)


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_rounded_weights_are_those_of_the_file(bits: int, axis: int | None) -> None:
    torch.manual_seed(bits)
    weight = torch.randn(6, 5, 3, requires_grad=True)
    step = fake(weight, bits, axis)
    made = step(weight)
    expected = IntegerWeights.of_values(weight.detach().numpy(), bits, axis)
    np.testing.assert_array_equal(made.detach().numpy(), expected.values)
    stored = step.stored(made.detach())
    np.testing.assert_array_equal(stored.codes, expected.codes)
    np.testing.assert_array_equal(stored.scale, expected.scale)
    gradient = torch.randn(6, 5, 3)
    made.backward(gradient)
    # inside the range of the extremes all gradients pass
    torch.testing.assert_close(weight.grad, gradient)


def test_a_learned_scale_has_the_gradient_of_its_paper() -> None:
    weight = torch.tensor([[0.1, -0.74, 1.9, -3.0]], requires_grad=True)
    step = fake(torch.tensor([[0.0, 0.0, 0.0, 1.5]]), 3, 0, learned=True)
    assert step.scale.tolist() == [[0.5]]
    step(weight).sum().backward()
    high, s = 3, 0.5
    slopes = []
    for w in weight.detach().flatten().tolist():
        inside = -high <= w / s <= high
        slopes.append(round(w / s) - w / s if inside else (high if w > 0 else -high))
    assert float(step.scale.grad) == pytest.approx(sum(slopes) / (4 * high) ** 0.5, rel=1e-5)
    assert weight.grad.tolist() == [[1, 1, 0, 0]]
    assert step.stored(step(weight).detach()).codes.tolist() == [[0, -1, 3, -3]]


def test_a_learned_level_of_one_bit_has_the_gradient_of_its_signs() -> None:
    weight = torch.tensor([[0.5, -0.25], [0.0, 4.0]], requires_grad=True)
    step = fake(weight, 1, None, learned=True)
    assert float(step.scale.detach()) == 4.75 / 4
    step(weight).backward(torch.tensor([[1.0, 10.0], [100.0, 1000.0]]))
    assert float(step.scale.grad) == pytest.approx((1 - 10 + 100 + 1000) / 2)
    assert weight.grad.tolist() == [[1, 10], [100, 1000]]


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_activations_are_rounded_as_their_range_says(bits: int) -> None:
    from lepton.models.quantization.torch_fake import FakeActivation

    torch.manual_seed(0)
    observer = FakeActivation(bits, 0.25)
    batches = [torch.randn(50) + 0.5 for _ in range(3)]
    least = greatest = None
    for batch in batches:
        observer(batch)
        low, high = float(batch.min()), float(batch.max())
        least = low if least is None else least + 0.25 * (low - least)
        greatest = high if greatest is None else greatest + 0.25 * (high - greatest)
    assert observer.limits == pytest.approx((least, greatest), rel=1e-5)
    observer.eval()
    values = torch.randn(200, requires_grad=True)
    grid = Uniform.of_limits(observer.limits, bits, symmetric=False)
    made = observer(values)
    expected = grid.dequantize(grid.quantize(values.detach().numpy()))
    np.testing.assert_array_equal(made.detach().numpy(), expected)
    made.sum().backward()
    codes = np.rint(values.detach().numpy() / grid.scale) + grid.zero_point
    inside = (codes >= grid.low) & (codes <= grid.high)
    assert values.grad.numpy().tolist() == inside.astype(float).tolist()


def test_nothing_is_rounded_before_a_range_is_known() -> None:
    from lepton.models.quantization.torch_fake import FakeActivation

    observer = FakeActivation(8, 0.1).eval()
    values = torch.randn(5)
    assert torch.equal(observer(values), values)


class Residual(nn.Module):
    """A block whose sum and activation are functions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))

    def forward(self, x: Any) -> Any:
        return torch.relu(self.body(x) + x)


def test_points_are_where_results_have_ranges() -> None:
    from lepton.models.quantization.torch_points import activation_points

    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), Residual(),
        nn.Flatten(), nn.Linear(36, 8), nn.Sigmoid(), nn.Dropout(), nn.Linear(8, 2),
    )  # fmt: skip
    network.train()
    points = activation_points(network, [torch.randn(1, 1, 8, 8)])
    assert points == ["1", "3.body.1", "3", "5", "6", "8"]
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def small(bias: bool = True) -> Any:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=bias), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, bias=bias),
        nn.ReLU(), nn.Flatten(), nn.Linear(24, 5, bias=bias),
    )  # fmt: skip


# the file rounds biases to multiples of the input's scale times the weights', training does not
@pytest.mark.parametrize(("bias", "steps", "differing"), [(False, 1, 0.01), (True, 2, 0.4)])
def test_the_file_computes_what_was_trained(bias: bool, steps: int, differing: float) -> None:
    network, x = small(bias), torch.randn(64, 2, 10, 10)
    target = x[:, 0, 2:7].mean(-1)
    trained_outputs: list[np.ndarray] = []
    losses: list[float] = []

    def fine_tune(aware: Any) -> None:
        aware.train()
        optimizer = torch.optim.Adam(aware.parameters(), 1e-2)
        for _ in range(30):
            optimizer.zero_grad()
            loss = (aware(x) - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        aware.eval()
        with torch.no_grad():
            trained_outputs.append(aware(x).numpy())

    trained = train_quantized(network, [x[:1]], fine_tune, AwareOptions(4, momentum=0.2))
    assert losses[-1] < losses[0] / 2
    assert {name: np.abs(w.codes).max() for name, w in trained.weights.items()} == {
        "0.weight": 7, "3.weight": 7, "6.weight": 7
    }  # fmt: skip
    ranges = {{"input 0": "x", "6": "y"}.get(k, f"h{k}"): v for k, v in trained.ranges.items()}
    assert set(ranges) == {"x", "h1", "h4", "y"}
    model = sequential_onnx(network, (1, 2, 10, 10))
    made = quantize_model(
        model, x.numpy(), weights=trained.weights, options=FileOptions(ranges=ranges)
    )
    low, high = ranges["y"]
    step = (high - low) / 255
    difference = np.abs(run_onnx(made, x.numpy()) - trained_outputs[0])
    assert difference.max() <= (steps + 0.01) * step
    assert (difference > 0.01 * step).mean() <= differing


def test_learned_scales_train_and_are_stored() -> None:
    network, x = small(), torch.randn(32, 2, 10, 10)
    target = network(x).detach()

    def fine_tune(aware: Any) -> None:
        optimizer = torch.optim.Adam(aware.parameters(), 3e-3)
        for _ in range(10):
            optimizer.zero_grad()
            (aware(x) - target).square().mean().backward()
            optimizer.step()

    before = network[0].weight.detach().numpy().copy()
    options = AwareOptions({"0.weight": 2, "3.weight": 3}, None, learned_scales=True)
    trained = train_quantized(network, [x[:1]], fine_tune, options)
    assert trained.ranges == {}
    weights = trained.weights["0.weight"]
    assert set(np.unique(weights.codes)) <= {-1, 0, 1}
    assert np.abs(trained.weights["3.weight"].codes).max() <= 3
    fitted = Scheme(2, axis=0).fit(before)
    assert isinstance(fitted, Uniform)
    assert (weights.scale != fitted.scale).any()
    np.testing.assert_array_equal(network[0].weight.detach().numpy(), weights.values)


@pytest.mark.parametrize("kind", ["GRU", "MultiheadAttention", "Embedding", "ConvTranspose2d"])
def test_every_kind_of_layer_computes_with_rounded_weights(kind: str) -> None:
    torch.manual_seed(0)
    layer, inputs = {
        "GRU": lambda: (nn.GRU(3, 4), [torch.randn(5, 2, 3)]),
        "MultiheadAttention": lambda: (nn.MultiheadAttention(8, 2), [torch.randn(5, 2, 8)] * 3),
        "Embedding": lambda: (nn.Embedding(7, 3), [torch.tensor([1, 6])]),
        "ConvTranspose2d": lambda: (nn.ConvTranspose2d(3, 2, 2), [torch.randn(1, 3, 4, 4)]),
    }[kind]()
    during: list[Any] = []

    def result(module: Any) -> Any:
        made = module(*inputs)
        return (made[0] if isinstance(made, tuple) else made).detach()

    plain = result(layer)
    trained = train_quantized(
        layer, inputs, lambda aware: during.append(result(aware)), AwareOptions(3, None)
    )
    assert trained.weights
    assert not torch.allclose(plain, during[0], atol=1e-3)
    torch.testing.assert_close(result(layer), during[0])


def test_an_aware_network_resumes_from_its_state() -> None:
    from lepton.models.quantization.torch_aware import QuantizationAware

    x = torch.randn(4, 2, 10, 10)
    first = QuantizationAware(small(), [x[:1]], AwareOptions(5))
    first.train()
    first(x)
    second = QuantizationAware(small(), [x[:1]], AwareOptions(5))
    second.load_state_dict(first.state_dict())
    assert second.limits() == first.limits()
    assert torch.equal(second.eval()(x), first.eval()(x))


def test_refusals() -> None:
    with pytest.raises(InputError, match="weights have 1 to 8 bits, not 9"):
        AwareOptions(9)
    with pytest.raises(InputError, match="activations have 1 to 16 bits, not 0"):
        AwareOptions(activation_bits=0)
    with pytest.raises(InputError, match="no weights 'w'"):
        train_quantized(small(), [], lambda _: None, AwareOptions({"w": 5}))


def test_weights_and_ranges_that_are_not_finite_are_named() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    example = [torch.ones(2, 4)]

    def explode(module: Any) -> None:
        with torch.no_grad():
            module.network[0].parametrizations.weight.original.fill_(float("nan"))

    with pytest.raises(InputError, match=r"weight '0.weight' holds NaN .* lower its learning rate"):
        train_quantized(copy.deepcopy(network), example, explode)

    def see(module: Any) -> None:
        module.train()
        module(torch.full((2, 4), float("inf")))

    with pytest.raises(InputError, match="the range of 'input 0' must be finite"):
        train_quantized(copy.deepcopy(network), example, see)
    with torch.no_grad():
        network[2].weight[1, 1] = float("inf")
    with pytest.raises(InputError, match=r"weight '2.weight' holds NaN or infinite numbers"):
        train_quantized(network, example, lambda _: None)
    with pytest.raises(InputError, match="momentum must be 0 to 1, not nan"):
        AwareOptions(momentum=float("nan"))
    with pytest.raises(InputError, match=r"steps of '0.weight' hold NaN"):
        AwareOptions(steps={"0.weight": np.array([np.nan], np.float32)})
