"""Importers: ONNX, TFLite, torch.export and Relax modules into one canonical quantized form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lepton.compiler.dump import Dump, no_dump
from lepton.compiler.importers.model import Golden, ImportedModel
from lepton.compiler.importers.names import Source, source_name, source_of, tensor_name
from lepton.errors import ImportFailure, LeptonError

__all__ = [
    "Golden",
    "ImportedModel",
    "Source",
    "import_model",
    "source_name",
    "source_of",
    "tensor_name",
]

_TFLITE_MARK = b"TFL3"


def import_model(
    model: str | Path | object,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dump: Dump = no_dump,
) -> ImportedModel:
    """Bring a model into the canonical quantized form.

    Args:
        model: Path of an `.onnx` or `.tflite` file or a `.csv` layer table, or an
            `onnx.ModelProto`, a `torch.export.ExportedProgram` or a `tvm.IRModule` with a function
            `main`.
        shapes: Input name -> shape, to fix dynamic dimensions.
        dump: Takes every form of the module.

    Raises:
        ImportFailure: The model cannot be read, is damaged, or uses what is not supported.
    """
    name = Path(model).name if isinstance(model, str | Path) else type(model).__name__
    try:
        if isinstance(model, str | Path):
            return _import_file(Path(model), shapes or {}, dump)
        return _import_object(model, shapes or {}, dump)
    except LeptonError:
        raise
    except Exception as error:  # whatever a third-party reader raises is a fault of the model
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        raise ImportFailure(f"{name} cannot be imported: {reason}") from error


def _import_file(path: Path, shapes: Mapping[str, Sequence[int]], dump: Dump) -> ImportedModel:
    """Import a file, telling its kind by content first and by suffix second."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImportFailure(f"{path} cannot be read: {error.strerror}") from error
    if data[4:8] == _TFLITE_MARK or path.suffix == ".tflite":
        from lepton.compiler.importers.tflite import import_tflite

        return import_tflite(data, path.stem, shapes, dump)
    if path.suffix in (".pt2", ".pt", ".pth"):
        raise ImportFailure(
            f"{path.name}: load it with torch.export.load and pass the program, or export ONNX"
        )
    from lepton.compiler.importers.onnx import import_onnx

    if path.suffix == ".csv":
        from lepton.compiler.importers.layer_table import table_model

        data = table_model(data, path.name)
    return import_onnx(data, path.stem, shapes, dump)


def _import_object(model: object, shapes: Mapping[str, Sequence[int]], dump: Dump) -> ImportedModel:
    """Import an object, told by its class without importing its library."""
    ancestors = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__}
    if any(name.startswith("torch.export") for name in ancestors):
        from lepton.compiler.importers.torch import import_torch

        return import_torch(model, shapes, dump)
    if "tvm.ir.module.IRModule" in ancestors:
        from lepton.compiler.importers.relax import import_relax

        return import_relax(_as_any(model), dump)
    if any(name.endswith(".ModelProto") for name in ancestors):
        from lepton.compiler.importers.onnx import import_onnx

        proto = _as_any(model)
        return import_onnx(proto, proto.graph.name or "model", shapes, dump)
    raise ImportFailure(
        f"a model must be a path, a torch.export program, an onnx.ModelProto or a Relax "
        f"IRModule, not {type(model).__name__}"
    )


def _as_any(value: object) -> Any:
    """Return a value whose type was checked by name."""
    return value
