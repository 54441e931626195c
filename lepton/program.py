"""A program: instructions, constants, memory map and tensors in one safe, checksummed file.

The file is a safetensors container (JSON header and raw arrays; nothing in it is ever executed):
`instructions`, `operator_of`, `constants`, one array per host region, and `manifest`, a JSON text
with everything else and the SHA-256 of the other arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, chip_from_table, chip_to_table
from lepton.errors import ChipError, EncodingError, ProgramError
from lepton.isa import WORD_BYTES, Instruction, decode_all

__all__ = ["Operator", "Program", "ProgramTensor", "Region", "atomic_write", "load_program"]

FORMAT_VERSION = 1
_MAXIMUM_FILE_BYTES = 4 << 30
_MAXIMUM_TENSOR_BYTES = 8 << 30
_DTYPES = ("int8", "uint8", "int16", "int32", "int64", "float32", "float64", "bool")


@dataclass(frozen=True)
class ProgramTensor:
    """A tensor that crosses the edge of a region, and where it lives between regions."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int
    memory: int
    """Index of the memory, or -1 for a tensor that only the host sees."""
    address: int

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Operator:
    """An operator of the source model, as the reports name it."""

    name: str
    kind: str
    device: Literal["npu", "host"]
    macs: int
    weight_bytes: int
    """Raw weights of the operator."""
    stored_bytes: int
    """What the constant segment holds of it."""
    reason: str
    """Why it runs on the host, the rule that failed; empty on the NPU."""


@dataclass(frozen=True)
class Region:
    """A stretch of the network that one device runs at a time."""

    device: Literal["npu", "host"]
    start: int
    stop: int
    """Instructions [start, stop) of an NPU region; 0, 0 on the host."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    host_model: int
    """Index of the ONNX graph of a host region, -1 on the NPU."""


@dataclass(frozen=True)
class Program:
    """What crosses from the compiler to the simulator.

    Attributes:
        instructions: the encoded stream, a multiple of 64 bytes.
        operator_of: `[n] uint32`, the operator each instruction came from.
        constants: the read-only segment, at `constants_address` of its memory.
        host_models: ONNX graphs of the host regions, as bytes.
        golden: whose arithmetic the program follows.
    """

    source: str
    golden: Literal["onnx", "tflite"]
    chip: Chip
    instructions: bytes
    operator_of: NDArray[np.uint32]
    constants: NDArray[np.uint8]
    program_address: int
    constants_address: int
    tensors: tuple[ProgramTensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: tuple[Operator, ...]
    regions: tuple[Region, ...]
    host_models: tuple[bytes, ...]

    @cached_property
    def decoded(self) -> list[Instruction]:
        """The instructions as objects."""
        return decode_all(self.instructions)

    @cached_property
    def tensor_by_name(self) -> dict[str, ProgramTensor]:
        return {tensor.name: tensor for tensor in self.tensors}

    @property
    def constants_memory(self) -> int:
        return self.chip.memory_index(self.chip.placement.constants)

    @property
    def program_memory(self) -> int:
        return self.chip.memory_index(self.chip.placement.program)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return _container(self._arrays(), self._manifest())

    def save(self, path: str | Path) -> None:
        """Write the program file; a partial file never stands under the final name.

        Raises:
            ProgramError: the file cannot be written.
        """
        atomic_write(Path(path), self.to_bytes())

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Return the binary parts."""
        arrays: dict[str, NDArray[Any]] = {
            "instructions": np.frombuffer(self.instructions, np.uint8),
            "operator_of": self.operator_of.astype(np.uint32),
            "constants": self.constants,
        }
        for index, model in enumerate(self.host_models):
            arrays[f"host.{index}"] = np.frombuffer(model, np.uint8)
        return arrays

    def _manifest(self) -> dict[str, object]:
        """Return the JSON part."""
        return {
            "format": "lepton program",
            "version": FORMAT_VERSION,
            "source": self.source,
            "golden": self.golden,
            "chip": chip_to_table(self.chip),
            "program_address": self.program_address,
            "constants_address": self.constants_address,
            "tensors": [dataclasses.asdict(tensor) for tensor in self.tensors],
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "operators": [dataclasses.asdict(operator) for operator in self.operators],
            "regions": [dataclasses.asdict(region) for region in self.regions],
        }


