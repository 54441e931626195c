"""Arguments that commands share, and the types of their values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lepton.compiler.activations import ACTIVATIONS
from lepton.errors import InputError
from lepton.models import model_path
from lepton.program import Objective

__all__ = ["add_calibration", "add_chip", "add_compilation", "add_objective", "add_shapes"]
__all__ += ["file_path", "model_file", "natural", "parse_shapes"]


def file_path(text: str) -> Path:
    """Return the path that an argument names."""
    if not text:
        raise argparse.ArgumentTypeError("a file name must not be empty")
    return Path(text)


def model_file(text: str) -> Path:
    """Return the path of a model that an argument names, or of a trained network."""
    return model_path(file_path(text))


def natural(text: str) -> int:
    """Return a whole number that is not negative."""
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, not '{text}'")
    return int(text)


def add_chip(parser: argparse.ArgumentParser, default: str | None = "edge") -> None:
    """Add `--chip`."""
    text = "preset (see `lepton chips`) or .toml file"
    parser.add_argument(
        "--chip", default=default, metavar="NAME|FILE.toml",
        help=f"{text}; default {default}" if default else text,
    )  # fmt: skip


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """Add `--shape`."""
    parser.add_argument(
        "--shape", action="append", default=[], metavar="INPUT=1,3,224,224",
        help="fix the shape of an input that has unknown dimensions",
    )  # fmt: skip


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """Add `--calibrate`."""
    parser.add_argument(
        "--calibrate", metavar="DATA.npz", type=file_path,
        help="quantize a float .onnx model with these inputs, [samples, ...] by input name",
    )  # fmt: skip


def _add_activations(parser: argparse.ArgumentParser) -> None:
    """Add `--activations` and the targets of its automatic choice."""
    parser.add_argument(
        "--activations", choices=ACTIVATIONS,
        help="bits of a calibrated model's activations; auto: int8 but for those that lose most, "
        "until a target is reached; layers with 16 bits run on the host; default int8",
    )  # fmt: skip
    parser.add_argument(
        "--sqnr", type=float, metavar="DB",
        help="target of auto: signal-to-noise ratio of the outputs beside the float model's",
    )  # fmt: skip
    parser.add_argument(
        "--agreement", type=float, metavar="SHARE",
        help="target of auto: share of samples with the float model's first class, 0 to 1",
    )  # fmt: skip


def add_objective(parser: argparse.ArgumentParser, note: str = "", **several: Any) -> None:
    """Add `--optimize`, with a note and what makes it an option that may be repeated."""
    parser.add_argument(
        "--optimize", choices=[str(objective) for objective in Objective],
        help="minimize cycles, joules, or bytes of the program and its constants; default latency"
        f"{note}",
        **several,
    )  # fmt: skip


def add_compilation(parser: argparse.ArgumentParser) -> None:
    """Add the options of a compilation.

    `--shape`, `--calibrate`, `--activations` with its targets, `--optimize`, `--effort`, `--dump`.
    """
    add_shapes(parser)
    add_calibration(parser)
    _add_activations(parser)
    add_objective(parser)
    parser.add_argument(
        "--effort", type=int, choices=range(4),
        help="how long to search for better tiles: about 0, 0.3, 3 or 30 seconds, from 2 on with "
        "the simulator as the judge of the best; default 1",
    )  # fmt: skip
    parser.add_argument(
        "--dump", type=file_path, metavar="DIR",
        help="write every form of the model there, pass by pass, as text",
    )  # fmt: skip


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of `INPUT=1,3,224,224` options."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, numbers = text.rpartition("=")
        parts = numbers.replace("x", ",").split(",")
        sound = all(re.fullmatch("[0-9]{1,10}", part) for part in parts)
        if not name or not sound or not all(0 < int(part) < 1 << 31 for part in parts):
            raise InputError(f"--shape must look like input=1,3,224,224, not '{text}'")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes
