"""Hostile files: whatever a file holds, the answer is one sentence or a legal result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton.chip import load_chip
from lepton.compiler import isolate, worker
from lepton.compiler.isolate import compile_file
from lepton.errors import CompileError, ImportFailure, InputError
from lepton.program import Operator
from lepton.simulator import check
from tests.campaign_parts import SAMPLE, hostile_verdict
from tests.hostile import Outcome, Server
from tests.programs import hand_program


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The fork server, warm."""
    made = Server()
    yield made
    made.close()


@pytest.mark.slow
def test_damaged_files_are_refused_or_legal(server: Server) -> None:
    outcomes = [server(seed) for seed in range(SAMPLE)]
    faults = [item for item in outcomes if item.is_fault and item.result != "differs"]
    assert not faults, "\n".join(map(str, faults[:5]))
    assert not hostile_verdict(Counter(f"{item.kind} {item.result}" for item in outcomes))


def test_a_case_is_the_same_every_time(server: Server) -> None:
    assert server(7) == server(7)
    assert isinstance(server(8, "chip"), Outcome)
    assert server(8, "chip").kind == "chip"


# --- the child process ------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that nobody reads."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"not empty")
    return path


def child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the child run `code` in place of the worker."""
    monkeypatch.setattr(isolate, "WORKER", ("-c", code))


EDGE = load_chip("edge")


@pytest.mark.slow
def test_a_file_compiles_as_in_this_process() -> None:
    from lepton.compiler.compile import CompileOptions, compile_model

    path = Path(worker.__file__).parents[1] / "models" / "pretrained" / "digits.onnx"
    for keep_all in (False, True):
        options = CompileOptions(keep_all=keep_all)
        made = compile_file(path, EDGE, options)
        assert made.to_bytes() == compile_model(path, EDGE, options).to_bytes()
        check(made)
    assert len(compile_file(str(path), load_chip("nano")).decoded) > 0


def test_the_parent_imports_no_tvm(tmp_path: Path) -> None:
    code = (
        "import sys, lepton.compiler.isolate\n"
        "print([name for name in ('tvm', 'onnx', 'numba', 'torch') if name in sys.modules])"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout == "[]\n"


def test_the_child_cannot_import_torch(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    code = (
        "import sys\n"
        "from lepton.compiler import worker\n"
        "def answer(request):\n"
        "    found = str(sys.modules.get('torch', 'open to import'))\n"
        "    return {'kind': 'InputError', 'message': found, 'detail': ''}\n"
        "worker.answer = answer\n"
        "worker.main()"
    )
    child(monkeypatch, code)
    with pytest.raises(InputError, match=r"^None$"):
        compile_file(model, EDGE)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import os; os.kill(os.getpid(), 11)",
            "m.onnx crashed the importer (signal 11): it is damaged or uses what TVM cannot read",
        ),
        ("import os; os.abort()", "m.onnx crashed the importer (signal 6)"),
        ("import os; os.kill(os.getpid(), 9)", "m.onnx makes the importer take more than 8192 MiB"),
        ("raise SystemExit(3)", "m.onnx ended the importer (exit code 3): it is damaged"),
        ("print('no reply')", "m.onnx ended the importer (exit code 0): it is damaged"),
    ],
)
def test_a_child_that_dies(
    monkeypatch: pytest.MonkeyPatch, model: Path, code: str, message: str
) -> None:
    child(monkeypatch, code)
    with pytest.raises(ImportFailure) as caught:
        compile_file(model, EDGE)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_child_that_hangs_or_waits(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(isolate, "CPU_SECONDS", 1)
    message = "m.onnx keeps the importer busy for more than 1 s"
    busy = (
        "import json, sys; from lepton.compiler import worker\n"
        "worker.limit(worker.Request(**json.loads(sys.stdin.readline())))\n"
        "while True: pass"
    )
    for code in (busy, "import time; time.sleep(60)"):
        child(monkeypatch, code)
        monkeypatch.setattr(isolate, "WALL_FACTOR", 20 if code == busy else 1)
        with pytest.raises(ImportFailure, match=message):
            compile_file(model, EDGE)


def test_a_child_that_takes_all_memory(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    code = (
        "from lepton.compiler import worker\n"
        "worker._compile = lambda request: bytearray(request.address_bytes)\n"
        "worker.main()"
    )
    child(monkeypatch, code)
    monkeypatch.setattr(isolate, "ADDRESS_BYTES", 1 << 30)
    with pytest.raises(ImportFailure, match=r"take more than 1024 MiB of memory: it is damaged"):
        compile_file(model, EDGE)


def test_a_fault_of_the_compiler_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    code = (
        "from lepton.compiler import worker\n"
        "def fail(request): raise KeyError('two\\nlines')\n"
        "worker._compile = fail\n"
        "worker.main()"
    )
    child(monkeypatch, code)
    with pytest.raises(CompileError, match=r"m\.onnx: the compiler failed on it \(KeyError ") as e:
        compile_file(model, EDGE)
    assert "\n" not in str(e.value)
    assert "Traceback" in e.value.__notes__[0]


def test_what_the_child_prints_goes_nowhere(
    monkeypatch: pytest.MonkeyPatch, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    child(monkeypatch, "import os; os.write(1, b'out'); os.write(2, b'err'); os.abort()")
    with pytest.raises(ImportFailure):
        compile_file(model, EDGE)
    assert capfd.readouterr() == ("", "")


SLEEPER = """
import sys
from lepton.chip import load_chip
from lepton.compiler import isolate
code = "import os, time; open(" + repr(sys.argv[2]) + ", 'w').write(str(os.getpid()))"
isolate.WORKER = ("-c", code + {rest})
isolate.compile_file(sys.argv[1], load_chip("edge"))
"""


def _alive(pid: int) -> bool:
    """Return whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait(condition: object, seconds: float = 30.0) -> bool:
    """Return whether a condition becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if callable(condition) and condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_child_dies_with_its_parent(model: Path, tmp_path: Path, number: int) -> None:
    rest = "'; time.sleep(60)'"
    if number == signal.SIGKILL:  # only the real worker watches for a parent that is gone
        rest = (
            "'; from lepton.compiler import worker; worker._compile = lambda _: time.sleep(60); "
            "worker.main()'"
        )
    noted = tmp_path / "pid"
    script = SLEEPER.replace("{rest}", rest)
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(model), str(noted)], stderr=subprocess.PIPE, text=True
    )
    assert _wait(lambda: noted.exists() and noted.read_text())
    pid = int(noted.read_text())
    time.sleep(0.5)
    assert _alive(pid)
    parent.send_signal(number)
    _, text = parent.communicate(timeout=30)
    assert parent.returncode != 0
    if number == signal.SIGINT:
        assert text.rstrip().endswith("KeyboardInterrupt")
    assert _wait(lambda: not _alive(pid))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    os.mkfifo(tmp_path / "pipe.onnx")
    for path, reason in [
        (tmp_path, "it is a folder"),
        (tmp_path / "empty.onnx", "it is empty"),
        (tmp_path / "pipe.onnx", "it is not a file"),
        (tmp_path / "missing.onnx", "No such file or directory"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path("null\0byte"), "embedded null byte"),
    ]:
        with pytest.raises(ImportFailure, match=f"cannot be read: .*{reason}"):
            compile_file(path, EDGE)


def test_a_file_that_must_not_be_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model.chmod(0)
    if os.geteuid() == 0:  # who may read everything

        def denied(path: Path, mode: str) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(ImportFailure, match=r"m\.onnx cannot be read: Permission denied"):
        compile_file(model, EDGE)


def test_shapes_that_are_none(model: Path) -> None:
    class Options:
        shapes = {"x": ["many"]}  # noqa: RUF012
        keep_all = False

    with pytest.raises(InputError, match="shapes must be whole numbers by input name"):
        compile_file(model, EDGE, Options())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("kinds", "macs", "is_float"),
    [
        ({"nn.conv2d": "host", "add": "host"}, 0, True),
        ({"matmul": "host"}, 0, True),
        ({"dequantize": "host", "matmul": "host"}, 0, True),
        ({"quantize": "host", "nn.conv2d": "host"}, 0, False),
        ({"add": "host"}, 0, False),
        ({"nn.conv2d": "host", "convolution": "npu"}, 9, False),
    ],
)
def test_float_models_are_refused(kinds: dict[str, str], macs: int, is_float: bool) -> None:
    import dataclasses

    operators = tuple(
        Operator("o", kind, "npu" if device == "npu" else "host", macs, 0, 0, "")
        for kind, device in kinds.items()
    )
    program = dataclasses.replace(hand_program("halt"), operators=operators)
    if not is_float:
        worker.refuse_float(program, "m.onnx")
        return
    with pytest.raises(InputError, match=r"m\.onnx is a float model; quantize it first .*--calib"):
        worker.refuse_float(program, "m.onnx")


def test_a_reply_of_nonsense(tmp_path: Path) -> None:
    request = worker.Request("m", {}, None, False, "o", str(tmp_path / "r"), 1 << 30, 9)
    (tmp_path / "r").write_bytes(b"\xff{")
    made = isolate.failure(request, "m", 0)
    assert isinstance(made, ImportFailure)
    (tmp_path / "r").write_text(json.dumps({"kind": "os", "message": "x\ny", "detail": ""}))
    assert str(isolate.failure(request, "m", 0)) == "x y"
