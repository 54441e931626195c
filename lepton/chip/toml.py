"""Chip files: TOML to `Chip` and back; every bad key is collected before one error is raised."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from enum import StrEnum
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any, cast

from lepton.chip import description as d
from lepton.chip.contradictions import contradictions, shown
from lepton.chip.standards import DRAM_STANDARDS, dram_standard
from lepton.errors import ChipError

__all__ = ["PRESETS", "chip_from_table", "chip_to_table", "load_chip", "load_dram", "parse_chip"]

PRESETS = (
    *("nano", "edge", "server", "like-u55-256", "like-u85-1024"),
    *("edge-sparse", "server-sparse", "like-u85-1024-sparse"),
)

_SECTIONS: dict[str, type[Any]] = {
    "array": d.Array,
    "accumulators": d.Accumulators,
    "vector": d.Vector,
    "weight_buffer": d.WeightBuffer,
    "scratchpad": d.Scratchpad,
    "dma": d.Dma,
    "control": d.Control,
    "placement": d.Placement,
}
_OPTIONAL: dict[str, type[Any]] = {"sparsity": d.Sparsity}
"""Sections that a chip may do without."""
_CHOICES: dict[str, tuple[bool | StrEnum, ...]] = {
    "bool": (True, False),
    "Dataflow": tuple(d.Dataflow),
}
_KINDS: dict[str, type[Any]] = {"dram": d.Dram, "flat": d.Flat}
_DEFAULT_NODE = "7nm"
_DEFAULT_KINDS = {d.Dram: "lpddr4", d.Flat: "sram"}
_MAY_BE_ZERO = {
    *("issue_cycles", "latency_cycles", "entropy_lanes"),
    *("read_latency_cycles", "write_latency_cycles", "tPPD"),
}
_LIMIT = 1 << 21
"""Largest number of any key that `_LIMITS` does not name."""

_LIMITS = {
    "banks": 62,
    "queue_depth": 4096,
    "fetch_outstanding": 4096,
    "outstanding": 4096,
    "fetch_bytes": 1 << 16,
    "burst_bytes": 1 << 16,
    "port_bytes": 1 << 16,
    "decoder_bytes_per_cycle": 1 << 16,
    "entropy_lanes": 128,
    "feed_words": 1 << 16,
    "lanes": 1 << 16,
    "window": 16,
    "softmax_cycles_per_element": 1 << 16,
    "reads_in_flight": 4096,
    "writes_in_flight": 4096,
    "ports": 64,
    "access_bytes": 1 << 16,
    "channels": 64,
    "cores": 4,
    "queue": 64,
    "bank_queue": 64,
    "bytes_per_cycle": 1 << 16,
}
"""Largest numbers: what the kernels keep of each (a bit per bank, a slot per request in flight)."""

_RATIONAL = re.compile(r"\d{1,9}(\.\d{1,9}|/\d{1,9})?", re.ASCII)
_LEAST_CLOCK_MHZ = Fraction(1, 1000)
_MOST_DENOMINATOR = 10**9


def _convert(kind: str, value: object, key: str, bad: list[str]) -> object:
    """Return `value` as the annotated type `kind`, or note in `bad` what is wrong."""
    name = key.rpartition(".")[2]
    if kind == "str":
        if isinstance(value, str) and value:
            return value
        bad.append(f"{key} must be a text, not {shown(value)}")
    elif kind in _CHOICES:
        return _convert_choice(kind, value, key, bad)
    elif kind == "tuple[str, ...]":
        names = cast(list[object], value) if isinstance(value, list) else []
        if names and all(isinstance(item, str) for item in names):
            return tuple(cast(list[str], names))
        bad.append(f"{key} must be a list of names, not {shown(value)}")
    else:
        return _convert_number(kind, value, key, name in _MAY_BE_ZERO, bad)
    return None


def _convert_choice(kind: str, value: object, key: str, bad: list[str]) -> object:
    """Return the one of the kind's values that `value` is."""
    for choice in _CHOICES[kind]:
        if isinstance(value, bool) == isinstance(choice, bool) and value == choice:
            return choice
    names = " or ".join(str(choice).lower() for choice in _CHOICES[kind])
    bad.append(f"{key} must be {names}, not {shown(value)}")
    return None


