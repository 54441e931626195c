from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.runtime.placement import (
    Device,
    Goal,
    Link,
    Operation,
    Problem,
    Tensor,
    best_single,
    greedy,
    pinned,
    schedule,
    solve,
)
from lepton.runtime.placement.baselines import baselines
from lepton.runtime.placement.blocks import joints
from lepton.runtime.placement.bounds import bound
from lepton.runtime.placement.values import values
from tests.runtime.placement_cases import random_problem


def _brute_force(problem: Problem, goal: Goal) -> int:
    """Return the best value over all placements, each scheduled by itself."""
    return min(
        schedule(problem, placement).value(goal)
        for placement in itertools.product(*problem.choices)
        if _fits(problem, placement)
    )


def _fits(problem: Problem, placement: tuple[int, ...]) -> bool:
    for number, device in enumerate(problem.devices):
        put = [o for o, d in zip(problem.operations, placement, strict=True) if d == number]
        limit = device.memory_bytes
        if limit is not None and sum(operation.weight_bytes for operation in put) > limit:
            return False
    return True


def _diamond() -> Problem:
    """Return a -> (b, c) -> d on two devices, transfers of 10 + 100 / 10 ns, launches of 5."""
    costs = [(100, 100), (200, 300), (400, 150), (50, 50)]
    reads = [(), (0,), (0,), (1, 2)]
    return Problem(
        (Device("x", 5, 2), Device("y", 5, 3)),
        tuple(Operation(n, c, r) for n, c, r in zip("abcd", costs, reads, strict=True)),
        tuple(Tensor(number, 100) for number in range(4)),
        {(0, 1): Link(10, 10.0), (1, 0): Link(10, 10.0)},
    )


def test_a_schedule_by_hand() -> None:
    found = schedule(_diamond(), (0, 0, 1, 0))
    # a on x until 100; its copy is on y at 120, where c launches (5) and ends at 275;
    # b ends on x at 300; c's result is there at 295; d launches and ends at 355
    assert found.latency_ns == 355
    assert found.period_ns == 100 + 200 + 5 + 50
    assert found.energy_pj == (100 + 200 + 55) * 2 + 155 * 3
    links = [bar for bar in found.bars if bar.target is not None]
    assert [(bar.item, bar.start_ns, bar.end_ns) for bar in links] == [(0, 100, 120), (2, 275, 295)]


def test_a_link_moves_one_tensor_at_a_time_and_each_once() -> None:
    problem = Problem(
        (Device("x"), Device("y")),
        (
            Operation("a", (10, None)),
            Operation("b", (10, None)),
            Operation("c", (None, 1), (0, 1)),
            Operation("d", (None, 1), (0,)),
        ),
        (Tensor(0, 100), Tensor(1, 100)),
        {(0, 1): Link(0, 1.0)},
    )
    found = schedule(problem, (0, 0, 1, 1))
    links = [(bar.item, bar.start_ns, bar.end_ns) for bar in found.bars if bar.target is not None]
    assert links == [(0, 10, 110), (1, 110, 210)]
    assert found.latency_ns == 212


@pytest.mark.parametrize("goal", list(Goal))
def test_values_of_many_placements_are_those_of_their_schedules(goal: Goal) -> None:
    for seed in range(20):
        problem = random_problem(seed, 12, 3)
        rng = np.random.default_rng(seed)
        chosen = np.array([[rng.choice(c) for c in problem.choices] for _ in range(10)], np.int8)
        expected = [schedule(problem, row.tolist()).value(goal) for row in chosen]
        assert values(problem, chosen, goal).tolist() == expected


@pytest.mark.parametrize("part", range(10))
def test_small_networks_equal_brute_force(part: int) -> None:
    """200 networks in all; the larger ones are in the test below."""
    for seed in range(20 * part, 20 * part + 20):
        size = 2 + seed % 6
        problem = random_problem(seed, size, 3 if size < 5 else 2, is_single=bool(seed % 2))
        goal = list(Goal)[seed % 3]
        found = solve(problem, goal)
        assert found.value == found.bound == _brute_force(problem, goal)
        assert schedule(problem, found.placement).value(goal) == found.value


