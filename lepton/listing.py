"""Assembly listings of whole programs: text from which the same program file can be made again.

A line is an instruction, or a directive:

* `.manifest JSON` everything but instructions and bytes (absent in hand-written code);
* `.chip NAME` the chip, for hand-written code;
* `.operator N` the operator of the instructions that follow;
* `.constants BASE64` and `.host N BASE64`, continued by further lines of the same kind.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lepton.chip import PRESETS, Chip, load_chip
from lepton.errors import EncodingError
from lepton.isa import assemble_line, disassemble_one, encode_all
from lepton.isa.declaration import Instruction
from lepton.program import (
    Operator,
    Program,
    Region,
    one_line,
    program_from_parts,
    program_manifest,
    refuse_special,
)

__all__ = ["listing", "parse_listing"]

_LINE_BYTES = 57


def _encoded(directive: str, content: bytes) -> Iterator[str]:
    """Yield the lines of a directive with bytes."""
    for start in range(0, len(content), _LINE_BYTES):
        yield f"{directive} {base64.b64encode(content[start : start + _LINE_BYTES]).decode()}"


def listing(program: Program, code_only: bool = False) -> str:
    """Return the text of a program; `code_only` leaves out what only the assembler needs."""
    lines = [
        f"; {one_line(program.source)} for chip {one_line(program.chip.name)}, "
        f"{len(program.decoded)} instructions"
    ]
    starts = {region.start: n for n, region in enumerate(program.regions) if region.device == "npu"}
    operator = -1
    for index, item in enumerate(program.decoded):
        if index in starts:
            lines.append(f"; region {starts[index]}")
        if int(program.operator_of[index]) != operator:
            operator = int(program.operator_of[index])
            name = program.operators[operator].name
            lines.append(f".operator {operator} ; {one_line(name)}")
        lines.append(disassemble_one(item))
    if not code_only:
        lines.append(f".manifest {json.dumps(program_manifest(program), separators=(',', ':'))}")
        lines += _encoded(".constants", program.constants.tobytes())
        for number, model in enumerate(program.host_models):
            lines += _encoded(f".host {number}", model)
    return "\n".join(lines) + "\n"


@dataclass
class _Parts:
    """What the lines have given so far."""

    instructions: list[Instruction] = field(default_factory=list[Instruction])
    operator_of: list[int] = field(default_factory=list[int])
    operator: int = 0
    manifest: dict[str, object] | None = None
    chip: str | None = None
    constants: bytearray = field(default_factory=bytearray)
    hosts: dict[int, bytearray] = field(default_factory=dict[int, bytearray])


def _number(text: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise EncodingError(f"{where}: expected a number, not '{text[:40]}'")
    return int(text)


def _bytes(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise EncodingError(f"{where}: not base64") from None


def _directive(parts: _Parts, line: str, where: str) -> None:
    """Take one directive."""
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name == ".operator":
        parts.operator = _number(rest.split(";", 1)[0].strip(), where)
    elif name == ".chip":
        parts.chip = rest.split(";", 1)[0].strip()
    elif name == ".constants":
        parts.constants += _bytes(rest, where)
    elif name == ".host":
        number, _, content = rest.partition(" ")
        parts.hosts.setdefault(_number(number, where), bytearray()).extend(_bytes(content, where))
    elif name == ".manifest":
        try:
            parts.manifest = dict(json.loads(rest))
        except (ValueError, TypeError, RecursionError):
            raise EncodingError(f"{where}: .manifest must be a JSON object") from None
    else:
        raise EncodingError(f"{where}: no directive is called '{name[:40]}'")


def parse_listing(text: str, chip: Chip | None = None) -> Program:
    """Return the program of a listing, checked like a loaded file.

    Args:
        text: the listing.
        chip: for code without `.manifest` and `.chip`, of which it must not differ; `edge` if
            nothing names one.

    Raises:
        EncodingError: naming the line; or ProgramError for an inconsistent whole.
    """
    parts = _Parts()
    for number, raw in enumerate(text.splitlines(), start=1):
        line, where = raw.strip(), f"line {number}"
        if line.startswith("."):
            _directive(parts, line, where)
            continue
        instruction = assemble_line(line, where)
        if instruction is not None:
            parts.instructions.append(instruction)
            parts.operator_of.append(parts.operator)
    if parts.manifest is None:
        if not parts.instructions:
            raise EncodingError("the text holds no instructions")
        return _hand_written(parts, _chosen(parts, chip))
    program = program_from_parts(
        parts.manifest,
        encode_all(parts.instructions),
        np.array(parts.operator_of, np.uint32),
        np.frombuffer(bytes(parts.constants), np.uint8),
        tuple(bytes(parts.hosts.get(n, b"")) for n in range(len(parts.hosts))),
    )
    _refuse_another(".manifest", program.chip, chip)
    return program


def _chosen(parts: _Parts, chip: Chip | None) -> Chip:
    """Return the chip of code without `.manifest`."""
    if parts.chip is None:
        return chip or load_chip("edge")
    if parts.chip not in PRESETS:
        refuse_special(Path(parts.chip))
    named = load_chip(parts.chip)
    _refuse_another(".chip", named, chip)
    return named


def _refuse_another(directive: str, named: Chip, chip: Chip | None) -> None:
    """Raise EncodingError if the caller's chip is not the one that the text names."""
    if chip is not None and chip != named:
        raise EncodingError(f"{directive} names chip '{named.name}', not '{chip.name}'")


def _hand_written(parts: _Parts, chip: Chip) -> Program:
    """Return a program of instructions and constants alone: one region, no tensors."""
    count = max(parts.operator_of, default=0) + 1
    if count > 1 << 20:
        raise EncodingError(f".operator must be below {1 << 20}, not {count - 1}")
    code = encode_all(parts.instructions)
    same = chip.placement.program == chip.placement.constants
    return Program(
        source="assembly",
        golden="onnx",
        chip=chip,
        instructions=code,
        operator_of=np.array(parts.operator_of, np.uint32),
        constants=np.frombuffer(bytes(parts.constants), np.uint8),
        program_address=-(-len(parts.constants) // 4096) * 4096 if same else 0,
        constants_address=0,
        tensors=(),
        inputs=(),
        outputs=(),
        operators=tuple(
            Operator(f"assembly {n}", "assembly", "npu", 0, 0, 0, "") for n in range(count)
        ),
        regions=(Region("npu", 0, len(parts.instructions), (), (), -1),) if code else (),
        host_models=(),
    )
