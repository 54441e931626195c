"""`lepton` and `python -m lepton`: Ctrl-C is answered from here on, while the rest is imported."""

from __future__ import annotations

import os
import signal

__all__ = ["main"]


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
    from lepton.cli.main import main as run_command

    return run_command()


if __name__ == "__main__":
    raise SystemExit(main())
