"""Bits under a budget on a real chip: against every assignment, compiled and simulated."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import lepton
from lepton.errors import InputError
from lepton.explore.bits import ChipBudget, Unit, choose_for
from lepton.models.export import float_model
from lepton.models.quantization import (
    IntegerWeights,
    bits_for_size,
    measure_sensitivity,
    quantize_model,
)
from lepton.models.quantization.onnx_file import prepared_model
from lepton.models.quantization.onnx_weights import stored_codes, weight_axes
from lepton.models.quantization.output_noise import measure_output_noise
from lepton.models.zoo import network_named
from lepton.report.traffic import weight_stream_bytes

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")

CHOICES = (2, 4, 8)
BEST = 1.05
"""The choice has at most so many times the noise of the best of all assignments."""


def network(**widths: Any) -> tuple[Any, onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a small CNN of the zoo with three layers, as ONNX, and samples for it."""
    entry = network_named("digits_cnn")
    module = entry.build(3, **widths).eval()
    images = np.random.default_rng(0).random((16, 1, 8, 8), np.float32)
    return module, float_model(module, entry.inputs, entry.output), {"image": images}


def measured(model: onnx.ModelProto, unit: Unit) -> int:
    """Return what the program of an int8 model takes, as a user would find out."""
    program = lepton.compile(model, "nano")
    lepton.check(program)
    trace = lepton.simulate(program).trace
    assert trace is not None
    return trace.cycles if unit is Unit.CYCLES else int(weight_stream_bytes(program).sum())


@pytest.mark.parametrize("unit", list(Unit))
def test_the_budget_is_met_at_nearly_the_least_noise(unit: Unit, tmp_path: Path) -> None:
    _, model, samples = network()
    prepared = prepared_model(model)
    layers = measure_output_noise(
        prepared, {name: array[:, None] for name, array in samples.items()}, CHOICES
    )
    every: dict[tuple[int, ...], int] = {}
    noise: dict[tuple[int, ...], float] = {}
    for bits in product(CHOICES, repeat=len(layers)):
        named = dict(zip(layers, bits, strict=True))
        every[bits] = measured(quantize_model(model, samples, bits=named), unit)
        noise[bits] = sum(layers[name].losses[count] for name, count in named.items())
    assert len(layers) == 3 and min(every.values()) < max(every.values()) / 2
    low, high = min(every.values()), max(every.values())
    chip = lepton.load_chip("nano")
    for part in (0, 20, 45, 70, 100):
        budget = ChipBudget(chip, low + (high - low) * part // 100, unit)
        chosen = choose_for(budget, model, samples, CHOICES, tmp_path)
        key = tuple(chosen.bits.values())
        assert chosen.cost == every[key] <= budget.limit
        least = min(noise[bits] for bits, cost in every.items() if cost <= budget.limit)
        assert chosen.loss == pytest.approx(noise[key], rel=1e-5)
        assert noise[key] <= BEST * least
    with pytest.raises(InputError, match=rf"{unit} on nano cannot be met: .* reached is {low:,}$"):
        choose_for(ChipBudget(chip, low - 1, unit), model, samples, CHOICES, tmp_path)


def test_noise_is_that_of_the_module_with_one_layer_rounded() -> None:
    module, model, samples = network()
    layers = measure_output_noise(
        prepared_model(model), {"image": samples["image"][:, None]}, (2, 5)
    )
    last = module[-1]
    kept = last.weight.detach().clone()
    images = torch.from_numpy(samples["image"])
    with torch.no_grad():
        whole = module(images).double()
        for bits in (2, 5):
            codes = IntegerWeights.of_values(kept.numpy(), bits)
            last.weight.copy_(torch.from_numpy(codes.values))
            expected = (module(images).double() - whole).square().sum() / whole.square().sum()
            assert layers["8.weight"].losses[bits] == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("name", ["digits_cnn", "resnet8", "intent_transformer"])
def test_bits_of_a_modules_parameters_are_those_of_its_file(name: str) -> None:
    entry = network_named(name)
    module = entry.build(0).eval()
    rng = np.random.default_rng(0)
    samples: dict[str, np.ndarray] = {
        feed.name: rng.integers(0, feed.ids, (4, *feed.shape))
        if feed.ids
        else rng.random((4, *feed.shape), np.float32)
        for feed in entry.inputs
    }
    arrays = [torch.from_numpy(array) for array in samples.values()]
    with torch.no_grad():
        target = module(*arrays)

    def lost(trial: Any) -> float:
        with torch.no_grad():
            return float((trial(*arrays) - target).square().mean())

    layers = measure_sensitivity(module, lost, (2, 4, 8))
    bits = bits_for_size(layers, sum(layer.stored_bytes(4) for layer in layers.values()) * 11 // 10)
    assert len(set(bits.values())) > 1
    model = float_model(module, entry.inputs, entry.output)
    made = quantize_model(model, samples, bits=bits)
    counts: dict[int, int] = {}
    for weights in weight_axes(prepared_model(model).graph):
        codes = stored_codes(made.graph, weights)
        used = int(np.abs(codes).max()).bit_length() + 1
        counts[used] = counts.get(used, 0) + codes.size
    expected: dict[int, int] = {}
    for each, count in bits.items():
        expected[count] = expected.get(count, 0) + layers[each].weights
    assert counts == expected


def test_just_one_budget_is_given() -> None:
    _, model, samples = network()
    with pytest.raises(InputError, match="give one of budget_bytes and budget_cycles"):
        lepton.bits_for_chip(model, "nano", samples)
    with pytest.raises(InputError, match="give one of budget_bytes and budget_cycles"):
        lepton.bits_for_chip(model, "nano", samples, budget_bytes=1, budget_cycles=1)
    with pytest.raises(InputError, match="a budget must be at least 1, not 0"):
        lepton.bits_for_chip(model, "nano", samples, budget_cycles=0)
    with pytest.raises(InputError, match="choices must hold at least one"):
        lepton.bits_for_chip(model, "nano", samples, budget_cycles=9, choices=())
    with pytest.raises(InputError, match="weights have 1 to 8 bits, not 9"):
        lepton.bits_for_chip(model, "nano", samples, budget_cycles=9, choices=(9,))


def test_an_open_batch_is_one_sample() -> None:
    _, model, samples = network()
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    for item in (*opened.graph.input, *opened.graph.output):
        item.type.tensor_type.shape.dim[0].dim_param = "batch"
    chosen = [
        lepton.bits_for_chip(each, "nano", samples, budget_bytes=2_500, choices=(2, 8), effort=0)
        for each in (model, opened)
    ]
    assert chosen[0] == chosen[1] and set(chosen[0].values()) == {2, 8}
