"""The steps of compression, each kept in a folder, so that a run that was killed goes on.

A step takes and gives float ONNX; the last one gives int8 QDQ. Each training inside a step has a
checkpoint of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.compression.files import folded, holds_more, layer_arrays, loaded
from lepton.models.compression.fit import check_fit
from lepton.models.compression.recipe import CompressionRecipe
from lepton.models.compression.rounding import PRODUCTS, rounded
from lepton.models.compression.teaching import Lessons, lessons_of
from lepton.models.compression.views import VIEW_FILES
from lepton.models.datasets import Dataset
from lepton.models.extras import require
from lepton.models.int8 import golden_session, run_each
from lepton.models.mirroring import mirrored_model, width_axis
from lepton.models.onnx_module.reading import runtime_inputs
from lepton.models.pruning.criteria import MEASURED
from lepton.models.training import Schedule, TrainingOptions, train
from lepton.models.training.recipes import Split
from lepton.models.training.trainer import Hooks, score_of
from lepton.models.zoo import Network, Task
from lepton.program.files import atomic_write, temporary_folder

if TYPE_CHECKING:
    import onnx
    import torch

    from lepton.models.quantization import IntegerWeights

# torch and onnx are typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

__all__ = ["Compressed", "Stage", "compress_model", "quantized"]

_SCRATCH = 5
"""Times the epochs of a step that a training from scratch takes."""
_CALIBRATION = 256
"""Samples that the ranges of activations are taken from."""


@dataclass(frozen=True)
class Stage:
    """The network after a step.

    Attributes:
        name: of the step, `float` for what was given.
        validation: score on the validation samples.
        test: score on the test samples.
        weights: of convolutions and products.
        zeros: of them.
    """

    name: str
    validation: float
    test: float
    weights: int
    zeros: int


@dataclass(frozen=True)
class Compressed:
    """The float network that the steps began with, what they made of it, and how good each was."""

    source: onnx.ModelProto
    model: onnx.ModelProto
    stages: tuple[Stage, ...]


def compress_model(
    model: onnx.ModelProto | str | Path | Network,
    split: Split,
    recipe: CompressionRecipe,
    folder: Path,
    *,
    task: Task = Task.CLASSES,
    teacher: onnx.ModelProto | str | Path | None = None,
) -> Compressed:
    """Compress a float network.

    Args:
        model: float ONNX, or a network of the zoo, which is trained first.
        split: samples to train on, to choose epochs by, and to report on.
        recipe: the steps.
        task: loss and score of an ONNX model; the zoo knows those of its own.
        folder: of the steps' results; what is there of the same run is not done again.
        teacher: float ONNX that takes the same inputs; every training learns its probabilities.

    Raises:
        LeptonError: PyTorch is not installed, or the model cannot be trained or quantized.
        InputError: the options contradict each other, or the folder is another run's.
    """
    require("torch", "onnxruntime")
    from lepton.models.export import float_model
    from lepton.models.onnx_module import read_float_model

    learned = None if teacher is None else read_float_model(teacher)
    task = model.task if isinstance(model, Network) else task
    if learned is not None and task is not Task.CLASSES:
        raise InputError("distillation needs a network that tells classes apart")
    if learned is None and (recipe.views or recipe.mirror_pairs):
        raise InputError("views and mirror_pairs are what a teacher answers for: name one")
    for field in ("entropy_bits", "mirrored"):
        if task is not Task.CLASSES and getattr(recipe, field):
            raise InputError(f"{field} needs a network that tells classes apart")
    check_fit(model, split, task, learned)
    run = _Run(task, split, recipe, learned, folder)
    if isinstance(model, Network):
        if recipe.mirrored:
            mirrored_model(float_model(model.build(recipe.seed), model.inputs, model.output))
        run.claim(model.name.encode())
        source = run.once("float", lambda: run.trained(model))
    else:
        source = read_float_model(model)
        if recipe.mirrored:
            mirrored_model(source)
        run.claim(source.SerializeToString(deterministic=True))
    first, stages = source, [run.stage("float", source)]
    for name, step in run.steps():
        before = source
        source = run.once(name, lambda step=step, before=before: step(before))
        stages.append(run.stage(name, source))
    run.tidy()
    return Compressed(first, source, tuple(stages))


@dataclass(frozen=True)
class _Run:
    """One compression: its inputs, and the folder of its steps."""

    task: Task
    split: Split
    recipe: CompressionRecipe
    teacher: onnx.ModelProto | None
    folder: Path

    @property
    def _epochs(self) -> int:
        return self.recipe.epochs_of(len(self.split.train) * max(1, self.recipe.views))

    @property
    def _distil_epochs(self) -> int:
        given = self.recipe.distil_epochs
        return self._epochs if given is None else given

    @property
    def _last(self) -> str:
        """The name of the last step."""
        return "quantize" if self.recipe.share is None else "share"

    def claim(self, source: bytes) -> None:
        """Take the folder for a network, or go on in it."""
        sha = hashlib.sha256(source)
        sha.update(json.dumps([asdict(self.recipe), str(self.task)]).encode())
        if self.teacher is not None:
            sha.update(self.teacher.SerializeToString(deterministic=True))
        for part in self.split:
            for array in (*part.inputs, part.labels):
                sha.update(np.ascontiguousarray(array).tobytes())
        mark, known = self.folder / "run.json", json.dumps({"run": sha.hexdigest()})
        self.folder.mkdir(parents=True, exist_ok=True)
        if mark.exists() and mark.read_bytes() != known.encode():
            raise InputError(
                f"{self.folder}: holds the steps of another compression (other options, model or "
                "data): remove it, or choose another folder"
            )
        if not mark.exists() and holds_more(self.folder):
            raise InputError(f"{self.folder}: is no folder of a compression, and not empty")
        atomic_write(mark, known.encode())

    def trained(self, network: Network) -> onnx.ModelProto:
        """Return a network of the zoo, trained from scratch."""
        from lepton.models.export import float_model

        module = network.build(self.recipe.seed)
        self._train(module, _SCRATCH * self._epochs, "float")
        return float_model(module, network.inputs, network.output)

    def steps(self) -> list[tuple[str, Callable[[onnx.ModelProto], onnx.ModelProto]]]:
        """Return the steps in order, with their names."""
        made: list[tuple[str, Callable[[onnx.ModelProto], onnx.ModelProto]]] = []
        if self.recipe.prunes:
            made.append(("prune", self._prune))
        if self.recipe.factorize:
            made.append(("factorize", self._factorize))
        if self.teacher is not None and self._distil_epochs:
            made.append(("distil", self._distil))
        made.append((self._last, self._quantize))
        return made

    def once(self, name: str, step: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
        """Return what a step makes, from the folder if it is there."""
        file = self.folder / f"{name}.onnx"
        if file.exists():
            return loaded(file)
        made = step()
        atomic_write(file, made.SerializeToString())
        return made

    def tidy(self) -> None:
        """Remove what only an unfinished run needs, and is large."""
        for name in VIEW_FILES:
            (self.folder / name).unlink(missing_ok=True)

    def stage(self, name: str, model: onnx.ModelProto) -> Stage:
        """Return how good a model is, and how many of its weights are zero."""
        arrays = layer_arrays(model)
        return Stage(
            name,
            self._score(model, self.split.validation),
            self._score(model, self.split.test),
            sum(array.size for array in arrays),
            sum(int(array.size - np.count_nonzero(array)) for array in arrays),
        )

    def _score(self, model: onnx.ModelProto, samples: Dataset) -> float:
        with temporary_folder() as folder:
            file = folder / "model.onnx"
            file.write_bytes(model.SerializeToString())
            made = run_each(golden_session(file), _named(model, samples))
        return score_of(made, self.task, samples)

    @cached_property
    def _lessons(self) -> Lessons:
        """What all trainings learn from."""
        from lepton.models.onnx_module import from_onnx

        teacher = None if self.teacher is None else _channels_last(from_onnx(self.teacher).eval())
        return lessons_of(teacher, self.split.train, self.recipe, self.folder)

    def _train(
        self, module: torch.nn.Module, epochs: int, name: str, rate: float | None = None
    ) -> None:
        """Train a module; the training is kept in the folder until its step is done."""
        recipe, lessons = self.recipe, self._lessons
        options = TrainingOptions(
            seed=recipe.seed,
            epochs=epochs,
            batch=recipe.batch,
            optimizer=recipe.optimizer,
            learning_rate=rate or recipe.learning_rate,
            weight_decay=0.0,
            schedule=Schedule.COSINE,
            shift=0 if recipe.views else recipe.shift,
            repeat_edges=recipe.repeat_edges,
            flip=recipe.flip,
        )
        train(
            _channels_last(module),
            self.task,
            (lessons.samples, self.split.validation),
            options,
            checkpoint=self.folder / f"{name}.checkpoint",
            hooks=Hooks(lessons.loss, keeps_last=recipe.keeps_last),
        )

    def _prune(self, source: onnx.ModelProto) -> onnx.ModelProto:
        from lepton.models.pruning import Schedule as PruningSchedule
        from lepton.models.pruning import prune_model

        recipe, trained = self.recipe, [0]

        def fine_tune(module: torch.nn.Module, epochs: int) -> None:
            trained[0] += 1
            self._train(module, epochs, f"prune{trained[0]}")

        steps = recipe.prune_steps
        kind = "cubic" if steps > 1 else "one-shot"
        return prune_model(
            source,
            recipe.prune,
            recipe.criterion,
            recipe.pattern,
            recipe.scope,
            data=self._batches(),
            train=fine_tune,
            schedule=PruningSchedule(kind, steps, recipe.prune_epochs or self._epochs),
        ).model

    def _factorize(self, source: onnx.ModelProto) -> onnx.ModelProto:
        import torch

        from lepton.models.torch_factorization import factorize_model

        few = self.split.train.batch(slice(0, PRODUCTS))
        epochs = self.recipe.factorize_epochs or self._epochs
        return factorize_model(
            folded(source),
            self.recipe.factorize or {},
            tuple(map(torch.from_numpy, few)),
            lambda module: self._train(module, epochs, "factorize"),
        )

    def _distil(self, source: onnx.ModelProto) -> onnx.ModelProto:
        from lepton.models.onnx_module import from_onnx, to_onnx
        from lepton.models.pruning import hold

        module = from_onnx(source)
        with hold(module, _masks(module)):
            self._train(module, self._distil_epochs, "distil")
        return to_onnx(module)

    def _quantize(self, source: onnx.ModelProto) -> onnx.ModelProto:
        import torch

        from lepton.models.onnx_module import from_onnx, to_onnx
        from lepton.models.pruning import hold
        from lepton.models.quantization import train_quantized
        from lepton.models.quantization.torch_weights import weights_of
        from lepton.models.sharing import SharingOptions, share_weights
        from lepton.models.torch_mirroring import MirrorMean

        recipe = self.recipe
        given = recipe.quantize_epochs
        epochs = self._epochs if given is None else given
        module = from_onnx(folded(source))

        def fine_tune(network: torch.nn.Module) -> None:
            whole = MirrorMean(network, width_axis(source)) if recipe.mirrored else network
            if epochs:
                self._train(whole, epochs, self._last, recipe.quantize_rate)

        if recipe.share is not None:
            # a codebook holds its level of zero by itself
            options = SharingOptions(recipe.share, seed=recipe.seed)
            codes = share_weights(module, options, fine_tune=fine_tune)
        else:
            first = self.split.train.batch(slice(0, 1))
            with hold(module, _masks(module)):
                codes = train_quantized(
                    module,
                    [torch.from_numpy(array) for array in first],
                    fine_tune,
                    recipe.aware(
                        [weight.name for weight in weights_of(module)],
                        rounded(module, self.split.train, recipe),
                    ),
                ).weights
        made = to_onnx(module)
        return quantized(mirrored_model(made) if recipe.mirrored else made, self.split, codes)

    def _batches(self) -> list[tuple[Any, Any]] | None:
        """Return some training samples for criteria that measure slopes; None for others."""
        if self.recipe.criterion not in MEASURED:
            return None
        part = self.split.train.take(slice(0, 4 * self.recipe.batch))
        if len(part.inputs) > 1:
            raise InputError(
                f"the criterion {self.recipe.criterion!r} measures networks of one input, and this "
                f"one has {len(part.inputs)}"
            )
        spans = [slice(at, at + self.recipe.batch) for at in range(0, len(part), self.recipe.batch)]
        return [(part.batch(span)[0], part.labels[span]) for span in spans]


def quantized(
    model: onnx.ModelProto, split: Split, weights: Mapping[str, IntegerWeights] | None = None
) -> onnx.ModelProto:
    """Return a float network as int8 QDQ: weights of the given codes, or else of 8 bits."""
    from lepton.models.quantization import quantize_model

    samples = _named(model, split.train.take(slice(0, _CALIBRATION)))
    return quantize_model(model, samples, weights=weights)


def _named(model: onnx.ModelProto, samples: Dataset) -> dict[str, NDArray[Any]]:
    """Return samples by the name of the input."""
    names = [item.name for item in runtime_inputs(model.graph)]
    return dict(zip(names, samples.batch(slice(None)), strict=True))


def _channels_last(module: torch.nn.Module) -> torch.nn.Module:
    """Lay out a module's images and kernels channels last, in place: it trains faster so."""
    import torch

    untyped: Any = module
    return untyped.to(memory_format=torch.channels_last)


def _masks(module: torch.nn.Module) -> dict[str, NDArray[np.bool_]]:
    """Return which weights of the layers that have zeros must not stay zero."""
    from lepton.models.pruning.holding import layer_weights

    arrays = {name: item.array() for name, item in layer_weights(module).items()}
    return {name: array != 0 for name, array in arrays.items() if not array.all()}
