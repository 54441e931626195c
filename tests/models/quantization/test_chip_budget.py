"""Bits under the budget of a chip against every combination there is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton.errors import InputError
from lepton.models.quantization.chip_budget import CostNotes, choose_bits
from lepton.models.quantization.mixed_precision import Layer

CHOICES = (2, 4, 5, 8)


def drawn(seed: int, count: int) -> tuple[dict[str, Layer], dict[str, dict[int, int]]]:
    """Draw losses that fall with bits as noise does, by 6 dB each, and the cost of each layer."""
    rng = np.random.default_rng(seed)
    layers: dict[str, Layer] = {}
    costs: dict[str, dict[int, int]] = {}
    for number in range(count):
        scale, weights = 10 ** rng.uniform(-2, 0), int(rng.integers(5, 60))
        losses = {bits: float(scale * rng.uniform(0.5, 2) * 4.0**-bits) for bits in CHOICES}
        layers[f"l{number}"] = Layer(weights, losses)
        costs[f"l{number}"] = {bits: weights * bits + int(rng.integers(0, 9)) for bits in CHOICES}
    return layers, costs


def loss(layers: Mapping[str, Layer], bits: Mapping[str, int]) -> float:
    return sum(layer.losses[bits[name]] for name, layer in layers.items())


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_costs_that_add_up_give_the_best_of_all_combinations(seed: int, part: float) -> None:
    layers, costs = drawn(seed, 4)

    def evaluate(bits: Mapping[str, int]) -> int:
        return sum(costs[name][count] for name, count in bits.items())

    every = [dict(zip(layers, bits, strict=True)) for bits in product(CHOICES, repeat=4)]
    totals = [evaluate(bits) for bits in every]
    budget = int(min(totals) + part * (max(totals) - min(totals)))
    chosen = choose_bits(layers, budget, CostNotes(evaluate))
    assert evaluate(chosen.bits) == chosen.cost <= budget
    fitting = [loss(layers, bits) for bits in every if evaluate(bits) <= budget]
    assert loss(layers, chosen.bits) == chosen.loss == pytest.approx(min(fitting))
    assert chosen.evaluations < len(every) / 2


def test_costs_that_do_not_add_up_are_met_and_nearly_the_best() -> None:
    factors: list[float] = []
    for seed in range(60):
        layers, costs = drawn(seed, 4)

        def evaluate(
            bits: Mapping[str, int], costs: dict[str, dict[int, int]] = costs, seed: int = seed
        ) -> int:
            # layers of a pair hide behind each other, and one never gains below some cost
            row = [costs[name][count] for name, count in bits.items()]
            return max(row[0], row[1]) + max(row[2], 100 + seed) + row[3]

        every = [dict(zip(layers, bits, strict=True)) for bits in product(CHOICES, repeat=4)]
        totals = [evaluate(bits) for bits in every]
        budget = min(totals) + (max(totals) - min(totals)) * (1 + seed % 4) // 5
        chosen = choose_bits(layers, budget, CostNotes(evaluate))
        assert evaluate(chosen.bits) <= budget
        least = min(loss(layers, bits) for bits in every if evaluate(bits) <= budget)
        factors.append(chosen.loss / least)
    assert np.median(factors) == 1 and np.mean(np.array(factors) < 1.01) >= 0.9
    assert max(factors) < 4  # one bit of one layer


def test_what_cannot_be_met_names_the_least() -> None:
    layers, costs = drawn(1, 3)
    notes = CostNotes(lambda bits: sum(costs[name][b] for name, b in bits.items()), unit="cycles")
    least = sum(min(row.values()) for row in costs.values())
    message = f"a budget of {least - 1} cycles cannot be met: the least that was reached is {least}"
    with pytest.raises(InputError, match=message):
        choose_bits(layers, least - 1, notes)
    assert choose_bits(layers, least, notes).cost == least


def test_a_run_that_goes_on_asks_for_nothing_again(tmp_path: Path) -> None:
    layers, costs = drawn(2, 4)
    asked: list[tuple[int, ...]] = []

    def evaluate(bits: Mapping[str, int]) -> int:
        if len(asked) == 9 and not path.with_suffix(".killed").exists():
            path.with_suffix(".killed").touch()
            raise KeyboardInterrupt
        asked.append(tuple(bits.values()))
        return sum(costs[name][count] for name, count in bits.items())

    path = tmp_path / "costs.json"
    budget = sum(row[4] for row in costs.values())
    with pytest.raises(KeyboardInterrupt):
        choose_bits(layers, budget, CostNotes(evaluate, path))
    chosen = choose_bits(layers, budget, CostNotes(evaluate, path))
    assert len(asked) == len(set(asked)) == chosen.evaluations
    assert chosen == choose_bits(layers, budget, CostNotes(evaluate))
    path.write_text("[[1]]")
    with pytest.raises(InputError, match=r"costs\.json: damaged; remove it"):
        CostNotes(evaluate, path)
