"""Whether a network, its teacher and the samples fit one another, seen before anything trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.datasets import Dataset
from lepton.models.onnx_module.reading import read_float_model, runtime_inputs
from lepton.models.training.recipes import Split
from lepton.models.zoo import Network, Task

if TYPE_CHECKING:
    import onnx
    import torch

    from lepton.models.compression.budget import Budgeted
    from lepton.models.compression.recipe import CompressionRecipe

# torch and onnx are typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

__all__ = ["check_fit", "check_recipe"]

_PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class _Feed:
    """What a network takes as one input.

    Attributes:
        name: of the input.
        dtype: NumPy's name of it.
        shape: without the batch, 0 where it is open; None if nothing is known.
        ids: 0, or the number of identities, which are 0 to `ids` - 1.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    ids: int = 0


@dataclass(frozen=True)
class _Taker:
    """What takes the samples: the network or its teacher, in eval mode."""

    name: str
    feeds: tuple[_Feed, ...]
    module: torch.nn.Module


def check_fit(
    model: onnx.ModelProto | str | Path | Network,
    split: Split,
    task: Task,
    teacher: onnx.ModelProto | None = None,
) -> None:
    """Refuse what could only fail while it trains, or train on something else than was meant.

    All samples have one shape and type and are finite; network and teacher take them, and give for
    a batch what the task needs, as many classes as there are labels.

    Args:
        model: float ONNX, or a network of the zoo.
        split: the samples.
        task: of the network, and of the teacher.
        teacher: float ONNX.

    Raises:
        InputError: something does not fit; it says which shapes.
        LeptonError: PyTorch is not installed, or a model cannot be trained.
    """
    _check_samples(split)
    network = _zoo(model) if isinstance(model, Network) else _graph(read_float_model(model))
    probe = _probe(split)
    given = _answer(network, split, probe)
    _check_answer(network.name, given, task, probe)
    _check_labels(split, task, given[1])
    if teacher is None:
        return
    learned = _graph(teacher, "the teacher")
    wanted = _answer(learned, split, probe)
    _check_answer(learned.name, wanted, task, probe)
    if wanted != given:
        raise InputError(
            f"the teacher gives {list(wanted)} for {len(probe[0])} samples, and the network "
            f"{list(given)}: both must tell the same classes apart"
        )


def _check_samples(split: Split) -> None:
    """Refuse parts that are empty, differ in shape or type, or hold what is no number."""
    first = _kinds(split.train)
    for name, part in zip(_PARTS, split, strict=True):
        if not len(part):
            raise InputError(f"there are no {name} samples")
        if _kinds(part) != first:
            raise InputError(
                f"the {name} samples are {_text(part)}, and those to train on {_text(split.train)}"
            )
        for array in part.inputs:
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise InputError(f"the {name} samples hold NaN or numbers that are not finite")


def _kinds(part: Dataset) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    return [(array.shape[1:], array.dtype) for array in part.inputs]


def _text(part: Dataset) -> str:
    """Return types and shapes of a sample as `float32 [3, 8, 8]`."""
    return " and ".join(f"{dtype} {list(shape)}" for shape, dtype in _kinds(part))


def _zoo(network: Network) -> _Taker:
    feeds = tuple(
        _Feed(feed.name, "int64" if feed.ids else "float32", feed.shape, feed.ids)
        for feed in network.inputs
    )
    return _Taker("the network", feeds, network.build().eval())


def _graph(model: onnx.ModelProto, name: str = "the network") -> _Taker:
    from onnx import helper

    from lepton.models.onnx_module import from_onnx

    feeds: list[_Feed] = []
    for item in runtime_inputs(model.graph):
        kind = item.type.tensor_type
        dims = [int(dim.dim_value) for dim in kind.shape.dim]
        dtype = str(np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)))
        feeds.append(_Feed(item.name, dtype, tuple(dims[1:]) if dims else None))
        if dims and dims[0] > 1 and name == "the network":
            raise InputError(
                f"the network takes {dims[0]} samples at once: export it for one, or for any number"
            )
    return _Taker(name, tuple(feeds), from_onnx(model).eval())


