"""Requests under load: who goes when and where, and that none is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.chip import load_chip
from lepton.errors import InputError
from lepton.runtime.devices import Arrays, CpuDevice, NpuDevice
from lepton.runtime.devices.library import drawn_inputs
from lepton.runtime.devices.profile import Profile
from lepton.runtime.devices.rates import Rates
from lepton.runtime.golden import GoldenModel
from lepton.runtime.placed import prepare_plan
from lepton.runtime.serving import (
    Dynamic,
    Executor,
    Fault,
    Policy,
    Request,
    Served,
    Stage,
    Start,
    Static,
    Tenant,
    View,
    Way,
    arrivals,
    plans_of,
    serve,
    ways_of,
)
from lepton.runtime.split import Network, read_network
from tests.runtime.mixed_network import mixed_network


def way(*stages: tuple[int, int], number: int = 0) -> Way:
    """Return a way of (device, ns) one behind the other: x -> t1 -> t2 ... -> y."""
    names = ["x", *(f"t{number}.{n}" for n in range(1, len(stages))), "y"]
    made = tuple(
        Stage(device, taken, (names[n],), (names[n + 1],), 0, n)
        for n, (device, taken) in enumerate(stages)
    )
    return Way(made, ("y",), number)


def tenant(*ways: Way, rate_hz: float = 1e6, **options: int) -> Tenant:
    return Tenant("t", tuple(ways), rate_hz, **options)


def at(*times: int, tenant: int = 0) -> list[Request]:
    return [Request(number, tenant, time) for number, time in enumerate(times)]


def ends(served: Served) -> dict[int, int]:
    return {item.request.number: item.end_ns for item in served.completed}


def _total_ns(served: Served) -> int:
    return sum(item.latency_ns for item in served.completed)


POLICIES = (lambda tenants, count: Static(tenants, count), lambda tenants, _: Dynamic(tenants))


@pytest.mark.parametrize("make", POLICIES)
def test_one_device_is_a_queue(make) -> None:  # pyright: ignore
    """Lindley's recursion: a request ends its work after the later of its arrival and the last."""
    tenants = [tenant(way((0, 70)), rate_hz=1e7)]
    requests = arrivals(tenants, 200, seed=1)
    expected, end = {}, 0
    for request in requests:
        end = max(end, request.arrival_ns) + 70
        expected[request.number] = end
    served = serve(tenants, 1, make(tenants, 1), requests)
    assert ends(served) == expected
    assert served.busy_ns == (200 * 70,)


def test_stages_overlap_over_requests() -> None:
    tenants = [tenant(way((0, 50), (1, 50)))]
    served = serve(tenants, 2, Dynamic(tenants), at(0, 0, 0))
    assert ends(served) == {0: 100, 1: 150, 2: 200}


def test_dynamic_takes_the_way_that_ends_first() -> None:
    """Fast device for two, then the slow one is sooner: 10, 20, and 25 beside 30."""
    tenants = [tenant(way((0, 10)), way((1, 25), number=1))]
    served = serve(tenants, 2, Dynamic(tenants), at(0, 0, 0, 0, 0))
    assert ends(served) == {0: 10, 1: 20, 2: 25, 3: 30, 4: 40}
    static = serve(tenants, 2, Static(tenants, 2), at(0, 0, 0, 0, 0))
    assert ends(static) == {0: 10, 1: 20, 2: 30, 3: 40, 4: 50}


def test_static_balances_the_devices() -> None:
    """One network per device is best, though the same device is faster for both."""
    ways = (way((0, 10)), way((1, 12), number=1))
    tenants = [tenant(*ways), tenant(*ways)]
    assert sorted(w.number for w in Static(tenants, 2).ways) == [0, 1]


def test_priorities_then_deadlines_then_arrival() -> None:
    one = way((0, 10))
    tenants = [
        tenant(one),
        tenant(one, deadline_ns=500),
        tenant(one, deadline_ns=100),
        tenant(one, priority=1),
    ]
    requests = [Request(0, 0, 0), *(Request(n, n - 1, 1) for n in range(1, 5))]
    served = serve(tenants, 1, Dynamic(tenants), requests)
    assert [item.request.tenant for item in served.completed] == [0, 3, 2, 1, 0]


def test_work_moves_from_a_device_that_fails() -> None:
    tenants = [tenant(way((0, 100)), way((1, 300), number=1))]
    faults = [Fault(0, 50, 10_000)]
    served = serve(tenants, 2, Dynamic(tenants), at(0, 0), faults=faults)
    assert ends(served) == {0: 350, 1: 650}
    assert [item.moved for item in served.completed] == [1, 0]
    assert served.busy_ns == (50, 600)
    static = serve(tenants, 2, Static(tenants, 2), at(0, 0), faults=faults)
    assert ends(static) == {0: 10_100, 1: 10_200}


