"""What commands share: reading chips, models, programs and inputs; progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from lepton.chip import PRESETS, Chip, load_chip
from lepton.cli.arguments import parse_shapes
from lepton.compiler.activations import INT8, Activations
from lepton.compiler.options import CompileOptions
from lepton.compiler.schedules import Compiled
from lepton.errors import InputError
from lepton.program import (
    Objective,
    Program,
    load_program,
    one_line,
    read_arrays,
    refuse_special,
    starts_like_program,
)

__all__ = ["chosen_chip", "compile_options", "compile_path", "compile_path_explained", "progress"]
__all__ += ["program_or_model", "read_inputs", "search_bar"]

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]

_SIMULATED = 2
"""Effort from which on programs are compared by their simulation."""


def chosen_chip(name: str) -> Chip:
    """Return the chip that a user named, a preset or a file."""
    if name not in PRESETS:
        refuse_special(Path(name))
    return load_chip(name)


def compile_path(options: argparse.Namespace, chip: Chip, *, keep_all: bool = False) -> Program:
    """Compile the model of a command; see `compile_path_explained`."""
    return compile_path_explained(options, chip, keep_all=keep_all).program


def compile_path_explained(
    options: argparse.Namespace, chip: Chip, *, keep_all: bool = False, explain: bool = False
) -> Compiled:
    """Compile the model of a command.

    Args:
        options: of the command; its calibration, objective, effort and dump are taken if it has
            them.
        chip: the chip to compile for.
        keep_all: keep every tensor, to look at it afterwards.
        explain: also return the schedules of the layers.
    """
    from lepton.compiler.isolate import compile_file_explained, readable

    path: Path = options.model
    if starts_like_program(path):
        raise InputError(f"{path} is a Lepton program, not a model")
    if getattr(options, "calibrate", None) is not None:
        readable(path)
    with search_bar(path.name) as bar:
        chosen = replace(compile_options(options), keep_all=keep_all, explain=explain, progress=bar)
        return compile_file_explained(path, chip, chosen)


def compile_options(options: argparse.Namespace) -> CompileOptions:
    """Return how a command's model is to be compiled."""
    samples: Path | None = getattr(options, "calibrate", None)
    given: int | None = getattr(options, "effort", None)
    effort = 1 if given is None else given
    optimize: str = getattr(options, "optimize", None) or Objective.LATENCY
    return CompileOptions(
        activations=_activations(options),
        shapes=parse_shapes(options.shape),
        effort=effort,
        calibration=None if samples is None else read_arrays(samples),
        dump=getattr(options, "dump", None),
        float_on_host="cpu" in (getattr(options, "device", None) or ""),
        optimize=optimize,
        evaluate=_measured(Objective(optimize)) if effort >= _SIMULATED else None,
    )


def _activations(options: argparse.Namespace) -> Activations:
    """Return the bits of activations that a command asks for, if it has the option."""
    kind: str | None = getattr(options, "activations", None)
    sqnr_db, agreement = (getattr(options, name, None) for name in ("sqnr", "agreement"))
    return Activations(kind or INT8.kind, sqnr_db, agreement)


def _measured(objective: Objective) -> Callable[[Program], float]:
    """Return what simulates a program's cycles, or joules where energy is minimized."""

    def evaluate(program: Program) -> float:
        from lepton.simulator import simulate_timing

        trace = simulate_timing(program)
        if objective != Objective.ENERGY:
            return trace.cycles
        from lepton.report.energy import energy_of

        return energy_of(program, trace).joules

    return evaluate


@contextmanager
def search_bar(label: str, seconds: float = 1) -> Generator[Callable[[float], None] | None]:
    """Give what shows the share of a search on a terminal, None where there is none.

    A search that ends within so many seconds needs no bar.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    bar: Any = tqdm(
        total=100, desc=f"{one_line(label)}: search", delay=seconds, leave=False,
        bar_format="{desc} {percentage:3.0f}% {bar} {elapsed}",
    )  # fmt: skip

    def show(share: float) -> None:
        bar.update(round(100 * share) - bar.n)

    with bar:
        yield show


def program_or_model(options: argparse.Namespace) -> Program:
    """Load a program file, or compile a model."""
    path: Path = options.model
    if path.suffix != ".lepton" and not starts_like_program(path):
        return compile_path(options, chosen_chip(options.chip or "edge"))
    if options.shape or options.calibrate is not None or options.effort is not None:
        raise InputError(f"{path} is a program: --shape, --calibrate and --effort are for models")
    if getattr(options, "optimize", None) is not None:
        raise InputError(f"{path} is a program: --optimize is for models, which are compiled")
    if _activations(options) != INT8:
        raise InputError(f"{path} is a program: --activations is for models that are calibrated")
    if getattr(options, "dump", None) is not None:
        raise InputError(f"{path} is a program: --dump is for models, which are compiled")
    program = load_program(path)
    if options.chip is None:
        return program
    from lepton.runtime.retarget import retarget

    return retarget(program, chosen_chip(options.chip))


def read_inputs(what: str, names: Sequence[str], path: Path) -> Arrays:
    """Return the inputs of these names of a program or model; an unnamed array is the only one."""
    arrays = read_arrays(path)
    if list(arrays) != [""]:
        return arrays
    if len(names) != 1:
        raise InputError(f"{path}: the {what} has inputs {', '.join(names)}; give a .npz file")
    return {names[0]: arrays[""]}


def progress(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield items behind a progress bar on a terminal, without one when piped."""
    from tqdm import tqdm

    bar: Any = tqdm(items, total=total, desc=label, disable=not sys.stderr.isatty(), leave=False)
    yield from bar
