"""The line that says that kernels are being compiled."""

from __future__ import annotations

import gc
import io

import numba
import pytest
from numba.core import event

from lepton.cli.first_use import announced_kernels
from lepton.jit_cache import WAITING


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def compile_two() -> None:
    """Compile two functions that no cache holds."""
    for step in (1, 2):
        numba.njit(lambda x, step=step: x + step)(1)


def test_a_file_gets_one_line() -> None:
    out = io.StringIO()
    with announced_kernels(out):
        compile_two()
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().startswith("lepton: compiling the simulator's kernels")


def test_a_terminal_gets_a_count_that_is_wiped() -> None:
    out = Terminal()
    with announced_kernels(out):
        compile_two()
    assert ": 1" in out.getvalue() and ": 2" in out.getvalue()
    assert out.getvalue().endswith("\r\033[K")


def test_waiting_for_another_process_is_said_too() -> None:
    out = Terminal()
    with announced_kernels(out), event.trigger_event(WAITING):
        pass
    assert "compiling the simulator's kernels" in out.getvalue()
    assert out.getvalue().endswith("\r\033[K")


def test_nothing_is_said_when_nothing_is_compiled() -> None:
    out = Terminal()
    with announced_kernels(out):
        pass
    assert out.getvalue() == ""


def test_garbage_is_collected_again_after_a_kernel_even_if_it_fails() -> None:
    def wrong(x: int) -> int:
        return x + "a"  # pyright: ignore[reportOperatorIssue]

    with announced_kernels(io.StringIO()):
        compile_two()
        assert gc.isenabled()
        with pytest.raises(numba.TypingError):
            numba.njit(wrong)(1)
        assert gc.isenabled()
