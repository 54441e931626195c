"""A sweep: points are chosen, evaluated, kept and put into a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.explore.analytic import AnalyticTier
from lepton.explore.extras import needs
from lepton.explore.fronts import load_front
from lepton.explore.metrics import METRICS, feasible, objective_matrix
from lepton.explore.pareto import non_dominated
from lepton.explore.results import Simulated, Simulations, Told
from lepton.explore.samplers import SAMPLERS, drawn, searched
from lepton.explore.space import Space, Workload
from lepton.explore.space_file import load_space
from lepton.explore.storage import Storage
from lepton.explore.table import About, columns_of, parquet_bytes
from lepton.explore.two_fidelity import Screen, confirm, screened
from lepton.explore.workers import open_workers
from lepton.models import model_path
from lepton.program import atomic_write
from lepton.program.files import made_folder

__all__ = ["TWO_FIDELITY", "Sample", "Sweep", "SweepOptions", "planned_points"]
__all__ += ["run_sweep", "sweep", "with_models"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

TWO_FIDELITY = "two-fidelity"
_BUDGET = 0.05
"""Of a space that two-fidelity search simulates."""
_LEAST_BUDGET = 20
_SEARCHED = 200
"""Points of a search that is not told how many."""
_SAMPLED = 1 << 14
"""Points that stand for the whole space, where it has more."""
_AT_ONCE = 1 << 16
"""Points that the analytic tier takes at a time."""


@dataclass(frozen=True)
class SweepOptions:
    """How a space is swept.

    Attributes:
        sampler: `two-fidelity`, or one of `SAMPLERS`.
        tier: `event` or `analytic`, which evaluates the points of a sampler.
        points: how many are evaluated; None for 5 % of the space with two-fidelity search, all of a
            grid, and 200 otherwise.
        seed: of everything that is drawn.
        workers: processes of the event tier.
        storage: URL of the database of runs; None for `runs.db` in the folder of the results.
        scheduler: address of a Dask cluster that does their work; None for this machine.
    """

    sampler: str = TWO_FIDELITY
    tier: str = "event"
    points: int | None = None
    seed: int = 0
    workers: int = 1
    storage: str | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        known = (TWO_FIDELITY, *SAMPLERS)
        if self.sampler not in known:
            raise InputError(f"sampler must be one of {', '.join(known)}, not {self.sampler!r}")
        if self.tier not in ("event", "analytic"):
            raise InputError(f"tier must be event or analytic, not {self.tier!r}")
        if self.sampler == TWO_FIDELITY and self.tier == "analytic":
            raise InputError("two-fidelity search has both tiers: leave the tier out")
        for name in ("points", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")
        if self.scheduler is not None and self.workers != 1:
            raise InputError("the scheduler knows its workers: leave their number out")


@dataclass(frozen=True)
class Sample:
    """Points from the whole space, with metrics of one tier."""

    numbers: I64
    metrics: Mapping[str, F64]


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes:
        space: what was swept.
        numbers: of the points that were evaluated, ascending.
        metrics: `[n]` each, of the event tier unless only the analytic one was asked.
        simulated: the runs behind them, None without the event tier.
        analytic: metrics of the same points by the analytic tier.
        fresh: runs that were simulated now; the others were known.
        screened: points that the analytic tier has looked at.
        sample: points drawn evenly from the whole space, to see what parameters do.
        macs: of an inference of each workload.
    """

    space: Space
    numbers: I64
    metrics: Mapping[str, F64]
    simulated: Simulated | None
    analytic: Mapping[str, F64]
    fresh: int
    screened: int
    sample: Sample
    macs: tuple[int, ...]

    @property
    def columns(self) -> dict[str, Any]:
        """The table; `columns_of` says what is in it."""
        return columns_of(self.space, self.numbers, self.metrics, self.simulated, self.analytic)

    def frame(self) -> Any:
        """Return the table as a `pandas.DataFrame`."""
        return needs("pandas").DataFrame(self.columns)

    def save(self, path: str | Path) -> None:
        """Write the table as a Parquet file."""
        tier = "analytic" if self.simulated is None else "event"
        atomic_write(Path(path), parquet_bytes(self.columns, About.of(self.space, tier)))

    @property
    def front(self) -> I64:
        """Numbers of the feasible points that no other is better than in every objective."""
        values = objective_matrix(self.metrics, self.space.objectives)
        values[~feasible(self.space.constraints, self.metrics)] = np.nan
        return self.numbers[non_dominated(values)]

    def agreement(self) -> dict[str, float]:
        """Return the rank correlation (Spearman) of the tiers in latency and energy."""
        if self.simulated is None:
            return {}
        spearmanr = needs("scipy.stats").spearmanr
        sound = ~np.isnan(self.metrics["latency_ms"])
        if sound.sum() < 3:
            return {}
        return {
            name: float(spearmanr(self.analytic[name][sound], self.metrics[name][sound])[0])
            for name in ("latency_ms", "energy_mj")
        }


