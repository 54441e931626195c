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

What the zeros brought is measured against a dense run, of the model without zeros
(`lepton.report.faster_twin`) or, of a program alone, an estimate (`lepton.report.faster_dense`).
A layer whose share of zeros is s could take (1 - s) of its dense cycles; what it takes more is
split by the same parts, each less (1 - s) of the dense run's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.chip.description import Sparsity
from lepton.cost.estimate import estimate_program
from lepton.cost.packed_work import repacked_work
from lepton.cost.zeros import Zeros, zeros_of
from lepton.report.estimated import estimated_layers, estimated_trace
from lepton.report.faster_bounds import Turn
from lepton.report.faster_dense import DenseRun, estimated_dense, weight_counts
from lepton.report.faster_parts import Needs, Parts, losses_of
from lepton.report.summary import Layer, summarize

if TYPE_CHECKING:
    from lepton.program import Program
    from lepton.trace import Trace

__all__ = ["LEAST_SHARE", "Gain", "Gains", "gains_of", "has_zeros"]

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

LEAST_SHARE = 0.1
"""Of zeros that a layer must have to be explained: dense int8 weights have a few."""


@dataclass(frozen=True)
class Gain:
    """What the zeros of a layer's weights bring, and what they could; cycles unless said.

    Attributes:
        index: number of the operator in the program.
        weights: elements of its constant weights.
        zeros: how many of them are 0.
        uses: by resource, see above.
        short: whether fewer pixels stream through most of its blocks of weights than the array has
            rows, so that it waits for weights to load into it.
        dense: cycles of the layer in the dense run.
        compared: its cycles to compare with those: `cycles`, or an estimate as they are.
        losses: what `compared` is more than (1 - s) of `dense`, by what takes them: `unbalanced`,
            `unfilled`, and causes of `lepton.report.attribution`; negative where it takes less.
        stream: its weight bytes over those of the dense run.
        turns: the shares of zeros at which what bounds it changes, whatever zeros it has now
            (`lepton.report.faster_bounds`).
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
    short: bool
    dense: int
    compared: int
    losses: dict[str, int]
    stream: float
    turns: tuple[Turn, ...]
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

    @property
    def ideal(self) -> float:
        """Times as fast as dense, if every zero saved its share of the time."""
        return 1 / max(1 - self.share_of_zeros, 1e-9)

    @property
    def reached(self) -> float:
        """Times as fast as dense."""
        return self.dense / self.compared if self.compared else 1.0

    def to_json(self) -> dict[str, object]:
        """Return plain types."""
        made: dict[str, object] = dataclasses.asdict(self)
        return made | {name: getattr(self, name) for name in ("bound", "ideal", "reached")}


@dataclass(frozen=True)
class Gains:
    """All layers that have weights, and the whole program with each option and pattern."""

    model: str
    chip: str
    skips: bool
    """Whether the chip skips zeros."""
    cycles: int
    dense: int
    """Cycles of the dense run."""
    compared: int
    """Those to compare with it: `cycles`, or an estimate as it is."""
    origin: str
    """What the dense run is, in a sentence."""
    layers: tuple[Gain, ...]
    options: dict[str, int]
    patterns: dict[str, int]

    def to_json(self) -> dict[str, object]:
        """Return plain types."""
        made: dict[str, object] = {
            name: getattr(self, name)
            for name in (
                *("model", "chip", "skips", "cycles", "dense", "compared", "origin"),
                *("options", "patterns"),
            )
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


def has_zeros(program: Program) -> bool:
    """Return whether a layer of the program has so many zeros that they are to be explained."""
    zeros = zeros_of(program)
    return bool((zeros.zeros >= LEAST_SHARE * np.maximum(zeros.weights, 1)).any())


def gains_of(program: Program, trace: Trace, dense: DenseRun | None = None) -> Gains:
    """Return what the zeros of a program's weights bring on its chip, and what they could.

    Args:
        program: what ran; nothing of it is compiled again for other options or patterns.
        trace: its run.
        dense: what it is compared with; by default an estimate of the program with dense streams.
    """
    base = dense or estimated_dense(program)
    return _Comparison(program, trace, base).gains()


class _Comparison:
    """A run beside the dense one."""

    def __init__(self, program: Program, trace: Trace, dense: DenseRun) -> None:
        self._program, self._trace, self._dense = program, trace, dense
        self._zeros = zeros_of(program)
        layers = list(summarize(program, trace).layers)
        dense_layers = list(summarize(dense.program).layers)
        self._layers = layers
        self._run = Parts(program, trace, self._zeros, layers)
        self._now = self._run
        if dense.is_estimate:
            estimated = estimated_trace(program, estimate_program(program))
            self._now = Parts(program, estimated, self._zeros, layers)
        no_zeros = Zeros(len(program.operators))
        self._before = Parts(dense.program, dense.trace, no_zeros, dense_layers)
        self._needs = Needs(program, trace)
        self._dense_needs = Needs(dense.program, dense.trace)

    def gains(self) -> Gains:
        """Return all."""
        program = self._program
        options, patterns = _option_cycles(program), _pattern_cycles(program)
        # an estimate's constants are not what its instructions say
        counts = weight_counts(program if self._dense.is_estimate else self._dense.program)
        made = [
            self._gain(layer, counts[layer.index], options, patterns)
            for layer in self._layers
            if layer.device == "npu" and layer.weight_bytes and layer.cycles
        ]
        return Gains(
            program.source,
            program.chip.name,
            program.chip.sparsity is not None,
            self._trace.cycles,
            int(self._before.cycles.sum()),
            int(self._now.cycles.sum()),
            self._dense.origin,
            tuple(made),
            {name: int(cycles.sum()) for name, cycles in options.items()},
            {name: int(cycles.sum()) for name, cycles in patterns.items()},
        )

    def _gain(
        self, layer: Layer, counts: I64, options: dict[str, I64], patterns: dict[str, I64]
    ) -> Gain:
        """Return what the zeros of a layer bring."""
        k, zeros = layer.index, self._zeros
        weights, zero = int(zeros.weights[k]), int(zeros.zeros[k])
        keep = 1 - zero / weights if weights else 1.0
        bytes_now, bytes_dense = (
            int(needs.weight_bytes[k]) for needs in (self._needs, self._dense_needs)
        )
        return Gain(
            k, layer.name, layer.op, layer.cycles or 0, weights, zero, *self._run.of(k),
            uses=self._needs.uses(k),
            short=bool(self._needs.short[k]),
            dense=int(self._before.cycles[k]),
            compared=int(self._now.cycles[k]),
            losses=losses_of(self._now.causes(k), self._before.causes(k), keep),
            stream=bytes_now / bytes_dense if bytes_dense else 1.0,
            turns=self._dense_needs.loads(k, counts).turns(self._program.chip),
            options={name: int(cycles[k]) for name, cycles in options.items()},
            patterns={name: int(cycles[k]) for name, cycles in patterns.items()},
        )  # fmt: skip