def _container(arrays: dict[str, NDArray[Any]], manifest: dict[str, object]) -> bytes:
    """Return the safetensors bytes of arrays and manifest, with both checksums."""
    from safetensors.numpy import save

    text = json.dumps(manifest | {"sha256": _digest(arrays)}, separators=(",", ":"), sort_keys=True)
    outer = {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    content = np.frombuffer(json.dumps(outer, separators=(",", ":")).encode(), np.uint8)
    return save(arrays | {"manifest": content})


def program_manifest(program: Program) -> dict[str, object]:
    """Return everything of a program but its bytes, as JSON types."""
    return program._manifest()  # pyright: ignore[reportPrivateUsage]


def program_from_parts(
    manifest: dict[str, object],
    instructions: bytes,
    operator_of: NDArray[np.uint32],
    constants: NDArray[np.uint8],
    host_models: tuple[bytes, ...],
) -> Program:
    """Return the program of a manifest and its bytes, checked like a loaded file.

    Raises:
        ProgramError: they do not belong together.
    """
    arrays: dict[str, NDArray[Any]] = {
        "instructions": np.frombuffer(instructions, np.uint8),
        "operator_of": operator_of,
        "constants": constants,
    }
    for index, model in enumerate(host_models):
        arrays[f"host.{index}"] = np.frombuffer(model, np.uint8)
    return load_program(_container(arrays, manifest))


def atomic_write(path: Path, content: bytes) -> None:
    """Write `content` to `path` through a neighbouring temporary file.

    Raises:
        ProgramError: naming the path and the system's reason; nothing is left behind.
    """
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent or ".")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise ProgramError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    """Return the SHA-256 over the names, types, sizes and bytes of the arrays."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def load_program(source: str | Path | bytes) -> Program:
    """Return the program of a file or of its bytes.

    Raises:
        ProgramError: cannot be read, is damaged, is of another version, or is inconsistent.
    """
    place = "program" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else _read(Path(source))
    try:
        program = _parse(content)
        _validate(program)
        return program
    except (ChipError, EncodingError, ProgramError) as error:
        # a name in the file may hold anything, a newline too
        raise ProgramError(f"{place}: {' '.join(str(error).split())}") from None


def _read(path: Path) -> bytes:
    """Return the bytes of a file of bearable size."""
    try:
        if path.stat().st_size > _MAXIMUM_FILE_BYTES:
            raise ProgramError(f"{path}: a program file must not exceed 4 GiB")
        return path.read_bytes()
    except OSError as error:
        raise ProgramError(f"{path}: cannot be read: {error.strerror}") from None


def _parse(content: bytes) -> Program:
    """Return the program of a file's bytes; every inconsistency of types is a ProgramError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
    except (SafetensorError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise ProgramError(f"not a Lepton program, or a damaged one ({error})") from None
    manifest = _manifest_of(arrays)
    try:
        hosts = sum(name.startswith("host.") for name in arrays)
        chip_table = cast(dict[str, object], manifest["chip"])
        return Program(
            source=_text(manifest["source"]),
            golden=cast(Any, _one_of(manifest["golden"], ("onnx", "tflite"))),
            chip=chip_from_table(chip_table, "embedded chip"),
            instructions=arrays["instructions"].tobytes(),
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
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProgramError(f"the manifest is inconsistent ({_brief(error)})") from None


def _brief(error: Exception) -> str:
    """Return an error with its type, not longer than a line."""
    text = repr(error)
    return text if len(text) <= 200 else f"{text[:197]}..."


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
    shape = tuple(_whole(extent, 1) for extent in cast(list[object], entry["shape"]))
    if len(shape) > 16 or math.prod(shape) * 8 > _MAXIMUM_TENSOR_BYTES:
        raise ValueError(f"shape {shape}")
    return ProgramTensor(
        name=_text(entry["name"]),
        shape=shape,
        dtype=_one_of(entry["dtype"], _DTYPES),
        scale=scale,
        zero_point=_whole(entry["zero_point"], -(1 << 31)),
        memory=_whole(entry["memory"], -1),
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


def _validate(program: Program) -> None:
    """Raise ProgramError for anything that points outside of what the file holds."""
    count, rest = divmod(len(program.instructions), WORD_BYTES)
    if rest:
        raise ProgramError(f"the instruction stream ends inside a word, {rest} bytes too many")
    if len(program.operator_of) != count:
        raise ProgramError("operator_of must have one entry per instruction")
    if count and int(program.operator_of.max()) >= len(program.operators):
        raise ProgramError("an instruction names an operator that does not exist")
    if len(program.tensor_by_name) != len(program.tensors):
        raise ProgramError("two tensors have the same name")
    _ = program.decoded
    _validate_memory(program)
    _validate_regions(program, count)
    for name in (*program.inputs, *program.outputs):
        if name not in program.tensor_by_name:
            raise ProgramError(f"'{name}' is listed as an input or output but does not exist")


def _validate_regions(program: Program, count: int) -> None:
    """Raise ProgramError unless the regions cover the `count` instructions and name what is."""
    stop = 0
    for region in program.regions:
        for name in (*region.inputs, *region.outputs):
            if name not in program.tensor_by_name:
                raise ProgramError(f"a region uses tensor '{name}', which does not exist")
        if region.device == "npu":
            if region.start != stop or not region.start < region.stop <= count:
                raise ProgramError("the NPU regions must cover the instructions in order")
            stop = region.stop
        elif not 0 <= region.host_model < len(program.host_models):
            raise ProgramError("a host region names a graph that does not exist")
    if stop != count:
        raise ProgramError("the NPU regions must cover the instructions in order")


def _validate_memory(program: Program) -> None:
    """Raise ProgramError unless segments and tensors lie inside their memories, inputs apart."""
    memories = program.chip.memories
    segments = [
        ("program", program.program_memory, program.program_address, len(program.instructions)),
        ("constants", program.constants_memory, program.constants_address, len(program.constants)),
    ]
    spans: list[tuple[str, int, int, int]] = []
    for tensor in program.tensors:
        if tensor.memory >= len(memories):
            raise ProgramError(f"tensor '{tensor.name}' is in memory {tensor.memory}, which is not")
        if tensor.memory >= 0:
            spans.append((tensor.name, tensor.memory, tensor.address, tensor.size_bytes))
    for name, memory, address, size in (*segments, *spans):
        limit = memories[memory].size_bytes
        if address + size > limit:
            raise ProgramError(
                f"'{name}' ends at {address + size:#x}, beyond the {limit:#x} bytes of memory "
                f"'{memories[memory].name}'"
            )
    # other tensors may share their place: they live one after the other
    inputs = [span for span in spans if span[0] in program.inputs]
    _refuse_overlap([*segments, *inputs])
    for span in spans:
        for segment in segments:
            _refuse_overlap([segment, span])


def _refuse_overlap(spans: list[tuple[str, int, int, int]]) -> None:
    """Raise ProgramError if two of the `(name, memory, address, size)` share a byte."""
    filled = sorted((span[1:] + span[:1] for span in spans if span[3]), key=lambda span: span[:2])
    for (memory, start, size, first), (other, after, _, second) in pairwise(filled):
        if memory == other and after < start + size:
            names = {"program": "the program", "constants": "the constants"}
            ordered = sorted((first, second), key=lambda name: name in names)
            raise ProgramError(f"'{ordered[0]}' overlaps {names.get(ordered[1], repr(ordered[1]))}")
