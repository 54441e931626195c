"""Chip files: every fault of a file in one error, and nothing hostile gets further than that."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.chip import (
    DRAM_STANDARDS,
    Dataflow,
    Dram,
    chip_from_table,
    chip_to_table,
    load_chip,
    load_dram,
    parse_chip,
)
from lepton.chip.standards import dram_standard
from lepton.errors import ChipError

FOLDER = resources.files("lepton.chip")
FILE = (FOLDER / "presets" / "edge.toml").read_text(encoding="utf-8")


def _spelled_out(text: str) -> str:
    """Return a chip file with every line of its memory's standard that it does not change."""
    name = re.findall('^standard = "(.*)"$', text, re.MULTILINE)[0]
    standard = (FOLDER / "drams" / f"{name}.toml").read_text(encoding="utf-8")
    lines = standard.partition("[memory]\n")[2].partition("\n[")[0].splitlines()
    memory = text.partition("[[memory]]")[2]
    kept = [line for line in lines if f"\n{line.partition(' = ')[0]} = " not in memory]
    return text.replace(f'standard = "{name}"', "\n".join(kept))


EDGE = _spelled_out(FILE)


def edited(*edits: tuple[str, str]) -> str:
    """Return edge.toml, spelled out, with edits."""
    return _edited(EDGE, *edits)


def _edited(text: str, *edits: tuple[str, str]) -> str:
    """Return a text with each `(line pattern, replacement)` applied to its first match."""
    for pattern, replacement in edits:
        text, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
        assert count == 1, pattern
    return text


def fault(text: str) -> str:
    """Return the text of the ChipError that parsing raises."""
    with pytest.raises(ChipError) as caught:
        parse_chip(text, "my.toml")
    return str(caught.value)


def test_the_file_itself_is_legal() -> None:
    assert parse_chip(FILE, "my.toml") == load_chip("edge")


def test_a_standard_stands_for_the_lines_of_its_file() -> None:
    named, spelled = parse_chip(FILE, "x"), parse_chip(EDGE, "x")
    assert dataclasses.replace(named, sources=spelled.sources) == spelled
    source, own = named.sources["memory.dram"], spelled.sources["memory.dram"]
    assert source.startswith("LPDDR4-3200, JEDEC JESD209-4, ")
    assert "; tFAW: tFAW 40 ns; " in source
    assert source.endswith(f"; {own}")
    assert chip_from_table(chip_to_table(named), "again") == named


def test_what_differs_from_a_standard_has_a_source_of_its_own() -> None:
    change = ('^standard = "lpddr4-3200"', 'standard = "lpddr4-3200"\ntFAW = 48')
    chip = parse_chip(_edited(FILE, change), "x")
    (memory,) = chip.memories
    assert isinstance(memory, Dram)
    assert (memory.tFAW, memory.tRRD_S) == (48, 16)
    source = chip.sources["memory.dram"]
    assert "tFAW" not in source
    assert "; tRRD_S: tRRD 10 ns; " in source
    text = fault(_edited(FILE, change, ('^"memory.dram" = .*', "")))
    assert text == "my.toml: sources has no entry for memory.dram"


@pytest.mark.parametrize("name", DRAM_STANDARDS)
def test_a_standard_alone_is_a_legal_memory(name: str) -> None:
    table = chip_to_table(load_chip("edge"))
    memory = {"kind": "dram", "standard": name, "name": "dram"}
    sources: Any = table["sources"]
    rest = {key: text for key, text in sources.items() if key != "memory.dram"}
    chip = chip_from_table(table | {"memory": [memory], "sources": rest}, "x")
    assert chip.memories == (dataclasses.replace(load_dram(name), name="dram"),)
    assert chip.sources["memory.dram"] == dram_standard(name).source()


