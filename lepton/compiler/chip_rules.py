"""Support rules that depend on the chip: what one step of an operator needs of the scratchpad.

As in `rules`, a predicate's docstring is the rule for the user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lepton.chip import Chip
from lepton.compiler.operation import Operation
from lepton.compiler.rules import rule_text
from lepton.isa.footprints import POOL_PARAMETER_BYTES

__all__ = ["CHIP_RULES", "ChipRule", "Verdict", "first_chip_failure"]

ChipRule = Callable[[Operation, Chip], bool]


def window_fits_scratchpad(operation: Operation, chip: Chip) -> bool:
    """One channel of a pool's window must fit a quarter of the scratchpad."""
    at = str(operation.call.attrs.layout).index("H")
    image = operation.inputs[0].shape[at : at + 2]
    kernel, dilation = operation.integers("pool_size"), operation.integers("dilation")
    rows, columns = (
        min((taps - 1) * step + 1, extent)
        for taps, step, extent in zip(kernel, dilation, image, strict=True)
    )
    # two of the eight tiles that share what parameters leave, less their alignment
    return rows * columns <= 2 * ((chip.scratchpad.size_bytes - POOL_PARAMETER_BYTES) // 8 - 16)


CHIP_RULES: dict[str, tuple[ChipRule, ...]] = {
    "nn.avg_pool2d": (window_fits_scratchpad,),
    "nn.max_pool2d": (window_fits_scratchpad,),
}
"""Rules of each Relax operator, checked behind those of `rules`."""


@dataclass(frozen=True)
class Verdict:
    """What the rules that depend on a chip say of an operation."""

    operation: Operation
    failure: str

    def holds_for(self, chip: Chip) -> bool:
        """Return whether they say the same for another chip."""
        return first_chip_failure(self.operation, chip) == self.failure


def first_chip_failure(operation: Operation, chip: Chip) -> str:
    """Return the text of the first rule that an operation breaks, "" if it keeps all."""
    for rule in CHIP_RULES.get(operation.op, ()):
        if not rule(operation, chip):
            return rule_text(rule)
    return ""
