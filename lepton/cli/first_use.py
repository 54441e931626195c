"""Tell the user that kernels are being compiled, which happens once and takes a while."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["announced_kernels"]


@contextmanager
def announced_kernels(stream: TextIO | None = None) -> Generator[None]:
    """Say on `stream` (default stderr) when a kernel is compiled that the cache does not hold.

    Another process may be compiling it for this one (`lepton.jit_cache`).

    A terminal gets one line that counts and is wiped at the end; anything else one plain line.
    """
    from numba.core import event

    from lepton.jit_cache import WAITING

    out = stream or sys.stderr
    teller = _teller(event, out)
    with event.install_listener("numba:compile", teller), event.install_listener(WAITING, teller):
        yield
    if teller.has_told and out.isatty():
        out.write("\r\033[K")
        out.flush()


def _teller(event: Any, out: TextIO) -> Any:
    """Return a listener that writes to `out`; `has_told` says whether it has."""

    class Teller(event.Listener):
        has_told = False
        count = 0
        depth = 0

        def on_start(self, event: Any) -> None:
            # collecting garbage takes a seventh of the time, and finds little before the end
            gc.disable()
            self.depth += 1
            self.count += event.kind == "numba:compile"
            text = "compiling the simulator's kernels, once per installation (up to a minute)"
            if out.isatty():
                out.write(f"\r{text}: {self.count}")
            elif not self.has_told:
                out.write(f"lepton: {text}\n")
            self.has_told = True
            out.flush()

        def on_end(self, event: Any) -> None:
            self.depth -= 1
            if self.depth == 0:
                gc.enable()

    return Teller()
