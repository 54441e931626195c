"""Builds the matrix unit with Verilator and runs programs on it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton.chip import Chip, load_chip
from lepton.isa import WORD_BYTES, Unit
from lepton.isa.encoding import records
from lepton.isa.footprints import footprints
from lepton.program import Program
from lepton.simulator.check import execution_order
from lepton.simulator.functional import execute
from lepton.simulator.machine import Machine, machines_for
from lepton.trace import Trace

RTL = Path(__file__).parents[2] / "rtl"


@dataclass(frozen=True)
class Shape:
    """The parameters of one built unit."""

    rows: int
    columns: int
    arrays: int
    feed_words: int
    queue_depth: int
    scratchpad_kib: int = 16
    accumulators_kib: int = 16
    weights_kib: int = 16

    @property
    def all_columns(self) -> int:
        return self.columns * self.arrays

    def chip(self) -> Chip:
        """Return a chip with this matrix unit."""
        nano = load_chip("nano")
        array = replace(
            nano.array,
            rows=self.rows,
            columns=self.columns,
            count=self.arrays,
            feed_words=self.feed_words,
        )
        return replace(
            nano,
            array=array,
            accumulators=replace(nano.accumulators, size_kib=self.accumulators_kib),
            weight_buffer=replace(nano.weight_buffer, size_kib=self.weights_kib),
            scratchpad=replace(nano.scratchpad, size_kib=self.scratchpad_kib),
            control=replace(nano.control, queue_depth=self.queue_depth),
        )

    def parameters(self) -> dict[str, int]:
        """Return the parameters of the Verilog module."""
        return {
            "ROWS": self.rows,
            "COLUMNS": self.columns,
            "ARRAYS": self.arrays,
            "FEED_WORDS": self.feed_words,
            "QUEUE_DEPTH": self.queue_depth,
            "SCRATCHPAD_BYTES": self.scratchpad_kib * 1024,
            "WEIGHT_BYTES": self.weights_kib * 1024,
            "ACCUMULATORS": self.accumulators_kib * 256,
        }


@dataclass(frozen=True)
class Run:
    """What the RTL did: cycles of each matmul in order, and the accumulators at the end."""

    take: list[int]
    streamed: list[int]
    retire: list[int]
    signals: list[tuple[int, int]]
    refused: list[int]
    sums: NDArray[np.int32]

    @property
    def start(self) -> list[int]:
        """When each instruction had the array to itself: taken, and the one before streamed."""
        before = [0, *self.streamed[:-1]]
        return [max(pair) for pair in zip(self.take, before, strict=True)]


def verilator() -> str:
    """Return the command; without it the test skips, or fails where the environment is CI."""
    found = shutil.which("verilator")
    if found is None:
        reason = "Verilator is not installed (Debian package 'verilator')"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


def build(shape: Shape) -> Path:
    """Return the simulator of a unit, built once for these sources, tool and parameters."""
    command = verilator()
    sources = sorted(RTL.glob("*.sv")) + sorted(RTL.glob("*.vh")) + [RTL / "testbench.cpp"]
    version = subprocess.run([command, "--version"], check=True, capture_output=True).stdout
    key = hashlib.sha256(version + repr(shape).encode())
    for source in sources:
        key.update(source.name.encode() + source.read_bytes())
    program = Path(tempfile.gettempdir()) / f"lepton-rtl-{key.hexdigest()[:16]}"
    if program.exists() and program.stat().st_uid == os.getuid():
        return program
    with tempfile.TemporaryDirectory() as made:
        options = ["-Wall", "-Wno-UNUSEDSIGNAL", "--assert", "--cc", "--exe", "--build", "-O3"]
        options += ["--top-module", "matrix_unit", "-y", str(RTL), "-Mdir", made]
        options += [f"-G{name}={value}" for name, value in shape.parameters().items()]
        inputs = [str(RTL / "matrix_unit.sv"), str(RTL / "testbench.cpp")]
        subprocess.run([command, *options, *inputs], check=True, capture_output=True, text=True)
        os.replace(Path(made) / "Vmatrix_unit", program)
    return program


def run_values(program: Program) -> Machine:
    """Return the machine after all instructions, by the functional simulator."""
    machine = machines_for(program, footprints(records(program.decoded)))[0]
    for index in execution_order(program, program.regions[0]):
        execute(machine, program.decoded[index])
    return machine


def matmuls(program: Program) -> list[int]:
    """Return the instructions of the matrix unit."""
    return [i for i, item in enumerate(program.decoded) if item.unit == Unit.MATRIX]


def _script(program: Program, trace: Trace, machine: Machine, shape: Shape) -> Iterator[str]:
    """Yield the test bench's commands: memories as the loads leave them, then events by cycle."""
    for name, content, step in (
        ("scratchpad", machine.scratchpad, shape.rows),
        ("weights", machine.weight_buffer, shape.all_columns),
    ):
        for address in range(0, len(content), step):
            yield f"{name} {address:x} {content[address : address + step].tobytes().hex()}"
    mine = set(matmuls(program))
    for index, item in enumerate(program.decoded):
        record = trace.records[index]
        if index in mine:
            word = program.instructions[index * WORD_BYTES : (index + 1) * WORD_BYTES]
            yield f"push {int(record['dispatch']):x} {word.hex()}"
        elif item.signal:
            yield f"signal {int(record['retire']):x} {item.signal:x}"


def run_rtl(
    program: Program, trace: Trace, machine: Machine, shape: Shape, cycles: int, first: int = 0
) -> Run:
    """Run a program's matmuls on the RTL, the other units' signals as in `trace`.

    After so many cycles the accumulators from `first` on are read, one per cycle.
    """
    script = list(_script(program, trace, machine, shape))
    script.append(f"run {cycles:x} {first:x} {len(machine.accumulators) - first:x}")
    text = "\n".join(script) + "\n"
    done = subprocess.run(
        [str(build(shape))], input=text, check=True, capture_output=True, text=True, timeout=120
    )
    events: dict[str, list[list[str]]] = {}
    for line in done.stdout.splitlines():
        name, *values = line.split()
        events.setdefault(name, []).append(values)

    def numbers(name: str) -> list[int]:
        return [int(values[0]) for values in events.get(name, [])]

    return Run(
        take=numbers("take"),
        streamed=numbers("streamed"),
        retire=numbers("retire"),
        signals=[(int(at), int(mask, 16)) for at, mask in events.get("signal", [])],
        refused=numbers("refused"),
        sums=np.array(numbers("sum"), np.int32),
    )
