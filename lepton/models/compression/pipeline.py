"""The steps of compression, each kept in a folder, so that a run that was killed goes on.

A step takes and gives float ONNX; the last one gives int8 QDQ. Each training inside a step has a
checkpoint of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton.errors import InputError
from lepton.models.compression.budget import Budgeted, bits_by_parameter
from lepton.models.compression.files import claim_folder, folded, layer_arrays, loaded
from lepton.models.compression.fit import check_fit, check_recipe
from lepton.models.compression.networks import (
    calibration_samples,
    channels_last,
    kept_weights,
    observe,
    quantized,
    score_model,
)
from lepton.models.compression.recipe import CompressionRecipe
from lepton.models.compression.remarks import chance_of, remark_on
from lepton.models.compression.rounding import PRODUCTS, rounded
from lepton.models.compression.sources import float_source
from lepton.models.compression.teaching import Lessons, lessons_of
from lepton.models.compression.views import VIEW_FILES
from lepton.models.extras import require
from lepton.models.mirroring import mirrored_model, width_axis
from lepton.models.pruning.criteria import MEASURED
from lepton.models.training import Schedule, TrainingOptions, train
from lepton.models.training.recipes import Split
from lepton.models.training.trainer import Hooks
from lepton.models.zoo import Network, Task
from lepton.program.files import atomic_write

if TYPE_CHECKING:
    import onnx
    import torch


# torch and onnx are typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

__all__ = ["Compressed", "Stage", "compress_model", "quantized"]

_SCRATCH = 5
"""Times the epochs of a step that a training from scratch takes."""


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
    note: Callable[[str], object] | None = None,
    budget: Budgeted | None = None,
) -> Compressed:
    """Compress a network.

    Args:
        model: ONNX, a file, or the name of a trained network, int8 as the float network that it
            stands for (`float_source`); or a network of the zoo, which is trained first.
        split: samples to train on, to choose epochs by, and to report on.
        recipe: the steps.
        task: loss and score of an ONNX model; the zoo knows those of its own.
        folder: of the steps' results; what is there of the same run is not done again.
        teacher: as `model`, of the same inputs; every training learns its probabilities.
        note: is told, in a sentence, of a step that loses much, and of a network at chance.
        budget: of a chip, which the bits of each layer's weights are chosen by.

    Raises:
        LeptonError: PyTorch is not installed, or the model cannot be trained or quantized.
        InputError: the options contradict each other, or the folder is another run's.
    """
    require("torch", "onnxruntime")
    from lepton.models.export import float_model

    if isinstance(model, Network):
        task = model.task
    else:
        model = float_source(model, task)
    learned = None if teacher is None else float_source(teacher, task)
    check_recipe(recipe, task, learned, budget)
    check_fit(model, split, task, learned)
    run = _Run(task, split, recipe, learned, folder, budget)
    if isinstance(model, Network):
        if recipe.mirrored:
            mirrored_model(float_model(model.build(recipe.seed), model.inputs, model.output))
        run.claim(model.name.encode())
        source = run.once("float", lambda: run.trained(model))
    else:
        source = model
        if recipe.mirrored:
            mirrored_model(source)
        run.claim(source.SerializeToString(deterministic=True))
    first, stages = source, [run.stage("float", source)]
    say = _saying(note, chance_of(task, split.validation))
    say(stages)
    for name, step in run.steps():
        before = source
        source = run.once(name, lambda step=step, before=before: step(before))
        stages.append(run.stage(name, source))
        say(stages)
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
    budget: Budgeted | None = None

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
        key = [] if self.budget is None else [self.budget.key]
        parts = [
            source,
            json.dumps([asdict(self.recipe), str(self.task), *key]).encode(),
        ]
        if self.teacher is not None:
            parts.append(self.teacher.SerializeToString(deterministic=True))
        claim_folder(self.folder, [*parts, *_bytes(self.split)])

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
        made.append((self._last, self._quantize if self.budget is None else self._fitted))
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
            score_model(model, self.task, self.split.validation),
            score_model(model, self.task, self.split.test),
            sum(array.size for array in arrays),
            sum(int(array.size - np.count_nonzero(array)) for array in arrays),
        )

    @cached_property
    def _lessons(self) -> Lessons:
        """What all trainings learn from."""
        from lepton.models.onnx_module import from_onnx

        teacher = None if self.teacher is None else channels_last(from_onnx(self.teacher).eval())
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
            channels_last(module),
            self.task,
            (lessons.samples, self.split.validation),
            options,
            checkpoint=self.folder / f"{name}.checkpoint",
            hooks=Hooks(
                lessons.loss, keeps_last=recipe.keeps_last, counts_start=recipe.counts_start
            ),
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
        with hold(module, kept_weights(module)):
            self._train(module, self._distil_epochs, "distil")
        return to_onnx(module)

    def _fitted(self, source: onnx.ModelProto) -> onnx.ModelProto:
        """Quantize to the bits that the chip's budget leaves each layer."""
        assert self.budget is not None
        whole = folded(source)
        samples = calibration_samples(whole, self.split)
        return self.budget.fitted(
            whole, samples, self.folder, lambda bits, name: self._quantize(source, bits, name)
        )

    def _quantize(
        self,
        source: onnx.ModelProto,
        bits: Mapping[str, int] | None = None,
        name: str | None = None,
    ) -> onnx.ModelProto:
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
            if epochs and recipe.counts_start:
                observe(whole, self.split.train)
            if epochs:
                self._train(whole, epochs, name or self._last, recipe.quantize_rate)

        if recipe.share is not None:
            # a codebook holds its level of zero by itself
            options = SharingOptions(recipe.share, seed=recipe.seed, bits=recipe.bits)
            codes = share_weights(module, options, fine_tune=fine_tune)
        else:
            first = self.split.train.batch(slice(0, 1))
            with hold(module, kept_weights(module)):
                aware = recipe.aware(
                    [weight.name for weight in weights_of(module)],
                    rounded(module, self.split.train, recipe),
                )
                if bits is not None:
                    aware = replace(aware, bits=bits_by_parameter(module, folded(source), bits))
                codes = train_quantized(
                    module, [torch.from_numpy(array) for array in first], fine_tune, aware
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


def _saying(
    note: Callable[[str], object] | None, chance: float | None
) -> Callable[[list[Stage]], None]:
    """Return what tells a user of the last of some stages."""

    def say(stages: list[Stage]) -> None:
        sentence = remark_on(stages, chance)
        if note is not None and sentence is not None:
            note(sentence)

    return say


def _bytes(split: Split) -> Iterator[bytes]:
    """Yield what decides whether samples are the same."""
    for part in split:
        for array in (*part.inputs, part.labels):
            yield np.ascontiguousarray(array).tobytes()