@pytest.mark.parametrize(("seed", "size"), [(0, 10), (1, 11), (2, 12), (3, 13), (4, 14)])
def test_networks_of_up_to_14_operations_equal_brute_force(seed: int, size: int) -> None:
    problem = random_problem(seed + 1000, size, is_single=bool(seed % 2))
    assert solve(problem).value == _brute_force(problem, Goal.LATENCY)


@pytest.mark.parametrize("goal", [Goal.LATENCY, Goal.ENERGY])
def test_long_networks_of_small_blocks_are_exact_by_blocks(goal: Goal) -> None:
    for seed in range(10):
        problem = random_problem(seed, 9, depth=2, is_single=True)
        blocks = len(joints(problem)) - 1
        assert blocks >= 1
        found = solve(problem, goal)
        assert found.method == "dynamic programming over blocks"
        assert found.value == _brute_force(problem, goal)
    chain = random_problem(0, 300, depth=1, is_single=True)
    found = solve(chain, goal)
    assert found.value == found.bound
    assert found.value <= values(chain, np.array(baselines(chain), np.int8), goal).min()


@pytest.mark.parametrize("goal", list(Goal))
def test_large_networks_beat_the_baselines_and_keep_the_bound(goal: Goal) -> None:
    for seed in range(3):
        problem = random_problem(seed, 60, 3, depth=12)
        found = solve(problem, goal)
        assert found.bound <= found.value
        assert found.gap == found.value / found.bound - 1
        worth = values(problem, np.array(baselines(problem), np.int8), goal)
        assert found.value <= worth.min()


@pytest.mark.parametrize("goal", list(Goal))
def test_nothing_falls_below_the_bound(goal: Goal) -> None:
    for seed in range(100):
        problem = random_problem(seed, 6, 2 + seed % 2)
        assert bound(problem, goal) <= _brute_force(problem, goal)


def test_the_load_bound_sees_two_devices_share_the_work() -> None:
    alone = tuple(Operation(f"o{n}", (100, 100)) for n in range(10))
    problem = Problem((Device("x"), Device("y")), alone, (), {})
    assert 490 <= bound(problem, Goal.LATENCY) <= 500
    assert solve(problem).value == 500


def test_memories_hold_what_is_placed() -> None:
    for seed in range(10):
        problem = random_problem(seed, 7)
        need = sum(operation.weight_bytes for operation in problem.operations)
        small = tuple(replace(d, memory_bytes=need * 2 // 3) for d in problem.devices)
        limited = replace(problem, devices=small)
        try:
            found = solve(limited)
        except InputError:
            continue
        assert _fits(limited, found.placement)
        assert found.value == _brute_force(limited, Goal.LATENCY)


def test_a_network_that_no_memory_holds_is_refused() -> None:
    problem = _diamond()
    heavy = tuple(replace(operation, weight_bytes=10) for operation in problem.operations)
    small = tuple(replace(device, memory_bytes=5) for device in problem.devices)
    with pytest.raises(InputError, match="no device has memory left for 'a'"):
        best_single(replace(problem, operations=heavy, devices=small), Goal.LATENCY)
    with pytest.raises(InputError, match="do not hold the network's weights"):
        solve(replace(problem, operations=heavy, devices=small))


def test_pins_hold_and_what_a_device_cannot_run_is_refused() -> None:
    problem = _diamond()
    assert solve(pinned(problem, {2: 0})).placement[2] == 0
    only = replace(problem.operations[0], cost_ns=(None, 1))
    bad = replace(problem, operations=(only, *problem.operations[1:]))
    with pytest.raises(InputError, match="'a' cannot be placed on x, which does not support it"):
        pinned(bad, {0: 0})


def test_greedy_claims_by_priority_whatever_it_costs() -> None:
    assert greedy(_diamond(), [0, 1]) == (0, 0, 0, 0)
    assert greedy(_diamond(), [1, 0]) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost_ns": (1,)}, "operation 'a' must have a cost per device"),
        ({"cost_ns": (None, None)}, "operation 'a' runs on none of the devices"),
        ({"operands": (3,)}, "operation 'a' reads what is not made yet"),
    ],
)
def test_problems_that_are_none(change: dict[str, object], message: str) -> None:
    problem = _diamond()
    first = replace(problem.operations[0], **change)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=message):
        replace(problem, operations=(first, *problem.operations[1:]))
