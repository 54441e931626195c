"""What tells one run from another, so that none is simulated twice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from lepton.chip import Chip, chip_to_table
from lepton.errors import InputError
from lepton.explore.space import Setting, Workload
from lepton.jit import imported_files, module_file, sources_hash

__all__ = ["run_key", "workload_digest"]

_ABOUT = ("name", "description", "sources")
"""Keys of a chip that no run depends on."""


_MAKERS = ("compiler.compile", "compiler.front", "simulator.timing", "report.energy")
"""Modules of the package that make a run's result, with all that they import."""


@cache
def _sources() -> str:
    """Return the digest of the sources that a run's result depends on."""
    own = module_file("lepton.explore.events")
    found = {own} if own is not None else set[Path]()
    for name in _MAKERS:
        file = module_file(f"lepton.{name}")
        assert file is not None
        found |= imported_files(file)
    return sources_hash(found)


def workload_digest(workload: Workload) -> str:
    """Return what tells a workload's model from others.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        content = hashlib.sha256(workload.model.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{workload.model}: cannot be read: {error.strerror}") from None
    shapes = sorted((name, list(shape)) for name, shape in workload.shapes.items())
    return f"{content} {shapes}"


def run_key(workload: str, chip: Chip, setting: Setting) -> str:
    """Return the key of a run of a workload, by its digest."""
    table: dict[str, Any] = chip_to_table(chip)
    kept = {key: value for key, value in table.items() if key not in _ABOUT}
    text = json.dumps([workload, _sources(), asdict(setting), kept], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