def sweep(
    space: Space | str | Path,
    models: Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    sampler: str = TWO_FIDELITY,
    tier: str = "event",
    points: int | None = None,
    seed: int = 0,
    workers: int = 1,
    storage: str | None = None,
    scheduler: str | None = None,
) -> Sweep:
    """Sweep a design space.

    Args:
        space: a space file, or what `lepton.explore.load_space` made of one.
        models: `.onnx` or `.tflite` files, or names of trained networks, beside the space's own
            workloads.
        out: folder of the table and of the runs that are done; None keeps nothing.
        sampler: `two-fidelity`, `grid`, `random`, `qmc`, `tpe`, `nsga2` or `nsga3`.
        tier: `event` or `analytic`, for the points of a sampler.
        points: how many are evaluated.
        seed: of everything that is drawn.
        workers: processes.
        storage: URL of the database of runs that are done.
        scheduler: address of a Dask cluster, in place of workers of this machine.

    Raises:
        InputError: the space, a model or an option is at fault.
    """
    made = space if isinstance(space, Space) else load_space(space)
    options = SweepOptions(sampler, tier, points, seed, workers, storage, scheduler)
    folder = None if out is None else Path(out)
    if folder is not None:
        made_folder(folder)
    found = run_sweep(with_models(made, models), options, folder)
    if folder is not None:
        found.save(folder / "points.parquet")
    return found


def with_models(space: Space, models: Sequence[str | Path]) -> Space:
    """Return a space with further workloads.

    Raises:
        InputError: there is none at all, or two of one name.
    """
    added = [Workload(Path(model).stem, model_path(model)) for model in models]
    every = (*space.workloads, *added)
    names = [workload.name for workload in every]
    if not names:
        raise InputError(f"{space.place}: there is no workload: add [[workload]] or give a model")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{space.place}: two workloads are called '{twice[0]}'")
    return replace(space, workloads=every)


def run_sweep(
    space: Space,
    options: SweepOptions,
    folder: Path | None = None,
    tell: Callable[[Told], None] = lambda told: None,
) -> Sweep:
    """Sweep a space that has workloads; see `sweep`.

    Args:
        space: what is swept.
        options: how.
        folder: of the database of runs, unless the options have a URL.
        tell: hears of every point that is done.
    """
    fronts = [load_front(workload, space.base) for workload in space.workloads]
    tier = AnalyticTier(fronts, [workload.weight for workload in space.workloads])
    macs = tuple(network.macs for network in tier.networks)
    if options.tier == "analytic":
        numbers = np.sort(_chosen(space, options, lambda n: _analytic(tier, space, n)))
        metrics = _analytic(tier, space, numbers)
        sample = _sample_of(space, numbers, metrics, tier)
        return Sweep(space, numbers, metrics, None, {}, 0, len(numbers), sample, macs)
    storage = Storage(_url(options, folder))
    workers = open_workers(space.workloads, fronts, space.base, options.workers, options.scheduler)
    try:
        runs = Simulations(space, storage, workers, tell)
        count = 0
        if options.sampler == TWO_FIDELITY:
            numbers, count = _two_fidelity(space, options, tier, runs)
        else:
            numbers = _chosen(space, options, lambda n: runs.simulate(n).metrics)
        numbers = np.sort(numbers)
        simulated = runs.simulate(numbers)
    finally:
        workers.close()
        storage.close()
    known = _analytic(tier, space, numbers)
    metrics = simulated.metrics
    sample = _sample_of(space, numbers, metrics, tier)
    return Sweep(space, numbers, metrics, simulated, known, runs.fresh, count, sample, macs)


