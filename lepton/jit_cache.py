"""Numba's on-disk cache for processes that compile the same kernels at the same time.

With Numba's own each of them compiles, and two that save machine code of one function for different
types may leave one's code under the other's name. Here a process that finds a kernel missing takes
its turn, a lock on a file beside the machine code, and finds what another has compiled meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba.core import event
from numba.core.caching import FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.sigutils import normalize_signature

__all__ = ["WAITING", "compile_in_turns", "compile_unless_taken", "has_machine_code"]

WAITING = "lepton:waiting"
"""Kind of the event that is under way while another process compiles a kernel."""
_LONGEST_WAIT_S = 60.0
"""More than any kernel takes: whoever has its turn for longer has been stopped."""
_POLL_S = 0.02


class _SharedCache(FunctionCache):
    """The cache of one function, in which one process at a time looks for what is missing."""

    def __init__(self, python: Callable[..., Any]) -> None:
        super().__init__(python)
        self._lock: int | None = None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the machine code for argument types, None if this process is to compile it."""
        found = self._load(sig, target_context)
        if found is None and self._lock is None and self.take_turn(_LONGEST_WAIT_S):
            return self._load(sig, target_context)
        return found

    def _load(self, sig: Any, target_context: Any) -> Any:
        """Return what the disk holds, None if it is for other types than its name says."""
        found = super().load_overload(sig, target_context)
        if found is None or found.signature.args != normalize_signature(sig)[0]:
            return None
        return found

    def take_turn(self, wait_s: float) -> bool:
        """Return whether no other process compiles this function, or stops within so long."""
        lock = -1
        try:
            path = Path(self.cache_path) / f"{self._impl.filename_base}.lock"
            lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            if _is_locked(lock) or (wait_s > 0 and _waited(lock, wait_s)):
                self._lock, lock = lock, -1
        except OSError:  # a file system without locks: every process compiles for itself
            return False
        finally:
            if lock >= 0:
                os.close(lock)
        return self._lock is not None

    def end_turn(self) -> None:
        """Let another process compile."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _is_locked(lock: int) -> bool:
    """Lock a file for this process; return False if another has locked it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _waited(lock: int, wait_s: float) -> bool:
    """Return whether a file could be locked within so many seconds."""
    until = time.monotonic() + wait_s
    with event.trigger_event(WAITING):
        while time.monotonic() < until:
            time.sleep(_POLL_S)
            if _is_locked(lock):
                return True
    return False


def compile_in_turns(dispatcher: Any, python: Callable[..., Any]) -> Any:
    """Give a function of Numba the shared cache, and return it."""
    cache = dispatcher._cache = _SharedCache(python)
    compile_now = dispatcher.compile

    def in_turn(sig: Any) -> Any:
        # Numba's lock first: who waits for a turn must not hold what its holder waits for
        with global_compiler_lock:
            try:
                return compile_now(sig)
            finally:
                cache.end_turn()

    dispatcher.compile = in_turn
    return dispatcher


def compile_unless_taken(dispatcher: Any, sig: Any) -> None:
    """Compile a kernel for argument types, unless another process is just doing it."""
    with global_compiler_lock:
        if dispatcher._cache.take_turn(0):
            dispatcher.compile(sig)


def has_machine_code(folder: str, module: str, name: str) -> bool:
    """Return whether the folder of a module's kernels holds any machine code of one."""
    return any(Path(folder).glob(f"*/{module}.{name}-*.nbi"))
