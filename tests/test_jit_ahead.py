"""Processes that compile kernels at the same time share the work and its outcome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numba import float64, int64, types
from numba.core import event
from numba.core.errors import TypingError

from benchmarks.kernels import LIST, called_kernels, plain_type
from lepton import jit, jit_ahead, jit_cache
from lepton.jit_ahead import Kernel, compile_ahead, helpers, kernels_of

GROUPS = tuple(json.loads(LIST.read_text(encoding="utf-8")))
FILL_TABLE = next(k for k in kernels_of(GROUPS) if k.name == "fill_table")
SLOW_KERNEL = Kernel("lepton.nowhere", "kernel", 5.0, [])


def _doubled(x: Any) -> Any:
    return x + x


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which this test's kernels are cached."""
    monkeypatch.setattr(jit, "folder_of", lambda name: str(tmp_path))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    return tmp_path


def _kernel() -> Any:
    """Return a kernel as a new process sees it: nothing is loaded yet."""
    return jit.njit(_doubled)


def _counts(kernel: Any) -> tuple[int, int]:
    """Return how often a kernel was loaded, and compiled."""
    stats = kernel.stats
    return sum(stats.cache_hits.values()), sum(stats.cache_misses.values())


def test_what_another_process_is_compiling_is_left_to_it(folder: Path):
    mine, theirs = _kernel(), _kernel()
    assert theirs._cache.take_turn(0)
    jit_cache.compile_unless_taken(mine, (int64,))
    assert not mine.overloads
    theirs._cache.end_turn()
    jit_cache.compile_unless_taken(mine, (int64,))
    assert (int64,) in mine.overloads
    assert theirs._cache.take_turn(0)
    theirs._cache.end_turn()