def _sample_of(
    space: Space, numbers: I64, metrics: Mapping[str, F64], tier: AnalyticTier
) -> Sample:
    """Return the points that were evaluated if that is all, else random ones in closed form."""
    if len(numbers) == space.size:
        return Sample(numbers, metrics)
    chosen = drawn(space, "random", min(space.size, _SAMPLED), 0)
    return Sample(chosen, _analytic(tier, space, chosen))


def _url(options: SweepOptions, folder: Path | None) -> str:
    """Return the URL of the database of runs, one in memory if nothing is to be kept."""
    if options.storage is not None:
        return options.storage
    if folder is None:
        return "sqlite://"
    made_folder(folder)
    url: Any = needs("sqlalchemy").URL.create("sqlite", database=str(folder / "runs.db"))
    return url.render_as_string(hide_password=False)


def _analytic(tier: AnalyticTier, space: Space, numbers: I64) -> dict[str, F64]:
    """Return the metrics of points by the analytic tier."""
    parts = [
        tier.evaluate(space, space.points(numbers[start : start + _AT_ONCE])).metrics
        for start in range(0, max(len(numbers), 1), _AT_ONCE)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def _two_fidelity(
    space: Space, options: SweepOptions, tier: AnalyticTier, runs: Simulations
) -> tuple[I64, int]:
    """Return the points that were simulated, and how many were screened."""
    numbers = screened(space, options.seed)
    screen = Screen(space, numbers, _analytic(tier, space, numbers))
    budget = planned_points(space, options)
    found = confirm(screen, lambda n: runs.simulate(n).metrics, budget, options.seed)
    return found, len(numbers)


def planned_points(space: Space, options: SweepOptions) -> int:
    """Return how many points a sweep evaluates, unless it runs out of them."""
    if options.points is not None:
        return min(options.points, space.size)
    if options.sampler == TWO_FIDELITY:
        return min(max(int(_BUDGET * space.size), _LEAST_BUDGET), space.size)
    return space.size if options.sampler == "grid" else min(_SEARCHED, space.size)


def _chosen(
    space: Space, options: SweepOptions, evaluate: Callable[[I64], Mapping[str, F64]]
) -> I64:
    """Return the points of a sampler, after evaluating them if it learns from them."""
    count = planned_points(space, options)
    if options.sampler in ("grid", "random", "qmc"):
        return drawn(space, options.sampler, count, options.seed)

    def judge(numbers: I64) -> tuple[F64, F64]:
        metrics = evaluate(numbers)
        return objective_matrix(metrics, space.objectives), _broken(space, metrics)

    return searched(space, options.sampler, count, options.seed, judge)


def _broken(space: Space, metrics: Mapping[str, F64]) -> F64:
    """Return by what share of each limit points break the constraints, `[n, 2 constraints]`."""
    columns = [np.zeros(len(metrics["latency_ms"]))]
    for item in space.constraints:
        values = metrics[item.metric]
        for limit, sign in ((item.at_most, 1.0), (item.at_least, -1.0)):
            if np.isfinite(limit):
                columns.append(sign * (values - limit) / max(abs(limit), 1e-9))
    return np.nan_to_num(np.stack(columns, axis=1), nan=0.0)
