"""The options that let a chip's budget choose the bits of a network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton.cli.arguments import natural
from lepton.errors import InputError

if TYPE_CHECKING:
    import onnx

    from lepton.chip import Chip
    from lepton.models.compression.budget import Budgeted, Samples
    from lepton.models.quantization.chip_budget import Chosen

__all__ = ["add_budget", "chosen_budget"]


def add_budget(parser: Any) -> None:
    """Add `--budget-bytes` and `--budget-cycles`."""
    parser.add_argument(
        "--budget-bytes", type=natural, metavar="N",
        help="choose each layer's bits, 2 to 8, so that the weights' streams on the chip take at "
        "most so many bytes; in place of --bits",
    )  # fmt: skip
    parser.add_argument(
        "--budget-cycles", type=natural, metavar="N",
        help="likewise for the cycles of one inference; fewer bits save cycles where weights' "
        "bandwidth or the decoder bounds a layer",
    )  # fmt: skip


def chosen_budget(options: argparse.Namespace, chip: Chip) -> Budgeted | None:
    """Return the budget that a user gives, None without one.

    Raises:
        InputError: two are given, or one of 0.
    """
    counts = {"bytes": options.budget_bytes, "cycles": options.budget_cycles}
    given = {unit: limit for unit, limit in counts.items() if limit is not None}
    if not given:
        return None
    if len(given) > 1:
        raise InputError("give one of --budget-bytes and --budget-cycles")

    from dataclasses import replace

    from lepton.explore.bits import ChipBudget, Unit, choose_for
    from lepton.models.compression.budget import Budgeted

    ((unit, limit),) = given.items()
    budget = ChipBudget(chip, limit, Unit(unit))

    def choose(model: onnx.ModelProto, samples: Samples, most: int, folder: Path) -> Chosen:
        return choose_for(replace(budget, limit=max(most, 1)), model, samples, folder=folder)

    return Budgeted(f"{unit} {limit} {chip!r}", limit, budget.label, choose, budget.cost)
