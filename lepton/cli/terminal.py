"""What surrounds a command: its streams, its signals, and what it says at the end."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Generator

from lepton.program import one_line

__all__ = ["Terminated", "lost_output", "open_streams", "say", "signals_raise"]


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: its temporary folders go, its child too."""


def say(sentence: str) -> None:
    """Write one sentence to standard error, if it can be written to."""
    with contextlib.suppress(OSError):
        print(f"lepton: {one_line(sentence)}", file=sys.stderr)


def open_streams() -> None:
    """Give closed standard streams to the null device; print `?` for what the terminal lacks."""
    for name, flags in [("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)]:
        if getattr(sys, name) is None:
            mode = "r" if flags == os.O_RDONLY else "w"
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def lost_output() -> str:
    """Flush standard output; return why it cannot be, "" if it can or its reader has left."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # what is still buffered would be tried again, and fail, when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        is_pipe = isinstance(error, BrokenPipeError)
        return "" if is_pipe else f"standard output cannot be written: {error.strerror}"
    return ""


def _raise(number: int, frame: object) -> None:
    del frame
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextlib.contextmanager
def signals_raise() -> Generator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt inside of a block, unless they are ignored."""
    before: dict[int, signal._HANDLER] = {}  # pyright: ignore[reportPrivateUsage]
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            found = signal.getsignal(number)
            if found is not None and found != signal.SIG_IGN:
                before[number] = signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, found in before.items():
            signal.signal(number, found)
