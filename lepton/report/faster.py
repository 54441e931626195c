"""Why a network is not faster for the zeros of its weights: every layer's cycles in four parts.

The parts of a layer, which add up to its cycles:

* `needed`: its MACs whose weight is not 0, at the array's peak: the ideal;
* `unbalanced`: the other MACs that are issued, at peak: zeros that the chip does not skip, or that
  lie where skipping them shortens no pass;
* `unfilled`: cycles in which the matrix unit works beyond those: rows and columns that a block of
  weights leaves idle, operands that arrive too slowly, weights that load longer than pixels stream;
* `waiting`: cycles in which the matrix unit does not work for it.

`uses` are the cycles for which the layer keeps each resource busy; the largest bounds the layer,
or `latency` if it takes more than twice as long as any of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.chip.description import Sparsity
from lepton.cost.columns import W_DECODER, W_STREAM, WORK
from lepton.cost.estimate import estimate_program
from lepton.cost.packed_work import fill_program_work, repacked_work
from lepton.cost.work import work_of
from lepton.cost.zeros import Zeros, zeros_of
from lepton.isa.declaration import BY_MNEMONIC
from lepton.report.estimated import estimated_layers
from lepton.report.summary import Layer, occupied_cycles, summarize

if TYPE_CHECKING:
    from lepton.program import Program
    from lepton.trace import Trace

__all__ = ["Gain", "Gains", "gains_of"]

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

_MATMUL, _DEPTHWISE = BY_MNEMONIC["matmul"].opcode, BY_MNEMONIC["depthwise"].opcode


@dataclass(frozen=True)
class Gain:
    """What the zeros of a layer's weights bring, and what they could; cycles unless said.

    Attributes:
        index: number of the operator in the program.
        weights: elements of its constant weights.
        zeros: how many of them are 0.
        uses: by resource, see above.
        turn: the share of zeros from which on compute would not be the largest of `uses` any more,
            if every zero were skipped; None where it is not compute that bounds a dense layer.
        options: its estimated cycles on this chip with each of the options for sparse weights;
            `as it is` is the chip's own.
        patterns: its estimated cycles on this chip with its zeros in other places.
    """

    index: int
    name: str
    op: str
    cycles: int
    weights: int
    zeros: int
    needed: int
    unbalanced: int
    unfilled: int
    waiting: int
    uses: dict[str, int]
    turn: float | None
    options: dict[str, int]
    patterns: dict[str, int]

    @property
    def bound(self) -> str:
        """The resource that bounds it, or `latency`."""
        largest = max(self.uses, key=lambda name: self.uses[name])
        return "latency" if self.cycles > 2 * self.uses[largest] else largest

    @property
    def share_of_zeros(self) -> float:
        return self.zeros / self.weights if self.weights else 0.0

    def to_json(self) -> dict[str, object]:
        """Return plain types."""
        made: dict[str, object] = dataclasses.asdict(self)
        made["bound"] = self.bound
        return made


@dataclass(frozen=True)
class Gains:
    """All layers that have weights, and the whole program with each option and pattern."""

    model: str
    chip: str
    skips: bool
    """Whether the chip skips zeros."""
    cycles: int
    layers: tuple[Gain, ...]
    options: dict[str, int]
    patterns: dict[str, int]

    def to_json(self) -> dict[str, object]:
        """Return plain types."""
        made: dict[str, object] = {
            name: getattr(self, name)
            for name in ("model", "chip", "skips", "cycles", "options", "patterns")
        }
        made["layers"] = [gain.to_json() for gain in self.layers]
        return made


def chip_options(chip: Chip) -> dict[str, Chip]:
    """Return the chip with each of the options for sparse weights that its array can have."""
    words, rows = chip.array.feed_words, chip.array.rows
    made = {"as it is": chip, "no skipping": replace(chip, sparsity=None)}
    if not chip.array.is_pipelined:
        return made
    choices = {"zero blocks": Sparsity(rows, 1, True, words)}
    if rows % 2 == 0:
        choices["2:4"] = Sparsity(2, 2, True, words)
    if rows % 8 == 0:
        choices["any zeros"] = Sparsity(8, 6, True, 2 * words)
    return made | {name: replace(chip, sparsity=sparsity) for name, sparsity in choices.items()}


def two_of_four(block: U8) -> U8:
    """Return as many rows and columns of weights with two zeros in each four of a column."""
    made = np.ones(block.shape, np.uint8)
    made[2::4] = made[3::4] = 0
    return made


def spread(block: U8) -> U8:
    """Return the same zeros, spread evenly over each column."""
    counts = np.count_nonzero(block, axis=0)
    edges = np.arange(len(block) + 1)[:, None] * counts // len(block)
    return (np.diff(edges, axis=0) > 0).astype(np.uint8)


def in_blocks(block: U8) -> U8:
    """Return as many zeros, as whole rows at the end: the same ones in every column."""
    kept = ceil(np.count_nonzero(block) / block.shape[1])
    made = np.zeros(block.shape, np.uint8)
    made[:kept] = 1
    return made


_PATTERNS = {"2:4": two_of_four, "spread evenly": spread, "whole rows": in_blocks}


def _option_cycles(program: Program) -> dict[str, I64]:
    """Return the estimated cycles of each operator by option."""
    made: dict[str, I64] = {}
    for name, chip in chip_options(program.chip).items():
        other = replace(program, chip=chip)
        made[name] = estimated_layers(other, estimate_program(other))
    return made


def _pattern_cycles(program: Program) -> dict[str, I64]:
    """Return the estimated cycles of each operator by pattern; none where no zeros are skipped."""
    if program.chip.sparsity is None:
        return {}
    made: dict[str, I64] = {}
    for name, change in _PATTERNS.items():
        estimate = estimate_program(program, repacked_work(program, change))
        made[name] = estimated_layers(program, estimate)
    return made


def _by_operator(program: Program, values: I64, rows: NDArray[np.bool_]) -> I64:
    """Return the sums of values of instructions over each operator."""
    made = np.zeros(len(program.operators), np.int64)
    np.add.at(made, program.operator_of[rows], values[rows])
    return made


def _memory_cycles(program: Program, layer: Layer) -> tuple[int, int]:
    """Return the cycles of a layer's weights and of all else, at peak bandwidth."""
    chip, home = program.chip, program.constants_memory
    rates = [chip.bytes_per_cycle(memory) for memory in chip.memories]
    others = list(layer.dram_bytes)
    others[home] -= min(layer.stored_bytes, others[home])
    moved = max(size / rate for size, rate in zip(others, rates, strict=True))
    return ceil(layer.stored_bytes / rates[home]), ceil(moved)


