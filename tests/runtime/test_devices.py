from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lepton.chip import load_chip
from lepton.errors import CompileError, ImportFailure, InputError
from lepton.models import digits_model_path
from lepton.runtime.devices import (
    Clock,
    CpuDevice,
    DescribedDevice,
    DeviceOptions,
    NpuDevice,
    choose_devices,
    load_description,
)
from lepton.runtime.devices.library import drawn_inputs, piece_runner
from lepton.runtime.devices.profile import Profile, load_profile
from lepton.runtime.devices.rates import Rates
from lepton.runtime.golden import GoldenModel
from lepton.runtime.split import Network, read_network
from tests.compiler.test_onnx_unroll import recurrence

GPU = """
name = "small"
float_gmacs = 1000
integer_gmacs = 4000
bandwidth_gbps = 100
launch_us = 5
link_gbps = 10
link_latency_us = 2
source = "made up"
watts = 50
"""


@pytest.fixture(scope="module")
def digits() -> Network:
    return read_network(digits_model_path())


@pytest.fixture
def gpu(tmp_path: Path) -> Path:
    path = tmp_path / "gpu.toml"
    path.write_text(GPU)
    return path


def test_the_profile_is_measured_once_and_kept(digits: Network, tmp_path: Path) -> None:
    profile = load_profile(1, tmp_path)
    shown: list[int] = []

    def progress(units: Any, _label: str) -> Any:
        shown.append(len(units))
        return units

    costs = CpuDevice(profile).cost(digits, progress)
    assert all(cost >= 0 for cost in costs) and max(costs) > 0
    assert shown == [len({unit.signature for unit in digits.units})]
    again = load_profile(1, tmp_path)
    assert again == profile and again is not profile
    assert CpuDevice(again).cost(digits, progress) == costs
    assert len(shown) == 1


def test_a_damaged_profile_is_measured_anew(digits: Network, tmp_path: Path) -> None:
    profile = load_profile(1, tmp_path)
    profile.rates_of(digits)
    assert profile.path is not None
    profile.path.write_text('{"rates": 3}')
    assert load_profile(1, tmp_path).rates == {}
    assert load_profile(2, tmp_path).path != profile.path


def test_without_measuring_the_roofline_stands_in(digits: Network) -> None:
    profile = Profile(1, rates={"onnx": Rates(100, 2.0, 4.0, 8.0)})
    costs = CpuDevice(profile, is_measuring=False).cost(digits)
    assert not profile.units
    for unit, cost in zip(digits.units, costs, strict=True):
        moved = sum(digits.tensors[n].size_bytes for n in (*unit.inputs, *unit.outputs))
        rate = 4.0 if unit.is_integer else 2.0
        assert cost == round(max(unit.macs / rate, (moved + unit.weight_bytes) / 8.0))


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_rates_are_measured_for_both_libraries(format: str) -> None:
    from lepton.runtime.devices.rates import measured_rates

    taken = iter([1000, 1000 + 384**2, 1000 + 384**2, 1000 + 4 * (1 << 18)])

    def timed(run: Any) -> int:
        run()
        return next(taken)

    rates = measured_rates(format, lambda piece: piece_runner(format, piece, 1), timed)
    per = 384.0 if format == "onnx" else 1.0
    assert rates == Rates(1000, per, per, 3.0 if format == "onnx" else 2.0)


def test_the_shares_of_units_are_the_estimate_of_the_whole(digits: Network) -> None:
    from lepton.cost.estimate import estimate_program
    from lepton.runtime.devices.npu import _compiled, _shares  # pyright: ignore

    chip = load_chip("nano")
    program = _compiled(digits, range(len(digits.units)), chip, 1)
    estimate = estimate_program(program)
    assert _shares(program, estimate.times).sum() == pytest.approx(estimate.cycles)
    device = NpuDevice(chip)
    taken = sum(device.cost(digits)) * chip.cycles_per_second / 1e9
    assert 0.9 * estimate.cycles <= taken <= estimate.cycles + len(digits.units)
    power = device.power_mw(digits)
    assert power is not None and power > 0


def test_an_unrolled_recurrence_in_float_is_not_for_the_npu(tmp_path: Path) -> None:
    model = recurrence(scan_input_axes=[1], name="scan")
    del model.graph.output[1:]  # a counter of the steps is constant
    onnx.save(model, tmp_path / "recurrence.onnx")
    network = read_network(tmp_path / "recurrence.onnx")
    assert [unit.kind for unit in network.units] == ["Scan"]
    assert all(NpuDevice(load_chip("nano")).supports(network))


