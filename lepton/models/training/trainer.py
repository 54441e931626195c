"""Train a network: the validation samples pick the epoch, and a killed training goes on.

Every random choice of an epoch follows from the seed and the epoch's number, and a checkpoint holds
all else, so a training that was cut off and resumed, on as many threads, ends with the same bits as
one that was not.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.checkpoint import Checkpoint
from lepton.models.datasets.dataset import Dataset
from lepton.models.extras import require
from lepton.models.training.options import Optimizer, TrainingOptions, rate_at
from lepton.models.zoo.registry import Task

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

if TYPE_CHECKING:
    import torch

__all__ = ["Epoch", "Hooks", "Trained", "predict", "score", "task_loss", "train"]

_EVALUATION_BATCH = 500
_EPOCH_SEEDS = 1_000_003
"""An epoch's seed is the training's times this plus its number."""

Inputs = tuple["torch.Tensor", ...]
Loss = Callable[["torch.nn.Module", Inputs, "torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True)
class Epoch:
    """One epoch: mean loss of its steps, score of the validation samples after it."""

    loss: float
    score: float


@dataclass(frozen=True)
class Trained:
    """How a training went; `best` is the index of the epoch whose weights the network has.

    `best` is -1, and `start` the validation score, where the weights are those of the start.
    """

    epochs: tuple[Epoch, ...]
    best: int
    start: float | None = None


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Hooks:
    """What a compression method puts into a training.

    Attributes:
        loss: of the network, a batch's inputs and labels; None for the task's own.
        after_step: called after each step of the optimizer, to keep pruned weights zero, say.
        keeps_last: the network ends with the weights of the last epoch, not of the best.
        counts_start: the weights that the training begins with are a candidate for the best.
    """

    loss: Loss | None = None
    after_step: Callable[[], None] = field(default=_nothing)
    keeps_last: bool = False
    counts_start: bool = False


def task_loss(task: Task, smoothing: float = 0.0) -> Loss:
    """Return the loss of a task: see `Task`."""
    from torch.nn import functional

    def classes(network: torch.nn.Module, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(network(*inputs), labels, label_smoothing=smoothing)

    def yes(network: torch.nn.Module, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        made = network(*inputs)
        return functional.binary_cross_entropy_with_logits(made[:, 0], labels.to(made.dtype))

    def itself(network: torch.nn.Module, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(network(*inputs), inputs[0])

    return {Task.CLASSES: classes, Task.SCORE: yes, Task.RECONSTRUCTION: itself}[task]


def train(
    network: torch.nn.Module,
    task: Task,
    samples: tuple[Dataset, Dataset],
    options: TrainingOptions,
    *,
    checkpoint: Path | None = None,
    hooks: Hooks | None = None,
) -> Trained:
    """Fit a network in place; it gets the weights of the best epoch, in eval mode.

    The best epoch is the first with the highest validation score, or the last one if the hooks say
    so. If they count the start and no epoch is better, the network is what it was.

    Args:
        network: takes the data set's inputs.
        task: its loss and score.
        samples: to train on, and to validate.
        options: what else decides the result.
        checkpoint: file written after each epoch; if it is there, the training goes on from it.
        hooks: what a compression method adds.

    Raises:
        InputError: a data set is empty, the loss is no number any more, or the checkpoint belongs
            to another training.
        LeptonError: PyTorch is not installed.
    """
    require("torch")
    if not all(len(part) for part in samples):
        raise InputError("there must be samples to train on and to validate")
    run = _Run(network, task, samples, options, hooks or Hooks())
    kept = None if checkpoint is None else _checkpoint(checkpoint, options, network)
    state = None if kept is None else kept.load()
    if state is not None:
        run.restore(state)
    run.finish(kept)
    return Trained(tuple(run.epochs), run.best, run.start)


def _checkpoint(path: Path, options: TrainingOptions, network: torch.nn.Module) -> Checkpoint:
    """Return the file of a training: of these options, with a network of these tensors."""
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    decisive = asdict(options)
    if options.optimizer == Optimizer.ADAMW:
        del decisive["optimizer"]  # files of before there was another
    return Checkpoint(path, json.dumps({"options": decisive, "tensors": shapes}))


def _optimizer(network: torch.nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    import torch

    if options.optimizer == Optimizer.MUON:
        from lepton.models.training.torch_muon import muon_of

        return muon_of(network, options.learning_rate)
    return torch.optim.AdamW(
        network.parameters(), options.learning_rate, weight_decay=options.weight_decay
    )


class _Run:
    """A training under way."""

    def __init__(
        self,
        network: torch.nn.Module,
        task: Task,
        samples: tuple[Dataset, Dataset],
        options: TrainingOptions,
        hooks: Hooks,
    ) -> None:
        self.network, self.task, self.options = network, task, options
        self.samples, self.validation = samples
        self.hooks = hooks
        self.loss = hooks.loss or task_loss(task, options.label_smoothing)
        self.optimizer = _optimizer(network, options)
        self.epochs: list[Epoch] = []
        self.best = -1
        self.start: float | None = None
        self.best_weights: dict[str, Any] = {}
        self.steps = -(-len(self.samples) // options.batch)

    def finish(self, kept: Checkpoint | None) -> None:
        """Train the epochs that remain, and give the network its best weights."""
        import torch
        from tqdm import tqdm

        if self.hooks.counts_start and self.start is None:
            self.start = score(self.network, self.task, self.validation)
            self.best_weights = copy.deepcopy(self.network.state_dict())
        begun = len(self.epochs) * self.steps
        total = self.options.epochs * self.steps
        # disable=None shows the bar on a terminal only
        with (
            tqdm(total=total, initial=begun, desc="training", unit="step", disable=None) as bar,
            torch.random.fork_rng(devices=[]),
        ):
            while len(self.epochs) < self.options.epochs:
                self._epoch(bar)
                if kept is not None:
                    kept.save(self.state())
        if self.hooks.keeps_last:
            self.best = len(self.epochs) - 1
        else:
            self.network.load_state_dict(self.best_weights)
        self.network.eval()

    def _epoch(self, bar: Any) -> None:
        """Train one epoch, score it, and keep its weights if it is the best."""
        import torch

        number = len(self.epochs)
        begun = number * self.steps
        torch.manual_seed(self.options.seed * _EPOCH_SEEDS + number)
        order = torch.randperm(len(self.samples)).numpy()
        self.network.train()
        losses: list[float] = []
        for step, start in enumerate(range(0, len(order), self.options.batch)):
            rate = rate_at(self.options, begun + step, self.options.epochs * self.steps)
            losses.append(self._step(order[start : start + self.options.batch], rate))
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
        made = score(self.network, self.task, self.validation)
        self.epochs.append(Epoch(float(np.mean(losses)), made))
        if not self.best_weights or made > self._best_score():
            self.best = number
            self.best_weights = copy.deepcopy(self.network.state_dict())

    def _best_score(self) -> float:
        if self.best >= 0:
            return self.epochs[self.best].score
        return -np.inf if self.start is None else self.start

    def _step(self, chosen: NDArray[np.int64], rate: float) -> float:
        """Make one step on the samples of some indices, and return its loss."""
        import torch

        from lepton.models.training.augmentation import augment

        inputs = tuple(torch.from_numpy(array) for array in self.samples.batch(chosen))
        inputs = augment(inputs, self.options)
        labels = torch.from_numpy(self.samples.labels[chosen])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss = self.loss(self.network, inputs, labels)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise InputError(
                f"the loss is {value} in epoch {len(self.epochs) + 1}: choose a lower learning rate"
            )
        loss.backward()
        self.optimizer.step()
        self.hooks.after_step()
        return value

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epochs": [(epoch.loss, epoch.score) for epoch in self.epochs],
            "best": self.best,
            "start": self.start,
            "best_weights": self.best_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epochs = [Epoch(*epoch) for epoch in state["epochs"]]
        self.best, self.best_weights = state["best"], state["best_weights"]
        self.start = state.get("start")  # files of before it counted have none


def predict(network: torch.nn.Module, samples: Dataset) -> NDArray[np.float32]:
    """Return what a network in eval mode computes of all samples, [n, ...]; its mode stays."""
    import torch

    was_training = network.training
    network.eval()
    rows: list[NDArray[np.float32]] = []
    with torch.no_grad():
        for start in range(0, len(samples), _EVALUATION_BATCH):
            batch = samples.batch(slice(start, start + _EVALUATION_BATCH))
            made = network(*(torch.from_numpy(np.ascontiguousarray(array)) for array in batch))
            rows.append(cast(NDArray[np.float32], made.numpy()))
    network.train(was_training)
    return np.concatenate(rows)


def score(network: torch.nn.Module, task: Task, samples: Dataset) -> float:
    """Return how good a network is on some samples: see `Task`; more is better."""
    return score_of(predict(network, samples), task, samples)


def score_of(made: NDArray[np.float32], task: Task, samples: Dataset) -> float:
    """Return how good outputs [n, ...] are for some samples."""
    if task is Task.RECONSTRUCTION:
        inputs = samples.batch(slice(None))[0]
        return -float(np.mean(np.square(made.astype(np.float64) - inputs)))
    chosen = made[:, 0] > 0 if task is Task.SCORE else made.argmax(axis=1)
    return float(np.mean(chosen == samples.labels))
