"""`lepton` and `python -m lepton`: Ctrl-C is answered from here on, while the rest is imported."""

from __future__ import annotations

import gc
import os
import signal

__all__ = ["main"]

_ALLOCATIONS = 50_000
"""Of objects that can be part of a cycle, between two searches for garbage; Python's own is 700."""


def _stop(number: int, frame: object) -> None:
    """End at once: nothing has been read or written yet."""
    del frame
    os.write(2, b"lepton: interrupted; no file was left half-written\n")
    os._exit(2 if number == signal.SIGINT else 128 + number)


def main() -> int:
    """Run the command line; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    # what a command imports and loads stays: to look through it for garbage, at the end too, took a
    # fifth of a short run
    gc.set_threshold(_ALLOCATIONS)
    from lepton.cli.main import main as run_command

    try:
        return run_command()
    finally:
        gc.freeze()


if __name__ == "__main__":
    raise SystemExit(main())
