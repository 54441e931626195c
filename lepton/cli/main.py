"""Entry point: arguments, errors and exit codes.

Exit codes: 0 done, 2 the user's input is at fault or Ctrl-C (one line on stderr, no traceback),
143 terminated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NoReturn

from lepton.cli import compress, diff, estimate, info, models, place, programs, serve, sweep
from lepton.cli.first_use import announced_kernels
from lepton.cli.terminal import Terminated, lost_output, open_streams, say, signals_raise
from lepton.errors import InputError, LeptonError

__all__ = ["command_names", "main"]

_DESCRIPTION = "Compile quantized networks to the instructions of the Lepton NPU and simulate it."
_EXAMPLES = """examples:
  lepton demo                                    the built-in digits network, with pictures
  lepton compile model.tflite -o model.lepton    a program file
  lepton run model.onnx --chip edge --json       cycles and where they went, as JSON
  lepton run model.lepton --input x.npy --output y.npz --report report.html
  lepton verify model.tflite                     layer by layer against the golden library
  lepton compile model.onnx --why                what runs where, and why
  lepton place model.onnx --device npu,cpu       each layer where it is fastest, with the proof
  lepton serve a.onnx b.onnx --fault npu@20-60   models under load, and a device that fails
  lepton diff old.lepton new.lepton              which layers became faster or slower
  lepton compress digits_cnn --data digits --prune 0.8 --bits 5 -o small.onnx
  lepton sweep space.toml --model model.tflite   which chip of a design space
"""
_SIMULATING = (
    *("check", "demo", "diff", "doctor", "estimate", "eval", "place", "run", "serve", "sweep"),
    "verify",
)
_WHOLE = "no file was left half-written"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, like every other."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f"{message}; see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(
        prog="lepton",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lepton {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (models, place, serve, compress, sweep, estimate, programs, diff, info):
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    open_streams()
    try:
        with signals_raise():
            code = _outcome(arguments)
    except SystemExit as shown:  # --help and --version
        raise SystemExit(_delivered(int(shown.code or 0))) from None
    return _delivered(code)


def _delivered(code: int) -> int:
    """Return the exit code after standard output is flushed: lost output is a failure."""
    lost = lost_output()
    if not lost or code:
        return code
    say(lost)
    return 2


def _outcome(arguments: Sequence[str] | None) -> int:
    """Run the command; say in one sentence what went wrong, and return the exit code."""
    try:
        options = _parser().parse_args(arguments)
        with announced_kernels() if options.command in _SIMULATING else nullcontext():
            options.run(options)
    except LeptonError as error:
        say(str(error))
    except Terminated:
        say(f"terminated; {_WHOLE}")
        return 143
    except KeyboardInterrupt:
        say(f"interrupted; {_WHOLE}")
    except MemoryError:
        say("not enough memory for this model and chip")
    except BrokenPipeError:
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else "output cannot be written: "
        say(f"{place}{error.strerror or error}")
    else:
        return 0
    return 2
