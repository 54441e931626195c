"""Two-fidelity search: the analytic tier screens a space, the simulator confirms its front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lepton.explore.metrics import CHIP_METRICS, combined, feasible, objective_matrix
from lepton.explore.pareto import fronts_in_order, non_dominated
from lepton.explore.space import Space

__all__ = ["Screen", "confirm", "screened"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MOST_SCREENED = 1 << 20
"""Points of a larger space that are screened, drawn at random."""
_RANDOM = 0.15
"""Of the simulations, for points drawn at random: they show how far off the screen is elsewhere."""
_ROUNDS = 4
"""Times that the front is predicted anew, by what the simulations before have shown."""
_RIDGE = 1.0
_SLACK = 0.15
"""By which a constraint may be broken in the first prediction, for it is off by as much."""

Simulate = Callable[[I64], Mapping[str, F64]]
"""Takes numbers of points and returns their metrics, `[n]` each, NaN where there are none."""


class Screen:
    """Points with their metrics by the analytic tier."""

    def __init__(self, space: Space, numbers: I64, metrics: Mapping[str, F64]) -> None:
        """Take the numbers of points and their metrics, NaN at points without a chip."""
        sound = ~np.isnan(metrics["latency_ms"])
        self.space = space
        self.numbers = numbers[sound]
        self.points = space.points(self.numbers)
        self.metrics = {name: values[sound] for name, values in metrics.items()}

    def predicted(self, places: I64, simulated: Mapping[str, F64]) -> tuple[dict[str, F64], float]:
        """Return corrected metrics of all points, and how far off a correction typically is.

        The logarithm of simulated over screened latency, and energy, is taken to be a sum of one
        term per parameter value, fitted with a ridge.

        Args:
            places: which points were simulated.
            simulated: their metrics.
        """
        sound = ~np.isnan(simulated["latency_ms"])
        made: dict[str, F64] = {}
        left: list[float] = [0.0]
        for name in ("latency_ms", "energy_mj"):
            known = self.metrics[name][places[sound]]
            ratio = np.log(simulated[name][sound] / known)
            terms, residual = _fitted(self.points[places[sound]], ratio, self.space.extents)
            shift = sum(
                (own[column] for own, column in zip(terms[1:], self.points.T, strict=True)),
                start=np.full(len(self.points), terms[0][0]),
            )
            made[name] = self.metrics[name] * np.exp(shift)
            left.append(residual)
        chip = {name: self.metrics[name] for name in CHIP_METRICS}
        parts = made["latency_ms"][:, None], made["energy_mj"][:, None]
        return combined(chip, *parts, [1.0]), max(left)


def _fitted(points: I64, ratio: F64, extents: Sequence[int]) -> tuple[list[F64], float]:
    """Return the mean and the terms of every parameter's values, and the residual's deviation."""
    mean = float(ratio.mean()) if len(ratio) else 0.0
    columns = [
        (points[:, number, None] == np.arange(extent)).astype(np.float64)
        for number, extent in enumerate(extents)
    ]
    shown = np.concatenate(columns, axis=1)
    gram = shown.T @ shown + _RIDGE * np.eye(shown.shape[1])
    found: F64 = np.linalg.solve(gram, shown.T @ (ratio - mean)).astype(np.float64)
    residual = float(np.std(ratio - mean - shown @ found)) if len(ratio) else 0.0
    return [np.array([mean]), *np.split(found, np.cumsum(extents)[:-1])], residual


def screened(space: Space, seed: int) -> I64:
    """Return the numbers of the points to screen: all, or as many as are screened at most."""
    from lepton.explore.samplers import drawn

    return drawn(space, "random", min(space.size, MOST_SCREENED), seed)


def confirm(screen: Screen, simulate: Simulate, budget: int, seed: int) -> I64:
    """Simulate what looks best, and return the numbers of the points in that order.

    First come points drawn at random, beside the predicted front; after each round the prediction
    is corrected by what was simulated so far.

    Args:
        screen: the points to choose from.
        simulate: the event tier.
        budget: how many points are simulated at most.
        seed: of the points drawn at random.
    """
    budget = min(budget, len(screen.numbers))
    rng = np.random.default_rng(seed)
    lots = rng.permutation(len(screen.numbers))[: int(budget * _RANDOM)]
    done = np.zeros(0, np.int64)
    results: dict[str, F64] = {}
    for number in range(_ROUNDS):
        quota = budget * (number + 1) // _ROUNDS - len(done)
        fresh = lots if number == 0 else np.zeros(0, np.int64)
        fresh = np.concatenate(
            [fresh, _promising(screen, done, results, fresh, quota - len(fresh))]
        )
        if not len(fresh):
            continue
        made = simulate(screen.numbers[fresh])
        done = np.concatenate([done, fresh])
        results = {
            name: np.concatenate([results.get(name, np.zeros(0)), values])
            for name, values in made.items()
        }
    return screen.numbers[done]


def _promising(
    screen: Screen, done: I64, results: Mapping[str, F64], taken: I64, count: int
) -> I64:
    """Return the places of points that may be on the front, those of the predicted front first."""
    if count <= 0:
        return np.zeros(0, np.int64)
    space = screen.space
    metrics, off = (screen.metrics, _SLACK) if not len(done) else screen.predicted(done, results)
    values = objective_matrix(metrics, space.objectives)
    values[~feasible(space.constraints, metrics, off)] = np.nan
    values[np.concatenate([done, taken])] = np.nan
    if len(done):
        values = _open(space, values, results, off, count)
    return fronts_in_order(values, count)


def _open(space: Space, values: F64, results: Mapping[str, F64], off: float, count: int) -> F64:
    """Leave out what simulated points dominate even if its prediction is too high, if enough stay.

    The objectives that only the chip has a say in are known exactly.
    """
    known = objective_matrix(results, space.objectives)
    known = known[feasible(space.constraints, results)]
    hope = np.array([0.0 if name in CHIP_METRICS else off for name in space.objectives])
    hoped = values - hope * np.abs(values)
    mask = non_dominated(np.concatenate([known, hoped]))[len(known) :]
    # every point is compared with the others too: what they dominate may still be left open
    rest = np.where(mask[:, None], values, np.nan)
    return rest if np.isfinite(rest[:, 0]).sum() >= count else values
