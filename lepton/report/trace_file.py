"""A trace with its program in one safe, checksummed file.

A safetensors container, like the program file: raw arrays and a JSON text, nothing executable.
Every number is checked before it is used, so that a damaged file is one clear error.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton.errors import ProgramError
from lepton.program import Program, atomic_write, load_program
from lepton.trace import RECORD, MemoryCounters, Trace

__all__ = ["load_trace", "save_trace", "trace_bytes"]

_FORMAT = "lepton trace"
_VERSION = 3
_MAXIMUM_FILE_BYTES = 4 << 30
_MOST = 1 << 53
_COUNTERS = (
    *("read_bytes", "write_bytes", "row_hits", "row_misses", "activates", "precharges"),
    *("refreshes", "write_commands"),
)
_FIELDS = cast(tuple[str, ...], RECORD.names)


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def trace_bytes(program: Program, trace: Trace) -> bytes:
    """Return the bytes of a trace file."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {
        "records": np.stack([trace.records[name] for name in _FIELDS], axis=1),
        "regions": np.array(trace.regions, np.int64).reshape(-1, 2),
        "program": np.frombuffer(program.to_bytes(), np.uint8),
    }
    for index, memory in enumerate(trace.memories):
        arrays[f"profile.{index}"] = memory.profile.astype(np.int64)
    manifest = {
        "format": _FORMAT,
        "version": _VERSION,
        "fields": list(_FIELDS),
        "queues": list(trace.queues),
        "cycles": trace.cycles,
        "profile_cycles": trace.profile_cycles,
        "clock_hz": trace.clock_hz,
        "seconds": trace.seconds,
        "memories": [
            {"name": m.name} | {name: getattr(m, name) for name in _COUNTERS}
            for m in trace.memories
        ],
        "sha256": _digest(arrays),
    }
    text = np.frombuffer(json.dumps(manifest, sort_keys=True).encode(), np.uint8)
    return save(arrays | {"manifest": text})


def save_trace(program: Program, trace: Trace, path: str | Path) -> None:
    """Write a trace file; a partial file never stands under the final name.

    Raises:
        ProgramError: the file cannot be written.
    """
    atomic_write(Path(path), trace_bytes(program, trace))


def load_trace(source: str | Path | bytes) -> tuple[Program, Trace]:
    """Return program and trace of a file or of its bytes.

    Raises:
        ProgramError: it cannot be read, is damaged, of another version, or inconsistent.
    """
    place = "trace" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else _read(Path(source))
    try:
        return _parse(content)
    except ProgramError as error:
        raise ProgramError(f"{place}: {error}") from None


def _read(path: Path) -> bytes:
    """Return the bytes of a file of bearable size."""
    try:
        if path.exists() and not path.is_file():
            raise ProgramError(f"{path}: cannot be read: it is no regular file")
        if path.stat().st_size > _MAXIMUM_FILE_BYTES:
            raise ProgramError(f"{path}: a trace file must not exceed 4 GiB")
        return path.read_bytes()
    except OSError as error:
        raise ProgramError(f"{path}: cannot be read: {error.strerror}") from None


def _parse(content: bytes) -> tuple[Program, Trace]:
    """Return program and trace of a file's bytes; every inconsistency is a ProgramError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ProgramError(f"not a Lepton trace, or a damaged one ({error})") from None
    manifest = _manifest(arrays)
    program_bytes = _array(arrays, "program", np.uint8, 1).tobytes()
    program = load_program(program_bytes)
    try:
        trace = _trace(arrays, manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProgramError(f"the manifest is inconsistent ({error!r})") from None
    _validate(program, trace)
    return program, trace


def _manifest(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the manifest after checking format, version and checksum."""
    try:
        manifest = cast(dict[str, Any], json.loads(arrays["manifest"].tobytes()))
        form, version, digest = manifest["format"], manifest["version"], manifest["sha256"]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise ProgramError("not a Lepton trace: it has no readable manifest") from None
    if form != _FORMAT:
        raise ProgramError(f"not a Lepton trace but '{str(form)[:40]}'")
    if version != _VERSION:
        raise ProgramError(f"trace format version {version!r} is not {_VERSION}: run it again")
    if _digest({name: array for name, array in arrays.items() if name != "manifest"}) != digest:
        raise ProgramError("the checksum of the contents does not match: the file is damaged")
    return manifest


