"""Float ONNX files of PyTorch networks, as `lepton compile` and ONNX Runtime's quantizer take them.

The exporter is PyTorch's TorchScript one: it needs no further package and writes opset 17, the
newest that every importer in use reads; the newer exporter needs onnxscript and writes 18.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lepton.models.extras import require
from lepton.models.zoo.registry import Feed

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["OPSET", "export_onnx", "float_model"]

OPSET = 17


def export_onnx(
    network: torch.nn.Module, inputs: Sequence[Feed], path: Path, output: str = "logits"
) -> None:
    """Write a network as a float ONNX file for a batch of 1; see `float_model`."""
    import onnx

    onnx.save(float_model(network, inputs, output), str(path))


def float_model(
    network: torch.nn.Module, inputs: Sequence[Feed], output: str = "logits"
) -> onnx.ModelProto:
    """Return a network in eval mode as a float ONNX model for a batch of 1.

    Batch norms are folded into the convolutions and linear layers before them, and recurrences
    unrolled; images are [1, c, h, w].

    Args:
        network: any module; it stays as it is.
        inputs: names and shapes of its inputs, in the order of `forward`.
        output: name of its result.

    Raises:
        LeptonError: PyTorch is not installed.
        InputError: a recurrence has a form that cannot be unrolled.
    """
    require("torch")
    import onnx
    import torch

    from lepton.models.zoo.unrolled import unroll

    inference = fold_linear_norms(unroll(network).eval())
    example = tuple(
        torch.zeros((1, *feed.shape), dtype=torch.int64 if feed.ids else torch.float32)
        for feed in inputs
    )
    stream: Any = io.BytesIO()
    with warnings.catch_warnings():
        # it is said to be deprecated, and traced lengths are constants here on purpose
        warnings.simplefilter("ignore")
        torch.onnx.export(
            inference, example, stream, dynamo=False, opset_version=OPSET,
            input_names=[feed.name for feed in inputs], output_names=[output],
        )  # fmt: skip
    model: Any = onnx.load_from_string(stream.getvalue())
    onnx.checker.check_model(model, full_check=True)
    return model


def fold_linear_norms(network: torch.nn.Module) -> torch.nn.Module:
    """Fold each batch norm behind a linear layer of a sequence into it, in place, in eval mode.

    The exporter does so for convolutions only.
    """
    from torch import nn
    from torch.nn.utils.fusion import fuse_linear_bn_eval

    for sequence in network.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for number in range(len(sequence) - 1):
            layer, norm = sequence[number], sequence[number + 1]
            if isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
                sequence[number] = cast(nn.Module, fuse_linear_bn_eval(layer, norm))
                sequence[number + 1] = nn.Identity()
    return network