def test_what_the_compiler_cannot_read_is_not_for_the_npu(
    digits: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lepton.compiler import isolate

    def refuse(*_: object) -> None:
        raise ImportFailure("unknown operator")

    monkeypatch.setattr(isolate, "compile_file", refuse)
    device = NpuDevice(load_chip("nano"))
    assert set(device.supports(digits)) == {"unknown operator"}
    with pytest.raises(CompileError, match="unknown operator"):
        device.prepare(digits, [0])


def test_a_network_that_does_not_fit_is_surveyed_in_parts(
    digits: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lepton.runtime.devices import npu

    whole = npu._compiled  # pyright: ignore[reportPrivateUsage]
    asked: list[tuple[int, ...]] = []

    def refuse_the_first(network: Network, units: Any, chip: Any, effort: int) -> Any:
        asked.append(tuple(units))
        if 0 in units:
            raise CompileError("too large")
        return whole(network, units, chip, effort)

    monkeypatch.setattr(npu, "_compiled", refuse_the_first)
    device = NpuDevice(load_chip("nano"))
    reasons, count = device.supports(digits), len(digits.units)
    first = next(n for n, reason in enumerate(reasons) if reason != "too large")
    assert 0 < first < count // 2
    assert "" in reasons[first:]
    assert sum(device.cost(digits)[first:]) > 0 == sum(device.cost(digits)[:first])
    assert asked[0] == tuple(range(count)) and len(asked) <= 7


def test_a_region_of_the_npu_gives_golden_bytes(digits: Network) -> None:
    device = NpuDevice(load_chip("nano"))
    units = [n for n, reason in enumerate(device.supports(digits)) if not reason]
    assert len(units) < len(digits.units)
    with pytest.raises(CompileError, match="runs on the host"):
        device.prepare(digits, range(len(digits.units)))
    inputs, outputs = digits.edges(units)
    values = drawn_inputs(digits, inputs)
    ran = device.prepare(digits, units).run(values)
    cpu = CpuDevice(Profile(1)).prepare(digits, units).run(values)
    assert ran.duration_ns > 0 and cpu.duration_ns > 0
    for name in outputs:
        assert ran.outputs[name].tobytes() == cpu.outputs[name].tobytes()


def test_a_described_device_is_planned_for_and_not_run(digits: Network, gpu: Path) -> None:
    device = DescribedDevice("gpu", load_description(gpu))
    assert (device.launch_ns(digits), device.power_mw(digits)) == (5000, 50_000)
    assert (device.port.latency_ns, device.port.bytes_per_ns) == (2000, 10)
    assert device.memory_bytes is None
    assert len(device.cost(digits)) == len(digits.units)
    with pytest.raises(InputError, match="gpu is described, not there"):
        device.prepare(digits, [0])


def test_bad_descriptions_name_all_bad_keys(gpu: Path) -> None:
    gpu.write_text('name = 3\nspeed = 1\nwatts = -1\nsource = "s"\nlaunch_us = true\n')
    with pytest.raises(InputError) as caught:
        load_description(gpu)
    text = str(caught.value)
    for part in (
        "speed is unknown",
        "name must be a text, not 3",
        "watts must be a positive number, not -1",
        "launch_us must be a positive number, not True",
        "float_gmacs is missing",
    ):
        assert part in text
    gpu.write_text("name = ")
    with pytest.raises(InputError, match="is not TOML"):
        load_description(gpu)


def test_devices_by_name(gpu: Path) -> None:
    names = ["npu", "npu2=nano", "gpu", "cpu"]
    made, notes = choose_devices(names, DeviceOptions(assume={"gpu": gpu}))
    assert [device.name for device in made] == ["npu", "npu2", "gpu", "cpu"]
    clocks = [Clock.SIMULATED, Clock.SIMULATED, Clock.DESCRIBED, Clock.MEASURED]
    assert [device.clock for device in made] == clocks
    assert not notes
    made, notes = choose_devices(["gpu", "cpu"], DeviceOptions())
    assert [device.name for device in made] == ["cpu"]
    assert notes == (
        "gpu: there is no such device here, so it is left out; "
        "--assume gpu=FILE.toml plans for one",
    )


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["tpu"], DeviceOptions(), "a device must be cpu, gpu, npu or npu2=CHIP, not 'tpu'"),
        (["cpu=nano"], DeviceOptions(), "not 'cpu=nano'"),
        (["cpu", "cpu"], DeviceOptions(), "device 'cpu' is named twice"),
        (["cpu"], DeviceOptions(watts={"npu": 1.0}), "'npu' is named by --assume or --watts only"),
        (["gpu"], DeviceOptions(), "gpu: there is no such device here"),
        ([], DeviceOptions(), "name at least one device"),
    ],
)
def test_names_that_are_none(names: list[str], options: DeviceOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_devices(names, options)


def test_golden_of_the_digits_runs_on_the_cpu_device(digits: Network) -> None:
    values = drawn_inputs(digits, digits.inputs)
    whole = CpuDevice(Profile(1)).prepare(digits, range(len(digits.units))).run(values)
    expected = GoldenModel(digits_model_path()).run(values)
    for name in digits.outputs:
        assert np.array_equal(whole.outputs[name], expected[name])
