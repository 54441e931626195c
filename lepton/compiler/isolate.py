"""Compile a file in a child process: a hostile model can at worst end the child.

TVM's importers and ONNX's and FlatBuffers' readers are native or third-party code, and a damaged
file may crash them, take all memory or never end. Here that becomes one sentence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

import lepton.errors
from lepton.chip import Chip, chip_to_table
from lepton.compiler.activations import Precision
from lepton.compiler.calibrate import plain_samples
from lepton.compiler.conversation import Listening
from lepton.compiler.options import CompileOptions, plain_shapes
from lepton.compiler.schedules import Compiled, Schedule
from lepton.compiler.worker import MEMORY, Request
from lepton.errors import ImportFailure, InputError, LeptonError
from lepton.jit_ahead import package_environment
from lepton.program import Program, load_program
from lepton.program.files import temporary_folder

__all__ = ["ADDRESS_BYTES", "compile_calibrated", "compile_file", "compile_file_explained"]
__all__ += ["failure", "readable"]

ADDRESS_BYTES = 8 << 30
"""Address space of the child; the largest real models take a tenth."""

CPU_SECONDS = 300
CPU_SECONDS_PER_MIB = 5
"""Processor time of the child, and more of it for large files; ResNet-50 takes some ten seconds."""

CHOICE_FACTOR = 4
"""Times as much processor time where the bits of activations are chosen."""

WALL_FACTOR = 4
"""A child that takes so many times its processor time by the clock is waiting, not working."""

MAXIMUM_MODEL_BYTES = 4 << 30

WORKER = ("-P", "-m", "lepton.compiler.worker")
"""What the child's interpreter runs; -P keeps the user's folder out of its import path."""


def compile_file(path: str | Path, chip: Chip, options: CompileOptions | None = None) -> Program:
    """Compile a model file in a child process; see `compile_file_explained`."""
    return compile_file_explained(path, chip, options).program


def compile_calibrated(model: object, chip: Chip, options: CompileOptions) -> Program:
    """Quantize and compile a float model that is no file: it is written as an ONNX file first.

    Args:
        model: `torch.export` program, Relax `IRModule` or `onnx.ModelProto`.
        chip: the chip to compile for.
        options: with calibration samples.

    Raises:
        ImportFailure: the model cannot be read.
        InputError: it is quantized already, or the samples do not fit.
        CompileError: an operator has no ONNX form, or the chip cannot hold the model.
    """
    from lepton.compiler.to_onnx import write_onnx

    with temporary_folder() as folder:
        path = folder / f"{type(model).__name__}.onnx"
        write_onnx(model, path)
        return compile_file(path, chip, options)


def compile_file_explained(
    path: str | Path, chip: Chip, options: CompileOptions | None = None
) -> Compiled:
    """Compile a model file in a child process, and say how it was scheduled if that is asked for.

    Args:
        path: an `.onnx` or `.tflite` file.
        chip: the chip to compile for.
        options: None for the defaults.

    Raises:
        ImportFailure: the file cannot be read, is damaged, or crashed, flooded or hung its reader.
        InputError: it is a float model, of which nothing could run on the NPU.
        CompileError: the chip cannot hold it, or an operator runs nowhere.
    """
    chosen = options or CompileOptions()
    model = Path(path)
    size = readable(model)
    with temporary_folder() as folder:
        samples = _write_samples(chosen.calibration, folder)
        size += samples.stat().st_size if samples else 0
        request = Request(
            model=str(model.absolute()),
            chip=chip_to_table(chip),
            shapes=plain_shapes(chosen.shapes),
            keep_all=chosen.keep_all,
            output=str(folder / "program"),
            reply=str(folder / "reply"),
            address_bytes=ADDRESS_BYTES,
            cpu_seconds=_cpu_seconds(size, chosen),
            calibration=str(samples or ""),
            effort=chosen.effort,
            dump=_dump_folder(chosen.dump),
            schedules=str(folder / "schedules") if chosen.explain else "",
            float_on_host=chosen.float_on_host,
            optimize=chosen.objective,
            activations=dataclasses.asdict(chosen.activations),
            precision=str(folder / "precision"),
        )
        status = _run(request, chosen, folder)
        fault = failure(request, model.name, status)
        if fault is not None:
            raise fault
        return Compiled(
            load_program(Path(request.output).read_bytes()),
            _read_schedules(request.schedules),
            _read_precision(Path(request.precision)),
        )


def _dump_folder(folder: Path | None) -> str:
    """Make the folder of a dump and return its absolute path, "" without one.

    Raises:
        InputError: it cannot be made or written.
    """
    if folder is None:
        return ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return str(folder.absolute())
    except FileExistsError:
        raise InputError(f"{folder}: cannot be written: it is not a folder") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None


def _read_schedules(path: str) -> tuple[Schedule, ...]:
    """Return the schedules that the child left, none without a path."""
    if not path:
        return ()
    return tuple(Schedule(**item) for item in json.loads(Path(path).read_text(encoding="utf-8")))


def _read_precision(path: Path) -> Precision | None:
    """Return what a calibration chose, None if it left nothing."""
    if not path.exists():
        return None
    return Precision.from_json(json.loads(path.read_text(encoding="utf-8")))


def _cpu_seconds(size: int, options: CompileOptions) -> int:
    """Return the limit of the child's processor time; a choice of bits runs the model often."""
    seconds = CPU_SECONDS + CPU_SECONDS_PER_MIB * (size >> 20)
    return seconds * (CHOICE_FACTOR if options.activations.kind == "auto" else 1)