def test_unknown_standards() -> None:
    names = "ddr4-3200 or hbm2 or lpddr4-3200 or lpddr5-6400"
    for text in ("'ddr9'", "3", "[]"):
        change = ('^standard = "lpddr4-3200"', f"standard = {text}")
        message = f"my.toml: memory.0.standard must be {names}, not {text}"
        assert fault(_edited(FILE, change)).startswith(message)
    with pytest.raises(ChipError, match=r"DRAM: memory\.0\.standard must be ddr4-3200 or"):
        load_dram("ddr9")
    nano = (FOLDER / "presets" / "nano.toml").read_text(encoding="utf-8")
    text = _edited(nano, ('^kind = "flat"', 'kind = "flat"\nstandard = "hbm2"'))
    assert "memory.0.standard is not a known key" in fault(text)


def test_the_dataflow_is_optional() -> None:
    plain = load_chip("edge").array
    assert (plain.dataflow, plain.overlap) == (Dataflow.WEIGHT_STATIONARY, True)
    options = "rows = 32\ndataflow = 'output-stationary'\noverlap = false"
    chip = parse_chip(edited(("^rows = 32", options)), "my.toml")
    assert (chip.array.dataflow, chip.array.overlap) == (Dataflow.OUTPUT_STATIONARY, False)
    assert chip_from_table(chip_to_table(chip), "again") == chip


