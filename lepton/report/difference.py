"""Two runs compared layer by layer: which layer became faster or slower, by how much, and why.

Layers belong together by name. Names that only one run has are paired by position: between two
layers that are paired already, those of the same operator, in order. What is left then stands
alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from lepton.program import one_line
from lepton.report.figures import Figures, LayerFigures
from lepton.report.names import shorten, tidy_names

__all__ = ["Difference", "Pair", "compare"]

_NAME_WIDTH = 32


@dataclass(frozen=True)
class Pair:
    """A layer of each run that belong together, or one that stands alone."""

    a: LayerFigures | None
    b: LayerFigures | None
    matched: Literal["name", "order"] | None

    @property
    def name(self) -> str:
        """The layer's name in the first run that has it."""
        return self._either.name

    @property
    def op(self) -> str:
        """The layer's operator in the first run that has it."""
        return self._either.op

    @property
    def _either(self) -> LayerFigures:
        found = self.a or self.b
        assert found is not None
        return found

    @property
    def cycles(self) -> int | None:
        """B's cycles less A's; None where one of them has none."""
        if any(layer is not None and layer.cycles is None for layer in (self.a, self.b)):
            return None
        return (self.b.cycles or 0 if self.b else 0) - (self.a.cycles or 0 if self.a else 0)

    @property
    def dram_bytes(self) -> int:
        """B's bytes less A's."""
        return (self.b.dram_bytes if self.b else 0) - (self.a.dram_bytes if self.a else 0)

    @property
    def macs(self) -> int:
        """B's multiply-accumulates less A's."""
        return (self.b.macs if self.b else 0) - (self.a.macs if self.a else 0)

    @property
    def is_equal(self) -> bool:
        """Whether the two have the same figures, name aside."""
        if self.a is None or self.b is None:
            return False
        return dataclasses.replace(self.a, name=self.b.name) == self.b

    def to_json(self) -> dict[str, object]:
        """Return plain types."""
        return {
            "name": self.name,
            "op": self.op,
            "matched": self.matched,
            "cycles": self.cycles,
            "dram_bytes": self.dram_bytes,
            "macs": self.macs,
            "a": None if self.a is None else dataclasses.asdict(self.a),
            "b": None if self.b is None else dataclasses.asdict(self.b),
        }


@dataclass(frozen=True)
class Difference:
    """Two runs and their layers in pairs, the largest difference first."""

    a: Figures
    b: Figures
    pairs: tuple[Pair, ...]

    @property
    def is_identical(self) -> bool:
        """Whether no figure differs, of the whole or of any layer."""
        return self.a == self.b

    @property
    def cycles(self) -> int | None:
        """B's cycles less A's; None where one run has none."""
        if self.a.cycles is None or self.b.cycles is None:
            return None
        return self.b.cycles - self.a.cycles

    def to_json(self) -> dict[str, object]:
        """Return plain types."""
        return {
            "a": _head(self.a),
            "b": _head(self.b),
            "identical": self.is_identical,
            "cycles": self.cycles,
            "dram_bytes": self.b.dram_bytes - self.a.dram_bytes,
            "macs": self.b.macs - self.a.macs,
            "layers": [pair.to_json() for pair in self.pairs],
        }

    def text(self) -> str:
        """Return the comparison as a table."""
        lines = [_head_line("A", self.a), _head_line("B", self.b)]
        if self.is_identical:
            return "\n".join([*lines, "identical: no figure of any layer differs"])
        lines += ["", _HEAD]
        equal = [pair for pair in self.pairs if pair.is_equal]
        lines += _rows([pair for pair in self.pairs if not pair.is_equal])
        lines += [_total(self.a, self.b)]
        if equal:
            lines.append(f"{len(equal)} of {len(self.pairs)} layers do not differ")
        for pair in self.pairs:
            if pair.a and pair.b and pair.a.name != pair.b.name:
                lines.append(
                    f"matched by order: A's '{one_line(pair.a.name)}' and "
                    f"B's '{one_line(pair.b.name)}'"
                )
        for letter, alone in (("A", [p for p in self.pairs if p.b is None]),
                              ("B", [p for p in self.pairs if p.a is None])):  # fmt: skip
            lines += [f"only in {letter}: {one_line(pair.name)} ({pair.op})" for pair in alone]
        return "\n".join(lines)


def compare(a: Figures, b: Figures) -> Difference:
    """Return two runs compared, the layers by how much their cycles differ, then their bytes."""
    pairs = _pairs(a.layers, b.layers)
    order = sorted(
        pairs, key=lambda pair: (-abs(pair.cycles or 0), -abs(pair.dram_bytes), -abs(pair.macs))
    )
    return Difference(a, b, tuple(order))


