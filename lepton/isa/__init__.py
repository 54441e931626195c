"""The instruction set: declarations, encode, decode, text and manual."""

import lepton.isa.instructions  # pyright: ignore[reportUnusedImport]  # noqa: F401 (fills the registry)
from lepton.isa.declaration import (
    BY_MNEMONIC,
    REGISTRY,
    SEMAPHORES,
    WORD_BYTES,
    Field,
    Instruction,
    Unit,
)
from lepton.isa.encoding import (
    COLUMNS,
    decode,
    decode_all,
    encode_all,
    encode_table,
    records,
    records_of,
    with_semaphores,
)
from lepton.isa.manual import manual
from lepton.isa.stream import pack, unpack
from lepton.isa.text import assemble, assemble_line, disassemble, disassemble_one

VERSION = 1

__all__ = [
    "BY_MNEMONIC",
    "COLUMNS",
    "REGISTRY",
    "SEMAPHORES",
    "VERSION",
    "WORD_BYTES",
    "Field",
    "Instruction",
    "Unit",
    "assemble",
    "assemble_line",
    "decode",
    "decode_all",
    "disassemble",
    "disassemble_one",
    "encode_all",
    "encode_table",
    "manual",
    "pack",
    "records",
    "records_of",
    "unpack",
    "with_semaphores",
]
