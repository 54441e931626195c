"""Bits under budgets against every combination there is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.errors import InputError
from lepton.models.quantization import (
    IntegerWeights,
    Layer,
    bits_for_cost,
    bits_for_size,
    measure_sensitivity,
)

CHOICES = (2, 4, 5, 8)


def drawn(seed: int, count: int = 4) -> dict[str, Layer]:
    rng = np.random.default_rng(seed)
    layers = {}
    for number in range(count):
        losses = np.sort(rng.integers(0, 40, len(CHOICES)) / 8)[::-1]
        losses[0] -= 3 * (seed % 3 == 0)  # measured losses need not fall with bits
        weights = int(rng.integers(1, 60))
        layers[f"l{number}"] = Layer(weights, dict(zip(CHOICES, losses.tolist(), strict=True)))
    return layers


def size(layers: Mapping[str, Layer], bits: Mapping[str, int]) -> int:
    return sum((layer.weights * bits[name] + 7) // 8 for name, layer in layers.items())


def loss(layers: Mapping[str, Layer], bits: Mapping[str, int]) -> float:
    return sum(layer.losses[bits[name]] for name, layer in layers.items())


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_size_is_the_best_of_all_combinations(seed: int, part: float) -> None:
    layers = drawn(seed)
    every = [dict(zip(layers, bits, strict=True)) for bits in product(CHOICES, repeat=4)]
    sizes = [size(layers, bits) for bits in every]
    budget = int(min(sizes) + part * (max(sizes) - min(sizes)))
    chosen = bits_for_size(layers, budget)
    assert size(layers, chosen) <= budget
    least = min(loss(layers, bits) for bits in every if size(layers, bits) <= budget)
    assert loss(layers, chosen) == pytest.approx(least)
    with pytest.raises(InputError, match=f"need {min(sizes)} bytes, the budget has"):
        bits_for_size(layers, min(sizes) - 1)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_cost_fits_its_budget_and_steps_are_the_best_of_their_time(seed: int, part: float) -> None:
    layers = drawn(seed, 3)
    rng = np.random.default_rng(seed)
    cycles = {name: rng.integers(1, 9) for name in layers}

    def evaluate(bits: Mapping[str, int]) -> float:
        # a layer bound by its MACs gains nothing below 5 bits
        return float(sum(cycles[name] * max(bits[name], 5 - 3 * (name == "l0")) for name in layers))

    least = evaluate(dict.fromkeys(layers, 2))
    budget = least + part * (evaluate(dict.fromkeys(layers, 8)) - least)
    asked: list[dict[str, int]] = []

    def noting(bits: Mapping[str, int]) -> float:
        asked.append(dict(bits))
        return evaluate(bits)

    chosen = bits_for_cost(layers, budget, noting)
    assert evaluate(chosen) <= budget
    assert asked[0] == dict.fromkeys(layers, 8)
    assert chosen == naive_greedy(layers, budget, evaluate)
    with pytest.raises(InputError, match="the fewest bits cost"):
        bits_for_cost(layers, least - 1, evaluate)


def naive_greedy(layers: Mapping[str, Layer], budget: float, evaluate: Any) -> dict[str, int]:
    bits = dict.fromkeys(layers, 8)
    while evaluate(bits) > budget:
        best, step = None, None
        for name in layers:
            place = CHOICES.index(bits[name])
            if place == 0:
                continue
            trial = {**bits, name: CHOICES[place - 1]}
            saved = evaluate(bits) - evaluate(trial)
            lost = layers[name].losses[trial[name]] - layers[name].losses[bits[name]]
            key = (saved / max(lost, 1e-12) if saved > 0 else 0, -lost, name)
            if best is None or key > best:
                best, step = key, trial
        assert step is not None
        bits = step
    return bits


def test_a_budget_that_all_fit_keeps_all_bits() -> None:
    layers = {"a": Layer(8, {2: 1.0, 8: 0.0})}
    assert bits_for_cost(layers, 8, lambda bits: bits["a"]) == {"a": 8}
    assert bits_for_size(layers, 8) == {"a": 8}
    assert bits_for_size(layers, 7) == {"a": 2}


def test_sensitivity_is_the_loss_of_one_rounded_layer() -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
    x = torch.randn(20, 5)
    target = network(x).detach()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def measured(module: Any) -> float:
        with torch.no_grad():
            return float((module(x) - target).square().mean())

    layers = measure_sensitivity(network, measured, (2, 4))
    assert {name: layer.weights for name, layer in layers.items()} == {
        "0.weight": 35,
        "2.weight": 21,
    }
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for name, layer in layers.items():
        for bits in (2, 4):
            codes = IntegerWeights.of_values(before[name].numpy(), bits)
            state = {**before, name: torch.from_numpy(codes.values)}
            network.load_state_dict(state)
            assert layer.losses[bits] == pytest.approx(measured(network), rel=1e-5)
        network.load_state_dict(before)
