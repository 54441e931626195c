"""Entry point: arguments, errors and exit codes.

Exit codes: 0 done, 2 the user's input is at fault (one line on stderr, no traceback).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from lepton.cli import info, models, programs
from lepton.cli.first_use import announced_kernels
from lepton.errors import LeptonError

__all__ = ["command_names", "main"]

_DESCRIPTION = "Compile quantized networks to the instructions of the Lepton NPU and simulate it."
_EXAMPLES = """examples:
  lepton demo                                    the built-in digits network, with pictures
  lepton compile model.tflite -o model.lepton    a program file
  lepton run model.onnx --chip edge --json       cycles and where they went, as JSON
  lepton run model.lepton --input x.npy --output y.npz --report report.html
  lepton verify model.tflite                     layer by layer against the golden library
  lepton compile model.onnx --why                what runs where, and why
"""
_SIMULATING = ("check", "demo", "doctor", "eval", "run", "verify")


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="lepton",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lepton {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (models, programs, info):
        module.add_commands(commands)
    return parser


def _version() -> str:
    """Return the package's version, which stands at its top."""
    return str(getattr(sys.modules["lepton"], "__version__", "unknown"))


def command_names() -> tuple[str, ...]:
    """Return the names of all commands."""
    for action in _parser()._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            return tuple(action.choices)
    return ()


def _sentence(error: BaseException) -> str:
    """Return an error as one line."""
    return " ".join(str(error).split())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with announced_kernels() if options.command in _SIMULATING else nullcontext():
            options.run(options)
        sys.stdout.flush()
    except LeptonError as error:
        print(f"lepton: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lepton: interrupted; nothing was left under a final name", file=sys.stderr)
        return 2
    except MemoryError:
        print("lepton: not enough memory for this model and chip", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0
