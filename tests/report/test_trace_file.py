"""Trace files come back equal, and bad ones are one clear error."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.errors import ProgramError
from lepton.program import Program
from lepton.report.trace_file import load_trace, save_trace, trace_bytes
from lepton.trace import Trace

Run = tuple[Program, Trace]


def test_round_trip(run: Run, tmp_path: Path) -> None:
    program, trace = run
    path = tmp_path / "run.trace"
    save_trace(program, trace, path)
    loaded_program, loaded = load_trace(path)
    assert loaded_program.to_bytes() == program.to_bytes()
    assert np.array_equal(loaded.records, trace.records)
    assert loaded.seconds == trace.seconds
    assert loaded.attribution() == trace.attribution()
    for mine, theirs in zip(loaded.memories, trace.memories, strict=True):
        assert np.array_equal(mine.profile, theirs.profile)
        assert dataclasses.replace(mine, profile=theirs.profile) == theirs
    assert trace_bytes(loaded_program, loaded) == path.read_bytes()


def _changed(trace: Trace, field: str, value: int) -> Trace:
    records = trace.records.copy()
    records[field][-2] = value
    return dataclasses.replace(trace, records=records)


BAD: list[tuple[str, Callable[[Trace], Trace]]] = [
    ("outside of the run", lambda t: _changed(t, "retire", t.cycles + 1)),
    ("outside of the run", lambda t: _changed(t, "stall_fetch", -1)),
    ("ends before it starts", lambda t: _changed(t, "end", 0)),
    ("stalls longer than it runs", lambda t: _changed(t, "stall_bank", t.cycles)),
    ("an instruction does not exist", lambda t: _changed(t, "cause", 1 << 30)),
    ("a queue does not exist", lambda t: _changed(t, "queue", 99)),
    ("an instruction does not exist", lambda t: _changed(t, "cause", 1 << 30)),
    ("a queue does not exist", lambda t: _changed(t, "cause_queue", -2)),
    ("not in the order", lambda t: _changed(t, "instruction", 0)),
    ("not in the order", lambda t: _changed(t, "operator", 10**6)),
    ("one record per instruction", lambda t: dataclasses.replace(t, records=t.records[1:])),
    ("not those of the chip", lambda t: dataclasses.replace(t, queues=t.queues[1:])),
    ("not those of the chip", lambda t: dataclasses.replace(t, memories=())),
    ("is inconsistent", lambda t: dataclasses.replace(t, clock_hz=0)),
    ("is inconsistent", lambda t: dataclasses.replace(t, seconds=float("nan"))),
]


@pytest.mark.parametrize(("message", "damage"), BAD)
def test_inconsistent_traces(digits: Run, message: str, damage: Callable[[Trace], Trace]) -> None:
    program, trace = digits
    with pytest.raises(ProgramError, match=message):
        load_trace(trace_bytes(program, damage(trace)))


def test_two_instructions_at_once(digits: Run) -> None:
    program, trace = digits
    records = trace.records.copy()
    mine = np.flatnonzero(records["queue"] == trace.queues.index("matrix"))
    records["start"][mine[1]] = records["start"][mine[0]]
    with pytest.raises(ProgramError, match="matrix runs two instructions at once"):
        load_trace(trace_bytes(program, dataclasses.replace(trace, records=records)))


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_any_changed_byte_is_an_error_or_harmless(
    assembly: Run, position: int, change: int
) -> None:
    program, trace = assembly
    content = bytearray(trace_bytes(program, trace))
    content[position % len(content)] ^= change
    try:
        loaded = load_trace(bytes(content))[1]
    except ProgramError:
        return
    assert np.array_equal(loaded.records, trace.records)


def test_files_that_are_no_traces(digits: Run, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="not a Lepton trace"):
        load_trace(b"")
    with pytest.raises(ProgramError, match="not a Lepton trace"):
        load_trace(digits[0].to_bytes())
    with pytest.raises(ProgramError, match=r"none\.trace: cannot be read"):
        load_trace(tmp_path / "none.trace")
    with pytest.raises(ProgramError, match="cannot be written"):
        save_trace(*digits, tmp_path / "absent" / "run.trace")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "x.trace"
    os.mkfifo(pipe)
    with pytest.raises(ProgramError, match="no regular file"):
        load_trace(pipe)
