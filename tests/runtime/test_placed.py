from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import lepton
from lepton.errors import CompileError, InputError
from lepton.runtime.devices import (
    CpuDevice,
    Prepared,
)
from lepton.runtime.devices.library import drawn_inputs
from lepton.runtime.devices.profile import Profile
from lepton.runtime.devices.rates import Rates
from lepton.runtime.golden import GoldenModel
from lepton.runtime.placed import prepare_plan
from lepton.runtime.placement import Goal
from lepton.runtime.plan import place_network
from lepton.runtime.split import Network, read_network
from tests.runtime.mixed_network import mixed_network
from tests.runtime.twin import TwinDevice, unmeasured_cpu


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("placed") / "mixed.onnx"
    path.write_bytes(mixed_network())
    return path


@pytest.fixture(scope="module")
def network(path: Path) -> Network:
    return read_network(path)


@dataclass
class _Other(TwinDevice):
    """A device that may refuse a region."""

    refused: int = -1

    def prepare(self, network: Network, units: Sequence[int]) -> Prepared:
        if self.refused in units:
            raise CompileError("refused")
        return super().prepare(network, units)


@pytest.mark.parametrize(
    "pins",
    [
        {},
        {"n_c0": "cpu"},
        {"n_c1": "cpu", "n_c2": "other"},
        {"n_c0": "other", "n_c1": "cpu", "n_c2": "cpu", "n_s": "other"},
    ],
)
def test_any_placement_gives_golden_bytes(
    network: Network, path: Path, pins: dict[str, str]
) -> None:
    plan = place_network(network, [TwinDevice(), unmeasured_cpu()], pins=pins)
    pairs = zip(network.units, plan.placement, strict=True)
    placed = {unit.name: plan.devices[device].name for unit, device in pairs}
    assert {layer: placed[layer] for layer in pins} == pins
    values = drawn_inputs(network, network.inputs)
    made = prepare_plan(plan, pins).run(values).outputs
    assert made["y"].tobytes() == GoldenModel(path).run(values)["y"].tobytes()


def test_npu_and_cpu_together_give_golden_bytes(path: Path, network: Network) -> None:
    model = lepton.load_model(path, "nano", devices=["npu", "cpu"])
    used = {model.plan.devices[region.device].name for region in model.plan.regions}
    values = drawn_inputs(network, network.inputs)
    execution = model.run(values)
    expected = GoldenModel(path).run(values)["y"]
    assert execution.outputs["y"].tobytes() == expected.tobytes()
    clocks = {bar.row: bar.clock for bar in execution.timeline.bars}
    assert clocks["cpu"] == "measured"
    assert ("npu" in used) == (clocks.get("npu") == "simulated")
    assert all(clock == "modelled" for row, clock in clocks.items() if "->" in row)
    batch = model.predict(values["x"].repeat(2, 0))
    assert batch.tobytes() == expected.repeat(2, 0).tobytes()


def test_regions_can_run_one_after_the_other(network: Network) -> None:
    pins = {"n_c0": "other", "n_c1": "cpu", "n_c2": "other", "n_s": "cpu"}
    plan = place_network(network, [TwinDevice(), unmeasured_cpu()], pins=pins)
    known = set(network.inputs)
    for region in plan.regions:
        assert set(region.inputs) <= known
        known |= set(region.outputs)
    assert sorted(unit for region in plan.regions for unit in region.units) == list(
        range(len(network.units))
    )


def test_devices_work_at_the_same_time(network: Network) -> None:
    """The branches meet at a barrier that neither passes alone."""
    meeting = threading.Barrier(2)

    def meet(_inputs: object) -> None:
        meeting.wait(timeout=20)

    left, right = TwinDevice(meet, "left"), TwinDevice(meet, "right")
    pins = {"n_xq": "cpu", "n_c0": "cpu", "n_c1": "left", "n_c2": "right", "n_s": "cpu"}
    plan = place_network(network, [left, right, unmeasured_cpu()], pins=pins | {"n_y": "cpu"})
    execution = prepare_plan(plan).run(drawn_inputs(network, network.inputs))
    bars = {bar.row: bar for bar in execution.timeline.bars}
    assert bars["left"].start_ns < bars["right"].end_ns
    assert bars["right"].start_ns < bars["left"].end_ns


def test_what_a_device_refuses_is_placed_anew(network: Network, path: Path) -> None:
    number = next(n for n, unit in enumerate(network.units) if unit.name == "n_c1")
    plan = place_network(network, [_Other(refused=number), unmeasured_cpu()])
    assert plan.devices[plan.placement[number]].name == "other"
    model = prepare_plan(plan)
    assert model.plan.devices[model.plan.placement[number]].name == "cpu"
    values = drawn_inputs(network, network.inputs)
    expected = GoldenModel(path).run(values)["y"]
    assert model.run(values).outputs["y"].tobytes() == expected.tobytes()


@pytest.mark.parametrize("goal", list(Goal))
def test_a_plan_is_not_worse_than_priorities(network: Network, goal: Goal) -> None:
    cpu = CpuDevice(Profile(1, rates={"onnx": Rates(100, 1.0, 1.0, 1.0)}), "cpu", False, 15.0)
    plan = place_network(network, [TwinDevice(), cpu], goal)
    assert set(plan.others) == {"other", "cpu"}
    assert plan.schedule.value(goal) <= min(plan.others.values())


@pytest.mark.parametrize(
    ("pins", "goal", "message"),
    [
        ({"nothing": "cpu"}, Goal.LATENCY, r"mixed\.onnx has no layer 'nothing' to place"),
        ({"n_c1": "gpu"}, Goal.LATENCY, "'n_c1' cannot be placed on 'gpu', only on other, cpu"),
        ({}, Goal.ENERGY, "needs what cpu draws; give --watts cpu=W"),
    ],
)
def test_what_cannot_be_placed(
    network: Network, pins: dict[str, str], goal: Goal, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        place_network(network, [TwinDevice(), unmeasured_cpu()], goal, pins)


def test_inputs_that_do_not_fit(network: Network) -> None:
    model = prepare_plan(place_network(network, [unmeasured_cpu()]))
    values = drawn_inputs(network, network.inputs)
    with pytest.raises(InputError, match="input 'z' does not exist; the model takes x"):
        model.run({"z": values["x"]})
    with pytest.raises(InputError, match="input 'x' is missing"):
        model.run({})
    with pytest.raises(InputError, match=r"must be float32 \[1, 3, 16, 16\], not float64"):
        model.run({"x": values["x"].astype(float)})


def test_a_region_that_fails_ends_the_run(network: Network) -> None:
    def give_up(_inputs: object) -> None:
        raise InputError("no")

    model = prepare_plan(place_network(network, [TwinDevice(give_up)]))
    with pytest.raises(InputError, match="no"):
        model.run(drawn_inputs(network, network.inputs))


def test_objectives_and_objects_that_are_none(path: Path) -> None:
    with pytest.raises(InputError, match="objective must be one of latency, energy, throughput"):
        lepton.place(path, objective="speed")
    with pytest.raises(InputError, match="only the model of a file can be placed"):
        lepton.load_model(3, devices=["cpu"])  # pyright: ignore