def test_dealing_pixels_is_optional() -> None:
    assert not load_chip("edge").array.deals_pixels
    chip = parse_chip(edited(("^rows = 32", "rows = 32\ndeals_pixels = true")), "my.toml")
    assert chip.array.deals_pixels
    assert chip_from_table(chip_to_table(chip), "again") == chip
    for other in ("dataflow = 'output-stationary'", "overlap = false"):
        text = edited(("^rows = 32", f"rows = 32\ndeals_pixels = true\n{other}"))
        message = "array.deals_pixels must be false unless weight-stationary passes overlap"
        assert message in fault(text)


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        ("^rows = 32", "rows = 0", "array.rows must be a whole number above 0, not 0"),
        ("^rows = 32", "rows = -4", "array.rows must be a whole number above 0, not -4"),
        ("^rows = 32", "rows = 3.5", "array.rows must be a whole number above 0, not 3.5"),
        ("^rows = 32", "rows = true", "array.rows must be a whole number above 0, not True"),
        ("^rows = 32", "rows = '32'", "array.rows must be a whole number above 0, not '32'"),
        ("^rows = 32", "", "array.rows is missing"),
        ("^rows = 32", "rows = 32\nrow = 3", "array.row is not a known key"),
        (
            "^lanes = 64",
            f"lanes = {1 << 41}",
            f"vector.lanes must not exceed 65536, which {1 << 41} does",
        ),
        (
            "^clock_mhz = 1000",
            "clock_mhz = '12,8'",
            "array.clock_mhz must be a positive number or a text like '1/8' above 0, not '12,8'",
        ),
        ("^clock_mhz = 1000", "clock_mhz = '1/0'", "array.clock_mhz must be a positive number"),
        ("^clock_mhz = 1000", "clock_mhz = nan", "array.clock_mhz must be a positive number"),
        ("^clock_mhz = 1000", "clock_mhz = inf", "array.clock_mhz must be a positive number"),
        (
            "^issue_cycles = 4",
            "issue_cycles = -1",
            "array.issue_cycles must be a whole number, not",
        ),
        (
            "^rows = 32",
            "rows = 32\ndataflow = 'weights'",
            "array.dataflow must be weight-stationary or output-stationary or input-stationary, "
            "not 'weights'",
        ),
        ("^rows = 32", "rows = 32\ndataflow = 1", "array.dataflow must be weight-stationary or"),
        ("^rows = 32", "rows = 32\noverlap = 1", "array.overlap must be true or false, not 1"),
        (r"^\[vector\]", "[vectors]", "vectors is not a known key"),
        ('^name = "edge"', "name = 3", "name must be a text, not 3"),
        ('^name = "edge"', "", "name must be a text, not None"),
        ('^program = "dram"', 'program = ""', "placement.program must be a text, not ''"),
        (
            "^activations = .*",
            "activations = 'dram'",
            "placement.activations must be a list of names, not 'dram'",
        ),
        ("^activations = .*", "activations = []", "placement.activations must be a list of names"),
        ("^activations = .*", "activations = [1]", "placement.activations must be a list of names"),
        ('^kind = "dram"', 'kind = "sram"', "memory.0.kind must be 'dram' or 'flat', not 'sram'"),
        ('^kind = "dram"', "", "memory.0.kind must be 'dram' or 'flat', not None"),
        ("^array = .*", "", "sources has no entry for array.rows"),
        ('^"memory.dram" = .*', "", "sources has no entry for memory.dram"),
        ("^array = .*", "array = 3", "sources must be a table of texts"),
    ],
)
def test_bad_keys_and_values(pattern: str, replacement: str, message: str) -> None:
    text = fault(edited((pattern, replacement)))
    assert text.startswith("my.toml: ")
    assert message in text


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (
            '^constants = "dram"',
            'constants = "flash"',
            "placement.constants must name a memory (dram), not 'flash'",
        ),
        (
            "^activations = .*",
            'activations = ["dram", "x"]',
            "placement.activations must name memories (dram), not 'x'",
        ),
        ("^banks = 16", "banks = 17", "scratchpad.banks must divide scratchpad.size_kib x 1024"),
        (
            "^size_kib = 1024",
            "size_kib = 262145",
            "scratchpad and weight buffer must not exceed 256 MiB, the address range",
        ),
        (
            "^size_kib = 128\nbanks",
            "size_kib = 65537\nbanks",
            "accumulators.size_kib must not exceed 65536, the address range",
        ),
        ("^load_channels = 2", "load_channels = 9", "dma channels must not exceed 8 of a kind"),
        (
            "^size_mib = 4096",
            "size_mib = 2097152",
            "memory.0.size_mib must not exceed 1048576, the address range",
        ),
        (
            '^mapping = "rorababgcoch"',
            'mapping = "rorarabgcoch"',
            "memory.0.mapping must order ro, ra, ba, bg, co and ch, not 'rorarabgcoch'",
        ),
        ("^channels = 1", "channels = 3", "memory.0.channels must be a power of two, not 3"),
        (
            "^row_bytes = 8192",
            "row_bytes = 16",
            "memory.0.row_bytes must be a multiple of access_bytes",
        ),
        (
            "^banks_per_group = 8",
            "banks_per_group = 128",
            "memory.0 must not have more than 16 bank groups and 64 banks in a channel",
        ),
        (
            "^tREFI = 6246",
            "tREFI = 1089",
            "memory.0.tREFI / ranks must be at least 2 (tRFC + tRAS + tRP)",
        ),
        (
            "^commands_per_cycle = 1",
            "commands_per_cycle = 3",
            "memory.0.commands_per_cycle must be 1 or 2, not 3",
        ),
        ("^banks = 4", "banks = 3", "accumulators.banks must divide accumulators.size_kib x 256"),
        (
            "^size_kib = 128\ndecoder",
            "size_kib = 1\ndecoder",
            "",
        ),
        ("^columns = 32", "columns = 65536", "accumulators.size_kib must hold a row of the array"),
        ("^rows = 32", "rows = 32769", "the array must not exceed 1048576 MACs"),
        *(
            (
                "^entropy_lanes = 32",
                f"entropy_lanes = {lanes}",
                "weight_buffer.entropy_lanes must be 0 or a power of two up to "
                f"decoder_bytes_per_cycle, not {lanes}",
            )
            for lanes in (3, 64)
        ),
        (
            "^clock_mhz = 1000",
            "clock_mhz = '999.999983'",
            "the clocks must have a common base tick above 1 fs: choose rounder clock_mhz",
        ),
    ],
)
def test_contradictions(pattern: str, replacement: str, message: str) -> None:
    text = edited((pattern, replacement))
    if not message:
        assert parse_chip(text, "my.toml").weight_buffer.elements == 1024
    else:
        assert message in fault(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lanes": 5}, "sparsity.lanes must divide array.rows, not 5"),
        ({"window": 1, "zero_blocks": False}, "sparsity.window must be above 1 unless zero_blocks"),
        ({"window": 17}, "sparsity.window must not exceed 16"),
        ({"lanes": 32, "window": 9}, "sparsity.lanes x window must not exceed 256 operands"),
        ({"feed_words": 6}, "sparsity.feed_words must be a multiple of array.feed_words"),
        ({"lanes": 0}, "sparsity.lanes must be a whole number above 0, not 0"),
        ({"zero_blocks": 1}, "sparsity.zero_blocks must be true or false, not 1"),
        ({"depth": 1}, "sparsity.depth is not a known key"),
    ],
)
def test_options_for_sparse_weights(changes: dict[str, object], message: str) -> None:
    table = chip_to_table(load_chip("edge-sparse"))
    sparsity: Any = table["sparsity"]
    with pytest.raises(ChipError, match=re.escape(message)):
        chip_from_table(table | {"sparsity": sparsity | changes}, "x")


