"""Two sweeps of the same workloads and objectives, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.explore.metrics import METRICS, objective_matrix
from lepton.explore.pareto import hypervolume, non_dominated
from lepton.explore.table import About, about, load

__all__ = ["Comparison", "Side", "Table", "compare_sweeps", "is_sweep", "load_table"]

F64 = NDArray[np.float64]

_SHOWN = 5
"""Values of a parameter that a line of the text names."""


@dataclass(frozen=True)
class Table:
    """The table of a sweep, with what it is about."""

    name: str
    about: About
    frame: Any
    """A `pandas.DataFrame`."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Columns that say which chip a row is: parameters and what follows them."""
        columns = list(self.frame.columns)
        return tuple(columns[1 : columns.index("latency_ms")])

    def values(self, names: Sequence[str]) -> F64:
        """Return `[n, objectives]`, all to be minimized; NaN where a constraint is broken."""
        metrics = {name: self.frame[name].to_numpy(np.float64) for name in names}
        made = objective_matrix(metrics, names)
        made[~self.frame["feasible"].to_numpy(np.bool_)] = np.nan
        return made


@dataclass(frozen=True)
class Side:
    """What one of two sweeps found.

    Attributes:
        name: its folder or file.
        points: that were evaluated.
        feasible: of them, within its own constraints.
        front: points on its own front.
        front_of_both: of them, those that no point of the other sweep dominates.
        hypervolume: share of what both fronts together dominate, 0 to 1.
        best: of each objective, None without a feasible point.
        constraints: its own.
    """

    name: str
    points: int
    feasible: int
    front: int
    front_of_both: int
    hypervolume: float
    best: Mapping[str, float | None]
    constraints: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two sweeps, A and B.

    Attributes:
        a, b: what each found.
        shared: chips that both have evaluated; None where their parameters or bases differ, so
            that rows do not say whether they are the same chip.
        shared_front: chips on both fronts, None likewise.
        ratios: of each objective B / A over the shared chips: least, median, most.
        parameters: of each parameter of both its values on the fronts of A and of B.
    """

    a: Side
    b: Side
    shared: int | None
    shared_front: int | None
    ratios: Mapping[str, tuple[float, float, float]]
    parameters: Mapping[str, tuple[tuple[object, ...], tuple[object, ...]]]

    def to_json(self) -> dict[str, Any]:
        """Return it as one object of plain types."""
        return asdict(self)

    def text(self) -> str:
        """Return it as a table for people."""
        rows = [
            ("", "A", "B"),
            ("points", f"{self.a.points:,}", f"{self.b.points:,}"),
            ("within constraints", f"{self.a.feasible:,}", f"{self.b.feasible:,}"),
            ("on its front", f"{self.a.front:,}", f"{self.b.front:,}"),
            ("not beaten by the other", f"{self.a.front_of_both:,}", f"{self.b.front_of_both:,}"),
            ("hypervolume [% of both]", f"{100 * self.a.hypervolume:.2f}",
             f"{100 * self.b.hypervolume:.2f}"),
            *((f"best {name}", _number(self.a.best[name]), _number(self.b.best[name]))
              for name in self.a.best),
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{n}: {side.name}" for n, side in (("A", self.a), ("B", self.b))]
        lines += [
            f"{head:{widths[0]}}  {a:>{widths[1]}}  {b:>{widths[2]}}".rstrip()
            for head, a, b in rows
        ]
        return "\n".join([*lines, *self._shared_lines(), *self._parameter_lines()])

    def _shared_lines(self) -> list[str]:
        if self.a.constraints != self.b.constraints:
            named = (", ".join(side.constraints) or "none" for side in (self.a, self.b))
            lines = [
                "constraints: {}; {}".format(
                    *(f"{n}: {t}" for n, t in zip("AB", named, strict=True))
                )
            ]
        else:
            lines = []
        if self.shared is None:
            return [*lines, "their parameters or bases differ: no chip of A is known to be in B"]
        lines.append(f"in both: {self.shared:,} chips, {self.shared_front:,} on both fronts")
        lines += [
            f"  {name}, B / A: median {median:.4g}, {low:.4g} to {high:.4g}"
            for name, (low, median, high) in self.ratios.items()
        ]
        return lines

    def _parameter_lines(self) -> list[str]:
        if not self.parameters:
            return []
        width = max(map(len, self.parameters))
        lines = ["values on the fronts, A -> B:"]
        for path, (a, b) in self.parameters.items():
            change = "the same" if a == b else f"-> {_listed(b)}"
            lines.append(f"  {path:{width}}  {_listed(a)}  {change}")
        return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _listed(values: Sequence[object]) -> str:
    """Return values in one line, the middle ones left out if there are many."""
    texts = [str(value) for value in values]
    if len(texts) > _SHOWN:
        texts = [*texts[: _SHOWN - 2], "...", texts[-1]]
    return ", ".join(texts) or "none"


def is_sweep(path: Path) -> bool:
    """Return whether a path looks like the results of a sweep: a folder, or a Parquet file."""
    return path.is_dir() or path.suffix == ".parquet"


def load_table(path: Path) -> Table:
    """Return the table of a sweep by its folder or file.

    Raises:
        InputError: not the table of a sweep.
    """
    return Table(str(path), about(path), load(path))


def compare_sweeps(a: Table, b: Table) -> Comparison:
    """Compare two sweeps.

    Raises:
        InputError: their objectives, workloads or tiers differ.
    """
    _check(a, b)
    names = a.about.objectives
    values = a.values(names), b.values(names)
    sides = _side(a, names, values), _side(b, names, values[::-1])
    shared, shared_front, ratios = _shared(a, b)
    return Comparison(*sides, shared, shared_front, ratios, _parameters(a, b))


def _check(a: Table, b: Table) -> None:
    """Refuse sweeps whose metrics are of different things."""
    for what, own, other in (
        ("objectives", sorted(a.about.objectives), sorted(b.about.objectives)),
        ("workloads", sorted(a.about.workloads), sorted(b.about.workloads)),
        ("weights of the workloads", _weights(a.about), _weights(b.about)),
        ("tiers", [a.about.tier], [b.about.tier]),
    ):
        # a table of an earlier version has no weights
        if own and other and own != other:
            raise InputError(
                f"the {what} of the sweeps differ, so that their points do not compare: "
                f"{', '.join(map(str, own))} in {a.name}, {', '.join(map(str, other))} in {b.name}"
            )


def _weights(item: About) -> list[str]:
    """Return the share of each workload, in the order of their names."""
    total = sum(item.weights)
    shares = zip(item.workloads, item.weights, strict=False)
    return [f"{name} {weight / total:.4g}" for name, weight in sorted(shares)]


def _side(own: Table, names: Sequence[str], both_values: Sequence[F64]) -> Side:
    """Return what a sweep found, by its values and the other's."""
    values = both_values[0]
    both = np.concatenate(both_values)
    fronts = [rows[non_dominated(rows)] for rows in both_values]
    kept = non_dominated(both)[: len(values)]
    feasible = ~np.isnan(values).any(axis=1)
    signs = [METRICS[name].sign for name in names]
    best = {
        name: float(sign * values[feasible, column].min()) if feasible.any() else None
        for column, (name, sign) in enumerate(zip(names, signs, strict=True))
    }
    return Side(
        name=own.name,
        points=len(values),
        feasible=int(feasible.sum()),
        front=len(fronts[0]),
        front_of_both=int(kept.sum()),
        hypervolume=_share(fronts),
        best=best,
        constraints=own.about.constraints,
    )


