"""The workloads, constraints and objectives of a space file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from lepton.chip.contradictions import shown
from lepton.explore.metrics import METRICS, Constraint
from lepton.explore.space import Space, Workload
from lepton.explore.space_reader import Reader
from lepton.models import model_path

__all__ = ["read_constraints", "read_objectives", "read_workloads"]

_WORKLOAD = frozenset({"model", "weight", "name", "shapes"})


def read_workloads(reader: Reader, value: object, folder: Path) -> Iterator[Workload]:
    """Yield the `[[workload]]` tables."""
    if not isinstance(value, list):
        reader.fault(("workload",), "workload must be [[workload]] tables")
        return
    names: set[str] = set()
    for number, entry in enumerate(cast(list[object], value)):
        keys = ("workload", str(number))
        item = reader.table(entry, keys)
        for key in sorted(item.keys() - _WORKLOAD):
            reader.fault((*keys, key), f"workload {key} is not a known key")
        made = _workload(reader, keys, item, folder)
        if made is None:
            continue
        if made.name in names:
            reader.fault(keys, f"two workloads are called '{made.name}': give one another name")
        names.add(made.name)
        yield made


def _workload(
    reader: Reader, keys: Sequence[str], item: Mapping[str, object], folder: Path
) -> Workload | None:
    model, weight = item.get("model"), reader.number(item.get("weight", 1), (*keys, "weight"))
    if not isinstance(model, str) or not model:
        reader.fault((*keys, "model"), f"workload model must be a file, not {shown(model)}")
        return None
    if weight is None or weight <= 0:
        reader.fault((*keys, "weight"), f"workload weight must be above 0, not {shown(weight)}")
        return None
    named = model_path(Path(model))
    path = named if named.is_absolute() else folder / named
    name = item.get("name", path.stem)
    if not isinstance(name, str) or not name:
        reader.fault((*keys, "name"), f"workload name must be a text, not {shown(name)}")
        return None
    shapes = _shapes(reader, (*keys, "shapes"), item.get("shapes", {}))
    return Workload(name, path, float(weight), shapes)


def _shapes(reader: Reader, keys: Sequence[str], value: object) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs."""
    made: dict[str, tuple[int, ...]] = {}
    for name, shape in reader.table(value, keys).items():
        extents = cast(list[object], shape) if isinstance(shape, list) else [None]
        if not all(isinstance(e, int) and 0 < e < 1 << 31 for e in extents):
            reader.fault((*keys, name), f"the shape of '{name}' must be a list of whole numbers")
            continue
        made[name] = tuple(cast(list[int], extents))
    return made


def read_constraints(reader: Reader, value: object) -> Iterator[Constraint]:
    """Yield the limits of metrics."""
    for name, limits in reader.table(value, ("constraints",)).items():
        keys = ("constraints", name)
        if name not in METRICS:
            reader.fault(keys, f"{name} is not a metric: there are {', '.join(METRICS)}")
            continue
        given = reader.table(limits, keys)
        unknown = sorted(given.keys() - {"at_least", "at_most"})
        if unknown or not given:
            found = unknown[0] if unknown else "{}"
            reader.fault(keys, f"{name} must have at_most, at_least or both, not {found}")
            continue
        ends = {key: reader.number(end, (*keys, key)) for key, end in given.items()}
        if None in ends.values():
            continue
        low, high = ends.get("at_least"), ends.get("at_most")
        made = Constraint(
            name, -math.inf if low is None else low, math.inf if high is None else high
        )
        if made.at_least > made.at_most:
            reader.fault(keys, f"{name} cannot be at least {low:g} and at most {high:g}")
        yield made


def read_objectives(reader: Reader, value: object) -> tuple[str, ...]:
    """Return the metrics to optimize."""
    if value is None:
        return Space.objectives
    names = cast(list[object], value) if isinstance(value, list) else [None]
    wrong = [name for name in names if not isinstance(name, str) or name not in METRICS]
    if wrong or not names:
        found = shown(wrong[0]) if names else "an empty list"
        known = ", ".join(METRICS)
        reader.fault(
            ("objectives",), f"objectives must be a list of metrics ({known}), not {found}"
        )
        return ()
    if len(set(names)) < len(names):
        reader.fault(("objectives",), "objectives must differ")
    return tuple(cast(list[str], names))
