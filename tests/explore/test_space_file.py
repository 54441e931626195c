"""Space files: values of parameters, and every fault with its line."""

from __future__ import annotations

import tomllib
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.chip import chip_from_table, chip_to_table, load_chip
from lepton.errors import ChipError, InputError
from lepton.explore import SPACES, load_space, parse_space
from lepton.explore.lines import key_lines
from lepton.explore.metrics import METRICS

GOOD = """\
base = "edge"
objectives = ["latency_ms", "area_mm2"]

[parameters]
array.rows = [16, 32]                                   # rows
array.clock_mhz = { from = 500, to = 1000, step = 250 }
"scratchpad.size_kib" = { from = 256, to = 2048, factor = 2 }
scratchpad.port_bytes = { follows = "array.rows" }
memory.dram.channels = { from = 1, to = 4, count = 3 }
compile.optimize = ["latency", "energy"]

[constraints]
area_mm2 = { at_most = 3 }

[[workload]]
model = "digits"
weight = 2

[[workload]]
model = "other.tflite"
"""


def _refused(text: str) -> str:
    with pytest.raises(InputError) as refused:
        parse_space(text, "s.toml")
    return str(refused.value)


def _with(line: str, at: str) -> str:
    """Return the good file with one line in place of the one that begins so."""
    lines = GOOD.splitlines()
    number = next(n for n, old in enumerate(lines) if old.startswith(at))
    return "\n".join([*lines[:number], line, *lines[number + 1 :]])


def test_values() -> None:
    space = parse_space(GOOD, "s.toml", Path("/models"))
    assert [parameter.values for parameter in space.parameters] == [
        (16, 32), (500, 750, 1000), (256, 512, 1024, 2048), (1, 2, 4), ("latency", "energy"),
    ]  # fmt: skip
    assert space.size == 2 * 3 * 4 * 3 * 2
    assert [w.model.name for w in space.workloads] == ["digits.onnx", "other.tflite"]
    assert space.workloads[1].model == Path("/models/other.tflite")
    assert space.workloads[0].weight == 2
    assert str(space.constraints[0]) == "area_mm2 <= 3"


def test_chips_are_those_of_edited_files() -> None:
    """Every point's chip is what a chip file with the values written into it gives."""
    space = parse_space(GOOD, "s.toml")
    everything = space.points(np.arange(space.size))
    assert len({tuple(point) for point in everything.tolist()}) == space.size
    np.testing.assert_array_equal(space.numbers(everything), np.arange(space.size))
    for point in everything[::7].tolist():
        rows, clock, kib, channels, optimize = (
            p.values[i] for p, i in zip(space.parameters, point, strict=True)
        )
        table: dict[str, Any] = chip_to_table(load_chip("edge"))
        table["array"] |= {"rows": rows, "clock_mhz": clock}
        table["scratchpad"] |= {"size_kib": kib, "port_bytes": rows}
        table["memory"][0]["channels"] = channels
        made = space.chip(point)
        table["sources"] = made.sources
        assert made == chip_from_table(table, "edited")
        assert space.faults(point) == []
        assert space.setting(point).optimize == optimize


def test_standard_replaces_the_memory() -> None:
    space = parse_space(
        '[parameters]\nmemory.dram.standard = ["hbm2", "lpddr4-3200"]\nmemory.dram.ranks = [1]', "s"
    )
    chip = space.chip((0, 0))
    assert chip.technology.memories == ("hbm2",)
    assert chip.memories[0].name == "dram"
    assert chip.memories[0].bytes_per_second > 200e9


def test_illegal_points_say_why() -> None:
    space = parse_space("[parameters]\narray.rows = [32, 8192]", "s")
    assert space.faults((0,)) == []
    assert space.faults((1,)) == ["weight_buffer.size_kib must hold one array of weights"]
    np.testing.assert_array_equal(space.are_legal(np.array([[0], [1]])), [True, False])