def _uses(
    program: Program, trace: Trace, layer: Layer, decode: int, weight_and_rest: tuple[int, int]
) -> dict[str, int]:
    """Return the cycles for which a layer keeps each resource busy, all cores' together."""
    occupied = occupied_cycles(trace, layer.index)
    cores = program.chip.cores
    spent = {"matrix": 0, "vector": 0}
    for queue, cycles in occupied.items():
        name = queue.rpartition(".")[2]
        if name in spent:
            spent[name] += cycles
    weights, rest = weight_and_rest
    return {
        "compute": spent["matrix"] // cores,
        "weight bandwidth": weights,
        "activation bandwidth": rest,
        "decode": decode // cores,
        "vector": spent["vector"] // cores,
    }


def _turn(uses: Mapping[str, int], dense: int) -> float | None:
    """Return the share of zeros at which the dense layer's compute meets the next resource."""
    rest = max(cycles for name, cycles in uses.items() if name != "compute")
    return 1 - rest / dense if 0 < rest < dense else None


def _parts(program: Program, layer: Layer, zeros: Zeros) -> tuple[int, int, int, int]:
    """Return needed, unbalanced, unfilled and waiting of a layer."""
    peak, cycles = program.chip.peak_macs_per_cycle, layer.cycles or 0
    needed = min((layer.macs - int(zeros.skippable[layer.index])) // peak, cycles)
    issued = min(max(layer.effective_macs // peak, needed), cycles)
    matrix = min(max(layer.busy.get("matrix", 0), issued), cycles)
    return needed, issued - needed, matrix - issued, cycles - matrix


def gains_of(program: Program, trace: Trace) -> Gains:
    """Return what the zeros of a program's weights bring on its chip, and what they could.

    Args:
        program: what ran; nothing of it is compiled again for other options or patterns.
        trace: its run.
    """
    work = work_of(program.table, replace(program.chip, sparsity=None))
    matrix = (program.table[:, 0] == _MATMUL) | (program.table[:, 0] == _DEPTHWISE)
    dense = _by_operator(program, work[:, W_STREAM], matrix) // program.chip.cores
    decode = _by_operator(program, _decoder(program), np.ones(len(program.table), np.bool_))
    zeros, options, patterns = zeros_of(program), _option_cycles(program), _pattern_cycles(program)
    made: list[Gain] = []
    for layer in summarize(program, trace).layers:
        k = layer.index
        if layer.device != "npu" or not layer.weight_bytes or not layer.cycles:
            continue
        uses = _uses(program, trace, layer, int(decode[k]), _memory_cycles(program, layer))
        made.append(
            Gain(
                k, layer.name, layer.op, layer.cycles, int(zeros.weights[k]), int(zeros.zeros[k]),
                *_parts(program, layer, zeros), uses, _turn(uses, int(dense[k])),
                {name: int(cycles[k]) for name, cycles in options.items()},
                {name: int(cycles[k]) for name, cycles in patterns.items()},
            )
        )  # fmt: skip
    return Gains(
        program.source,
        program.chip.name,
        program.chip.sparsity is not None,
        trace.cycles,
        tuple(made),
        {name: int(cycles.sum()) for name, cycles in options.items()},
        {name: int(cycles.sum()) for name, cycles in patterns.items()},
    )


def _decoder(program: Program) -> I64:
    """Return the decoder's cycles of each instruction."""
    work = np.zeros((len(program.table), len(WORK)), np.int64)
    fill_program_work(program, work)
    return work[:, W_DECODER]