def _convert_number(
    kind: str, value: object, key: str, may_be_zero: bool, bad: list[str]
) -> object:
    """Return `value` as int or Fraction within its range."""
    name = key.rpartition(".")[2]
    number = _number(kind, value)
    limit = _LIMITS.get(name, _LIMIT)
    if number is not None and number > limit:
        bad.append(f"{key} must not exceed {limit}, which {shown(value)} does")
    elif number is not None and name == "clock_mhz" and 0 < number < _LEAST_CLOCK_MHZ:
        bad.append(f"{key} must be at least {float(_LEAST_CLOCK_MHZ)}, not {shown(value)}")
    elif number is None or number < 0 or (number == 0 and not may_be_zero):
        rule = "a whole number" if kind == "int" else "a positive number or a text like '1/8'"
        bad.append(f"{key} must be {rule}{'' if may_be_zero else ' above 0'}, not {shown(value)}")
    else:
        return number
    return None


def _number(kind: str, value: object) -> int | Fraction | None:
    """Return an exact number, or None for what is none or has too many digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if kind == "int" else Fraction(value)
    if kind != "Fraction":
        return None
    if isinstance(value, str) and _RATIONAL.fullmatch(value):
        try:
            return Fraction(value)
        except ZeroDivisionError:
            return None
    if isinstance(value, float) and 0 < value < 1 << 40:
        made = Fraction(str(value))
        return made if made.denominator <= _MOST_DENOMINATOR or made < _LEAST_CLOCK_MHZ else None
    return None


def _build(cls: type[Any], table: object, prefix: str, bad: list[str]) -> Any:
    """Return the dataclass `cls` filled from `table`, or None with the reasons in `bad`."""
    if not isinstance(table, dict):
        bad.append(f"{prefix} must be a table, not {shown(table)}")
        return None
    given = cast(dict[str, object], table)
    known = {item.name: str(item.type) for item in dataclasses.fields(cls)}
    optional = {f.name for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
    before = len(bad)
    bad.extend(f"{prefix}.{key} is not a known key" for key in given if key not in known)
    bad.extend(f"{prefix}.{key} is missing" for key in known if key not in {*given, *optional})
    values = {
        key: _convert(known[key], value, f"{prefix}.{key}", bad)
        for key, value in given.items()
        if key in known
    }
    return cls(**values) if len(bad) == before else None


def _build_memories(table: object, bad: list[str]) -> tuple[d.Memory, ...]:
    """Return the memories of the `[[memory]]` tables."""
    if not isinstance(table, list) or not 1 <= len(cast(list[object], table)) <= 8:
        bad.append("memory must be 1 to 8 [[memory]] tables")
        return ()
    memories: list[d.Memory] = []
    for index, entry in enumerate(cast(list[object], table)):
        prefix = f"memory.{index}"
        fields = dict(cast(dict[str, object], entry)) if isinstance(entry, dict) else {}
        kind = fields.pop("kind", None)
        cls = _KINDS.get(kind) if isinstance(kind, str) else None
        if cls is None:
            bad.append(f"{prefix}.kind must be 'dram' or 'flat', not {shown(kind)}")
            continue
        if cls is d.Dram and "standard" in fields:
            standard = fields.pop("standard")
            if not isinstance(standard, str) or standard not in DRAM_STANDARDS:
                names = " or ".join(DRAM_STANDARDS)
                bad.append(f"{prefix}.standard must be {names}, not {shown(standard)}")
                continue
            fields = {**dram_standard(standard).fields, **fields}
        built = _build(cls, fields, prefix, bad)
        if built is not None:
            memories.append(built)
    return tuple(memories)


def _build_technology(
    table: object, memories: tuple[d.Memory, ...], bad: list[str]
) -> d.Technology:
    """Return the technology that a file states, or the default."""
    if table is None:
        return d.Technology(_DEFAULT_NODE, tuple(_DEFAULT_KINDS[type(m)] for m in memories))
    return _build(d.Technology, table, "technology", bad)


def chip_from_table(table: dict[str, object], place: str) -> d.Chip:
    """Return the chip of a parsed TOML table.

    Raises:
        ChipError: one sentence naming `place` and every bad key.
    """
    bad: list[str] = []
    known = {
        *_SECTIONS,
        *_OPTIONAL,
        "technology",
        "name",
        "description",
        "cores",
        "memory",
        "sources",
    }
    bad.extend(f"{key} is not a known key" for key in table if key not in known)
    for key in ("name", "description"):
        _convert("str", table.get(key), key, bad)
    cores = _convert("int", table.get("cores", 1), "cores", bad)
    parts = {name: _build(cls, table.get(name, {}), name, bad) for name, cls in _SECTIONS.items()}
    parts |= {
        name: _build(cls, table[name], name, bad)
        for name, cls in _OPTIONAL.items()
        if name in table
    }
    memories = _build_memories(table.get("memory"), bad)
    technology = _build_technology(table.get("technology"), memories, bad)
    raw_sources = table.get("sources", {})
    sources = cast(dict[str, object], raw_sources) if isinstance(raw_sources, dict) else {}
    texts = {key: text for key, text in sources.items() if isinstance(text, str)}
    if not isinstance(raw_sources, dict) or len(texts) != len(sources):
        bad.append("sources must be a table of texts")
    if not bad:
        texts |= _standard_sources(cast(list[dict[str, str]], table["memory"]), texts)
        chip = d.Chip(
            name=cast(str, table["name"]),
            description=cast(str, table["description"]),
            memories=memories,
            technology=technology,
            sources=texts,
            cores=cast(int, cores),
            **parts,
        )
        bad = contradictions(chip) + _unsourced(chip)
        if not bad:
            return chip
    # a key of the file may hold anything, a newline too
    raise ChipError(f"{place}: {' '.join('; '.join(bad[:20]).split())}")


def _standard_sources(memories: list[dict[str, str]], sources: dict[str, str]) -> dict[str, str]:
    """Return the sources of the memories that name a standard: its own, then the file's.

    A memory that differs from its standard has none here unless the file states one.
    """
    made: dict[str, str] = {}
    for fields in memories:
        key = f"memory.{fields['name']}"
        changed = fields.keys() - {"kind", "standard", "name"}
        if "standard" in fields and (key in sources or not changed):
            text = dram_standard(fields["standard"]).source(changed)
            made[key] = f"{text}; {sources[key]}" if key in sources else text
    return made


def _unsourced(chip: d.Chip) -> list[str]:
    """Return the constants that no entry of [sources] covers."""
    keys = [
        f"{section}.{item.name}"
        for section, cls in _SECTIONS.items()
        for item in dataclasses.fields(cls)
    ]
    keys += [name for name in _OPTIONAL if getattr(chip, name) is not None]
    keys += [f"memory.{memory.name}" for memory in chip.memories]
    return [
        f"sources has no entry for {key}"
        for key in keys
        if not any(key == prefix or key.startswith(prefix + ".") for prefix in chip.sources)
    ]


def parse_chip(text: str, place: str) -> d.Chip:
    """Return the chip that a TOML text describes."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also an integer of 5,000 digits
        raise ChipError(f"{place}: not a TOML file: {' '.join(str(error).split())}") from None
    return chip_from_table(table, place)


