"""What is done to a network, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lepton.errors import InputError
from lepton.models.pruning.criteria import check_criterion
from lepton.models.pruning.selection import Selection, with_rate
from lepton.models.quantization.aware import AwareOptions
from lepton.models.quantization.quantizers import Floats
from lepton.models.training.options import Optimizer

__all__ = ["CompressionRecipe"]


_EPOCHS, _STEPS = 3, 400
"""Of a training, at least."""
_LEAST_EPOCHS = {
    "epochs": 1,
    "prune_epochs": 1,
    "factorize_epochs": 1,
    "distil_epochs": 0,
    "quantize_epochs": 0,
}


@dataclass(frozen=True)
class CompressionRecipe:
    """Which steps a network goes through, in the order of these fields, and how each trains.

    Attributes:
        prune: pruned / total, or layer -> its own rate, in the scope `layer`, the other layers
            staying whole; None for as much as an N:M `pattern` prunes, or nothing.
        pattern: of what is pruned (`lepton.models.pruning.prune_model`).
        criterion: by which it is chosen.
        scope: `layer` or `global`.
        prune_steps: of the cubic schedule.
        prune_epochs: of training after each of them; None for `epochs`.
        factorize: name of a convolution's weights -> rank of the two convolutions that take its
            place (`factors_of`); a step that trains the factors and all else.
        factorize_epochs: of that step; None for `epochs`.
        temperature: of distillation, where there is a teacher.
        mirror_pairs: with a teacher, a training step takes images and their mirror images, and
            both learn the mean of the teacher's answers (`loss_of_pairs`).
        views: with a teacher, so many changed images of each training image, for which it answers
            in advance (`teacher_views`); an epoch goes over all of them. 0 for its answers in
            every step. `shift` is then of the views, and `flip` of the steps.
        distil_epochs: of the step that is distillation alone; None for `epochs`, 0 for no such
            step.
        share: levels of each weight, found by k-means and trained; not with `bits` below 8.
        bits: of the weights, 1 to 8, trained with the rounding.
        edge_bits: of the first and the last layer's weights; None for `bits`.
        learned_scales: train the weights' scales too, in place of taking them from the extremes.
        entropy_bits: zero-order entropy of a weight's code, on average, that training starts from:
            weights are rounded to multiples of steps that put more bits where the loss curves more
            (`round_to_entropy`), in place of those of `bits`. Of networks that tell classes apart.
        rounds_activations: train with the rounding of activations as well; the file rounds them.
        quantize_epochs: of training with the rounding; None for `epochs`, 0 for none: weights of 8
            bits or some entropy are then rounded with feedback, and stay so.
        quantize_rate: learning rate of that training at its peak; None for `learning_rate`.
        mirrored: the network that is stored answers with the mean for an image and its mirror
            image, both taken through the same weights (`mirrored_model`), and the last step trains
            it so: for no more stored bytes, and twice the multiplications.
        epochs: of training in each step; None for 3, or on few samples as many as 400 steps of the
            optimizer take.
        optimizer: of the steps of every training.
        learning_rate: at its peak.
        batch: samples of a training step.
        shift: training images move by up to so many pixels.
        repeat_edges: what moves in repeats the edge of the image, and is not zeros.
        flip: half of the training images are mirrored.
        keeps_last: a training ends with the weights of its last epoch, not of that with the best
            validation score: where the float network has learned from the validation images, what
            has moved least scores best.
        counts_start: a training whose every epoch has a lower validation score than the network
            that it begins with (pruned and rounded already) leaves that as it is.
        seed: of everything drawn.

    Raises:
        InputError: the fields contradict each other, or one is wrong.
    """

    prune: float | Mapping[str, float] | None = None
    pattern: str | None = None
    criterion: str = "layer share"
    scope: str = "global"
    prune_steps: int = 3
    prune_epochs: int | None = None
    factorize: Mapping[str, int] | None = None
    factorize_epochs: int | None = None
    temperature: float = 4.0
    mirror_pairs: bool = False
    views: int = 0
    distil_epochs: int | None = None
    share: int | None = None
    bits: int = 8
    edge_bits: int | None = None
    learned_scales: bool = False
    entropy_bits: float | None = None
    rounds_activations: bool = True
    quantize_epochs: int | None = None
    quantize_rate: float | None = None
    mirrored: bool = False
    epochs: int | None = None
    optimizer: Optimizer = Optimizer.ADAMW
    learning_rate: float = 5e-3
    batch: int = 64
    shift: int = 0
    repeat_edges: bool = False
    flip: bool = False
    keeps_last: bool = False
    counts_start: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.share is not None and self.bits != 8:
            raise InputError(
                f"weights are shared or rounded to {self.bits} bits, not both: a codebook of 2^n "
                "levels takes n bits"
            )
        if self.entropy_bits is not None:
            self._check_entropy(self.entropy_bits)
        if self.quantize_rate is not None and not 0 < self.quantize_rate < math.inf:
            raise InputError(f"quantize_rate must be above 0, not {self.quantize_rate}")
        if self.views < 0 or (self.views and self.mirror_pairs):
            raise InputError("views are 0 or more, and never beside mirror_pairs: give one")
        for bits in (self.bits, self.edge_bits or 8):
            if not 1 <= bits <= 8:
                raise InputError(f"weights have 1 to 8 bits, not {bits}")
        self._check_epochs()
        if self.prunes:
            check_criterion(self.criterion)
            with_rate(Selection(self.criterion, self.pattern or "weights", self.scope), self.prune)

    def _check_epochs(self) -> None:
        for name, least in _LEAST_EPOCHS.items():
            epochs = getattr(self, name)
            if epochs is not None and epochs < least:
                raise InputError(f"{name} must be at least {least}, not {epochs}")
        if self.quantize_epochs == 0 and (self.bits, self.edge_bits, self.share) != (8, None, None):
            raise InputError(
                "quantize_epochs is 0 with weights of 8 bits or of some entropy only: others are "
                "trained with their rounding"
            )

    def _check_entropy(self, bits: float) -> None:
        if not 0 < bits < 8:
            raise InputError(f"entropy_bits must be above 0 and below 8, not {bits}")
        if self.share is not None or (self.bits, self.edge_bits) != (8, None):
            raise InputError("entropy_bits takes the place of bits, edge_bits and share: give one")

    def epochs_of(self, samples: int) -> int:
        """Return the epochs of a step that trains on so many samples."""
        steps = -(-samples // self.batch)
        return self.epochs or max(_EPOCHS, -(-_STEPS // steps))

    def aware(
        self, weights: Sequence[str], steps: Mapping[str, Floats] | None = None
    ) -> AwareOptions:
        """Return how weights of these names, in the network's order, are trained to be rounded."""
        bits = dict.fromkeys(weights, self.bits)
        if self.edge_bits is not None and weights:
            bits[weights[0]] = bits[weights[-1]] = self.edge_bits
        activation_bits = 8 if self.rounds_activations else None
        return AwareOptions(bits, activation_bits, self.learned_scales, steps or {})

    @property
    def prunes(self) -> bool:
        return self.prune is not None or self.pattern is not None
