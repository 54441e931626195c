"""The file of a program: binary parts and a JSON manifest, both with checksums.

A safetensors container of `instructions`, `operator_of`, `constants`, an array per host region, and
`manifest`, a JSON text with everything else and the SHA-256 of the other arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton.chip import chip_to_table
from lepton.errors import ProgramError
from lepton.program.records import Program

__all__ = ["opened", "packed", "program_bytes", "program_manifest"]

FORMAT_VERSION = 1


def program_bytes(program: Program) -> bytes:
    """Return the file's bytes."""
    return packed(_arrays(program), program_manifest(program))


def _arrays(program: Program) -> dict[str, NDArray[Any]]:
    """Return the binary parts of a program."""
    arrays: dict[str, NDArray[Any]] = {
        "instructions": np.frombuffer(program.stream, np.uint8),
        "operator_of": program.operator_of.astype(np.uint32),
        "constants": program.constants,
    }
    for index, model in enumerate(program.host_models):
        arrays[f"host.{index}"] = np.frombuffer(model, np.uint8)
    return arrays


def program_manifest(program: Program) -> dict[str, object]:
    """Return everything of a program but its bytes, as JSON types."""
    return {
        "format": "lepton program",
        "version": FORMAT_VERSION,
        "source": program.source,
        "golden": program.golden,
        "objective": program.objective,
        "chip": chip_to_table(program.chip),
        "program_address": program.program_address,
        "constants_address": program.constants_address,
        "tensors": [dataclasses.asdict(tensor) for tensor in program.tensors],
        "inputs": list(program.inputs),
        "outputs": list(program.outputs),
        "operators": [dataclasses.asdict(operator) for operator in program.operators],
        "regions": [dataclasses.asdict(region) for region in program.regions],
        "arenas": [dataclasses.asdict(arena) for arena in program.arenas],
    }


def packed(arrays: dict[str, NDArray[Any]], manifest: dict[str, object]) -> bytes:
    """Return the safetensors bytes of arrays and manifest, with both checksums."""
    from safetensors.numpy import save

    text = json.dumps(manifest | {"sha256": _digest(arrays)}, separators=(",", ":"), sort_keys=True)
    outer = {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    content = np.frombuffer(json.dumps(outer, separators=(",", ":")).encode(), np.uint8)
    return save(arrays | {"manifest": content})


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    """Return the SHA-256 over the names, types, sizes and bytes of the arrays."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def opened(content: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, object]]:
    """Return the arrays and the manifest of a file's bytes, checksums and version checked.

    Raises:
        ProgramError: not such a file, damaged, or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
    except (SafetensorError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise ProgramError(f"not a Lepton program, or a damaged one ({error})") from None
    return arrays, _manifest_of(arrays)


def _manifest_of(arrays: dict[str, NDArray[Any]]) -> dict[str, object]:
    """Return the manifest after checking both checksums, the version and the array types."""
    try:
        outer = json.loads(arrays["manifest"].tobytes())
        text = outer["text"]
        if hashlib.sha256(text.encode()).hexdigest() != outer["sha256"]:
            raise ProgramError("the checksum of the manifest does not match: the file is damaged")
        manifest = cast(dict[str, object], json.loads(text))
        version = manifest["version"]
        digest = manifest["sha256"]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise ProgramError("not a Lepton program: it has no readable manifest") from None
    if manifest.get("format") != "lepton program" or version != FORMAT_VERSION:
        raise ProgramError(
            f"program format version {version!r} is not {FORMAT_VERSION}: compile the model again"
        )
    parts = {name: array for name, array in arrays.items() if name != "manifest"}
    if _digest(parts) != digest:
        raise ProgramError("the checksum of the contents does not match: the file is damaged")
    for name, dtype in [
        ("instructions", "uint8"),
        ("constants", "uint8"),
        ("operator_of", "uint32"),
    ]:
        if name not in parts or parts[name].dtype != dtype or parts[name].ndim != 1:
            raise ProgramError(f"array '{name}' must be a flat {dtype} array")
    return manifest
