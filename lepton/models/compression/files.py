"""The ONNX models between the steps of a compression: read, folded, and their weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.program.files import atomic_write, temporary_folder

if TYPE_CHECKING:
    import onnx

# onnx and onnxruntime are typed in part only:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

__all__ = ["claim_folder", "folded", "layer_arrays", "loaded"]

_UNFINISHED = re.compile(r"\.lepton-[0-9a-f]{16}")
"""The temporary files of `atomic_write`."""


def claim_folder(folder: Path, parts: Iterable[bytes]) -> None:
    """Take a folder for the run that the parts decide, or go on in it.

    Raises:
        InputError: it is another run's, or holds anything else.
    """
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    mark, known = folder / "run.json", json.dumps({"run": sha.hexdigest()}).encode()
    folder.mkdir(parents=True, exist_ok=True)
    if mark.exists() and mark.read_bytes() != known:
        raise InputError(
            f"{folder}: holds the steps of another compression (other options, model or "
            "data): remove it, or choose another folder"
        )
    if not mark.exists() and _holds_more(folder):
        raise InputError(f"{folder}: is no folder of a compression, and not empty")
    atomic_write(mark, known)


def loaded(file: Path) -> onnx.ModelProto:
    """Return the model in a step's file.

    Raises:
        InputError: it is damaged.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(file))
    except (DecodeError, OSError):
        model = onnx.ModelProto()
    # a file that was cut where one of its parts ends can be read
    if not model.graph.node or not model.opset_import:
        raise InputError(f"{file}: damaged; remove it, and its step is done again")
    return model


def _holds_more(folder: Path) -> bool:
    """Return whether a folder holds more than what a write that was killed can leave."""
    return any(not _UNFINISHED.fullmatch(item.name) for item in folder.iterdir())


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose batch norms are part of the layers before them."""
    import onnx
    import onnxruntime

    with temporary_folder() as folder:
        file = folder / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(file)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return onnx.load(str(file))


def layer_arrays(model: onnx.ModelProto) -> list[NDArray[Any]]:
    """Return the weights of convolutions and products, of an int8 model their codes."""
    from onnx import numpy_helper

    constants = {item.name: item for item in model.graph.initializer}
    behind = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    found: dict[str, NDArray[Any]] = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            name = behind.get(node.input[1], node.input[1])
            if name in constants:
                found[name] = numpy_helper.to_array(constants[name])
    return list(found.values())
