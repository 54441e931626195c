"""The program file: saved and loaded equal, and every damage refused in one sentence."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from lepton.errors import ProgramError
from lepton.isa import encode_all
from lepton.isa import instructions as isa
from lepton.program import (
    Arena,
    Operator,
    Program,
    ProgramTensor,
    Region,
    atomic_write,
    load_program,
    program_manifest,
)
from tests.programs import hand_program, tensor

TEXT = """
load memory=0 scratchpad=0x40 row_bytes=16 rows=1 planes=1 signal=0x1
store wait=0x1 memory=0 address=0x100 scratchpad=0x40 row_bytes=16 rows=1 planes=1
halt
"""


def small() -> Program:
    """Return a program with an NPU region, a host region, constants and three tensors."""
    made = hand_program(
        TEXT,
        constants=bytes(range(40)),
        inputs=(tensor("x", (1, 4, 4), 0),),
        outputs=(tensor("y", (1, 4, 4), 0x100),),
    )
    host = ProgramTensor("z", (1, 4), "float32", None, 0, -1, 0)
    return dataclasses.replace(
        made,
        tensors=(*made.tensors, host),
        outputs=("z",),
        operators=(*made.operators, Operator("net/last", "Erf", "host", 0, 0, 0, "no rule")),
        regions=(*made.regions, Region("host", 0, 0, ("y",), ("z",), 0)),
        host_models=(b"not really a graph",),
        arenas=(Arena("scratchpad", 80, 16), Arena("dram", 272, 32)),
    )


PACKED = small()
SMALL = dataclasses.replace(
    PACKED,
    chip=dataclasses.replace(
        PACKED.chip, control=dataclasses.replace(PACKED.chip.control, packed=False)
    ),
)
CONTENT = SMALL.to_bytes()


def fields_of(program: Program) -> dict[str, object]:
    """Return the parts of a program as values that compare."""
    found: dict[str, object] = {}
    for item in dataclasses.fields(program):
        value = getattr(program, item.name)
        found[item.name] = value.tolist() if isinstance(value, np.ndarray) else value
    return found


def fault(content: bytes) -> str:
    """Return the text of the ProgramError that loading raises."""
    with pytest.raises(ProgramError) as caught:
        load_program(content)
    text = str(caught.value)
    assert text.startswith("program: ")
    assert "\n" not in text
    return text


def resealed(
    edit: dict[str, Any] | None = None,
    arrays: dict[str, Any] | None = None,
    replaced: dict[str, str] | None = None,
    **top: Any,
) -> bytes:
    """Return the file with entries, arrays or text replaced and the checksums made anew."""
    parts: dict[str, Any] = {
        name: array for name, array in load(CONTENT).items() if name != "manifest"
    }
    parts |= arrays or {}
    sha = hashlib.sha256()
    for name in sorted(parts):
        array = parts[name]
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    manifest = json.loads(json.loads(load(CONTENT)["manifest"].tobytes())["text"])
    manifest |= {"sha256": sha.hexdigest()} | (edit or {}) | top
    text = json.dumps(manifest)
    for old, new in (replaced or {}).items():
        text = text.replace(old, new)
    outer = json.dumps({"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()})
    return save(parts | {"manifest": np.frombuffer(outer.encode(), np.uint8)})


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "small.lepton"
    SMALL.save(path)
    again = load_program(path)
    assert fields_of(again) == fields_of(SMALL)
    assert again.to_bytes() == CONTENT == path.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["small.lepton"]


def test_round_trip_without_instructions_and_constants() -> None:
    empty = hand_program("", inputs=(tensor("x", (1,), 0),), outputs=())
    assert fields_of(load_program(empty.to_bytes())) == fields_of(empty)


def test_resealing_changes_nothing_by_itself() -> None:
    assert fields_of(load_program(resealed())) == fields_of(SMALL)


def test_derived_values() -> None:
    assert [item.mnemonic for item in SMALL.decoded] == ["load", "store", "halt"]
    assert SMALL.tensor_by_name["z"].size_bytes == 16
    assert SMALL.chip.memories[SMALL.constants_memory].name == "flash"
    assert SMALL.chip.memories[SMALL.program_memory].name == "flash"


def test_a_program_shows_itself_in_one_line() -> None:
    program = dataclasses.replace(
        small(), source="hand\x1b[2J.onnx", constants=np.zeros(4096, np.uint8)
    )
    assert repr(program) == (
        f"<Program of hand?[2J.onnx for chip {program.chip.name}: {len(program.decoded)} "
        f"instructions, 4096 bytes of constants, 1 NPU and 1 host regions>"
    )


def test_a_trace_shows_itself_in_one_line() -> None:
    from lepton.simulator import simulate_timing

    trace = simulate_timing(hand_program("halt"))
    assert repr(trace) == f"<Trace of 1 instructions in {trace.cycles} cycles, 1 NPU regions>"


def test_saving_replaces_a_file_and_keeps_to_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "p.lepton"
    path.write_bytes(b"old")
    SMALL.save(path)
    assert path.read_bytes() == CONTENT
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("name", ["missing/p.lepton", "folder", "x" * 300])
def test_an_unwritable_path_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(ProgramError, match="cannot be written: "):
        SMALL.save(tmp_path / name)
    assert os.listdir(tmp_path) == ["folder"]


def test_a_failure_while_replacing_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.lepton"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ProgramError, match=r"p\.lepton: cannot be written: No space left"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["p.lepton"]


def test_unreadable_paths(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ProgramError, match="cannot be read: "):
            load_program(path)


def test_an_oversized_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.lepton"
    with path.open("wb") as file:
        file.truncate((4 << 30) + 1)  # sparse: takes no room
    with pytest.raises(ProgramError, match=r"huge\.lepton: a program file must not exceed 4 GiB"):
        load_program(path)


def test_every_truncation_is_refused() -> None:
    for size in [*range(0, 64), *range(64, len(CONTENT), 37), len(CONTENT) - 1]:
        fault(CONTENT[:size])


def test_trailing_bytes_are_refused() -> None:
    fault(CONTENT + b"\0")


@given(at=st.integers(0, 8 * len(CONTENT) - 1))
def test_every_flipped_bit_is_refused(at: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[at // 8] ^= 1 << at % 8
    fault(bytes(damaged))


def test_every_flipped_header_bit_is_refused() -> None:
    size = 8 + int.from_bytes(CONTENT[:8], "little")
    for at in range(8 * size):
        damaged = bytearray(CONTENT)
        damaged[at // 8] ^= 1 << at % 8
        fault(bytes(damaged))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes) -> None:
    fault(content)


def test_programs_of_equal_chips_share_one() -> None:
    chip = load_program(CONTENT).chip
    assert load_program(resealed()).chip is chip
    renamed = dataclasses.replace(SMALL, chip=dataclasses.replace(chip, name="other"))
    assert load_program(renamed.to_bytes()).chip.name == "other"
    assert load_program(CONTENT).chip is chip


def test_a_chip_too_deep_to_be_written_out_again() -> None:
    limit = sys.getrecursionlimit()
    for depth in range(limit - 100, limit, 5):
        text = "[" * depth + "]" * depth
        fault(resealed({"chip": "deep"}, replaced={'"deep"': text}))


def test_another_version() -> None:
    text = fault(resealed(version=2))
    assert text == "program: program format version 2 is not 1: compile the model again"
    fault(resealed(format="other"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"golden": "torch"}, "the manifest is inconsistent"),
        ({"golden": []}, "the manifest is inconsistent"),
        ({"source": 3}, "the manifest is inconsistent"),
        ({"inputs": "x"}, "the manifest is inconsistent"),
        ({"inputs": [3]}, "the manifest is inconsistent"),
        ({"inputs": ["w"]}, "'w' is listed as an input or output but does not exist"),
        ({"outputs": ["w"]}, "'w' is listed as an input or output but does not exist"),
        ({"program_address": -1}, "the manifest is inconsistent"),
        ({"program_address": True}, "the manifest is inconsistent"),
        ({"program_address": 1.0}, "the manifest is inconsistent"),
        ({"program_address": 64 << 20}, "'program' ends at 0x40000c0, beyond the 0x4000000"),
        ({"constants_address": (64 << 20) - 39}, "'constants' ends at 0x4000001, beyond"),
        ({"constants_address": 1 << 48}, "the manifest is inconsistent"),
        ({"tensors": None}, "the manifest is inconsistent"),
        ({"tensors": {"a": 1}}, "the manifest is inconsistent"),
        ({"regions": [3]}, "the manifest is inconsistent"),
        ({"operators": [{}]}, "the manifest is inconsistent"),
        ({"arenas": None}, "the manifest is inconsistent"),
        ({"arenas": [{"memory": "sram", "peak_bytes": -1, "bound_bytes": 0}]}, "inconsistent"),
        ({"arenas": [{"memory": 3, "peak_bytes": 1, "bound_bytes": 1}]}, "inconsistent"),
        ({"operators": []}, "an instruction names an operator that does not exist"),
        ({"chip": []}, ""),
        ({"chip": {}}, "embedded chip: name must be a text, not None"),
        ({"regions": []}, "the NPU regions must cover the instructions in order"),
    ],
)
def test_inconsistent_manifests(edit: dict[str, Any], message: str) -> None:
    assert message in fault(resealed(edit))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"name": "y"}, "two tensors have the same name"),
        ({"memory": 2}, "tensor 'x' is in memory 2, which is not"),
        ({"address": (2 << 20) - 15}, "'x' ends at 0x200001, beyond the 0x200000 bytes of memory"),
        ({"shape": [1 << 20, 1 << 20]}, "the manifest is inconsistent"),
        ({"shape": [1] * 17}, "the manifest is inconsistent"),
        ({"shape": [0]}, "the manifest is inconsistent"),
        ({"shape": [1 << 30]}, "'x' ends at 0x40000000, beyond"),
        ({"shape": 3}, "the manifest is inconsistent"),
        ({"dtype": "object"}, "the manifest is inconsistent"),
        ({"dtype": []}, "the manifest is inconsistent"),
        ({"scale": "1"}, "the manifest is inconsistent"),
        ({"scale": float("nan")}, "the manifest is inconsistent"),
        ({"scale": float("inf")}, "the manifest is inconsistent"),
        ({"scale": 10**400}, "the manifest is inconsistent"),
        ({"zero_point": 0.5}, "the manifest is inconsistent"),
        ({"memory": -2}, "the manifest is inconsistent"),
        ({"memory": 1, "address": 0x1000}, "'x' overlaps the constants"),
        ({"memory": 1, "address": 0x1000 - 15}, "'x' overlaps the constants"),
        ({"memory": 1, "address": 0x1000BF}, "'x' overlaps the program"),
        ({"name": "\ud800"}, "the manifest is inconsistent"),
    ],
)
def test_inconsistent_tensors(edit: dict[str, Any], message: str) -> None:
    first, *others = [dataclasses.asdict(item) for item in SMALL.tensors]
    assert message in fault(resealed(tensors=[first | edit, *others]))


@pytest.mark.parametrize(
    ("index", "edit", "message"),
    [
        (0, {"device": "gpu"}, "the manifest is inconsistent"),
        (0, {"start": 1}, "the NPU regions must cover the instructions in order"),
        (0, {"stop": 2}, "the NPU regions must cover the instructions in order"),
        (0, {"stop": 4}, "the NPU regions must cover the instructions in order"),
        (0, {"stop": 0}, "the NPU regions must cover the instructions in order"),
        (0, {"inputs": ["w"]}, "a region uses tensor 'w', which does not exist"),
        (1, {"outputs": ["w"]}, "a region uses tensor 'w', which does not exist"),
        (1, {"host_model": 1}, "a host region names a graph that does not exist"),
        (1, {"host_model": -1}, "a host region names a graph that does not exist"),
    ],
)
def test_inconsistent_regions(index: int, edit: dict[str, Any], message: str) -> None:
    regions = [dataclasses.asdict(item) for item in SMALL.regions]
    regions[index] |= edit
    assert message in fault(resealed(regions=regions))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"operator_of": np.zeros(2, np.uint32)}, "operator_of must have one entry per instr"),
        ({"operator_of": np.zeros(3, np.int32)}, "array 'operator_of' must be a flat uint32 array"),
        ({"constants": np.zeros((2, 2), np.uint8)}, "array 'constants' must be a flat uint8 array"),
        ({"instructions": np.zeros(65, np.uint8)}, "ends inside a word, 1 bytes too many"),
        ({"instructions": np.zeros(192, np.uint8)}, "offset 0x0: no instruction has opcode 0x00"),
        ({"host.7": np.zeros(1, np.uint8)}, "the manifest is inconsistent"),
        (
            {"instructions": np.frombuffer(encode_all([isa.Halt()] * 4), np.uint8)},
            "operator_of must have one entry per instruction",
        ),
    ],
)
def test_inconsistent_arrays(arrays: dict[str, Any], message: str) -> None:
    assert message in fault(resealed(arrays=arrays))


def test_a_packed_program_is_smaller_and_the_same() -> None:
    again = load_program(PACKED.to_bytes())
    assert fields_of(again) == fields_of(PACKED)
    assert again.instructions == SMALL.instructions
    assert len(again.stream) < len(SMALL.stream) == len(SMALL.instructions)


def test_packed_streams_that_are_cut_or_longer_than_need_be() -> None:
    chip = json.loads(json.dumps(program_manifest(PACKED)["chip"]))
    stream = np.frombuffer(PACKED.stream, np.uint8)
    plain = np.frombuffer(PACKED.instructions, np.uint8)
    for found, message in (
        (stream[:-1], "the packed instruction stream ends inside an instruction"),
        (plain, "the packed instruction stream is not in its shortest form"),
    ):
        assert message in fault(resealed(arrays={"instructions": found}, chip=chip))


def test_missing_arrays_and_manifest() -> None:
    parts = load(CONTENT)
    manifest = parts.pop("manifest")
    assert "it has no readable manifest" in fault(save(parts))
    for text in (b"3", b"[]", b'{"text": 3}', b'{"text": "{}"}', b"[" * 100_000):
        made = save(parts | {"manifest": np.frombuffer(text, np.uint8)})
        assert "it has no readable manifest" in fault(made)
    del parts["constants"]
    assert "checksum of the contents" in fault(save(parts | {"manifest": manifest}))


def test_damage_says_which_checksum() -> None:
    parts = load(CONTENT)
    constants = parts["constants"].copy()
    constants[0] ^= 1
    assert "the checksum of the contents does not match" in fault(
        save(parts | {"constants": constants})
    )
    manifest = parts["manifest"].tobytes().replace(b"hand.onnx", b"hand.onny")
    assert "the checksum of the manifest does not match" in fault(
        save(parts | {"manifest": np.frombuffer(manifest, np.uint8)})
    )


def test_a_file_names_itself_in_its_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.lepton"
    path.write_bytes(b"not a program")
    with pytest.raises(ProgramError) as caught:
        load_program(path)
    assert str(caught.value).startswith(f"{path}: not a Lepton program")
