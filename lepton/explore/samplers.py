"""Which points of a space are looked at next."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.explore.extras import needs
from lepton.explore.space import Space

__all__ = ["SAMPLERS", "drawn", "searched"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

SAMPLERS = ("grid", "random", "qmc", "tpe", "nsga2", "nsga3")
"""The first three know all their points from the start; the others learn from those before."""

_BATCH = 16
"""Points that are asked for at a time, whatever the number of workers, so that it has no say."""
_FRUITLESS = 50
"""Batches without a new point after which a space counts as exhausted."""
_MOST_GRID = 10_000_000

Judge = Callable[[I64], tuple[F64, F64]]
"""Takes numbers of new points; returns objectives `[n, m]`, NaN where there are none, and by how
much each of the constraints is broken `[n, constraints]`."""


def drawn(space: Space, sampler: str, count: int, seed: int) -> I64:
    """Return the numbers of different points that do not depend on any result.

    Args:
        space: what is swept.
        sampler: `grid`, which takes evenly spread ones; `random` or `qmc`.
        count: how many points.
        seed: of `random` and `qmc`.

    Raises:
        InputError: too many points.
    """
    wanted = min(count, space.size)
    if wanted > _MOST_GRID:
        raise InputError(
            f"{space.place}: {wanted:,} points are too many to list: choose at most "
            f"{_MOST_GRID:,} with --points, or a sampler that searches (tpe, nsga2, nsga3)"
        )
    if wanted == space.size:
        return np.arange(space.size)
    if sampler == "grid":
        return np.array([number * space.size // wanted for number in range(wanted)], np.int64)
    if sampler == "random":
        return _random(space.size, wanted, seed)
    return _low_discrepancy(space, wanted, seed)


def _random(size: int, count: int, seed: int) -> I64:
    rng = np.random.default_rng(seed)
    found = np.zeros(0, np.int64)
    while len(found) < count:
        fresh = rng.integers(0, size, 2 * count)
        together = np.concatenate([found, fresh])
        _, first = np.unique(together, return_index=True)
        found = together[np.sort(first)]
    return found[:count]


def _low_discrepancy(space: Space, count: int, seed: int) -> I64:
    """Return points of a scrambled Sobol sequence, repeated ones left out."""
    qmc = needs("scipy.stats").qmc
    engine = qmc.Sobol(len(space.extents), seed=seed)
    extents = np.array(space.extents)
    found = np.zeros(0, np.int64)
    block = 1 << max(count - 1, 1).bit_length()
    for _ in range(_FRUITLESS):
        points = np.minimum((engine.random(block) * extents).astype(np.int64), extents - 1)
        together = np.concatenate([found, space.numbers(points)])
        _, first = np.unique(together, return_index=True)
        found = together[np.sort(first)]
        if len(found) >= count:
            break
    if len(found) < count:
        rest = np.setdiff1d(_random(space.size, count, seed), found, assume_unique=True)
        found = np.concatenate([found, rest])
    return found[:count]


def searched(space: Space, sampler: str, count: int, seed: int, judge: Judge) -> I64:
    """Return the numbers of the points that a search has looked at, in its order.

    Every decision follows from the seed and the results, so a search that is begun again goes the
    same way.

    Args:
        space: what is swept.
        sampler: `tpe`, `nsga2` or `nsga3`.
        count: how many different points, unless the space is exhausted before.
        seed: of the sampler.
        judge: evaluates points.
    """
    optuna = needs("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = _distributions(optuna, space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            directions=["minimize"] * len(space.objectives),
            sampler=_sampler(optuna, sampler, seed),
        )
    known: dict[int, tuple[F64, F64]] = {}
    fruitless = 0
    while len(known) < min(count, space.size) and fruitless < _FRUITLESS:
        trials = [study.ask(distributions) for _ in range(_BATCH)]
        numbers = [_number(space, trial.params) for trial in trials]
        fresh = [n for n in dict.fromkeys(numbers) if n not in known][: count - len(known)]
        fruitless = 0 if fresh else fruitless + 1
        if fresh:
            values, broken = judge(np.array(fresh, np.int64))
            known |= dict(zip(fresh, zip(values, broken, strict=True), strict=True))
        for trial, number in zip(trials, numbers, strict=True):
            _tell(optuna, study, trial, known.get(number))
    return np.array(list(known), np.int64)


def _tell(optuna: Any, study: Any, trial: Any, result: tuple[F64, F64] | None) -> None:
    """Tell a study the result of a point, or that there is none."""
    if result is None or np.isnan(result[0]).any():
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    for number, broken in enumerate(result[1].tolist()):
        trial.set_constraint(f"c{number}", broken)
    study.tell(trial, result[0].tolist())


def _sampler(optuna: Any, name: str, seed: int) -> Any:
    samplers = optuna.samplers
    if name == "tpe":
        return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    made = samplers.NSGAIISampler if name == "nsga2" else samplers.NSGAIIISampler
    return made(population_size=2 * _BATCH, seed=seed)


def _distributions(optuna: Any, space: Space) -> dict[str, Any]:
    """Return what a study draws for each parameter: the number of a value."""
    made: dict[str, Any] = {}
    for parameter in space.parameters:
        last = len(parameter.values) - 1
        made[parameter.path] = (
            optuna.distributions.IntDistribution(0, last)
            if parameter.is_ordered
            else optuna.distributions.CategoricalDistribution(range(last + 1))
        )
    return made


def _number(space: Space, drawn_values: dict[str, int]) -> int:
    point = [drawn_values[parameter.path] for parameter in space.parameters]
    return int(space.numbers(np.array([point], np.int64))[0])
