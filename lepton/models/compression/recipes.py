"""The recipes of the compressed networks that ship: float network, samples, steps.

`lepton.models.compression.make` carries one out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton.errors import InputError
from lepton.models.compression.recipe import CompressionRecipe
from lepton.models.datasets import hold_out, load_cifar10
from lepton.models.training.options import Optimizer
from lepton.models.training.recipes import RECIPES, SPLIT_SEED, Recipe, Split

if TYPE_CHECKING:
    import onnx

# onnx is typed in part only:
# pyright: reportUnknownMemberType=false

__all__ = ["COMPRESSED", "CompressedNetwork", "classifier_of_pixels"]

VALIDATION_IMAGES = 2_000
"""Of CIFAR-10's training images."""
_LARGE_RESNET = "mlperf_tiny/pretrainedResnet_large_int8.tflite"
_FLOAT_RESNET8 = "mlperf_tiny_onnx/pretrainedResnet_float.onnx"


@dataclass(frozen=True)
class CompressedNetwork:
    """How a compressed network is made of a float one, which is its teacher too by default.

    Attributes:
        source: the float network, in words.
        start: gives it; takes the folder of the models and data sets, the folder where float
            networks are kept, and the seed.
        load: gives the samples; takes the folder of the models and data sets.
        recipe: of its compression, but for the seed.
        data: what the samples are, from where and under which licence.
        seeds: compressed and measured, all of them; the first one ships.
        threads: of PyTorch, on which the bytes depend.
        teacher: gives what the network learns from; takes the folder of the models and data sets,
            and the float network. None for the float network itself.
        teacher_source: the teacher, in words; "" for the float network itself.
    """

    source: str
    start: Callable[[Path, Path, int], onnx.ModelProto]
    load: Callable[[Path], Split]
    recipe: CompressionRecipe
    data: str
    seeds: tuple[int, ...] = (0, 1, 2)
    threads: int = 2
    teacher: Callable[[Path, onnx.ModelProto], onnx.ModelProto] | None = None
    teacher_source: str = ""


def classifier_of_pixels(path: Path, brightest: float) -> onnx.ModelProto:
    """Return a classifier of pixels 0 to `brightest` as one of pixels 0 to 1 that gives logits.

    Args:
        path: float ONNX or TFLite whose first node is a convolution and whose last is a softmax;
            an int8 TFLite file is read as the float network that it stands for.
        brightest: value of a white pixel.
    """
    from onnx import numpy_helper

    from lepton.models.compression.sources import without_softmax
    from lepton.models.tflite_float import float_network

    model = float_network(path)
    kinds = [model.graph.node[place].op_type for place in (0, -1)]
    if kinds != ["Conv", "Softmax"]:
        raise InputError(f"{path}: must begin with a Conv and end with a Softmax")
    model = without_softmax(model)
    (kernels,) = (
        item for item in model.graph.initializer if item.name == model.graph.node[0].input[1]
    )
    scaled = numpy_helper.to_array(kernels) * np.float32(brightest)
    kernels.CopyFrom(numpy_helper.from_array(scaled, kernels.name))
    return model


def _trained(name: str, recipe: Recipe) -> Callable[[Path, Path, int], onnx.ModelProto]:
    """Return what trains a network of the zoo, or goes on where its training was."""

    def start(data: Path, work: Path, seed: int) -> onnx.ModelProto:
        from lepton.models.export import float_model
        from lepton.models.training.make import trained_network
        from lepton.models.zoo import network_named

        network = network_named(recipe.network)
        module, _ = trained_network(name, seed, recipe, recipe.load(data / "mnist"), work)
        return float_model(module, network.inputs, network.output)

    return start


def _resnet8(data: Path, work: Path, seed: int) -> onnx.ModelProto:
    del work, seed
    return classifier_of_pixels(data / _FLOAT_RESNET8, 255)


def _with_large_resnet(data: Path, source: onnx.ModelProto) -> onnx.ModelProto:
    """Return the mean of a float network and of MLPerf's large ResNet."""
    from lepton.models.compression.teachers import mean_teacher

    return mean_teacher([source, classifier_of_pixels(data / _LARGE_RESNET, 255)])


def _cifar10(data: Path) -> Split:
    folder = data / "cifar10"
    whole = load_cifar10(folder / "train_first20000.npz")
    rest, validation = hold_out(whole, VALIDATION_IMAGES, SPLIT_SEED)
    return Split(rest, validation, load_cifar10(folder / "test_first1000.npz"))


def _mnist(data: Path) -> Split:
    return RECIPES["mnist"].load(data / "mnist")


_RESNET8 = "ResNet-8 of MLPerf Tiny, float (mlcommons/tiny, Apache-2.0)"
_RANKS = {
    "model/conv2d_3/Conv2D": 4,
    "model/conv2d_4/Conv2D": 5,
    "model/conv2d_6/Conv2D": 3,
    "model/conv2d_7/Conv2D": 3,
}
"""Of ResNet-8's convolutions of 3 x 3, by the name of their weights; those of 16 channels stay
whole. Among all ranks that leave half of the network's weights, these have the least sum of what
each convolution's factors alone do to the answers for training images (KL at T = 4)."""
_CIFAR10 = (
    "CIFAR-10 (A. Krizhevsky), for research: 20,000 training images, 2,000 of which validate, and "
    "the first 1,000 test images"
)
_STUDENT = CompressedNetwork(
    _RESNET8, _resnet8, _cifar10,
    CompressionRecipe(
        factorize=_RANKS, factorize_epochs=4, quantize_epochs=0, rounds_activations=False,
        views=8, distil_epochs=0, shift=4, flip=True, optimizer=Optimizer.MUON,
        learning_rate=3e-3, batch=128, keeps_last=True,
    ),
    _CIFAR10,
    threads=1,
    teacher=_with_large_resnet,
    teacher_source=(
        "the mean of the float network's logits and those of MLPerf Tiny's large ResNet, its int8 "
        "file in float (mlcommons/tiny, Apache-2.0)"
    ),
)  # fmt: skip
_CAFFE_LENET = replace(
    RECIPES["lenet"], network="caffe_lenet", options=replace(RECIPES["lenet"].options, epochs=6)
)
COMPRESSED: Mapping[str, CompressedNetwork] = {
    "mnist_compressed": CompressedNetwork(
        "mnist_cnn, trained by lepton.models.training.recipes", _trained("mnist", RECIPES["mnist"]),
        _mnist,
        CompressionRecipe(
            prune=0.2, prune_steps=1, prune_epochs=1, bits=5, rounds_activations=False,
            distil_epochs=0, epochs=4, shift=2, learning_rate=1e-3, batch=128,
        ),
        RECIPES["mnist"].data,
    ),
    "lenet_compressed": CompressedNetwork(
        "caffe_lenet, trained for this", _trained("caffe_lenet", _CAFFE_LENET), _mnist,
        CompressionRecipe(
            prune=0.91, prune_steps=3, prune_epochs=1, bits=5, rounds_activations=False,
            distil_epochs=0, epochs=4, shift=2, learning_rate=2e-3, batch=128,
        ),
        RECIPES["mnist"].data,
    ),
    "resnet8_compressed": replace(
        _STUDENT,
        recipe=replace(
            _STUDENT.recipe, entropy_bits=4.0, quantize_epochs=2, quantize_rate=1e-3, mirrored=True,
        ),
    ),
    "resnet8_student": _STUDENT,
}  # fmt: skip
