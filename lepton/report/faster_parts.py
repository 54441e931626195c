"""What a run's operators ask of each resource, and what their cycles are spent on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.cost.columns import W_DECODER, W_STREAM, WORK
from lepton.cost.packed_work import fill_program_work
from lepton.cost.work import work_of
from lepton.cost.zeros import Zeros
from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.report.attribution import attribute
from lepton.report.faster_bounds import LayerLoads, NonZeros
from lepton.report.summary import Layer, occupied_cycles
from lepton.report.traffic import operator_traffic

if TYPE_CHECKING:
    from lepton.program import Program
    from lepton.trace import Trace

__all__ = ["Needs", "Parts", "losses_of"]

I64 = NDArray[np.int64]


def _rows(program: Program, *mnemonics: str) -> NDArray[np.bool_]:
    """Return which instructions of the table are any of these."""
    return np.isin(program.table[:, 0], [BY_MNEMONIC[name].opcode for name in mnemonics])


def _by_operator(program: Program, values: I64, rows: NDArray[np.bool_]) -> I64:
    """Return the sums of values of instructions over each operator."""
    made = np.zeros(len(program.operators), np.int64)
    np.add.at(made, program.operator_of[rows], values[rows])
    return made


class Needs:
    """What each operator of a program asks of the resources, a core's; `[operators]` each."""

    def __init__(self, program: Program, trace: Trace) -> None:
        chip, table = program.chip, program.table
        work = np.zeros((len(table), len(WORK)), np.int64)
        fill_program_work(program, work)
        streams = _rows(program, "weights")
        rates = np.array([float(chip.bytes_per_cycle(memory)) for memory in chip.memories])
        moved = np.zeros((len(program.operators), len(rates)), np.int64)
        expanded = moved.copy()
        at = program.operator_of[streams], table[streams, COLUMNS["memory"]]
        np.add.at(moved, at, table[streams, COLUMNS["stream_bytes"]])
        sizes = table[:, COLUMNS["reduction"]] * table[:, COLUMNS["columns"]]
        np.add.at(expanded, at, sizes[streams])
        others = operator_traffic(program).sum(axis=2) - moved
        self._trace, self._cores = trace, chip.cores
        self.weight_bytes = moved.sum(axis=1)
        self.weights = np.ceil((moved / rates).max(axis=1)).astype(np.int64)
        self.rest = np.ceil((others / rates).max(axis=1)).astype(np.int64)
        self.byte_cycles = (expanded / rates).max(axis=1)
        self.decode = _by_operator(program, work[:, W_DECODER], streams) // chip.cores
        self.elements = expanded.sum(axis=1) / chip.cores
        self.streams = _by_operator(program, streams.astype(np.int64), streams) / chip.cores
        dense = work_of(table, replace(chip, sparsity=None))[:, W_STREAM]
        self.matmul, self.depthwise = (
            _by_operator(program, dense, _rows(program, name)) / chip.cores
            for name in ("matmul", "depthwise")
        )
        self.short = _short(program, dense)

    def uses(self, k: int) -> dict[str, int]:
        """Return the cycles for which an operator keeps each resource busy."""
        spent = {"matrix": 0, "vector": 0}
        for queue, cycles in occupied_cycles(self._trace, k).items():
            name = queue.rpartition(".")[2]
            if name in spent:
                spent[name] += cycles
        return {
            "compute": spent["matrix"] // self._cores,
            "weight bandwidth": int(self.weights[k]),
            "activation bandwidth": int(self.rest[k]),
            "decode": int(self.decode[k]),
            "vector": spent["vector"] // self._cores,
        }

    def loads(self, k: int, counts: I64) -> LayerLoads:
        """Return what an operator asks for as a function of its zeros."""
        uses = self.uses(k)
        return LayerLoads(
            matmul_cycles=float(self.matmul[k]),
            depthwise_cycles=float(self.depthwise[k]),
            byte_cycles=float(self.byte_cycles[k]),
            elements=float(self.elements[k]),
            streams=float(self.streams[k]),
            activation_cycles=float(uses["activation bandwidth"]),
            vector_cycles=float(uses["vector"]),
            values=NonZeros(counts),
        )


def _short(program: Program, dense: I64) -> NDArray[np.bool_]:
    """Return of which operators most dense cycles are matmuls of fewer pixels than rows."""
    table, matmuls = program.table, _rows(program, "matmul")
    pixels = table[:, COLUMNS["ofm_height"]] * table[:, COLUMNS["ofm_width"]]
    few = matmuls & (pixels < program.chip.array.rows)
    every = _by_operator(program, dense, matmuls)
    return 2 * _by_operator(program, dense, few) > every


class Parts:
    """The cycles of a run's operators, by what they are spent on."""

    def __init__(
        self, program: Program, trace: Trace, zeros: Zeros, layers: Iterable[Layer]
    ) -> None:
        spent = attribute(trace, len(program.operators))
        self.cycles = spent.cycles
        self._spent, self._zeros = spent, zeros
        self._peak = program.chip.peak_macs_per_cycle
        self._layers = {layer.index: layer for layer in layers}

    def of(self, k: int) -> tuple[int, int, int, int]:
        """Return needed, unbalanced, unfilled and waiting."""
        layer, cycles = self._layers[k], int(self.cycles[k])
        busy = int(self._spent.table[k, self._spent.causes.index("matrix")])
        needed = min((layer.macs - int(self._zeros.skippable[k])) // self._peak, cycles)
        issued = min(max(layer.effective_macs // self._peak, needed), cycles)
        matrix = min(max(busy, issued), cycles)
        return needed, issued - needed, matrix - issued, cycles - matrix

    def causes(self, k: int) -> dict[str, int]:
        """Return all but `needed`, with `waiting` by its causes."""
        _, unbalanced, unfilled, _ = self.of(k)
        made = {"unbalanced": unbalanced, "unfilled": unfilled}
        row = self._spent.table[k].tolist()
        for cause, cycles in zip(self._spent.causes, row, strict=True):
            if cause != "matrix":
                key = _without_number(cause)
                made[key] = made.get(key, 0) + cycles
        return made


def _without_number(cause: str) -> str:
    """Return a cause of attribution without the core and the number of a queue."""
    if not cause.startswith("wait_"):
        return cause
    return "wait_" + cause.removeprefix("wait_").rpartition(".")[2].rstrip("0123456789")


def losses_of(now: dict[str, int], dense: dict[str, int], keep: float) -> dict[str, int]:
    """Return what each cause takes more than so much of what it takes in the dense run."""
    names = dict.fromkeys((*now, *dense))
    made = {name: round(now.get(name, 0) - keep * dense.get(name, 0)) for name in names}
    return {name: cycles for name, cycles in made.items() if cycles}
