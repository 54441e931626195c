"""A float ONNX graph as a trainable `torch.nn.Module`, and back with the trained parameters.

`from_onnx` gives convolutions, linear layers, batch norms and embeddings as torch's own layers, so
that pruning, quantization and trainers act on them as on any network; `to_onnx` writes what they
have become into the same graph, under the same names. Needs the extra `train`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lepton.errors import InputError
from lepton.models.extras import require
from lepton.models.onnx_module.reading import read_float_model

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from lepton.models.onnx_module.module import OnnxModule

__all__ = ["from_onnx", "read_float_model", "to_onnx"]


def from_onnx(source: str | Path | bytes | onnx.ModelProto) -> OnnxModule:
    """Return a trainable module that computes what a float ONNX model does.

    It takes the graph's inputs in order and returns its output, or a tuple of several. A leading
    batch of another size than the file's is taken too.

    Raises:
        LeptonError: PyTorch is not installed.
        ImportFailure: It is no ONNX model, is damaged, or has an operator without trainable form.
    """
    require("torch")
    from lepton.models.onnx_module.module import OnnxModule

    return OnnxModule(read_float_model(source))


def to_onnx(module: nn.Module) -> onnx.ModelProto:
    """Return the graph that `from_onnx` took, with the module's present parameters.

    Raises:
        InputError: The module is not from `from_onnx`.
    """
    require("torch")
    from lepton.models.onnx_module.module import OnnxModule

    if not isinstance(module, OnnxModule):
        kind = type(module).__name__
        raise InputError(f"only a module from from_onnx has an ONNX graph to return to, not {kind}")
    return module.to_onnx()
