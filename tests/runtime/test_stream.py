"""Successive inputs: the model of their schedule, and the threads that run them."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lepton
from lepton.errors import InputError
from lepton.runtime.devices import Arrays
from lepton.runtime.devices.library import drawn_inputs
from lepton.runtime.golden import GoldenModel
from lepton.runtime.placed import PlacedModel, prepare_plan
from lepton.runtime.placement import Device, Link, Operation, Problem, Tensor, pipelined, schedule
from lepton.runtime.plan import place_network
from lepton.runtime.split import Network, read_network
from tests.naive_dispatch import dispatched
from tests.runtime.mixed_network import mixed_network
from tests.runtime.placement_cases import random_problem
from tests.runtime.twin import TwinDevice, unmeasured_cpu


def _taken(problem: Problem, placement: Sequence[int], samples: int, seed: int) -> list[list[int]]:
    """Return times that vary from input to input."""
    rng = np.random.default_rng(seed)
    own = [int(problem.cost[n, device]) for n, device in enumerate(placement)]
    return [[int(rng.integers(0, time + 1)) for time in own] for _ in range(samples)]


def _small(problem: Problem) -> Problem:
    """Return a problem with times short enough to count nanoseconds."""
    operations = tuple(
        replace(o, cost_ns=tuple(None if c is None else c % 7 for c in o.cost_ns))
        for o in problem.operations
    )
    devices = tuple(replace(device, launch_ns=device.launch_ns % 4) for device in problem.devices)
    links = {ends: Link(link.latency_ns % 5, 100.0) for ends, link in problem.links.items()}
    return replace(problem, devices=devices, operations=operations, links=links)


@pytest.mark.parametrize("seed", range(60))
def test_the_schedule_is_that_of_a_naive_dispatch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = _small(random_problem(seed, 2 + seed % 5, 2 + seed % 2, is_single=bool(seed % 2)))
    if seed % 4 == 1:
        first, *rest = problem.operations
        first = replace(first, is_boundary=True)
        problem = replace(problem, operations=(first, *rest))
    placement = [int(rng.choice(choices)) for choices in problem.choices]
    taken = _taken(problem, placement, 1 + seed % 4, seed)
    window = 1 + seed % 3
    made = pipelined(problem, placement, taken, window)
    bars = {(b.device, b.target, b.item, b.start_ns, b.end_ns, b.sample) for b in made.bars}
    assert bars == dispatched(problem, placement, taken, window)
    assert len(bars) == len(made.bars)


def _chain(times: Sequence[int], link_ns: int) -> Problem:
    """Return operations one behind the other, each on a device of its own."""
    count = len(times)
    operations = tuple(
        Operation(
            f"o{n}", tuple(time if d == n else None for d in range(count)), (n - 1,) * (n > 0)
        )
        for n, time in enumerate(times)
    )
    links = {(n, n + 1): Link(link_ns, float("inf")) for n in range(count - 1)}
    devices = tuple(Device(f"d{n}") for n in range(count))
    return Problem(devices, operations, tuple(Tensor(n, 8) for n in range(count)), links)


@pytest.mark.parametrize("times", [(100, 100), (70, 100, 30), (5, 90)])
@pytest.mark.parametrize("samples", [1, 2, 50])
def test_a_chain_is_as_fast_as_its_slowest_stage(times: Sequence[int], samples: int) -> None:
    problem = _chain(times, 10)
    made = pipelined(problem, range(len(times)), [list(times)] * samples, window=2 * len(times))
    single = schedule(problem, range(len(times))).latency_ns
    assert single == sum(times) + 10 * (len(times) - 1)
    assert made.latency_ns == single + (samples - 1) * max(times)
    assert made.period_ns == max(times)


def test_a_window_of_one_is_one_after_the_other() -> None:
    problem = _chain((40, 60), 10)
    made = pipelined(problem, (0, 1), [[40, 60]] * 8, window=1)
    assert made.latency_ns == 8 * 110


def test_a_small_window_bounds_the_rate() -> None:
    """Two on their way, each of which takes 140 ns: a pair every 140 ns."""
    problem = _chain((50, 50), 40)
    made = pipelined(problem, (0, 1), [[50, 50]] * 8, window=2)
    assert made.latency_ns == 4 * 140 + 50


def test_two_balanced_devices_give_more_than_1_7_times() -> None:
    problem = _chain((100, 95), 10)
    made = pipelined(problem, (0, 1), [[100, 95]] * 100, window=4)
    assert 100 * 205 / made.latency_ns >= 1.7


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "mixed.onnx"
    path.write_bytes(mixed_network())
    return path


@pytest.fixture(scope="module")
def network(path: Path) -> Network:
    return read_network(path)


PINS = {"n_c0": "other", "n_c1": "cpu", "n_c2": "cpu", "n_s": "other"}
"""Ways go from one device to the other and back."""


def _model(network: Network, hook: Callable[[Arrays], None]) -> PlacedModel:
    return prepare_plan(
        place_network(network, [TwinDevice(hook), unmeasured_cpu()], pins=PINS), PINS
    )


def _samples(network: Network, count: int) -> list[Arrays]:
    return [drawn_inputs(network, network.inputs, seed) for seed in range(count)]


def _names() -> list[str]:
    """Return the threads of devices."""
    return [t.name for t in threading.enumerate() if t.name in ("other", "cpu", "npu")]


@pytest.mark.parametrize("window", [1, 2, 5, None])
def test_results_are_those_of_single_runs_in_order(
    network: Network, path: Path, window: int | None
) -> None:
    rng = np.random.default_rng(3)
    model = _model(network, lambda _: time.sleep(rng.random() / 500))
    samples = _samples(network, 12)
    golden = GoldenModel(path)
    with model.stream(iter(samples), window) as stream:
        made = [outputs["y"].tobytes() for outputs in stream]
    assert made == [golden.run(sample)["y"].tobytes() for sample in samples]
    bars = stream.timeline.bars
    assert {bar.sample for bar in bars} == set(range(12))
    assert {(bar.row, bar.clock) for bar in bars if "->" not in bar.row} == {
        ("cpu", "measured"),
        ("other", "simulated"),
    }
    assert not _names()


def test_npu_and_cpu_stream_the_golden_bytes(path: Path, network: Network) -> None:
    model = lepton.load_model(path, "nano", devices=["npu", "cpu"])
    samples = _samples(network, 5)
    golden = GoldenModel(path)
    with model.stream(samples) as stream:
        made = [outputs["y"].tobytes() for outputs in stream]
    assert made == [golden.run(sample)["y"].tobytes() for sample in samples]
    text = stream.timeline.text()
    assert "4" in text and "#" not in text


def test_inputs_are_taken_only_while_there_is_room(network: Network) -> None:
    taken: list[int] = []

    def source() -> Iterator[Arrays]:
        for number, sample in enumerate(_samples(network, 9)):
            taken.append(number)
            yield sample

    with _model(network, lambda _: None).stream(source(), window=3) as stream:
        assert not taken
        for number, _ in enumerate(stream):
            assert len(taken) <= number + 1 + 3
    assert taken == list(range(9))


def test_devices_work_on_different_inputs_at_the_same_time(network: Network) -> None:
    """The first device's second input meets the second device's first at a barrier."""
    meeting = threading.Barrier(2)
    calls = {"left": 0, "right": 0}

    def left(_: Arrays) -> None:
        calls["left"] += 1
        if calls["left"] == 2:
            meeting.wait(timeout=20)

    def right(_: Arrays) -> None:
        calls["right"] += 1
        if calls["right"] == 1:
            meeting.wait(timeout=20)

    devices = [TwinDevice(left, "left"), TwinDevice(right, "right"), unmeasured_cpu()]
    pins = dict.fromkeys([unit.name for unit in network.units], "right") | {"n_c0": "left"}
    pins |= {"n_xq": "left"}
    model = prepare_plan(place_network(network, devices, pins=pins), pins)
    assert [model.plan.devices[region.device].name for region in model.plan.regions] == [
        "left",
        "right",
    ]
    with model.stream(_samples(network, 2), window=2) as stream:
        assert len(list(stream)) == 2


def test_an_error_comes_in_its_inputs_place_and_ends_the_stream(network: Network) -> None:
    samples = _samples(network, 9)
    bad = samples[4]["x"]

    def hook(inputs: Arrays) -> None:
        if inputs.get("x") is not None and inputs["x"].tobytes() == bad.tobytes():
            raise InputError("no")

    pins = PINS | {"n_xq": "other"}
    model = prepare_plan(
        place_network(network, [TwinDevice(hook), unmeasured_cpu()], pins=pins), pins
    )
    stream = model.stream(samples, window=3)
    for _ in range(4):
        next(stream)
    with pytest.raises(InputError, match="no"):
        next(stream)
    assert list(stream) == []
    assert not _names()
    assert len(stream.taken_ns) == 4


def test_a_wrong_input_comes_in_its_place(network: Network) -> None:
    samples = [*_samples(network, 2), {}]
    stream = _model(network, lambda _: None).stream(samples, window=4)
    next(stream)
    next(stream)
    with pytest.raises(InputError, match="input 'x' is missing"):
        next(stream)


def test_closing_forgets_what_is_on_its_way(network: Network) -> None:
    ran: list[int] = []
    stream = _model(network, lambda _: ran.append(1)).stream(iter(_samples(network, 50)), window=2)
    next(stream)
    stream.close()
    assert not _names()
    done = len(ran)
    assert done <= 2 * 2 + 2
    assert list(stream) == []
    assert len(ran) == done


def test_ctrl_c_stops_the_threads(network: Network) -> None:
    count = 0

    def hook(_: Arrays) -> None:
        nonlocal count
        count += 1
        if count == 5:
            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        list(_model(network, hook).stream(iter(_samples(network, 500))))
    assert not _names()
    assert count < 500


def test_a_forgotten_stream_ends_its_threads(network: Network) -> None:
    stream = _model(network, lambda _: None).stream(_samples(network, 3))
    next(stream)
    del stream
    assert not _names()


def test_a_window_must_hold_an_input(network: Network) -> None:
    with pytest.raises(InputError, match="window must be at least 1, not 0"):
        _model(network, lambda _: None).stream([], window=0)
    assert not _names()