def _share(fronts: Sequence[F64]) -> float:
    """Return the hypervolume of the first front over that of both; 0 where both are empty.

    Objectives are scaled to the box of both fronts, whose worst corner, a tenth of the box
    further out, is the reference.
    """
    union = np.concatenate(fronts)
    if not len(union):
        return 0.0
    low, high = union.min(axis=0), union.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    reference = np.full(union.shape[1], 1.1)
    whole = hypervolume((union - low) / span, reference)
    return hypervolume((fronts[0] - low) / span, reference) / whole


def _shared(
    a: Table, b: Table
) -> tuple[int | None, int | None, dict[str, tuple[float, float, float]]]:
    """Return how many chips both have, how many on both fronts, and the objectives' ratios."""
    if set(a.fields) != set(b.fields) or a.about.base != b.about.base:
        return None, None, dict[str, tuple[float, float, float]]()
    names = list(a.about.objectives)
    wanted = [*a.fields, *names, "front"]
    both = a.frame[wanted].merge(b.frame[wanted], on=list(a.fields), suffixes=(" A", " B"))
    ratios: dict[str, tuple[float, float, float]] = {}
    for name in names:
        ratio = (both[f"{name} B"] / both[f"{name} A"]).dropna().to_numpy(np.float64)
        if len(ratio):
            ratios[name] = float(ratio.min()), float(np.median(ratio)), float(ratio.max())
    return len(both), int((both["front A"] & both["front B"]).sum()), ratios


def _parameters(a: Table, b: Table) -> dict[str, tuple[tuple[object, ...], tuple[object, ...]]]:
    """Return the values of each parameter of both on the two fronts, in order."""
    shared = [path for path in a.about.parameters if path in b.about.parameters]
    return {path: (_on_front(a, path), _on_front(b, path)) for path in shared}


def _on_front(table: Table, path: str) -> tuple[object, ...]:
    column = table.frame[path][table.frame["front"]]
    return tuple(sorted(set(column.tolist()), key=lambda v: (isinstance(v, str), v)))