def _probe(split: Split) -> tuple[NDArray[Any], ...]:
    """Return a batch of some samples of each part, those with extreme identities among them."""
    few: list[tuple[NDArray[Any], ...]] = []
    for part in split:
        chosen = {0}
        for array in part.inputs:
            if np.issubdtype(array.dtype, np.signedinteger) and array.size:
                each = array.size // len(array)
                chosen |= {int(array.argmin()) // each, int(array.argmax()) // each}
        few.append(part.batch(np.array(sorted(chosen))))
    return tuple(np.concatenate(arrays) for arrays in zip(*few, strict=True))


def _answer(taker: _Taker, split: Split, probe: Sequence[NDArray[Any]]) -> tuple[int, ...]:
    """Return the shape of what a network gives for a batch that it takes.

    Raises:
        InputError: it does not take it, or gives several tensors.
    """
    import torch

    for reason in _misfits(taker, split, probe):
        raise InputError(reason)
    try:
        with torch.no_grad():
            made: Any = taker.module(*(torch.from_numpy(array) for array in probe))
    except Exception as error:  # whatever a layer raises
        reason = " ".join(str(error).split())
        raise InputError(
            f"{taker.name} does not take samples of {_text(split.train)}: {reason}"
        ) from None
    if not isinstance(made, torch.Tensor):
        raise InputError(f"{taker.name} has {len(made)} outputs: it must have one")
    return tuple(made.shape)


def _misfits(taker: _Taker, split: Split, probe: Sequence[NDArray[Any]]) -> Iterator[str]:
    """Yield how samples differ from what a network says it takes."""
    if len(taker.feeds) != len(probe):
        yield f"{taker.name} has {len(taker.feeds)} inputs, and a sample {len(probe)}"
    for feed, array in zip(taker.feeds, probe, strict=True):
        shape = array.shape[1:]
        is_like = feed.shape is None or (
            len(feed.shape) == len(shape)
            and all(wanted in (0, found) for wanted, found in zip(feed.shape, shape, strict=True))
        )
        if not is_like or feed.dtype != array.dtype:
            dims = [] if feed.shape is None else [size or "any" for size in feed.shape]
            yield (
                f"input '{feed.name}' of {taker.name} takes {feed.dtype} "
                f"[{', '.join(map(str, dims))}], and the samples are {_text(split.train)}"
            )
        if feed.ids and not 0 <= array.min() <= array.max() < feed.ids:
            yield (
                f"input '{feed.name}' of {taker.name} takes numbers from 0 to {feed.ids - 1}, and "
                f"the samples hold {array.min()} to {array.max()}"
            )


def _check_answer(
    name: str, made: tuple[int, ...], task: Task, probe: Sequence[NDArray[Any]]
) -> None:
    """Refuse an output of another shape than the task has."""
    count = len(probe[0])
    wanted: dict[Task, tuple[tuple[int, ...], str]] = {
        Task.CLASSES: ((count, *made[1:2]), f"[{count}, classes]"),
        Task.SCORE: ((count, 1), f"[{count}, 1]"),
        Task.RECONSTRUCTION: (probe[0].shape, f"the samples' own {list(probe[0].shape)}"),
    }
    shape, text = wanted[task]
    if made != shape or len(made) < 2:
        raise InputError(f"{name} gives {list(made)} for {count} samples: it must give {text}")


def _check_labels(split: Split, task: Task, classes: int) -> None:
    """Refuse labels that are no classes of the network."""
    if task is Task.RECONSTRUCTION:
        return
    known = 2 if task is Task.SCORE else classes
    for name, part in zip(_PARTS, split, strict=True):
        if part.labels.ndim != 1 or not np.issubdtype(part.labels.dtype, np.integer):
            raise InputError(
                f"the labels of the {name} samples must be integers [n], not {part.labels.dtype} "
                f"{list(part.labels.shape)}"
            )
        low, high = int(part.labels.min()), int(part.labels.max())
        if low < 0 or high >= known:
            raise InputError(
                f"the {name} samples have labels from {low} to {high}, and the network tells the "
                f"classes 0 to {known - 1} apart"
            )


def check_recipe(
    recipe: CompressionRecipe,
    task: Task,
    learned: onnx.ModelProto | None,
    budget: Budgeted | None,
) -> None:
    """Raise InputError if a recipe does not go with the task, the teacher or the budget."""
    if budget is not None:
        budget.check(recipe)
    if learned is not None and task is not Task.CLASSES:
        raise InputError("distillation needs a network that tells classes apart")
    if learned is None and (recipe.views or recipe.mirror_pairs):
        raise InputError("views and mirror_pairs are what a teacher answers for: name one")
    for field in ("entropy_bits", "mirrored"):
        if task is not Task.CLASSES and getattr(recipe, field):
            raise InputError(f"{field} needs a network that tells classes apart")