@pytest.mark.parametrize(
    ("line", "at", "text"),
    [
        ("nonsense = 1", "base", "line 1: nonsense is not a known key"),
        ("base = 3", "base", "line 1: base must be a preset or a chip file, not 3"),
        ('base = "edgy"', "base", "line 1: chip 'edgy'"),
        ("objectives = []", "objectives", "line 2: objectives must be a list of metrics"),
        ('objectives = ["speed"]', "objectives", "not 'speed'"),
        ('objectives = ["area_mm2", "area_mm2"]', "objectives", "line 2: objectives must differ"),
        ("array.rwos = [1]", "array.rows", "line 5: array.rwos is not a field of chip 'edge'"),
        ("array.rows = []", "array.rows", "line 5: array.rows must have at least one value"),
        ("array.rows = [0]", "array.rows", "line 5: array.rows must be a whole number above 0"),
        ("array.rows = [1.5]", "array.rows", "line 5: array.rows must be a whole number above 0"),
        ("array.rows = [8, 8]", "array.rows", "line 5: array.rows has the value 8 twice"),
        ("array.rows = {from=9, to=3, step=1}", "array.rows", "array.rows is an empty range"),
        ("array.rows = {from=1, to=3}", "array.rows", "one of step, factor and count"),
        ("array.rows = {from=1, to=3, step=0}", "array.rows", "array.rows.step must be above 0"),
        ("array.rows = {from=0, to=3, factor=2}", "array.rows", "from must be above 0 with factor"),
        ("array.rows = {from=1, to=3, count=1.5}", "array.rows", "a whole number above 1"),
        ("array.rows = {from=1, stop=3}", "array.rows", "line 5: array.rows: stop is not a known"),
        ("array.rows = {from=1, to='x', step=1}", "array.rows", "rows.to must be a number"),
        ('array.dataflow = ["sideways"]', "array.rows", "array.dataflow must be weight-stationary"),
        ("memory.dram.channels = [0]", "memory", "line 9: memory.dram.channels must be a whole"),
        ("memory.flash.ports = [1]", "memory", "memory.flash.ports is not a field"),
        ('memory.dram.standard = ["ddr9"]', "memory", "memory.dram.standard must be ddr4-3200"),
        ("compile.effort = [7]", "compile", "line 10: compile.effort must be 0 or 1 or 2 or 3"),
        ("area_mm2 = {at_most = 1, at_least = 2}", "area", "area_mm2 cannot be at least 2"),
        ("area_mm2 = {}", "area", "area_mm2 must have at_most, at_least or both"),
        ("speed = {at_most = 1}", "area", "line 13: speed is not a metric"),
        ("weight = 0", "weight", "line 17: workload weight must be above 0"),
        ("wieght = 2", "weight", "line 17: workload wieght is not a known key"),
        ('model = "digits"', 'model = "other', "line 19: two workloads are called 'digits'"),
        ('scratchpad.port_bytes = { follows = "x" }', "scratchpad.port", "line 8: scratchpad.port"),
        ('scratchpad.port_bytes = { follows = "array.rows", times = 0.3 }', "scratchpad.port",
         "line 8: scratchpad.port_bytes must be a whole number"),
    ],
)  # fmt: skip
def test_faults_name_the_line(line: str, at: str, text: str) -> None:
    message = _refused(_with(line, at))
    assert message.startswith("s.toml: ")
    assert text in message
    assert "\n" not in message


