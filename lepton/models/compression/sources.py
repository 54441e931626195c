"""What a compression starts from and learns from: a float network, in whatever form it is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lepton.models import model_path
from lepton.models.training.recipes import RECIPES
from lepton.models.zoo import Task, network_named

if TYPE_CHECKING:
    import onnx

# onnx is typed in part only:
# pyright: reportUnknownMemberType=false

__all__ = ["float_source", "task_of", "without_softmax"]


def float_source(model: onnx.ModelProto | str | Path, task: Task) -> onnx.ModelProto:
    """Return the float network that a model stands for, with logits as its output.

    Int8 files are read as the float network whose numbers were rounded (`float_network`), and
    networks that answer for mirror images too as what is inside (`single_model`).

    Args:
        model: ONNX, in memory or a file, a `.tflite` file, or the name of a trained network.
        task: of classes, a last Softmax is left out: the loss takes logits.

    Raises:
        InputError: it cannot be read, or has no float form.
        ImportFailure: it is no ONNX model, is damaged, or keeps its weights in other files.
    """
    from lepton.models.mirroring import single_model
    from lepton.models.onnx_float import float_onnx
    from lepton.models.tflite_float import float_network

    is_file = isinstance(model, str | Path)
    made = single_model(float_network(model_path(model)) if is_file else float_onnx(model))
    return without_softmax(made) if task is Task.CLASSES else made


def task_of(name: str) -> Task:
    """Return what a trained network of this name computes; of any other model, classes."""
    return network_named(RECIPES[name].network).task if name in RECIPES else Task.CLASSES


def without_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a classifier that gives logits `[n, classes]`: without the Softmax that is last."""
    names = [item.name for item in model.graph.output]
    last = model.graph.node[-1]
    axis = next((item.i for item in last.attribute if item.name == "axis"), -1)
    if last.op_type != "Softmax" or names != list(last.output) or axis not in (-1, 1):
        return model
    made = type(model)()
    made.CopyFrom(model)
    made.graph.output[0].name = last.input[0]
    del made.graph.node[-1]
    return made
