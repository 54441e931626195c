"""The pass-by-pass dump: complete, the same every time, and refused where it cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton.chip import load_chip
from lepton.compiler.compile import compile_explained
from lepton.compiler.dump import FolderDump
from lepton.compiler.isolate import compile_file
from lepton.compiler.options import CompileOptions
from lepton.errors import InputError
from lepton.listing import listing
from lepton.models import digits_model_path

NANO = load_chip("nano")
DIGITS = digits_model_path()
BACK = ["graph", "plans", "memory", "schedule", "synchronized", "program"]


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a dump of the digits network, and the listing of its program."""
    folder = tmp_path_factory.mktemp("dump")
    made = compile_explained(DIGITS, NANO, CompileOptions(dump=folder))
    return folder, listing(made.program, code_only=True)


def stages(folder: Path) -> list[str]:
    return [path.stem[3:] for path in sorted(folder.iterdir())]


def form(folder: Path, stage: str) -> str:
    (path,) = folder.glob(f"[0-9][0-9]-{stage}.txt")
    return path.read_text(encoding="utf-8")


def test_every_form_is_there_in_order(dumped: tuple[Path, str]) -> None:
    folder, _ = dumped
    names = stages(folder)
    assert [path.name[:2] for path in sorted(folder.iterdir())] == [
        f"{number:02}" for number in range(len(names))
    ]
    assert names[0] == "imported"
    assert names[-len(BACK) :] == BACK
    front = [names.index(name) for name in ("tabulate", "fuse_operators", "merge_regions")]
    assert names.index("drop_dead_code") < front[0] == sorted(front)[0] < front[2]


def test_the_forms_hold_what_they_say(dumped: tuple[Path, str]) -> None:
    folder, program = dumped
    assert "R.quantize" in form(folder, "imported") and "metadata" in form(folder, "imported")
    assert "Composite" in form(folder, "fuse_operators")
    graph = form(folder, "graph")
    assert "Convolution" in graph and "weights = uint8" in graph and "on the host" in graph
    plans = form(folder, "plans")
    assert "  > " in plans and "height=" in plans
    assert "tiles" in form(folder, "memory") and "constants" in form(folder, "memory")
    schedule, synchronized = form(folder, "schedule"), form(folder, "synchronized")
    assert "signal=" not in schedule and "wait=" in synchronized
    assert len(schedule.splitlines()) == len(synchronized.splitlines())
    assert form(folder, "program") == f"# lepton dump: program\n{program}"


def test_two_compilations_dump_the_same_bytes(dumped: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = dumped
    again = tmp_path / "new" / "folder"
    compile_file(DIGITS, NANO, CompileOptions(dump=again))
    assert stages(again) == stages(folder)
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_a_dump_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    dump = FolderDump(tmp_path)
    for name, text in (("a", "1\n"), ("b", "1\n"), ("c", "2\n")):
        dump(name, lambda text=text: text)
    assert form(tmp_path, "b") == "# lepton dump: b\nunchanged since 00-a.txt\n"
    assert form(tmp_path, "c") == "# lepton dump: c\n2\n"
    (tmp_path / "01-notes.txt").write_text("mine")
    FolderDump(tmp_path)("x", lambda: "3\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00-x.txt", "01-notes.txt"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="file: cannot be written: it is not a folder"):
        compile_file(DIGITS, NANO, CompileOptions(dump=file))
    with pytest.raises(InputError, match="cannot be written"):
        compile_file(DIGITS, NANO, CompileOptions(dump=file / "inside"))
    with pytest.raises(InputError, match="cannot be written: No such file"):
        FolderDump(tmp_path / "gone")("x", lambda: "")
