"""The networks by name: what builds each, what it takes and what it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lepton.errors import InputError
from lepton.models.extras import require

# torch is an extra:
# pyright: reportMissingImports=false

if TYPE_CHECKING:
    import torch

__all__ = ["NETWORKS", "Feed", "Network", "Task", "build_network", "network_named"]


class Task(StrEnum):
    """What a network computes, and with it loss and score."""

    CLASSES = "classes"
    """Logits [n, classes] of labels [n]; cross-entropy, accuracy."""
    SCORE = "score"
    """Logits [n, 1] of a yes, labels [n] 0 or 1; binary cross-entropy, accuracy."""
    RECONSTRUCTION = "reconstruction"
    """Its own input; mean squared error, whose negative is the score."""


@dataclass(frozen=True)
class Feed:
    """One input of a network.

    Attributes:
        name: of the ONNX input.
        shape: without the batch, channels first.
        ids: 0 for float32 values, else the number of int64 identities, 0 to `ids` - 1.
    """

    name: str
    shape: tuple[int, ...]
    ids: int = 0


@dataclass(frozen=True)
class Network:
    """One entry of the zoo, with the default sizes of its builder.

    Attributes:
        name: in the registry.
        module: of `lepton.models.zoo`, where the function of the same name builds it.
        inputs: what it takes, in the order of `forward`.
        output: name of the ONNX output.
        task: what it computes.
        classes: number of logits, or of values for a reconstruction.
        summary: one line.
    """

    name: str
    module: str
    inputs: tuple[Feed, ...]
    output: str
    task: Task
    classes: int
    summary: str

    def build(self, seed: int = 0, **options: Any) -> torch.nn.Module:
        """Return the network with weights drawn from the seed; see `build_network`."""
        require("torch")
        import torch

        function: Callable[..., torch.nn.Module] = getattr(
            import_module(f"lepton.models.zoo.{self.module}"), self.name
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return function(**options)


INTENT_WORDS, INTENTS, INTENT_LENGTH = 192, 12, 16
"""Sizes of the intent classifier: vocabulary, classes, words of a sentence."""
ITEMS, HISTORY = 64, 12
"""Sizes of the next-item recommenders."""
USERS, GOODS, WEEKDAYS, NUMBERS = 32, 48, 7, 4
"""Sizes of the wide-and-deep recommender: users, goods, weekdays, continuous features."""
CROSSED_IDS = USERS + GOODS + WEEKDAYS + USERS * GOODS
"""Its identities: one range for each field, the last for pairs of user and good."""

_GREY, _COLOUR = Feed("image", (1, 28, 28)), Feed("image", (3, 32, 32))
_HISTORY = Feed("history", (HISTORY,), ITEMS)
_ROWS = (
    Network(
        "lenet", "convolutional", (_GREY,), "logits", Task.CLASSES, 10,
        "LeNet-5 with ReLU and max pooling: 61,706 parameters, MNIST",
    ),
    Network(
        "caffe_lenet", "convolutional", (_GREY,), "logits", Task.CLASSES, 10,
        "Caffe's LeNet, which Deep Compression starts from: 431,080 parameters, MNIST",
    ),
    Network(
        "mnist_cnn", "convolutional", (_GREY,), "logits", Task.CLASSES, 10,
        "the reference CNN for MNIST: four convolutions with batch norm",
    ),
    Network(
        "digits_cnn", "convolutional", (Feed("image", (1, 8, 8)),), "logits", Task.CLASSES, 10,
        "a small CNN for the 8 x 8 digits of scikit-learn",
    ),
    Network(
        "photo_cnn", "convolutional", (Feed("image", (3, 64, 64)),), "logits", Task.CLASSES, 2,
        "two-class CNN for colour photographs of 64 x 64",
    ),
    Network(
        "resnet8", "residual", (_COLOUR,), "logits", Task.CLASSES, 10,
        "ResNet-8 of MLPerf Tiny for CIFAR-10; `width` makes students",
    ),
    Network(
        "mobilenet", "residual", (_COLOUR,), "logits", Task.CLASSES, 10,
        "inverted residuals with ReLU6 as in MobileNetV2, for CIFAR-10",
    ),
    Network(
        "autoencoder", "dense", (Feed("features", (784,)),), "reconstruction",
        Task.RECONSTRUCTION, 784, "MLP autoencoder with batch norm and a code of 16",
    ),
    Network(
        "wide_and_deep", "dense",
        (Feed("ids", (4,), CROSSED_IDS), Feed("numbers", (NUMBERS,))), "score", Task.SCORE, 1,
        "wide-and-deep recommender: a linear model of crossed features beside an MLP",
    ),
    Network(
        "gru_recommender", "sequential", (_HISTORY,), "logits", Task.CLASSES, ITEMS,
        "next item of a history by a GRU",
    ),
    Network(
        "lstm_recommender", "sequential", (_HISTORY,), "logits", Task.CLASSES, ITEMS,
        "next item of a history by an LSTM",
    ),
    Network(
        "intent_transformer", "sequential",
        (Feed("words", (INTENT_LENGTH,), INTENT_WORDS),), "logits", Task.CLASSES, INTENTS,
        "transformer encoder that classifies customers' sentences",
    ),
)  # fmt: skip
NETWORKS: Mapping[str, Network] = {row.name: row for row in _ROWS}


def network_named(name: str) -> Network:
    """Return an entry of the zoo.

    Raises:
        InputError: no such network.
    """
    if name not in NETWORKS:
        raise InputError(f"network must be one of {', '.join(NETWORKS)}, not '{name}'")
    return NETWORKS[name]


def build_network(name: str, seed: int = 0, **options: Any) -> torch.nn.Module:
    """Return an untrained network of the zoo.

    Args:
        name: in `NETWORKS`.
        seed: of its weights: the same seed gives the same weights, and PyTorch's own random state
            is left as it was.
        options: of its builder, a width for example.

    Raises:
        InputError: no such network.
        LeptonError: PyTorch is not installed.
    """
    return network_named(name).build(seed, **options)
