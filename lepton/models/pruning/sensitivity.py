"""Scan how much a network suffers when one layer at a time is pruned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from lepton.models.pruning.gradual import Measured, select
from lepton.models.pruning.holding import apply_masks, layer_weights
from lepton.models.pruning.selection import Selection

if TYPE_CHECKING:
    from torch import nn

# torch and tqdm are typed in part only:
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportMissingModuleSource=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["Evaluate", "SensitivityRow", "layer_sensitivity", "sensitivity_table"]

Evaluate: TypeAlias = "Callable[[nn.Module], float]"
"""A module's metric, say its accuracy."""


@dataclass(frozen=True)
class SensitivityRow:
    """One layer pruned at one rate, all others whole.

    Attributes:
        layer: name in the module.
        rate: asked for.
        weights: of the layer.
        pruned: weights.
        metric: of the network.
        change: of the metric against the whole network.
    """

    layer: str
    rate: float
    weights: int
    pruned: int
    metric: float
    change: float


def layer_sensitivity(
    module: nn.Module,
    evaluate: Evaluate,
    rates: Sequence[float] = (0.5, 0.75, 0.9),
    selection: Selection | None = None,
    measured: Measured | None = None,
) -> list[SensitivityRow]:
    """Return the metric of each layer pruned at each rate, without fine-tuning.

    The module is as before afterwards.

    Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710, section
    3.2 (each layer pruned by itself and the network evaluated); Han et al., Learning both Weights
    and Connections, NeurIPS 2015, arXiv:1506.02626, figure 6 (for single weights).

    Raises:
        InputError: A rate is not from 0 to 1, or the criterion needs data.
    """
    from tqdm import tqdm

    chosen = selection or Selection()
    weights = layer_weights(module)
    masks = {rate: select(module, rate, chosen, measured) for rate in rates}
    whole = evaluate(module)
    rows: list[SensitivityRow] = []
    tries = [(name, rate) for name in weights for rate in rates]
    # disable=None shows the bar on a terminal only
    for name, rate in tqdm(tries, desc="sensitivity", unit="try", disable=None):
        parameter, mask = weights[name].parameter, masks[rate][name]
        before = parameter.detach().clone()
        try:
            apply_masks(module, {name: mask})
            metric = evaluate(module)
        finally:
            parameter.data.copy_(before)
        pruned = int((~mask).sum())
        rows.append(SensitivityRow(name, rate, mask.size, pruned, metric, metric - whole))
    return rows


def sensitivity_table(rows: Sequence[SensitivityRow]) -> str:
    """Return the rows as text, a layer a line and a rate a column, the change in each cell."""
    rates = sorted({row.rate for row in rows})
    layers = list(dict.fromkeys(row.layer for row in rows))
    changes = {(row.layer, row.rate): row.change for row in rows}
    width = max([len("layer"), *map(len, layers)])
    lines = [f"{'layer':{width}}" + "".join(f"{rate:>10.0%}" for rate in rates)]
    for layer in layers:
        cells = [changes.get((layer, rate)) for rate in rates]
        texts = [f"{'-':>10}" if cell is None else f"{cell:>+10.4f}" for cell in cells]
        lines.append(f"{layer:{width}}" + "".join(texts))
    return "\n".join(lines)