def _pairs(a: Sequence[LayerFigures], b: Sequence[LayerFigures]) -> list[Pair]:
    """Return all layers in pairs, in A's order, B's own ones last."""
    named = _by_name(a, b)
    # whom a name has paired can only meet each other; the others meet their operator
    tokens_a = [("pair", i) if i in named else ("op", layer.op) for i, layer in enumerate(a)]
    of_b = {j: i for i, j in named.items()}
    tokens_b = [("pair", of_b[j]) if j in of_b else ("op", x.op) for j, x in enumerate(b)]
    ordered: dict[int, int] = {}
    for block in SequenceMatcher(None, tokens_a, tokens_b, autojunk=False).get_matching_blocks():
        for offset in range(block.size):
            if block.a + offset not in named:
                ordered[block.a + offset] = block.b + offset
    made: list[Pair] = []
    for i, layer in enumerate(a):
        if i in named:
            made.append(Pair(layer, b[named[i]], "name"))
        elif i in ordered:
            made.append(Pair(layer, b[ordered[i]], "order"))
        else:
            made.append(Pair(layer, None, None))
    taken = {*named.values(), *ordered.values()}
    return made + [Pair(None, layer, None) for j, layer in enumerate(b) if j not in taken]


def _by_name(a: Sequence[LayerFigures], b: Sequence[LayerFigures]) -> dict[int, int]:
    """Return for layers of A the one of B with the same name, operators compared first."""
    found: dict[int, int] = {}
    for with_operator in (True, False):
        free: dict[tuple[str, str], list[int]] = {}
        taken = set(found.values())
        for j, layer in enumerate(b):
            if j not in taken:
                free.setdefault((layer.name, layer.op if with_operator else ""), []).append(j)
        for i, layer in enumerate(a):
            same = free.get((layer.name, layer.op if with_operator else ""))
            if i not in found and same:
                found[i] = same.pop(0)
    return found


# --- text ----------------------------------------------------------------------------------------


def _head(run: Figures) -> dict[str, object]:
    """Return a run without its layers, as plain types."""
    return {
        "model": run.model, "chip": run.chip, "cycles": run.cycles,
        "milliseconds": run.milliseconds, "dram_bytes": run.dram_bytes, "macs": run.macs,
    }  # fmt: skip


def _head_line(letter: str, run: Figures) -> str:
    """Return a run in one line."""
    time = f"{run.cycles:,} cycles" if run.cycles is not None else "not simulated"
    if run.milliseconds is not None:
        time += f", {run.milliseconds:,.3f} ms"
    return f"{letter}: {one_line(run.model)} on {one_line(run.chip)}, {time}"


_HEAD = (
    f"{'layer':{_NAME_WIDTH}}  {'operator':12}  {'cycles A':>13}  {'cycles B':>13}  "
    f"{'B - A':>13}  {'%':>7}  {'bytes B - A':>12}  {'MACs B - A':>12}  unit, bound"
)


def _rows(pairs: Sequence[Pair]) -> list[str]:
    """Return a line per pair."""
    names = tidy_names([pair.name for pair in pairs])
    return [_row(name, pair) for name, pair in zip(names, pairs, strict=True)]


def _row(name: str, pair: Pair) -> str:
    """Return the line of a pair."""
    a, b = pair.a, pair.b
    what = " -> ".join(
        dict.fromkeys(
            ", ".join(part for part in (layer.unit, layer.bound) if part) or "-"
            for layer in (a, b)
            if layer is not None
        )
    )
    cycles = (None if a is None else a.cycles, None if b is None else b.cycles)
    sizes = (pair.dram_bytes, pair.macs)
    line = _cells(shorten(one_line(name), _NAME_WIDTH), pair.op, cycles, pair.cycles, sizes)
    return f"{line}  {what}"


def _total(a: Figures, b: Figures) -> str:
    """Return the last line of the table."""
    change = None if a.cycles is None or b.cycles is None else b.cycles - a.cycles
    sizes = (b.dram_bytes - a.dram_bytes, b.macs - a.macs)
    return _cells("total", "", (a.cycles, b.cycles), change, sizes)


def _cells(
    name: str,
    op: str,
    cycles: tuple[int | None, int | None],
    change: int | None,
    sizes: tuple[int, int],
) -> str:
    """Return the cells of a line: `sizes` are the differences of the bytes and of the MACs."""
    a, b = ("-" if count is None else f"{count:,}" for count in cycles)
    share = f"{100 * change / cycles[0]:+.1f}" if change is not None and cycles[0] else "-"
    return (
        f"{name:{_NAME_WIDTH}}  {op:12}  {a:>13}  {b:>13}  "
        f"{'-' if change is None else f'{change:+,}':>13}  {share:>7}  "
        f"{_signed(sizes[0]):>12}  {_signed(sizes[1]):>12}"
    )


def _signed(value: int) -> str:
    """Return a difference with its sign, none on 0."""
    return f"{value:+,}" if value else "0"
