"""Reading programs: every field is checked before anything uses it."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, chip_from_table
from lepton.errors import ChipError, EncodingError, InputError, ProgramError
from lepton.isa import WORD_BYTES, pack, unpack
from lepton.program.container import opened, packed
from lepton.program.files import read_file, refuse_special
from lepton.program.objective import Objective
from lepton.program.records import (
    MAXIMUM_TENSOR_ELEMENTS,
    Arena,
    Operator,
    Program,
    ProgramTensor,
    Region,
)
from lepton.program.validation import validate

__all__ = ["load_program", "program_from_parts", "starts_like_program"]

_MAXIMUM_FILE_BYTES = 4 << 30
_ARRAYS = ("instructions", "operator_of", "constants")
_INCONSISTENT = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
_DTYPES = (
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64", "bool",
)  # fmt: skip


def load_program(source: str | Path | bytes) -> Program:
    """Return the program of a file or of its bytes.

    Raises:
        ProgramError: cannot be read, is damaged, is of another version, or is inconsistent.
    """
    place = "program" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else _read(source)
    try:
        program = _parse(content)
        validate(program)
        return program
    except (ChipError, EncodingError, ProgramError) as error:
        # a name in the file may hold anything, a newline too
        raise ProgramError(f"{place}: {' '.join(str(error).split())}") from None


def _read(source: str | Path) -> bytes:
    """Return the bytes of a file of bearable size."""
    try:
        path = Path(source)
    except TypeError:
        kind = type(source).__name__
        raise ProgramError(f"a program must be a path or bytes, not {kind}") from None
    try:
        return read_file(path, _MAXIMUM_FILE_BYTES, "a program file")
    except InputError as error:
        raise ProgramError(str(error)) from None


def starts_like_program(path: Path) -> bool:
    """Return whether a file begins as a program does, with a header that names its arrays."""
    try:
        refuse_special(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: object = json.loads(file.read(length)) if length <= 1 << 20 else None
    except (OSError, ValueError, RecursionError, InputError):
        return False
    return isinstance(header, dict) and header.keys() >= {"manifest", *_ARRAYS}


def program_from_parts(
    manifest: dict[str, object],
    instructions: bytes,
    operator_of: NDArray[np.uint32],
    constants: NDArray[np.uint8],
    host_models: tuple[bytes, ...],
) -> Program:
    """Return the program of a manifest and its bytes, checked like a loaded file.

    The instructions are words, whether the chip has them packed or not.

    Raises:
        ProgramError: they do not belong together.
    """
    arrays: dict[str, NDArray[Any]] = {
        "instructions": np.frombuffer(_stream(manifest, instructions), np.uint8),
        "operator_of": operator_of,
        "constants": constants,
    }
    for index, model in enumerate(host_models):
        arrays[f"host.{index}"] = np.frombuffer(model, np.uint8)
    return load_program(packed(arrays, manifest))


def _stream(manifest: dict[str, object], words: bytes) -> bytes:
    """Return the words as the manifest's chip has them in memory."""
    chip = cast(dict[str, Any], manifest.get("chip"))
    try:
        is_packed = chip["control"]["packed"] is True and len(words) % WORD_BYTES == 0
    except (KeyError, TypeError):
        is_packed = False
    return pack(words)[0] if is_packed else words


