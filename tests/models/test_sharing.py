"""Weight sharing: levels, gradients of codebooks, the int8 form."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.errors import InputError
from lepton.models.quantization import quantize_model
from lepton.models.sharing import Shared, SharingOptions, share, share_constants, share_weights
from tests.naive_quantization import nearest
from tests.sequential_onnx import sequential_onnx


@given(st.integers(0, 10_000), st.integers(2, 9), st.booleans())
def test_each_number_gets_its_nearest_level(seed: int, clusters: int, pruned: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((4, 9)).astype(np.float32)
    if pruned:
        values[rng.random(values.shape) < 0.6] = 0
    shared = share(values, clusters)
    assert len(shared.levels) <= clusters
    assert (np.diff(shared.levels) > 0).all()
    zeros = values == 0
    assert (shared.values[zeros] == 0).all()
    assert (shared.values[~zeros] != 0).all()
    levels = [float(level) for level in shared.levels if level != 0 or not zeros.any()]
    for x, found in zip(values[~zeros], shared.values[~zeros], strict=True):
        assert found == np.float32(levels[nearest(levels, float(x))])


def test_all_zeros_are_one_level() -> None:
    assert share(np.zeros(5), 4).levels.tolist() == [0]
    with pytest.raises(InputError, match="at least 2 clusters"):
        share([0, 1], 1)


def test_weights_that_are_not_finite_are_named() -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    with pytest.raises(InputError, match="numbers to share hold NaN"):
        share([1.0, np.nan], 2)

    def explode(module: Any) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(float("inf"))

    with pytest.raises(InputError, match=r"weight '0.weight' holds NaN .* lower its learning rate"):
        share_weights(copy.deepcopy(network), fine_tune=explode)
    with torch.no_grad():
        network[2].weight[1, 1] = float("nan")
    with pytest.raises(InputError, match=r"weight '2.weight' holds NaN or infinite numbers"):
        share_weights(network)
    with pytest.raises(InputError, match=r"weights '2.weight' hold NaN or infinite numbers"):
        share_constants(sequential_onnx(network, (1, 4)))


def test_importance_draws_levels() -> None:
    values = np.array([0.1, 0.2, 1.0, 1.2], np.float32)
    assert share(values, 1, importance=[0, 0, 0, 1]).levels.tolist() == [np.float32(1.2)]


def test_shared_constants_become_palettes() -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    torch.manual_seed(0)
    nn = torch.nn
    network = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    model = sequential_onnx(network, (1, 2, 6, 6))
    shared, codes = share_constants(model, SharingOptions({"0.weight": 6, "3.weight": 11}))
    data = np.random.default_rng(0).standard_normal((4, 2, 6, 6)).astype(np.float32)
    made = quantize_model(shared, data, weights=codes)
    from onnx import numpy_helper

    stored = {item.name: numpy_helper.to_array(item) for item in made.graph.initializer}
    assert len(np.unique(stored["0.weight_quantized"])) == 6
    assert len(np.unique(stored["3.weight_quantized"])) == 11
    with pytest.raises(InputError, match=r"no weights 'z' \(it has '0.weight', '3.weight'\)"):
        share_constants(model, SharingOptions({"z": 4}))
    with pytest.raises(InputError, match="clusters must be 1 to 255, not 256"):
        SharingOptions(256)


def test_the_gradient_of_a_level_is_the_sum_over_its_members() -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    from torch.nn.utils import parametrize

    from lepton.models.torch_sharing import SharedWeights

    levels = np.array([-1.0, 0.0, 2.0], np.float32)
    codes = np.array([[0, 1, 2, 2], [2, 0, 1, 0]])
    layer = torch.nn.Linear(4, 2, bias=False)
    parametrize.register_parametrization(layer, "weight", SharedWeights(Shared(levels, codes)))
    assert [tuple(p.shape) for p in layer.parameters()] == [(3,)]
    np.testing.assert_array_equal(layer.weight.detach().numpy(), levels[codes])
    x = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    (layer(x) * torch.tensor([[1.0, 10.0]])).sum().backward()
    found = layer.parametrizations.weight.original.grad.tolist()
    by_weight = np.array([[1, 2, 3, 5], [10, 20, 30, 50]])
    assert found == [by_weight[codes == 0].sum(), 0, by_weight[codes == 2].sum()]


def test_fine_tuning_moves_levels_and_keeps_zeros_and_members() -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    with torch.no_grad():
        network[0].weight[network[0].weight.abs() < 0.1] = 0
    x = torch.randn(64, 6)
    target = network(x).detach()
    zeros = network[0].weight.detach() == 0
    losses: list[float] = []

    def fine_tune(shared: Any) -> None:
        optimizer = torch.optim.Adam(shared.parameters(), 0.01)
        for _ in range(60):
            optimizer.zero_grad()
            loss = (shared(x) - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))

    codes = share_weights(network, SharingOptions(4), fine_tune=fine_tune)
    assert losses[-1] < losses[0] / 2
    assert set(codes) == {"0.weight", "2.weight"}
    weight = network[0].weight.detach()
    assert ((weight == 0) == zeros).all()
    assert len(torch.unique(weight)) == 4
    assert isinstance(network[0].weight, torch.nn.Parameter)
    np.testing.assert_array_equal(weight.numpy(), codes["0.weight"].values)
    assert len(np.unique(codes["0.weight"].codes)) == 4


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_recurrences_compute_with_shared_weights(kind: str) -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    torch.manual_seed(1)
    layer, x = getattr(torch.nn, kind)(3, 4), torch.randn(5, 2, 3)
    during: list[Any] = []

    def fine_tune(shared: Any) -> None:
        made = shared(x)[0]
        made.sum().backward()
        during.append(made.detach())
        levels = shared.parametrizations.weight_hh_l0.original
        assert levels.shape == (3,)
        assert levels.grad.abs().min() > 0

    before = layer(x)[0].detach()
    codes = share_weights(layer, SharingOptions(3), fine_tune=fine_tune)
    assert set(codes) == {"weight_ih_l0", "weight_hh_l0"}
    assert not torch.allclose(before, during[0], atol=1e-3)
    # int8 rounds levels, so a little differs
    after = layer(x)[0].detach()
    assert torch.allclose(after, during[0], atol=0.02)
    plain = getattr(torch.nn, kind)(3, 4)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(plain(x)[0], after)


def test_masked_weights_are_refused() -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    from torch.nn.utils import parametrize

    layer = torch.nn.Linear(3, 2)
    parametrize.register_parametrization(layer, "weight", torch.nn.Identity())
    with pytest.raises(InputError, match="weight 'weight' is parametrized"):
        share_weights(layer)


@pytest.mark.parametrize("bits", [2, 5])
def test_levels_are_trained_on_the_codes_that_are_stored(bits: int) -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    torch.manual_seed(0)
    network = torch.nn.Linear(40, 7)
    seen: list[Any] = []

    def fine_tune(module: Any) -> None:
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        for _ in range(5):
            optimizer.zero_grad()
            module(torch.ones(3, 40)).square().sum().backward()
            optimizer.step()
        with torch.no_grad():
            seen.append(module.weight.clone())

    before = network.weight.detach().clone()
    most = 2 ** (bits - 1) - 1
    made = share_weights(
        network, SharingOptions(min(6, 2 * most + 1), bits=bits), fine_tune=fine_tune
    )
    (weights,) = made.values()
    assert len(np.unique(weights.codes)) <= min(6, 2 * most + 1)
    assert np.abs(weights.codes).max() == most
    np.testing.assert_array_equal(network.weight.detach().numpy(), weights.values)
    torch.testing.assert_close(seen[0], network.weight.detach())
    assert (before - seen[0]).abs().max() > 0.01


def test_what_shares_and_quantizes_says_what_it_takes() -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    module: Any = torch.nn.Linear(4, 2)
    model: Any = sequential_onnx(torch.nn.Sequential(module), (1, 4))
    wrong: list[tuple[Any, str]] = [(model, "ModelProto"), ("net.onnx", "str")]
    for network, kind in wrong:
        with pytest.raises(InputError, match=f"takes a PyTorch network, not a {kind}: .*constants"):
            share_weights(network)
    with pytest.raises(InputError, match=r"quantize_model takes float ONNX, .* not a PyTorch netw"):
        quantize_model(module, np.zeros((1, 4), np.float32))
    with pytest.raises(InputError, match="codes of shared weights have 2 to 8 bits, not 1"):
        SharingOptions(2, bits=1)