def test_all_faults_at_once() -> None:
    message = _refused("[parameters]\narray.rows = []\narray.columns = [0]\nx = [1]\n")
    assert [f"line {n}:" in message for n in (2, 3, 4)] == [True] * 3


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "line 1: parameters must have at least one key"),
        ("x = [", "not a TOML file"),
        ("[parameters]\narray.rows = [8192]", "line 1: no point of the space is a legal chip"),
        ("[parameters]\narray.rows = [16]\narray.rows = [32]", "not a TOML file"),
    ],
)
def test_files_without_a_space(text: str, part: str) -> None:
    assert part in _refused(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.toml"):
        load_space(tmp_path / "missing.toml")
    (tmp_path / "raw.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        load_space(tmp_path / "raw.toml")
    (tmp_path / "long.toml").write_text("#" * 70_000)
    with pytest.raises(InputError, match="must not exceed 64 KiB"):
        load_space(tmp_path / "long.toml")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    from importlib import resources

    text = (resources.files("lepton.chip") / "presets" / "nano.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace('"nano"', '"mine"'))
    (tmp_path / "space.toml").write_text('base = "mine.toml"\n[parameters]\ncores = [1, 2]\n')
    space = load_space(tmp_path / "space.toml")
    assert [space.chip((n,)).cores for n in (0, 1)] == [1, 2]
    assert space.base.name == "mine"


@given(
    low=st.integers(1, 50), more=st.integers(0, 300), by=st.integers(1, 7), is_factor=st.booleans()
)
def test_ranges(low: int, more: int, by: int, is_factor: bool) -> None:
    """Steps and factors against plain loops."""
    by += is_factor
    kind = "factor" if is_factor else "step"
    text = f"[parameters]\nvector.lanes = {{ from = {low}, to = {low + more}, {kind} = {by} }}"
    found = parse_space(text, "s").parameters[0].values
    expected, value = [], low
    while value <= low + more:
        expected.append(value)
        value = value * by if is_factor else value + by
    assert list(found) == expected


@given(st.data())
def test_lines_of_keys(data: st.DataObject) -> None:
    """Keys of files put together from pieces stand where the pieces were put."""
    pieces = {
        ("a",): "a = 1", ("b", "c"): "b.c = [\n 1,\n 2 ]", ("d",): 'd = """\nx = 2\n[t]\n"""',
        ("e", "f"): "e = { f = 3 }", ("g h",): '"g h" = "#" # c',
    }  # fmt: skip
    tables = ["", "[t]", "[u.v]", "[[w]]", "[[w]]"]
    text, expected, seen = "", {}, 0
    for table in tables:
        chosen = data.draw(st.permutations(list(pieces)))[: data.draw(st.integers(1, 5))]
        lines = [table] if table else []
        prefix = tuple(table.strip("[]").split(".")) if table else ()
        if table == "[[w]]":
            prefix, seen = ("w", str(seen)), seen + 1
        if table:
            expected[prefix] = text.count("\n") + 1
        for path in chosen:
            lines += [""] * data.draw(st.integers(0, 2))
            expected[*prefix, *path] = text.count("\n") + sum(s.count("\n") + 1 for s in lines) + 1
            lines += pieces[path].split("\n")
        text += "\n".join(lines) + "\n"
    tomllib.loads(text)
    found = key_lines(text)
    assert {path: found[path] for path in expected} == expected


def test_every_value_fault_is_the_chip_readers() -> None:
    """What a file with the value is refused for, the space is, and only that."""
    cases = product(
        ["array.rows", "array.clock_mhz", "vector.lanes", "array.overlap"],
        [1, 0, -3, 2.5, True, "x", "1/3", 1 << 40],
    )
    for path, value in cases:
        section, key = path.split(".")
        table: dict[str, Any] = chip_to_table(load_chip("edge"))
        table[section][key] = value
        shown = f"'{value}'" if isinstance(value, str) else str(value).lower()
        text = f"[parameters]\n{path} = [{shown}]"
        try:
            chip_from_table(table, "x")
        except ChipError as error:
            assert str(error).removeprefix("x: ").split("; ")[0] in _refused(text)
        else:
            part = parse_space(text, "s").chip((0,))
            found = getattr(getattr(part, section), key)
            assert found == (Fraction(str(value)) if key == "clock_mhz" else value)


def test_the_documented_space_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
    text = page.split("```toml")[1].split("```")[0]
    space = parse_space(text, "space.toml")
    assert space.size == 3 * 3 * 8 * 4 * 2 * 2 * 2
    assert [workload.weight for workload in space.workloads] == [3, 1]
    assert space.workloads[1].shapes == {"input": (1, 1, 49, 10)}
    for name, metric in METRICS.items():
        assert f"| `{name}` |" in page
        assert (
            page.split(f"| `{name}` |")[1]
            .split("\n")[0]
            .endswith("| less |" if metric.is_less_better else "| more |")
        )


@pytest.mark.parametrize("name", SPACES)
def test_spaces_of_the_package(name: str, tmp_path: Path) -> None:
    """Each is there by its name, and its models are looked for in a folder of one's own."""
    space = load_space(name, tmp_path)
    assert space.place == f"{name}.toml"
    assert space.size > 20
    assert all(tmp_path in workload.model.parents for workload in space.workloads)


def test_names_of_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no-such: no such file, and no space of the package"):
        load_space("no-such")
    with pytest.raises(InputError, match="lost: the folder of the models does not exist"):
        load_space("edge-1tops", "lost")
    (tmp_path / "edge-1tops").write_text("[parameters]\narray.rows = [16, 32]")
    assert load_space("edge-1tops").size == 2


def test_the_base_stays_beside_its_space(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    preset = Path(load_chip.__code__.co_filename).parent / "presets" / "nano.toml"
    (tmp_path / "own.toml").write_text(preset.read_text().replace('"nano"', '"own"', 1))
    text = 'base = "own.toml"\n[parameters]\narray.rows = [16]\n[[workload]]\nmodel = "m.onnx"'
    (tmp_path / "s.toml").write_text(text)
    space = load_space(tmp_path / "s.toml", tmp_path / "models")
    assert (space.base.name, space.workloads[0].model) == ("own", tmp_path / "models" / "m.onnx")
