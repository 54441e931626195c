"""The result of importing a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import tvm

Golden = Literal["onnx", "tflite"]


@dataclass(frozen=True)
class ImportedModel:
    """A model in canonical quantized Relax form.

    Attributes:
        module: Module whose function `main` is in the form that `canonical` states.
        golden: Whose arithmetic decides what is right: ONNX Runtime's integer kernels or
            LiteRT's reference kernels.
        name: Name of the model (the file's stem, or the graph's name for an object).
        source_names: Name of each variable of `main` -> name of the source operator.
        tensor_names: Name of each variable of `main` that holds a tensor of the source model
            -> name of that tensor in the file.
        inputs: Input names as in the file, in the order of `main`'s parameters.
        outputs: Output names as in the file, in the order of `main`'s results.
    """

    module: tvm.IRModule
    golden: Golden
    name: str
    source_names: Mapping[str, str]
    tensor_names: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