def test_results_of_other_stages_survive_a_failure() -> None:
    """The second stage's device fails; the first stage is not done again on the other way."""
    first = Stage(0, 100, ("x",), ("a",))
    tenants = [
        tenant(
            Way((first, Stage(1, 100, ("a",), ("y",))), ("y",)),
            Way((first, Stage(0, 400, ("a",), ("y",))), ("y",), 1),
        )
    ]
    served = serve(tenants, 2, Dynamic(tenants), at(0), faults=[Fault(1, 150)])
    assert ends(served) == {0: 150 + 400}
    assert served.busy_ns == (500, 50)


def test_a_device_that_is_slow_gets_less_and_is_tried_again() -> None:
    tenants = [tenant(way((0, 100)), way((1, 150), number=1), rate_hz=9e6)]
    requests = arrivals(tenants, 400, seed=3)
    fault = Fault(0, 5_000, 20_000, 8.0)
    used: dict[int, list[int]] = {0: [], 1: []}

    def note(start: Start) -> int:
        used[start.stage.device].append(start.waiting.request.arrival_ns)
        return start.stage.work_ns

    moved = serve(tenants, 2, Dynamic(tenants), requests, faults=[fault], execute=note)
    assert len(moved.completed) == 400
    while_slow = [t for t in used[0] if 8_000 < t < 19_000]
    meanwhile = [t for t in used[1] if 8_000 < t < 19_000]
    assert len(while_slow) * 3 < len(meanwhile)
    assert [t for t in used[0] if t > 30_000]
    static = serve(tenants, 2, Static(tenants, 2), requests, faults=[fault])
    assert 5 * _total_ns(moved) < _total_ns(static)


def test_an_overdue_stage_is_expected_to_take_as_long_again() -> None:
    seen: list[int | None] = []

    class Watching:
        def choose(self, view: View) -> list[Start]:
            seen.append(view.free_ns[0])
            first = view.waiting[0]
            if len(seen) == 1:
                return [Start(first, one, one.stages[0])]
            return []

    one = way((0, 100))
    serve([tenant(one)], 1, Watching(), at(0, 20, 150), execute=lambda _: 900)
    assert seen == [0, 100, 200, 900]


def test_a_device_is_busy_until_its_stage_ends() -> None:
    """A request that comes at the very instant at which the stage was expected to end waits."""
    tenants = [tenant(way((0, 100)))]
    served = serve(tenants, 1, Static(tenants, 1), at(0, 100), execute=lambda _: 300)
    assert ends(served) == {0: 300, 1: 600}


def test_nothing_ends_without_a_way() -> None:
    tenants = [tenant(way((0, 100)))]
    served = serve(tenants, 1, Dynamic(tenants), at(0, 10), faults=[Fault(0, 150)])
    assert ends(served) == {0: 100}
    assert [request.number for request in served.waiting] == [1]


