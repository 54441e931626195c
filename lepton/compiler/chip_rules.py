"""Support rules that depend on the chip: what one step of an operator needs of the scratchpad.

As in `rules`, a predicate's docstring is the rule for the user.
"""

from __future__ import annotations

from collections.abc import Callable

from lepton.chip import Chip
from lepton.compiler.operation import Operation
from lepton.compiler.rules import rule_text
from lepton.compiler.windows import pixels_fit

__all__ = ["CHIP_RULES", "ChipRule", "first_chip_failure", "window_pixels"]

ChipRule = Callable[[Operation, Chip], bool]


def window_pixels(operation: Operation) -> int:
    """Return the pixels of the image that a pool's window covers."""
    at = str(operation.call.attrs.layout).index("H")
    image = operation.inputs[0].shape[at : at + 2]
    kernel, dilation = operation.integers("pool_size"), operation.integers("dilation")
    rows, columns = (
        min((taps - 1) * step + 1, extent)
        for taps, step, extent in zip(kernel, dilation, image, strict=True)
    )
    return rows * columns


def window_fits_scratchpad(operation: Operation, chip: Chip) -> bool:
    """One channel of a pool's window must fit a quarter of the scratchpad."""
    return pixels_fit(window_pixels(operation), chip)


CHIP_RULES: dict[str, tuple[ChipRule, ...]] = {
    "nn.avg_pool2d": (window_fits_scratchpad,),
    "nn.max_pool2d": (window_fits_scratchpad,),
}
"""Rules of each Relax operator, checked behind those of `rules`."""


def first_chip_failure(operation: Operation, chip: Chip) -> str:
    """Return the text of the first rule that an operation breaks, "" if it keeps all."""
    for rule in CHIP_RULES.get(operation.op, ()):
        if not rule(operation, chip):
            return rule_text(rule)
    return ""
