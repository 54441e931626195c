"""What pruning has done to each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lepton.models.pruning.masks import Mask

__all__ = ["LayerReport", "PruningReport", "report_of_masks"]


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        layer: its name.
        weights: before.
        pruned: of them, zero or gone; those that go because a layer before lost filters too.
        filters: before; 0 where filters were not removed.
        removed: filters.
        reason: why filters had to stay, if any had.
    """

    layer: str
    weights: int
    pruned: int
    filters: int = 0
    removed: int = 0
    reason: str | None = None

    @property
    def rate(self) -> float:
        """Pruned / weights."""
        return self.pruned / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class PruningReport:
    """All layers, in the network's order."""

    layers: tuple[LayerReport, ...]

    @property
    def rate(self) -> float:
        """Pruned weights / weights of the whole network."""
        whole = sum(item.weights for item in self.layers)
        return sum(item.pruned for item in self.layers) / whole if whole else 0.0

    def __str__(self) -> str:
        width = max([len("layer"), *(len(item.layer) for item in self.layers)])
        lines = [f"{'layer':{width}}  {'weights':>10}  {'pruned':>10}  {'rate':>6}  filters"]
        for item in self.layers:
            filters = f"{item.filters - item.removed} of {item.filters}" if item.filters else ""
            note = f"  ({item.reason})" if item.reason else ""
            line = f"{item.layer:{width}}  {item.weights:>10}  {item.pruned:>10}  {item.rate:>6.1%}"
            lines.append(f"{line}  {filters}{note}".rstrip())
        return "\n".join(lines)


def report_of_masks(masks: Mapping[str, Mask], names: Sequence[str]) -> PruningReport:
    """Return the report of masks, under other names in the same order."""
    return PruningReport(
        tuple(
            LayerReport(name, mask.size, int((~mask).sum()))
            for name, mask in zip(names, masks.values(), strict=True)
        )
    )