def test_a_call_waits_for_what_another_process_is_compiling(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    mine, theirs = _kernel(), _kernel()
    assert theirs._cache.take_turn(0)
    monkeypatch.setattr(jit_cache.time, "sleep", lambda _s: theirs.compile((int64,)))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with event.install_recorder(jit_cache.WAITING) as waiting:
        assert mine(3) == 6
    assert len(waiting.buffer) == 2
    assert (_counts(mine), _counts(theirs)) == ((1, 0), (0, 1))


def test_a_call_waits_no_longer_than_any_kernel_takes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    mine, stopped = _kernel(), _kernel()
    assert stopped._cache.take_turn(0)
    monkeypatch.setattr(jit_cache, "_LONGEST_WAIT_S", 0.05)
    assert mine(3) == 6
    assert _counts(mine) == (0, 1)
    stopped._cache.end_turn()


def test_a_turn_ends_when_compilation_fails(folder: Path):
    def wrong(x: Any) -> Any:
        return x.nothing

    with pytest.raises(TypingError, match="nothing"):
        jit.njit(wrong)(1)
    another: Any = jit.njit(wrong)
    assert another._cache.take_turn(0)


def test_without_locks_each_process_compiles(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(jit_cache.fcntl, "flock", refuse)
    assert _kernel()(3) == 6


def test_machine_code_for_other_types_is_not_used(folder: Path):
    """Without turns two processes may save under one name."""
    first = _kernel()
    assert (first(3), first(0.5)) == (6, 1.0)
    one, two = sorted(folder.rglob("*.nbc"))
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)
    second = _kernel()
    assert (second(3), second(0.5)) == (6, 1.0)
    assert _counts(second) == (0, 2)
    third = _kernel()
    assert (third(3), third(0.5), _counts(third)) == (6, 1.0, (2, 0))


def test_kernels_of_two_processes_stay_in_one_index(folder: Path):
    for kind in (int64, float64):
        _kernel().compile((kind,))
    kernel = _kernel()
    assert (kernel(3), kernel(0.5), _counts(kernel)) == (6, 1.0, (2, 0))


@pytest.mark.parametrize("kernel", kernels_of(GROUPS), ids=lambda k: f"{k.module}.{k.name}")
def test_every_listed_type_is_one_of_numba(kernel: Kernel):
    assert [plain_type(kind) for kind in kernel.signature] == kernel.arguments
    assert all(isinstance(kind, types.Type) for kind in kernel.signature)


def _without_seconds(called: dict[str, list[dict[str, Any]]]) -> dict[str, set[str]]:
    return {
        step: {json.dumps(kernel | {"seconds": 0}, sort_keys=True) for kernel in kernels}
        for step, kernels in called.items()
    }


@pytest.mark.slow
def test_the_list_is_what_compiling_and_running_call():
    """If it is not: `python -m benchmarks.kernels`."""
    listed = json.loads(LIST.read_text(encoding="utf-8"))
    assert _without_seconds(called_kernels(cold=False)) == _without_seconds(listed)


def _in_fresh_home(home: Path, code: str) -> str:
    """Return what a fresh interpreter prints whose cache of kernels is in a folder."""
    made = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"HOME": str(home)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return made.stdout


def test_a_call_finds_what_was_compiled_ahead(tmp_path: Path):
    ahead = (
        "from lepton.jit_ahead import Kernel\n"
        f"kernel = Kernel(*{tuple(FILL_TABLE)!r})\n"
        "missing = kernel.is_missing\n"
        "kernel.compile(waits=False)\n"
        "print(missing, kernel.is_missing)"
    )
    assert _in_fresh_home(tmp_path, ahead) == "True False\n"
    call = (
        "from lepton.isa import records\n"
        "from lepton.isa.instructions import Halt\n"
        "from lepton.isa.decode_kernel import fill_table\n"
        "records([Halt()])\n"
        "print(*(sum(c.values()) for c in fill_table.stats[1:]))"
    )
    assert _in_fresh_home(tmp_path, call) == "1 0\n"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Pretend that much is missing and two processors are there; return the children."""
    children: list[subprocess.Popen[bytes]] = []
    start: Any = subprocess.Popen

    def noted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        children.append(start(*arguments, **options))
        return children[-1]

    monkeypatch.setattr(jit_ahead.subprocess, "Popen", noted)
    monkeypatch.setattr(jit_ahead, "kernels_of", lambda _groups: [SLOW_KERNEL])  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(jit_ahead, "_processors", lambda: 2)
    return children


def test_a_helper_ends_with_the_block(started: list[subprocess.Popen[bytes]]):
    with pytest.raises(KeyboardInterrupt), helpers("timing") as missing:
        assert missing == [SLOW_KERNEL]
        assert [child.poll() for child in started] == [None]
        raise KeyboardInterrupt
    assert [child.returncode for child in started] == [-9]


def test_a_helper_ends_when_its_parent_is_gone(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-m", "lepton.jit_ahead", "timing"],
        stdin=subprocess.PIPE,
        env=os.environ | {"HOME": str(tmp_path)},
    ) as child:
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(timeout=30) == 1


@pytest.mark.parametrize("reason", ["one processor", "little missing", "another Numba"])
def test_no_helper_without_need(
    reason: str, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
):
    if reason == "one processor":
        monkeypatch.setattr(jit_ahead, "_processors", lambda: 1)
    elif reason == "little missing":
        monkeypatch.setattr(jit_ahead, "kernels_of", lambda _g: [SLOW_KERNEL._replace(seconds=1)])  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    else:
        monkeypatch.setattr(jit, "is_tried", lambda: False)
    with helpers("timing") as missing:
        assert not missing and not started


def test_without_a_helper_everything_is_compiled_here(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("too many processes")

    compiled: list[bool] = []
    monkeypatch.setattr(jit_ahead.subprocess, "Popen", refuse)
    monkeypatch.setattr(Kernel, "compile", lambda _self, *, waits: compiled.append(waits))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    compile_ahead.__wrapped__("timing")
    assert compiled == [False, True]