@st.composite
def _cases(draw: st.DrawFn) -> tuple[list[Tenant], list[Request], list[Fault], int]:
    devices = draw(st.integers(1, 3))
    stage = st.tuples(st.integers(0, devices - 1), st.integers(1, 40))
    tenants = [
        tenant(
            *(
                way(*draw(st.lists(stage, min_size=1, max_size=3)), number=number)
                for number in range(draw(st.integers(1, 3)))
            ),
            priority=draw(st.integers(0, 2)),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    pair = st.tuples(st.integers(0, 300), st.integers(0, len(tenants) - 1))
    asked = draw(st.lists(pair, min_size=1, max_size=25))
    requests = [Request(n, of, when) for n, (when, of) in enumerate(asked)]
    fault = st.builds(
        lambda device, start, length, slow: Fault(device, start, start + length, slow),
        st.integers(0, devices - 1), st.integers(0, 300), st.integers(0, 200),
        st.none() | st.floats(1, 9),
    )  # fmt: skip
    return tenants, requests, draw(st.lists(fault, max_size=4)), devices


@given(_cases(), st.sampled_from(POLICIES))
def test_nothing_is_lost_and_no_device_does_two_things(case, make) -> None:  # pyright: ignore
    tenants, requests, faults, devices = case
    policy: Policy = make(tenants, devices)
    began: list[tuple[int, int]] = []

    class Checked:
        def choose(self, view: View) -> list[Start]:
            starts = policy.choose(view)
            used = [start.stage.device for start in starts]
            assert len(set(used)) == len(used) and set(used) <= view.idle()
            for start in starts:
                known = start.waiting.known | {"x"}
                assert set(start.stage.inputs) <= known
                began.append((view.now_ns, start.stage.device))
            return starts

    rng = np.random.default_rng(len(requests))

    def varying(start: Start) -> int:
        return int(start.stage.work_ns * rng.integers(1, 4))

    served = serve(tenants, devices, Checked(), requests, faults=faults, execute=varying)
    done = [item.request.number for item in served.completed]
    assert sorted(done) == [request.number for request in requests]
    assert not served.waiting
    for item in served.completed:
        fastest = min(way.latency_ns for way in tenants[item.request.tenant].ways)
        assert item.latency_ns >= fastest
    assert len(set(began)) == len(began)
    assert max(served.busy_ns) <= served.end_ns


def test_arrivals_have_their_rate_and_variation() -> None:
    for variation in (0.0, 1.0, 3.0):
        tenants = [replace(tenant(way((0, 1))), rate_hz=1000, variation=variation)]
        times = [request.arrival_ns for request in arrivals(tenants, 20_000, seed=5)]
        gaps = np.diff(times) / 1e9
        assert gaps.mean() == pytest.approx(1 / 1000, rel=0.1)
        assert gaps.std() * 1000 == pytest.approx(variation, abs=0.25)
        assert times == sorted(times)
    assert arrivals(tenants, 9, seed=5) == arrivals(tenants, 9, seed=5)
    assert arrivals(tenants, 9, seed=5) != arrivals(tenants, 9, seed=6)
    with pytest.raises(InputError, match="t: the rate must be positive"):
        arrivals([replace(tenants[0], rate_hz=0)], 9, seed=5)


def test_what_is_needed_is_found_from_the_end() -> None:
    made = way((0, 1), (1, 2), (0, 3))
    assert made.left({"t0.2"}) == made.stages[2:]
    assert made.left({"t0.1"}) == made.stages[1:]
    assert made.left({"y"}) == ()
    assert made.latency_ns == 6


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving") / "mixed.onnx"
    path.write_bytes(mixed_network())
    return path


def _devices() -> list[NpuDevice | CpuDevice]:
    profile = Profile(1, rates={"onnx": Rates(100, 1.0, 1.0, 1.0)})
    return [NpuDevice(load_chip("nano")), CpuDevice(profile, "cpu", is_measuring=False)]


def test_ways_are_placements_on_combinations_of_devices(path: Path) -> None:
    devices = _devices()
    plans = plans_of(read_network(path), devices)
    assert [[device.name for device in plan.devices] for plan in plans] == [
        ["npu", "cpu"],
        ["cpu"],
    ]
    ways = ways_of(plans, devices)
    for each in ways:
        plan = plans[each.number]
        known = {"x"}
        for stage in each.stages:
            assert set(stage.inputs) <= known
            known.update(stage.outputs)
            assert stage.around_ns >= 0
        busy = sum(bar.end_ns - bar.start_ns for bar in plan.schedule.bars)
        assert each.latency_ns == busy
    assert {stage.device for stage in ways[-1].stages} == {1}


@pytest.mark.parametrize("make", POLICIES)
def test_every_request_gets_the_golden_bytes_whatever_fails(path: Path, make) -> None:  # pyright: ignore
    network: Network = read_network(path)
    devices = _devices()
    models = [prepare_plan(plan) for plan in plans_of(network, devices)]
    ways = ways_of([model.plan for model in models], devices)
    tenants = [Tenant("mixed", ways, 0.7e9 / ways[0].latency_ns)]
    requests = arrivals(tenants, 12, seed=2)

    def inputs(request: Request) -> Arrays:
        return drawn_inputs(network, network.inputs, request.number)

    middle = requests[6].arrival_ns
    faults = [Fault(0, middle, 3 * middle), Fault(1, 0, middle, 2.0)]
    executor = Executor([models], inputs)
    policy = make(tenants, len(devices))
    served = serve(tenants, len(devices), policy, requests, faults=faults, execute=executor)
    assert len(served.completed) == 12
    golden = GoldenModel(path)
    for item in served.completed:
        expected = golden.run(inputs(item.request))["y"].tobytes()
        assert executor.outputs(item.request)["y"].tobytes() == expected


def test_devices_that_cannot_run_a_network(path: Path) -> None:
    with pytest.raises(InputError, match="runs on none of the devices"):
        plans_of(read_network(path), _devices()[:1])
