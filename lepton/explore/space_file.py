"""Space files: TOML to `Space`; every fault is named with its line before one error is raised."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from lepton.chip import Chip, load_chip
from lepton.chip.contradictions import shown
from lepton.errors import ChipError, InputError
from lepton.explore.assignment import value_faults
from lepton.explore.space import Follow, Parameter, Space
from lepton.explore.space_goals import read_constraints, read_objectives, read_workloads
from lepton.explore.space_parameters import read_parameters
from lepton.explore.space_reader import Reader
from lepton.program import read_file

__all__ = ["SPACES", "load_space", "parse_space"]

SPACES = ("edge-1tops", "scratchpad-knee", "structured-sparsity")
"""Spaces that come with the package, by name: the case studies of docs/sweeps.md."""

_KEYS = ("base", "objectives", "parameters", "constraints", "workload")
_MOST_BYTES = 1 << 16
_MOST_POINTS = 1 << 60
_TRIED = 2000
"""Points of which one must be legal."""


def load_space(path: str | Path, models: str | Path | None = None) -> Space:
    """Return the space of a TOML file, or one of `SPACES` by its name.

    Args:
        path: the file, or the name; a file of that name comes first.
        models: folder that its workloads are relative to; None is the file's, or the working
            folder for a name.

    Raises:
        InputError: it cannot be read, or one sentence naming every fault and its line.
    """
    file = Path(path)
    folder = None if models is None else Path(models)
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder}: the folder of the models does not exist")
    if str(path) in SPACES and not file.exists():
        shipped = resources.files("lepton.explore") / "spaces" / f"{path}.toml"
        return parse_space(shipped.read_text(encoding="utf-8"), f"{path}.toml", folder)
    if not file.suffix and not file.exists():
        known = ", ".join(SPACES)
        raise InputError(f"{file}: no such file, and no space of the package: those are {known}")
    content = read_file(file, 1 << 30, "a space file")
    if len(content) > _MOST_BYTES:
        raise InputError(f"{file}: a space file must not exceed {_MOST_BYTES >> 10} KiB")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise InputError(f"{file}: cannot be read as a space: not a text file") from None
    return parse_space(text, str(file), folder or file.parent, file.parent)


def parse_space(
    text: str, place: str, folder: Path | None = None, chips: Path | None = None
) -> Space:
    """Return the space that a TOML text describes.

    Args:
        text: the TOML.
        place: what the text is called, for errors.
        folder: what paths of models in it are relative to; None is the working folder.
        chips: what the path of its base is relative to; None is `folder`.

    Raises:
        InputError: one sentence naming every fault and its line.
    """
    try:
        table: dict[str, object] = tomllib.loads(text)
        reader = Reader(text, place)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not a TOML file: {' '.join(str(error).split())}") from None
    root = folder or Path()
    for key in table:
        if key not in _KEYS:
            reader.fault((key,), f"{key} is not a known key: there are {', '.join(_KEYS)}")
    base = _base(reader, table, root if chips is None else chips)
    workloads = tuple(read_workloads(reader, table.get("workload", []), root))
    constraints = tuple(read_constraints(reader, table.get("constraints", {})))
    objectives = read_objectives(reader, table.get("objectives"))
    reader.refuse()
    assert base is not None
    found = read_parameters(reader, base, table.get("parameters"))
    reader.refuse()
    made = Space(
        place=place,
        base=base,
        parameters=tuple(item for item in found if isinstance(item, Parameter)),
        follows=tuple(item for item in found if isinstance(item, Follow)),
        workloads=workloads,
        constraints=constraints,
        objectives=objectives,
    )
    _check_size(reader, made)
    return made


def _base(reader: Reader, table: Mapping[str, object], folder: Path) -> Chip | None:
    """Return the chip that everything starts from, None where it is at fault."""
    name = table.get("base", "edge")
    if not isinstance(name, str):
        reader.fault(("base",), f"base must be a preset or a chip file, not {shown(name)}")
        return None
    try:
        return load_chip(folder / name if name.endswith(".toml") else name)
    except ChipError as error:
        reader.fault(("base",), str(error))
        return None


def _check_size(reader: Reader, space: Space) -> None:
    """Refuse a space that is too large, or of which no point is a legal chip."""
    if space.size > _MOST_POINTS:
        raise InputError(f"{space.place}: the space must not have more than 2^60 points")
    stride = max(space.size // _TRIED, 1)
    first = ""
    for number in range(0, space.size, stride):
        point = [int(part) for part in _point(space, number)]
        for item in space.follows:
            value = space.values(point)[item.path]
            fault = value_faults(space.base, item.path, value)
            if fault:
                reader.fault(("parameters", item.path), fault)
        reader.refuse()
        faults = space.faults(point)
        if not faults:
            return
        first = first or faults[0]
    if first:
        where = "no point" if stride == 1 else f"none of {_TRIED} points"
        reader.fault(("parameters",), f"{where} of the space is a legal chip; the first: {first}")
    reader.refuse()


def _point(space: Space, number: int) -> list[int]:
    made: list[int] = []
    for extent in reversed(space.extents):
        number, part = divmod(number, extent)
        made.append(part)
    return made[::-1]
