"""Which filters of a graph to remove, and the gradual removal with fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.onnx_module import from_onnx, to_onnx
from lepton.models.pruning.criteria import MEASURED, Slopes, cannot_compare, scores_of
from lepton.models.pruning.gradual import FineTuning, Measured, load_step, save_step
from lepton.models.pruning.granularity import labels_of
from lepton.models.pruning.masks import pruned_count
from lepton.models.pruning.selection import Selection
from lepton.models.pruning.slopes import slopes_for
from lepton.models.pruning.surgery import ChannelSet, FilterGraph

if TYPE_CHECKING:
    import onnx

# torch and tqdm are typed in part only:
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportMissingModuleSource=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["choose_classes", "graph_slopes", "remove_filters"]

Counts = Mapping[tuple[str, ...], int]


def choose_classes(
    graph: FilterGraph,
    rate: float,
    selection: Selection,
    slopes: Mapping[str, Slopes] | None = None,
    whole: Counts | None = None,
) -> list[int]:
    """Return the classes of channels with the lowest scores; each set keeps one at least.

    The score of a class is the sum over its filters, of all layers that residual sums and the
    like tie together; layers of which the criterion says nothing (`criteria.cannot_compare`, say a
    depthwise one behind an ordinary one) do not count. Of equal scores the earlier goes first. In
    the scope `layer` each set of tied layers loses its rate; the lowest of the layers' own rates
    counts. In the scope `global` all classes are ranked together, and the rate is of all filters
    that can be removed.

    Args:
        graph: to remove from.
        rate: filters removed / filters.
        selection: criterion and scope.
        slopes: constant -> slopes of its weights, `[filters, …]`, if the criterion needs them.
        whole: layers of a set -> channels that count as the total; those of the graph if None.

    Raises:
        InputError: The criterion says nothing of filters that are to be removed, or lacks slopes.
    """
    scores = _class_scores(graph, selection.criterion, slopes or {})
    sets = graph.sets()
    totals = [(whole or {}).get(_names(graph, item), len(item.classes)) for item in sets]
    if selection.scope == "global":
        ranked = [_lowest_first(graph, item, scores, selection.criterion) for item in sets]
        return _global_choice(ranked, totals, scores, rate)
    chosen: list[int] = []
    for item, total in zip(sets, totals, strict=True):
        own = [selection.layer_rates.get(name, rate) for name in _names(graph, item)]
        left = len(item.classes)
        count = min(pruned_count(min(own), total) - (total - left), left - 1)
        if count > 0:
            order = _lowest_first(graph, item, scores, selection.criterion)
            chosen += order[:count].tolist()
    return chosen


def _lowest_first(
    graph: FilterGraph, item: ChannelSet, scores: Mapping[int, float], criterion: str
) -> NDArray[np.int64]:
    """Return the classes of a set, the lowest scores first."""
    if any(int(label) not in scores for label in item.classes):
        raise InputError(
            f"layer {_names(graph, item)[0]!r}: the criterion {criterion!r} gives all filters the "
            "same score, since each reads one input channel alone: take another, such as 'l2'"
        )
    order = np.argsort([scores[int(label)] for label in item.classes], kind="stable")
    return item.classes[order]


def graph_slopes(
    graph: FilterGraph, criterion: str, measured: Measured | None
) -> dict[str, Slopes]:
    """Return what a criterion needs of each constant with weights, `[filters, …]`.

    Raises:
        InputError: It needs data or PyTorch, and there is none.
    """
    if criterion not in MEASURED:
        return {}
    module, samples = from_onnx(graph.model), measured or Measured()
    layers = {item.weights: item for item in graph.filters}
    parameters = {
        name: parameter for name in layers if (parameter := module.parameter_of(name)) is not None
    }
    found = slopes_for(criterion, module, parameters, samples.data, samples.loss)

    def stored(name: str, values: NDArray[Any]) -> NDArray[Any]:
        import torch

        axis = layers[name].axis
        flat = module.as_stored(name, torch.from_numpy(values)).numpy()
        shape = list(graph.weights(layers[name]).shape)
        shape.insert(axis, shape.pop(0))
        return np.moveaxis(flat.reshape(shape), axis, 0)

    return {
        name: item.oriented_by(lambda values, name=name: stored(name, values))
        for name, item in found.items()
    }


def remove_filters(
    model: onnx.ModelProto,
    rate: float,
    selection: Selection,
    tuning: FineTuning | None = None,
    measured: Measured | None = None,
) -> onnx.ModelProto:
    """Return a graph without the filters that matter least, fine-tuned between the steps.

    Raises:
        InputError: A name or a rate is wrong, the criterion needs data, or a checkpoint is
            damaged or another run's.
        ImportFailure: The graph is damaged or cannot be trained.
    """
    from tqdm import tqdm

    steps = tuning or FineTuning()
    graph = FilterGraph(model)
    whole = {_names(graph, item): len(item.classes) for item in graph.sets()}
    _check_names(whole, selection)
    parts = steps.schedule.rates(1.0)
    checkpoint = steps.file({"model": _tensor(model)}, (rate, selection))
    done = 0
    if checkpoint is not None:
        done, tensors = load_step(checkpoint)
        model = _from_bytes(tensors["model"].numpy().tobytes()) if done else model
    # disable=None shows the bar on a terminal only
    for step in tqdm(range(done, len(parts)), desc="pruning", unit="step", disable=None):
        part = parts[step]
        graph = FilterGraph(model)
        slopes = graph_slopes(graph, selection.criterion, measured)
        chosen = choose_classes(graph, rate * part, selection.scaled(part), slopes, whole)
        model = _tuned(graph.without(chosen), steps)
        if checkpoint is not None:
            save_step(checkpoint, step + 1, {"model": _tensor(model)})
    return model


def _class_scores(
    graph: FilterGraph, criterion: str, slopes: Mapping[str, Slopes]
) -> dict[int, float]:
    totals: dict[int, float] = {}
    for layer in graph.filters:
        weights = graph.weights(layer)
        labels = labels_of(weights.shape, "filters")
        if cannot_compare(criterion, labels):
            continue
        name = f"layer {layer.layer!r}"
        made = scores_of(weights, labels, criterion, slopes.get(layer.weights), name)
        for label, score in zip(graph.classes(layer), made, strict=True):
            totals[int(label)] = totals.get(int(label), 0.0) + float(score)
    return totals


def _global_choice(
    ranked: Sequence[NDArray[np.int64]],
    totals: Sequence[int],
    scores: Mapping[int, float],
    rate: float,
) -> list[int]:
    """Return the lowest classes of all sets, the last of each set excepted."""
    gone = sum(totals) - sum(len(order) for order in ranked)
    count = max(pruned_count(rate, sum(totals)) - gone, 0)
    free = [int(label) for order in ranked for label in order[:-1]]
    return sorted(free, key=lambda label: scores[label])[:count]


def _names(graph: FilterGraph, item: ChannelSet) -> tuple[str, ...]:
    return tuple(graph.filters[at].layer for at in item.layers)


def _check_names(whole: Counts, selection: Selection) -> None:
    if selection.threshold is not None:
        raise InputError("filters are removed by a rate, not by a threshold")
    known = {name for names in whole for name in names}
    unknown = selection.layer_rates.keys() - known
    if unknown:
        raise InputError(f"there is no layer {min(unknown)!r} whose filters can be removed")


def _tuned(model: onnx.ModelProto, tuning: FineTuning) -> onnx.ModelProto:
    if tuning.train is None or not tuning.schedule.epochs:
        return model
    module = from_onnx(model)
    tuning.train(module, tuning.schedule.epochs)
    return to_onnx(module)


def _tensor(model: onnx.ModelProto) -> Any:
    import torch

    return torch.frombuffer(bytearray(model.SerializeToString()), dtype=torch.uint8)


def _from_bytes(content: bytes) -> onnx.ModelProto:
    import onnx

    return onnx.ModelProto.FromString(content)