def test_skipping_zeros_needs_weight_stationary_passes_and_a_source() -> None:
    table = chip_to_table(load_chip("edge-sparse"))
    array: Any = table["array"]
    sources: Any = table["sources"]
    with pytest.raises(ChipError, match="sparsity must be left out unless weight-stationary"):
        chip_from_table(table | {"array": array | {"overlap": False}}, "x")
    del sources["sparsity"]
    with pytest.raises(ChipError, match="sources has no entry for sparsity"):
        chip_from_table(table, "x")
    del table["sparsity"]
    assert chip_from_table(table, "x").sparsity is None


def test_a_weight_buffer_must_hold_the_array() -> None:
    text = edited(
        ("^rows = 32", "rows = 64"), ("^size_kib = 128\ndecoder", "size_kib = 1\ndecoder")
    )
    assert "weight_buffer.size_kib must hold one array of weights" in fault(text)


def test_memory_names_differ_and_are_few() -> None:
    table = chip_to_table(load_chip("edge"))
    memories: Any = table["memory"]
    with pytest.raises(ChipError, match="memory names must differ"):
        chip_from_table(table | {"memory": memories * 2}, "x")
    for count in (0, 9):
        with pytest.raises(ChipError, match="memory must be 1 to 8"):
            chip_from_table(table | {"memory": memories * count}, "x")


def test_all_faults_come_in_one_error() -> None:
    text = fault(
        edited(
            ("^rows = 32", "rows = 'many'"),
            ("^lanes = 64", "lines = 64"),
            ("^tRP = 29", "tRP = 0"),
            ('^kind = "dram"', 'kind = "dram"\ncolour = "red"'),
        )
    )
    for part in (
        "array.rows must be",
        "vector.lines is not a known key",
        "vector.lanes is missing",
        "memory.0.tRP must be",
        "memory.0.colour is not a known key",
    ):
        assert part in text
    assert "\n" not in text


def test_texts_and_floats_name_exact_rationals() -> None:
    chip = parse_chip(edited(("^clock_mhz = 1000", "clock_mhz = '1000/8'")), "x")
    assert chip.cycles_per_second == 125_000_000
    assert (
        parse_chip(edited(("^clock_mhz = 1000", "clock_mhz = 0.1")), "x").cycles_per_second
        == 100_000
    )


@pytest.mark.parametrize(
    "table", [{}, {"memory": 3}, {"array": []}, {"memory": [3]}, {"sources": 3}, {"array": {"": 1}}]
)
def test_tables_of_the_wrong_shape(table: dict[str, Any]) -> None:
    with pytest.raises(ChipError, match=r"^x: "):
        chip_from_table(table, "x")


def test_toml_that_is_none() -> None:
    assert fault("[array").startswith("my.toml: not a TOML file: ")
    assert fault("x = " + "[" * 100_000).startswith("my.toml: not a TOML file: ")


def test_unknown_names_and_unreadable_files(tmp_path: Path) -> None:
    for name in ("no-such-chip", str(tmp_path / "missing.toml"), str(tmp_path)):
        with pytest.raises(ChipError) as caught:
            load_chip(name)
        assert name in str(caught.value)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00" * 100)
    with pytest.raises(ChipError, match=r"binary\.toml"):
        load_chip(str(binary))


