"""The results of a sweep as a Parquet table, and back as a DataFrame."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.explore.extras import needs
from lepton.explore.metrics import METRICS, feasible, objective_matrix
from lepton.explore.pareto import non_dominated
from lepton.explore.results import Simulated
from lepton.explore.space import Space
from lepton.program import read_file

__all__ = ["About", "about", "columns_of", "load", "parquet_bytes"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_ABOUT = b"lepton"
_VERSION = 1


@dataclass(frozen=True)
class About:
    """What a table is about: its file's metadata.

    Attributes:
        parameters: columns that were varied.
        objectives: metrics that were optimized.
        constraints: as texts.
        workloads: their names.
        place: the space file.
        base: name of the chip that everything starts from.
        tier: `event` or `analytic`, which the metrics are of.
        weights: of the workloads; none in a table of an earlier version.
    """

    parameters: tuple[str, ...]
    objectives: tuple[str, ...]
    constraints: tuple[str, ...]
    workloads: tuple[str, ...]
    place: str
    base: str
    tier: str
    weights: tuple[float, ...] = ()

    @classmethod
    def of(cls, space: Space, tier: str) -> About:
        """Return what is said about the table of a space."""
        return cls(
            tuple(parameter.path for parameter in space.parameters),
            space.objectives,
            tuple(map(str, space.constraints)),
            tuple(workload.name for workload in space.workloads),
            Path(space.place).name,
            space.base.name,
            tier,
            tuple(workload.weight for workload in space.workloads),
        )


def columns_of(
    space: Space,
    numbers: I64,
    metrics: Mapping[str, F64],
    simulated: Simulated | None = None,
    analytic: Mapping[str, F64] | None = None,
) -> dict[str, Sequence[object] | NDArray[Any]]:
    """Return the columns of a table of points.

    `point`, the number; all parameters and what follows them; all metrics; with simulations, of
    each workload `NAME.cycles`, `NAME.energy_mj`, `NAME.read_bytes`, `NAME.written_bytes`; the
    metrics of the analytic tier beside them as `analytic.METRIC`; `failure`; whether a point is
    `feasible`, and on the `front`.
    """
    values = [space.values(point) for point in space.points(numbers).tolist()]
    made: dict[str, Sequence[object] | NDArray[Any]] = {"point": numbers}
    for path in values[0] if values else ():
        made[path] = [row[path] for row in values]
    made |= {name: metrics[name] for name in METRICS}
    if simulated is not None:
        for column, workload in enumerate(space.workloads):
            made[f"{workload.name}.cycles"] = simulated.cycles[:, column]
            made[f"{workload.name}.energy_mj"] = simulated.millijoules[:, column]
            made[f"{workload.name}.read_bytes"] = simulated.read_bytes[:, column]
            made[f"{workload.name}.written_bytes"] = simulated.written_bytes[:, column]
        made["failure"] = simulated.failures
    for name in analytic or {}:
        if name in ("latency_ms", "energy_mj"):
            made[f"analytic.{name}"] = (analytic or {})[name]
    within = feasible(space.constraints, metrics)
    objectives = objective_matrix(metrics, space.objectives)
    objectives[~within] = np.nan
    made["feasible"] = within
    made["front"] = non_dominated(objectives)
    return made


def parquet_bytes(columns: Mapping[str, Any], about_table: About) -> bytes:
    """Return a table as the content of a Parquet file, the same bytes for the same table."""
    pa, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    table = pa.table({name: _plain(pa, values) for name, values in columns.items()})
    content = {"version": _VERSION, **vars(about_table)}
    table = table.replace_schema_metadata({_ABOUT: json.dumps(content).encode()})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _plain(pa: Any, values: Any) -> Any:
    """Return a column; parameters of mixed numbers become floating point."""
    if isinstance(values, np.ndarray):
        return pa.array(values)
    kinds = {type(value) for value in values}
    return pa.array([float(value) for value in values] if kinds == {int, float} else values)


def _opened(path: str | Path) -> Any:
    parquet, pa = needs("pyarrow.parquet"), needs("pyarrow")
    file = Path(path)
    if file.is_dir():
        file = file / "points.parquet"
    content = read_file(file, 4 << 30, "a table")
    try:
        table = parquet.read_table(io.BytesIO(content))
        found = json.loads(table.schema.metadata[_ABOUT])
        if found.pop("version") != _VERSION:
            raise ValueError
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError):
        raise InputError(f"{file}: is not the table of a sweep") from None
    return table, found


def about(path: str | Path) -> About:
    """Return what the table of a sweep is about.

    Raises:
        InputError: not the table of a sweep.
    """
    found = cast(dict[str, Any], _opened(path)[1])
    made: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    return About(**made)


def load(path: str | Path) -> Any:
    """Return the table of a sweep, a Parquet file or its folder, as a `pandas.DataFrame`.

    Raises:
        InputError: not the table of a sweep, or pandas is not installed.
    """
    needs("pandas")
    return _opened(path)[0].to_pandas()
