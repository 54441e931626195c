"""Prune a model in one call."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeGuard, TypeVar, cast, overload

import numpy as np

from lepton.errors import InputError
from lepton.models.extras import require
from lepton.models.onnx_module import from_onnx, read_float_model, to_onnx
from lepton.models.pruning.filters import graph_slopes, remove_filters
from lepton.models.pruning.gradual import FineTuning, Measured, Train, prune_gradually
from lepton.models.pruning.masks import Mask
from lepton.models.pruning.report import LayerReport, PruningReport, report_of_masks
from lepton.models.pruning.schedule import Schedule
from lepton.models.pruning.selection import Masks, Selection, masks_for, with_rate
from lepton.models.pruning.slopes import Batches, Loss
from lepton.models.pruning.surgery import FilterGraph, Filters

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from lepton.models.onnx_module.module import OnnxModule

# torch is typed in part only, and an extra:
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["Pruned", "prune_model"]

M = TypeVar("M")


class Pruned(NamedTuple, Generic[M]):
    """A pruned model, and what was pruned of it."""

    model: M
    report: PruningReport


@overload
def prune_model(
    model: str | Path | bytes | onnx.ModelProto,
    rate: float | Mapping[str, float] | None = None,
    criterion: str = "l1",
    pattern: str | None = None,
    scope: str = "layer",
    *,
    threshold: float | None = None,
    data: Batches | None = None,
    loss: Loss | None = None,
    train: Train | None = None,
    schedule: Schedule | None = None,
    checkpoint: str | Path | None = None,
) -> Pruned[onnx.ModelProto]: ...


@overload
def prune_model(
    model: nn.Module,
    rate: float | Mapping[str, float] | None = None,
    criterion: str = "l1",
    pattern: str | None = None,
    scope: str = "layer",
    *,
    threshold: float | None = None,
    data: Batches | None = None,
    loss: Loss | None = None,
    train: Train | None = None,
    schedule: Schedule | None = None,
    checkpoint: str | Path | None = None,
) -> Pruned[nn.Module]: ...


def prune_model(
    model: str | Path | bytes | onnx.ModelProto | nn.Module,
    rate: float | Mapping[str, float] | None = None,
    criterion: str = "l1",
    pattern: str | None = None,
    scope: str = "layer",
    *,
    threshold: float | None = None,
    data: Batches | None = None,
    loss: Loss | None = None,
    train: Train | None = None,
    schedule: Schedule | None = None,
    checkpoint: str | Path | None = None,
) -> Pruned[onnx.ModelProto] | Pruned[nn.Module]:
    """Return a pruned copy of a float model, and a report per layer.

    Args:
        model: float ONNX, or a torch module; the result is of the same form.
        rate: pruned / total, or layer -> its own rate (layers left out stay whole). None goes by
            the threshold, or prunes what an N:M pattern does.
        criterion: a name of `criteria.CRITERIA`.
        pattern: None for single weights, `N:M`, `filters` (they are removed, with all that reads
            them; of ONNX or what `from_onnx` made), `channels`, `kernels` or `blocks RxC` (set to
            0). With a rate above what N:M prunes, more weights go on top of the pattern.
        scope: `layer`, each at the rate, or `global`, all ranked together.
        threshold: prune what scores lower, instead of a rate.
        data: batches of inputs and targets, for criteria that measure slopes.
        loss: of outputs and targets for those; cross-entropy of logits if None.
        train: fine-tunes a torch module for so many epochs, pruned weights held at 0.
        schedule: of the steps, each followed by `train`.
        checkpoint: a file to save each step to, and to go on from if it exists.

    Raises:
        InputError: The options contradict each other, or one is wrong.
        ImportFailure: The model is damaged, or has what cannot be pruned or trained.
    """
    selection, whole = with_rate(Selection(criterion, pattern or "weights", scope), rate, threshold)
    file = None if checkpoint is None else Path(checkpoint)
    tuning = FineTuning(train, schedule or Schedule(), file)
    measured = Measured(data, loss)
    if _is_module(model):
        return _prune_module(model, whole, selection, tuning, measured)
    source = read_float_model(cast("str | Path | bytes | onnx.ModelProto", model))
    if selection.pattern == "filters":
        made = remove_filters(source, whole, selection, tuning, measured)
        return Pruned(made, _filter_report(source, made))
    if train is None and file is None:
        return _prune_graph(source, whole, selection, measured)
    module = from_onnx(source)
    masks = _tuned_masks(module, whole, selection, tuning, measured)
    return Pruned(to_onnx(module), report_of_masks(masks, _graph_names(module, masks)))


def _is_module(model: object) -> TypeGuard[nn.Module]:
    return hasattr(model, "named_modules")


def _prune_module(
    model: nn.Module, rate: float, selection: Selection, tuning: FineTuning, measured: Measured
) -> Pruned[nn.Module]:
    require("torch")
    from lepton.models.onnx_module.module import OnnxModule

    if selection.pattern != "filters":
        module = copy.deepcopy(model)
        masks = prune_gradually(module, rate, selection, tuning, measured)
        return Pruned(module, report_of_masks(masks, list(masks)))
    if not isinstance(model, OnnxModule):
        kind = type(model).__name__
        raise InputError(
            f"removing filters needs the network's graph, which a {kind} does not have: export it "
            "to ONNX, and give that or from_onnx of it"
        )
    source = model.to_onnx()
    made = remove_filters(source, rate, selection, tuning, measured)
    return Pruned(cast("nn.Module", from_onnx(made)), _filter_report(source, made))


def _prune_graph(
    source: onnx.ModelProto, rate: float, selection: Selection, measured: Measured
) -> Pruned[onnx.ModelProto]:
    """Prune the weights of a graph without training it."""
    graph = FilterGraph(source)
    layers = _distinct(graph)
    slopes = graph_slopes(graph, selection.criterion, measured)
    masks = masks_for(
        {name: graph.weights(item) for name, item in layers.items()},
        selection,
        rate,
        {name: slopes[item.weights] for name, item in layers.items() if item.weights in slopes},
    )
    values = {
        item.weights: np.where(masks[name], graph.weights(item), 0).astype(
            graph.weights(item).dtype
        )
        for name, item in layers.items()
    }
    return Pruned(graph.with_weights(values), report_of_masks(masks, list(masks)))


def _distinct(graph: FilterGraph) -> dict[str, Filters]:
    """Return a graph's layers by name, one of those that share their weights."""
    found: dict[str, Filters] = {}
    seen: set[str] = set()
    for item in graph.filters:
        if item.weights not in seen:
            seen.add(item.weights)
            found[item.layer if item.layer not in found else f"{item.layer} {item.weights}"] = item
    if not found:
        raise InputError("the model has no layer with weights to prune")
    return found