def _array(
    arrays: dict[str, NDArray[Any]], name: str, dtype: type[np.generic], dimensions: int
) -> NDArray[Any]:
    """Return an array of the expected type and rank."""
    array = arrays.get(name)
    if array is None or array.dtype != dtype or array.ndim != dimensions:
        raise ProgramError(f"array '{name}' must be {dimensions}-D {np.dtype(dtype).name}")
    return array


def _whole(value: object, lowest: int = 0) -> int:
    """Return a whole number of bearable size."""
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value < _MOST:
        raise ValueError(f"expected a whole number of at least {lowest}, found {value!r}")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise ValueError(f"expected a name, found {value!r:.60}")
    return value


def _trace(arrays: dict[str, NDArray[Any]], manifest: dict[str, Any]) -> Trace:
    """Return the trace, not yet checked against its program."""
    if manifest["fields"] != list(_FIELDS):
        raise ValueError("fields")
    columns = _array(arrays, "records", np.int64, 2)
    regions = _array(arrays, "regions", np.int64, 2)
    if columns.shape[1] != len(_FIELDS) or regions.shape[1] != 2:
        raise ValueError("shapes of records or regions")
    records = np.zeros(len(columns), RECORD)
    for index, name in enumerate(_FIELDS):
        records[name] = columns[:, index]
    memories = tuple(
        MemoryCounters(
            _name(entry["name"]),
            *(_whole(entry[name]) for name in _COUNTERS),
            profile=_array(arrays, f"profile.{index}", np.int64, 1),
        )
        for index, entry in enumerate(manifest["memories"])
    )
    seconds = manifest["seconds"]
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        raise ValueError(f"seconds {seconds!r}")
    return Trace(
        records=records,
        queues=tuple(_name(name) for name in manifest["queues"]),
        cycles=_whole(manifest["cycles"]),
        regions=tuple((int(low), int(high)) for low, high in regions.tolist()),
        memories=memories,
        profile_cycles=_whole(manifest["profile_cycles"], 1),
        clock_hz=_whole(manifest["clock_hz"], 1),
        seconds=float(seconds),
    )


def _validate(program: Program, trace: Trace) -> None:
    """Raise ProgramError unless every number of the trace fits its program and its total."""
    from lepton.isa.footprints import queue_names
    from lepton.program.fetch import streams_of

    r, chip = trace.records, program.chip
    queues = queue_names(chip.dma.load_channels, chip.dma.store_channels, chip.cores)
    times = np.stack([r[name] for name in _FIELDS if name not in _SIGNED], axis=1)
    rules = {
        "it must have one record per instruction": len(r) == len(program.operator_of),
        "its queues are not those of the chip": list(trace.queues) == queues,
        "its memories are not those of the chip": [m.name for m in trace.memories]
        == [m.name for m in chip.memories],
        "a time lies outside of the run": bool(((times >= 0) & (times <= trace.cycles)).all()),
        "an instruction ends before it starts": bool((r["end"] >= r["start"]).all()),
        "an instruction stalls longer than it runs": bool(
            (r["stall_bank"] + r["stall_memory"] <= r["end"] - r["start"]).all()
        ),
        "a queue does not exist": bool(
            ((r["queue"] >= -1) & (r["queue"] < len(queues))).all()
            and ((r["cause_queue"] >= -1) & (r["cause_queue"] < len(queues))).all()
        ),
        "an instruction does not exist": bool(((r["cause"] >= -1) & (r["cause"] < len(r))).all()),
        "a memory has more commands that write than commands": all(
            m.write_commands <= m.row_hits + m.row_misses for m in trace.memories
        ),
        "a profile holds negative bytes": all((m.profile >= 0).all() for m in trace.memories),
        "a profile is longer than the run": all(
            (len(m.profile) - 1) * trace.profile_cycles <= trace.cycles for m in trace.memories
        ),
    }
    for region in program.regions:
        if region.device == "npu":
            streams_of(program, region)
    for text, holds in rules.items():
        if not holds:
            raise ProgramError(f"the trace is inconsistent: {text}")
    for number in range(len(queues)):
        mine = r[r["queue"] == number]
        if (mine["start"][1:] < mine["end"][:-1]).any():
            raise ProgramError(
                f"the trace is inconsistent: {queues[number]} runs two instructions at once"
            )
    if not np.array_equal(r["instruction"], np.arange(len(r))) or not np.array_equal(
        r["operator"], program.operator_of
    ):
        raise ProgramError("the trace is inconsistent: it is not in the order of its program")


_SIGNED = ("instruction", "operator", "queue", "cause", "cause_queue")
"""Fields that are not times."""
