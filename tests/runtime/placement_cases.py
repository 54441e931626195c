"""Random placement problems."""

from __future__ import annotations

import numpy as np

from lepton.runtime.placement import Device, Link, Operation, Problem, Tensor

__all__ = ["random_problem"]


def random_problem(
    seed: int, operations: int, devices: int = 2, *, depth: int = 3, is_single: bool = False
) -> Problem:
    """Return a network of random costs, in which operations read some of the last `depth` ones.

    Args:
        is_single: whether all ways start in the first operation and end in the last.
    """
    rng = np.random.default_rng(seed)
    made: list[Operation] = []
    unread: set[int] = set()
    for number in range(operations):
        near = np.arange(max(0, number - depth), number)
        count = int(rng.integers(1, 3)) if is_single else int(rng.integers(0, 3))
        read = set(rng.choice(near, min(count, len(near)), replace=False).tolist())
        if is_single and number == operations - 1:
            read |= unread
        costs = rng.integers(1, 1000, devices).tolist()
        supported = rng.random(devices) < 0.85
        supported[rng.integers(devices)] = True
        made.append(
            Operation(
                f"o{number}",
                tuple(int(c) if can else None for c, can in zip(costs, supported, strict=True)),
                tuple(sorted(read)),
                weight_bytes=int(rng.integers(0, 100)),
            )
        )
        unread = (unread - read) | {number}
    links = {
        (a, b): Link(int(rng.integers(0, 200)), float(rng.uniform(0.2, 2)), 0.1, 2.0)
        for a in range(devices)
        for b in range(devices)
        if a != b
    }
    return Problem(
        tuple(
            Device(f"d{d}", int(rng.integers(0, 100)), int(rng.integers(1, 50)))
            for d in range(devices)
        ),
        tuple(made),
        tuple(Tensor(number, int(rng.integers(1, 400))) for number in range(operations)),
        links,
    )
