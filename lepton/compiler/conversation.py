"""What the child process of a compilation tells its parent, and asks it, while it works.

Two pipes with JSON lines. The child writes `{"progress": share}`, and `{"evaluate": true}` after it
has put a program where the parent looks for it; the parent answers the latter with a number.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from lepton.compiler.options import CompileOptions
from lepton.errors import CompileError
from lepton.program import Program, load_program

__all__ = ["Asking", "Listening"]

_CANDIDATE = "candidate"
"""File of the program to evaluate, in the folder of the compilation."""
_LONGEST_LINE = 4096


class Asking:
    """The child's side: descriptors to write to and to read from."""

    def __init__(self, pipes: tuple[int, int], folder: Path) -> None:
        self._write, self._read = pipes
        self._folder = folder

    def progress(self, share: float) -> None:
        """Tell which share of the search is done."""
        self._send({"progress": share})

    def evaluate(self, program: Program) -> float:
        """Ask what a program takes."""
        (self._folder / _CANDIDATE).write_bytes(program.to_bytes())
        self._send({"evaluate": True})
        line = b""
        while not line.endswith(b"\n"):
            part = os.read(self._read, _LONGEST_LINE)
            if not part:
                raise CompileError("the process that asked for this program is gone")
            line += part
        return float(json.loads(line))

    def _send(self, message: dict[str, object]) -> None:
        os.write(self._write, json.dumps(message).encode() + b"\n")


class Listening(contextlib.AbstractContextManager["Listening"]):
    """The parent's side."""

    def __init__(self, options: CompileOptions, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._read, write = os.pipe()
        read, self._write = os.pipe()
        self.pipes = write, read
        """The child's descriptors, until `began`."""
        self._open = {self._read, self._write, write, read}

    def __exit__(self, *_: object) -> None:
        self._close(tuple(self._open))

    def _close(self, descriptors: tuple[int, ...]) -> None:
        for descriptor in descriptors:
            self._open.discard(descriptor)
            os.close(descriptor)

    def began(self) -> None:
        """Close the child's ends here, so that its end is seen."""
        self._close(self.pipes)

    def until_closed(self, seconds: float) -> float:
        """Answer until the child closes its end or has had so many seconds by the clock.

        Returns:
            The seconds left; those of evaluations do not count.

        Raises:
            CompileError: what the child sends is no message.
        """
        left = seconds
        for line, waited in self._lines(seconds):
            left -= waited
            message = _message(line) if line else {}
            if "progress" in message and self._options.progress is not None:
                self._options.progress(min(max(float(message["progress"]), 0.0), 1.0))
            if "evaluate" in message and self._options.evaluate is not None:
                program = load_program((self._folder / _CANDIDATE).read_bytes())
                answer = json.dumps(float(self._options.evaluate(program)))
                with contextlib.suppress(BrokenPipeError):
                    os.write(self._write, answer.encode() + b"\n")
        return left

    def _lines(self, seconds: float) -> Iterator[tuple[bytes, float]]:
        """Yield lines, some of them empty, with the seconds that passed before each."""
        buffer, left = b"", seconds
        while left > 0:
            began = time.monotonic()
            ready, _, _ = select.select([self._read], [], [], left)
            part = os.read(self._read, _LONGEST_LINE) if ready else b""
            waited = time.monotonic() - began
            left -= waited
            *lines, buffer = (buffer + part).split(b"\n")
            yield b"", waited
            yield from ((line, 0.0) for line in lines)
            if not part or len(buffer) > _LONGEST_LINE:
                return


def _message(line: bytes) -> dict[str, Any]:
    """Return a child's message."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CompileError("the process that compiles sends what is no message")
    return cast(dict[str, Any], found)
