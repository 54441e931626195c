"""Streams, signals and the end of the process, each in a process of its own."""

from __future__ import annotations

import configparser
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lepton.models import digits_model_path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
LEPTON = f"{sys.executable} -m lepton"


def shell(command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell command that calls `$LEPTON`."""
    variables |= ENVIRONMENT | {"LEPTON": LEPTON}
    return subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, env=variables)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_quiet(closed: str) -> None:
    done = shell(f"$LEPTON chips {closed}")
    assert done.returncode == 0
    assert done.stderr == b""


def test_a_fault_with_closed_errors_says_nothing_on_standard_output() -> None:
    done = shell("$LEPTON check missing.lepton 2>&-")
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("command", ["chips", "isa", "--help"])
def test_a_full_device_is_one_sentence(command: str) -> None:
    done = shell(f"$LEPTON {command} > /dev/full")
    assert done.returncode == 2
    reason = "output cannot be written: No space left on device\n"
    assert done.stderr.decode() in (f"lepton: {reason}", f"lepton: standard {reason}")


def test_a_reader_that_leaves_is_no_fault() -> None:
    done = shell("set -o pipefail; $LEPTON isa | head -1")
    assert (done.returncode, done.stderr) == (0, b"")


def test_letters_that_the_terminal_lacks_are_replaced(tmp_path: Path) -> None:
    chip = tmp_path / "chip.toml"
    text = (ROOT / "lepton/chip/presets/nano.toml").read_text(encoding="utf-8")
    chip.write_text(text.replace('name = "nano"', 'name = "n\u00e4no"', 1), encoding="utf-8")
    done = shell(f"$LEPTON chips {chip}", LC_ALL="C.UTF-8")
    assert "n\u00e4no: ".encode() in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "lepton", "chips", str(chip)],
        env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"n?no: ")


_KILLED_BY_AN_IMPORT = """
import os, runpy, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Finder())
sys.argv = ["lepton", "chips"]
{start}
"""


def entry_point() -> str:
    """Return the code of the installed `lepton` script."""
    packaging = configparser.ConfigParser()
    packaging.read(ROOT / "setup.cfg", encoding="utf-8")
    script = packaging["options.entry_points"]["console_scripts"]
    module, _, name = script.partition("=")[2].strip().partition(":")
    return f"from {module} import {name}; {name}()"


@pytest.mark.parametrize(
    "start", ['runpy.run_module("lepton", run_name="__main__")', entry_point()]
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, 143)])
def test_a_signal_during_the_imports_is_one_sentence(number: int, code: int, start: str) -> None:
    program = _KILLED_BY_AN_IMPORT.format(number=int(number), start=start)
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, timeout=60
    )
    assert done.returncode == code
    assert done.stderr == b"lepton: interrupted; no file was left half-written\n"


def test_nothing_is_searched_for_garbage_at_the_end() -> None:
    code = (
        "import gc, sys; from lepton.__main__ import main; sys.argv = ['lepton', 'chips']\n"
        "main(); print(gc.get_freeze_count() > 10_000, gc.isenabled())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, timeout=60, check=True
    )
    assert done.stdout.endswith(b"True True\n")


def test_termination_removes_the_temporary_folders(tmp_path: Path) -> None:
    folder, out = tmp_path / "tmp", tmp_path / "o.lepton"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "lepton", "compile", str(digits_model_path()), "-o", str(out)],
        env=ENVIRONMENT | {"TMPDIR": str(folder)}, stderr=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + 30
    while not list(folder.iterdir()) and time.monotonic() < end:
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert errors == b"lepton: terminated; no file was left half-written\n"
    assert list(folder.iterdir()) == []
    assert not out.exists()