def _tuned_masks(
    module: OnnxModule, rate: float, selection: Selection, tuning: FineTuning, measured: Measured
) -> Masks:
    """Prune the module of a graph gradually; the selection has the graph's names."""
    from lepton.models.pruning.holding import layer_weights

    weights = list(layer_weights(module))
    names = dict(zip(_graph_names(module, dict.fromkeys(weights)), weights, strict=True))
    unknown = selection.layer_rates.keys() - names.keys()
    if unknown:
        raise InputError(f"there is no layer {min(unknown)!r} to prune")
    rates = {names[name]: value for name, value in selection.layer_rates.items()}
    return prune_gradually(module, rate, replace(selection, layer_rates=rates), tuning, measured)


def _graph_names(module: OnnxModule, masks: Mapping[str, Mask | None]) -> list[str]:
    """Return what the graph calls the layers `layers.KEY.….weight` of its module."""
    return [module.onnx_names[name.split(".")[1]] for name in masks]


def _filter_report(before: onnx.ModelProto, after: onnx.ModelProto) -> PruningReport:
    whole, left = FilterGraph(before), FilterGraph(after)
    rows: list[LayerReport] = []
    for old, new in zip(whole.filters, left.filters, strict=True):
        size, rest = whole.weights(old).size, left.weights(new).size
        gone = len(old.labels) - len(new.labels)
        rows.append(
            LayerReport(old.layer, size, size - rest, len(old.labels), gone, whole.reason(old))
        )
    return PruningReport(tuple(rows))