def readable(model: Path) -> int:
    """Return the size in bytes of a model file that can be read.

    Raises:
        ImportFailure: it is missing, empty, no file, or must not be read.
    """
    try:
        found = model.stat()
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a file"
            raise ImportFailure(f"{model} cannot be read: it is {kind}")
        with model.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImportFailure(f"{model} cannot be read: {reason}") from None
    if found.st_size == 0:
        raise ImportFailure(f"{model} cannot be read: it is empty")
    if found.st_size > MAXIMUM_MODEL_BYTES:
        raise ImportFailure(f"{model} cannot be read: a model must not exceed 4 GiB")
    return found.st_size


def _write_samples(calibration: object, folder: Path) -> Path | None:
    """Write calibration samples for the child; None if there are none."""
    if calibration is None:
        return None
    from safetensors.numpy import save_file

    path = folder / "calibration"
    save_file(plain_samples(calibration), path)
    return path


def _run(request: Request, options: CompileOptions, folder: Path) -> int | None:
    """Run the child and return its exit status, negative for a signal, None if it never ended."""
    if options.evaluate is None and options.progress is None:
        return _child(request, folder, None)
    with Listening(options, folder) as listening:
        asked = dataclasses.replace(
            request, pipes=listening.pipes, evaluates=options.evaluate is not None
        )
        return _child(asked, folder, listening)


def _child(request: Request, folder: Path, listening: Listening | None) -> int | None:
    """Run the child like `_run`, and answer what it asks."""
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, *WORKER],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=package_environment(),
            # Ctrl-C is ours to pass on, not the terminal's to deal to both
            start_new_session=True,
            pass_fds=request.pipes or (),
        )
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(json.dumps(dataclasses.asdict(request)).encode() + b"\n")
                child.stdin.flush()
            # standard input stays open: the child ends itself when this process is gone
            left: float = request.cpu_seconds * WALL_FACTOR
            if listening is not None:
                listening.began()
                left = listening.until_closed(left)
            return child.wait(timeout=max(left, 0.0))
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child with all of its own children, if it still runs."""
    with contextlib.suppress(BrokenPipeError):
        if child.stdin is not None:
            child.stdin.close()
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def failure(request: Request, name: str, status: int | None) -> LeptonError | None:
    """Return the error that a child's exit status and reply mean, None for success.

    Args:
        request: what the child was asked.
        name: of the model, for the text.
        status: 0, an exit code, minus a signal, or None for a child that never ended.
    """
    if status is None or status == -signal.SIGXCPU:
        return ImportFailure(
            f"{name} keeps the importer busy for more than {request.cpu_seconds} s: it is damaged, "
            "or larger than can be compiled"
        )
    reply = _reply(Path(request.reply))
    if status == -signal.SIGKILL or (reply is not None and reply.get("kind") == MEMORY):
        return ImportFailure(
            f"{name} makes the importer take more than {request.address_bytes >> 20} MiB of "
            "memory: it is damaged, or larger than can be compiled"
        )
    if status < 0:
        return ImportFailure(
            f"{name} crashed the importer (signal {-status}): it is damaged or uses what TVM "
            "cannot read"
        )
    if reply is None or status != 0:
        return ImportFailure(f"{name} ended the importer (exit code {status}): it is damaged")
    if not reply:
        return None
    found = getattr(lepton.errors, reply["kind"], None)
    is_known = isinstance(found, type) and issubclass(found, LeptonError)
    cls = cast(type[LeptonError], found) if is_known else ImportFailure
    error = cls(" ".join(reply["message"].split()))
    error.add_note(reply["detail"])
    return error


def _reply(path: Path) -> dict[str, str] | None:
    """Return the child's reply, None if it left none."""
    try:
        return cast(dict[str, str], json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