def load_chip(name: str | Path) -> d.Chip:
    """Return a preset by name, or the chip of a TOML file by path.

    Raises:
        ChipError: no such preset or file, or a bad file.
    """
    if isinstance(name, str) and name in PRESETS:
        file = resources.files("lepton.chip") / "presets" / f"{name}.toml"
        return parse_chip(file.read_text(encoding="utf-8"), f"{name}.toml")
    path = Path(name)
    if path.suffix != ".toml":
        raise ChipError(f"chip '{name}': must be one of {', '.join(PRESETS)} or a .toml file")
    try:
        if path.exists() and not path.is_file():
            raise ChipError(f"{path}: cannot be read as a chip: it is no regular file")
        if path.stat().st_size > 1 << 20:
            raise ChipError(f"{path}: a chip file must not exceed 1 MiB")
        return parse_chip(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ChipError(f"{path}: cannot be read as a chip: {reason}") from None


def load_dram(standard: str) -> d.Dram:
    """Return the DRAM of one of `DRAM_STANDARDS`, named after it.

    Raises:
        ChipError: no such standard.
    """
    bad: list[str] = []
    memories = _build_memories([{"kind": "dram", "standard": standard, "name": standard}], bad)
    if bad:
        raise ChipError(f"DRAM: {'; '.join(bad)}")
    return cast(d.Dram, memories[0])


def _plain(value: object) -> object:
    """Return a TOML-ready value."""
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else str(value)
    if isinstance(value, StrEnum):
        return value.value
    return list(cast(tuple[str, ...], value)) if isinstance(value, tuple) else value


def _fields(value: Any) -> dict[str, object]:
    """Return a dataclass as a table of plain values."""
    return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}


def chip_to_table(chip: d.Chip) -> dict[str, object]:
    """Return the table from which `chip_from_table` makes an equal chip."""
    table: dict[str, object] = {"name": chip.name, "description": chip.description}
    table["cores"] = chip.cores
    for section in (*_SECTIONS, "technology"):
        table[section] = _fields(getattr(chip, section))
    for section in _OPTIONAL:
        if getattr(chip, section) is not None:
            table[section] = _fields(getattr(chip, section))
    table["memory"] = [
        {"kind": "dram" if isinstance(memory, d.Dram) else "flat", **_fields(memory)}
        for memory in chip.memories
    ]
    table["sources"] = dict(chip.sources)
    return table