def _parse(content: bytes) -> Program:
    """Return the program of a file's bytes; every inconsistency of types is a ProgramError."""
    arrays, manifest = opened(content)
    try:
        hosts = sum(name.startswith("host.") for name in arrays)
        chip = _chip(json.dumps(manifest["chip"]))
        stream = arrays["instructions"].tobytes()
        return Program(
            source=_text(manifest["source"]),
            golden=cast(Any, _one_of(manifest["golden"], ("onnx", "tflite"))),
            objective=Objective(_text(manifest.get("objective", Objective.LATENCY))),
            chip=chip,
            instructions=unpack(stream) if chip.control.packed else stream,
            operator_of=arrays["operator_of"],
            constants=arrays["constants"],
            program_address=_whole(manifest["program_address"]),
            constants_address=_whole(manifest["constants_address"]),
            tensors=tuple(_tensor(entry) for entry in cast(list[Any], manifest["tensors"])),
            inputs=_texts(manifest["inputs"]),
            outputs=_texts(manifest["outputs"]),
            operators=tuple(_operator(e) for e in cast(list[Any], manifest["operators"])),
            regions=tuple(_region(entry) for entry in cast(list[Any], manifest["regions"])),
            host_models=tuple(arrays[f"host.{index}"].tobytes() for index in range(hosts)),
            arenas=tuple(_arena(entry) for entry in cast(list[Any], manifest.get("arenas", []))),
        )
    except _INCONSISTENT as error:
        raise ProgramError(f"the manifest is inconsistent ({_brief(error)})") from None


@lru_cache(maxsize=16)
def _chip(text: str) -> Chip:
    """Return the chip of a manifest, one object for all programs that say the same of it.

    So what is derived from a chip is reckoned once, however many of its programs are read.
    """
    return chip_from_table(json.loads(text), "embedded chip")


def _brief(error: Exception) -> str:
    """Return an error with its type, not longer than a line."""
    text = repr(error)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, found {value!r}")
    value.encode()  # half a surrogate pair is no text: it could not be printed
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list of texts, found {value!r}")
    return tuple(_text(item) for item in cast(list[object], value))


def _one_of(value: object, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"expected one of {choices}, found {value!r}")
    return cast(str, value)


def _whole(value: object, lowest: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value < 1 << 48:
        raise ValueError(f"expected a whole number of at least {lowest}, found {value!r}")
    return value


def _tensor(entry: dict[str, object]) -> ProgramTensor:
    """Return the tensor of a manifest entry."""
    scale = entry["scale"]
    if scale is not None:
        if not isinstance(scale, int | float) or not math.isfinite(scale):
            raise ValueError(f"scale {scale!r}")
        scale = float(scale)
    memory = _whole(entry["memory"], -1)
    smallest = 0 if memory < 0 else 1  # only the host has empty tensors
    shape = tuple(_whole(extent, smallest) for extent in cast(list[object], entry["shape"]))
    if len(shape) > 16 or math.prod(shape) > MAXIMUM_TENSOR_ELEMENTS:
        raise ValueError(f"shape {shape}")
    return ProgramTensor(
        name=_text(entry["name"]),
        shape=shape,
        dtype=_one_of(entry["dtype"], _DTYPES),
        scale=scale,
        zero_point=_whole(entry["zero_point"], -(1 << 31)),
        memory=memory,
        address=_whole(entry["address"]),
    )


def _operator(entry: dict[str, object]) -> Operator:
    """Return the operator of a manifest entry."""
    return Operator(
        name=_text(entry["name"]),
        kind=_text(entry["kind"]),
        device=cast(Any, _one_of(entry["device"], ("npu", "host"))),
        macs=_whole(entry["macs"]),
        weight_bytes=_whole(entry["weight_bytes"]),
        stored_bytes=_whole(entry["stored_bytes"]),
        reason=_text(entry["reason"]),
    )


def _arena(entry: dict[str, object]) -> Arena:
    """Return the arena of a manifest entry."""
    return Arena(
        memory=_text(entry["memory"]),
        peak_bytes=_whole(entry["peak_bytes"]),
        bound_bytes=_whole(entry["bound_bytes"]),
    )


def _region(entry: dict[str, object]) -> Region:
    """Return the region of a manifest entry."""
    return Region(
        device=cast(Any, _one_of(entry["device"], ("npu", "host"))),
        start=_whole(entry["start"]),
        stop=_whole(entry["stop"]),
        inputs=_texts(entry["inputs"]),
        outputs=_texts(entry["outputs"]),
        host_model=_whole(entry["host_model"], -1),
    )
