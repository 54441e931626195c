"""What commands share: reading models, programs, inputs and shapes; writing files; progress."""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, load_chip
from lepton.compiler.options import CompileOptions
from lepton.errors import InputError, ProgramError
from lepton.program import Program, atomic_write, load_program

__all__ = ["add_chip", "add_shapes", "compile_path", "load_arrays", "parse_shapes", "progress"]
__all__ += ["program_or_model", "read_inputs", "write_file"]

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]


def add_chip(parser: argparse.ArgumentParser, default: str | None = "edge") -> None:
    """Add `--chip`."""
    text = "preset (see `lepton chips`) or .toml file"
    parser.add_argument(
        "--chip", default=default, metavar="NAME|FILE.toml",
        help=f"{text}; default {default}" if default else text,
    )  # fmt: skip


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """Add `--shape` and `--calibrate`."""
    parser.add_argument(
        "--shape", action="append", default=[], metavar="INPUT=1,3,224,224",
        help="fix the shape of an input that has unknown dimensions",
    )  # fmt: skip
    parser.add_argument(
        "--calibrate", metavar="DATA.npz", type=Path,
        help="quantize a float .onnx model with these inputs, [samples, ...] by input name",
    )  # fmt: skip


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of `INPUT=1,3,224,224` options."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, numbers = text.rpartition("=")
        parts = numbers.replace("x", ",").split(",")
        if not name or not all(part.isdigit() and 0 < int(part) < 1 << 31 for part in parts):
            raise InputError(f"--shape must look like input=1,3,224,224, not '{text}'")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def compile_path(options: argparse.Namespace, chip: Chip) -> Program:
    """Compile the model of a command."""
    from lepton.compiler.isolate import compile_file

    samples = None if options.calibrate is None else load_arrays(options.calibrate)
    chosen = CompileOptions(shapes=parse_shapes(options.shape), calibration=samples)
    return compile_file(Path(options.model), chip, chosen)


def program_or_model(options: argparse.Namespace) -> Program:
    """Load a program file, or compile a model."""
    path = Path(options.model)
    if path.suffix != ".lepton":
        return compile_path(options, load_chip(options.chip or "edge"))
    program = load_program(path)
    if options.chip is None:
        return program
    from lepton.runtime.retarget import retarget

    return retarget(program, load_chip(options.chip))


def load_arrays(path: Path) -> Arrays:
    """Return the arrays of a .npz file, or the one of a .npy file under the name "".

    Raises:
        InputError: not such a file; object arrays are never read.
    """
    try:
        loaded: Any = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        reason = error.strerror or "not a .npy or .npz file"
        raise InputError(f"{path}: cannot be read: {reason}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError, MemoryError, SyntaxError):
        raise InputError(f"{path}: not a .npy or .npz file of plain arrays") from None


def read_inputs(program: Program, path: Path) -> Arrays:
    """Return a program's inputs from a file; an unnamed array is the only input."""
    arrays = load_arrays(path)
    if list(arrays) == [""] and len(program.inputs) == 1:
        return {program.inputs[0]: arrays[""]}
    if list(arrays) == [""]:
        raise InputError(
            f"{path}: the program has inputs {', '.join(program.inputs)}; give a .npz file"
        )
    return arrays


def write_file(path: Path, content: bytes) -> None:
    """Write a file through a temporary one; a failure leaves nothing under the final name."""
    try:
        atomic_write(path, content)
    except ProgramError as error:
        raise InputError(str(error)) from None


def progress(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield items behind a progress bar on a terminal, without one when piped."""
    from tqdm import tqdm

    bar: Any = tqdm(items, total=total, desc=label, disable=not sys.stderr.isatty(), leave=False)
    yield from bar