def test_a_chip_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(FILE, encoding="utf-8")
    assert load_chip(str(path)) == load_chip("edge")


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        ("^clock_mhz = 1000", "clock_mhz = 1e-9", "array.clock_mhz must be at least 0.001"),
        ("^clock_mhz = 1000", "clock_mhz = '1/3000000'", "array.clock_mhz must be at least 0.001"),
        ("^clock_mhz = 1000", "clock_mhz = '1e9999999'", "array.clock_mhz must be a positive"),
        ("^clock_mhz = 1000", "clock_mhz = '1/0'", "array.clock_mhz must be a positive"),
        ("^clock_mhz = 1000", "clock_mhz = ' 1'", "array.clock_mhz must be a positive"),
        ("^clock_mhz = 1000", "clock_mhz = '999999999/7'", "must not exceed 2097152"),
        ("^queue_depth = 16", f"queue_depth = {1 << 40}", "control.queue_depth must not exceed"),
        (
            "^queue_depth = 16",
            "queue_depth = 1" + "0" * 4000,
            "control.queue_depth must not exceed",
        ),
        ("^queue_depth = 16", "queue_depth = 1" + "0" * 5000, "not a TOML file"),
        ("^banks = 16", "banks = 64", "scratchpad.banks must not exceed 62, which 64 does"),
        ("^lanes = 64", r'"a\\nb" = 64', "vector.a b is not a known key"),
    ],
)
def test_values_that_break_later(pattern: str, replacement: str, message: str) -> None:
    text = fault(edited((pattern, replacement)))
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize("clock", ["1/3", "1000/3", "500/7", "0.125"])
def test_clocks_are_exact_rationals(clock: str) -> None:
    chip = parse_chip(edited(("^clock_mhz = 1000", f"clock_mhz = '{clock}'")), "x")
    for mhz in (chip.array.clock_mhz, chip.memories[0].clock_mhz):
        assert chip.ticks(mhz) * mhz * 1_000_000 == chip.ticks_per_second
    ratio = chip.memories[0].clock_mhz / Fraction(clock)
    assert Fraction(chip.ticks(Fraction(clock)), chip.ticks(chip.memories[0].clock_mhz)) == ratio


@given(st.text())
def test_any_text_is_a_chip_or_a_chip_error(text: str) -> None:
    with pytest.raises(ChipError):
        parse_chip(text, "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def _key_paths() -> list[tuple[str, ...]]:
    table = chip_to_table(load_chip("edge"))
    paths: list[tuple[str, ...]] = [(key,) for key in table]
    for section, value in table.items():
        if isinstance(value, dict):
            paths += [(section, key) for key in value]
    memories: Any = table["memory"]
    return paths + [("memory", key) for key in memories[0]]


def _replaced(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    table: dict[str, Any] = chip_to_table(load_chip("edge"))
    if len(path) == 1:
        return table | {path[0]: value}
    if path[0] == "memory":
        return table | {"memory": [table["memory"][0] | {path[1]: value}]}
    return table | {path[0]: table[path[0]] | {path[1]: value}}


@given(path=st.sampled_from(_key_paths()), value=JSON)
def test_any_value_anywhere_makes_a_chip_or_a_chip_error(path: tuple[str, ...], value: Any) -> None:
    _accepts_or_refuses(lambda: chip_from_table(_replaced(path, value), "x"))


def _accepts_or_refuses(make: Callable[[], Any]) -> None:
    try:
        chip = make()
    except ChipError as error:
        assert str(error).startswith("x: ")
    else:
        assert chip_from_table(chip_to_table(chip), "x") == chip


def test_a_dram_holds_a_row_of_every_bank() -> None:
    edits = ("^size_mib = 4096", "size_mib = 1"), ("^row_bytes = 8192", "row_bytes = 262144")
    assert "memory.0.size_mib must hold a row of every bank" in fault(edited(*edits))


def test_the_accesses_in_flight_are_bounded() -> None:
    edits = ("^outstanding = 16", "outstanding = 4096"), ("^burst_bytes = 128", "burst_bytes = 512")
    text = "dma.outstanding bursts must not exceed 16384 accesses of memory.0"
    assert text in fault(edited(*edits))
