"""The child process of `lepton.compiler.isolate`: third-party importers run here, under limits.

One request on standard input, a JSON line; the program and a JSON reply go to files that the
request names, so that whatever native libraries print cannot get between them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lepton.errors import CompileError, InputError, LeptonError
from lepton.jit_ahead import helpers

if TYPE_CHECKING:
    from lepton.compiler.schedules import Compiled
    from lepton.program import Program

__all__ = ["MEMORY", "Request", "answer", "limit", "main", "refuse_float"]

MEMORY = "memory"
"""Kind of the reply of a child that ran out of memory; the others are names of `lepton.errors`."""

_MACS = ("conv", "matmul", "dense", "gemm", "lstm")


@dataclasses.dataclass(frozen=True)
class Request:
    """What the child is to do.

    Attributes:
        model: path of the model file.
        chip: as `lepton.chip.chip_to_table` gives it.
        output: where the program goes.
        reply: where the outcome goes, `{}` or `{"kind", "message", "detail"}`.
        address_bytes: limit of the address space.
        cpu_seconds: limit of the processor time.
        calibration: file of the samples to quantize a float model with, "" for none.
        effort: how long to search, 0 to 3.
        dump: folder for every form of the model, "" for none.
        schedules: where the schedules of the layers go, as JSON; "" if nobody wants them.
        float_on_host: whether a float model is taken.
        optimize: what is minimized.
        pipes: descriptors to write messages to and to read answers from; None if nobody listens.
        evaluates: whether the parent measures programs.
        activations: fields of `lepton.compiler.activations.Activations`, of a calibration.
        precision: where goes what a calibration chose, as JSON.
    """

    model: str
    chip: dict[str, object]
    shapes: Mapping[str, Sequence[int]] | None
    keep_all: bool
    output: str
    reply: str
    address_bytes: int
    cpu_seconds: int
    calibration: str = ""
    effort: int = 1
    dump: str = ""
    schedules: str = ""
    float_on_host: bool = False
    optimize: str = "latency"
    pipes: tuple[int, int] | None = None
    evaluates: bool = False
    activations: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    precision: str = ""


def limit(request: Request) -> None:
    """Lower this process's limits to those of the request: a bomb or a hang ends by itself."""
    _lower(resource.RLIMIT_AS, request.address_bytes)
    _lower(resource.RLIMIT_CPU, request.cpu_seconds)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(which: int, value: int) -> None:
    """Lower one soft limit; a harder one that is there already stays."""
    soft, hard = resource.getrlimit(which)
    if soft == resource.RLIM_INFINITY or value < soft:
        resource.setrlimit(which, (value, hard))


def answer(request: Request) -> dict[str, str]:
    """Compile the model of a request and return the reply."""
    try:
        with helpers("compile"):
            made = _compile(request)
        if not request.float_on_host:
            refuse_float(made.program, Path(request.model).name)
        Path(request.output).write_bytes(made.program.to_bytes())
        if request.schedules:
            plain = [dataclasses.asdict(item) for item in made.schedules]
            Path(request.schedules).write_text(json.dumps(plain), encoding="utf-8")
        return {}
    except MemoryError:
        return {"kind": MEMORY, "message": "", "detail": ""}
    except LeptonError as error:
        return _fault(type(error).__name__, str(error))
    except Exception as error:  # a fault of ours, which must reach the user as one sentence too
        name = Path(request.model).name
        reason = " ".join(f"{type(error).__name__} {error}".split())[:300]
        return _fault(CompileError.__name__, f"{name}: the compiler failed on it ({reason})")


def _fault(kind: str, message: str) -> dict[str, str]:
    return {"kind": kind, "message": message, "detail": traceback.format_exc()}


def _compile(request: Request) -> Compiled:
    """Return the program, with everything heavy imported here."""
    from lepton.chip import chip_from_table
    from lepton.compiler.cache import CompilerCache, Fronts
    from lepton.compiler.compile import CompileOptions, compile_explained
    from lepton.compiler.conversation import Asking
    from lepton.compiler.front_folder import FrontFolder
    from lepton.jit import cache_folder

    chip = chip_from_table(request.chip, "chip")
    folder = Path(request.output).parent
    asking = None if request.pipes is None else Asking(request.pipes, folder)
    options = CompileOptions(
        shapes=request.shapes,
        keep_all=request.keep_all,
        effort=request.effort,
        dump=Path(request.dump) if request.dump else None,
        explain=bool(request.schedules),
        optimize=request.optimize,
        evaluate=asking.evaluate if asking and request.evaluates else None,
        progress=asking.progress if asking else None,
    )
    model = Path(request.model)
    if request.calibration:
        return compile_explained(_quantized(request), chip, options)
    cache = CompilerCache(Fronts(FrontFolder(cache_folder() / "fronts")))
    return compile_explained(model, chip, options, cache)


def _quantized(request: Request) -> Path:
    """Return the path of a quantized copy of the float model."""
    from safetensors.numpy import load_file

    from lepton.compiler.activations import Activations
    from lepton.compiler.calibrate import quantize_model

    samples = Path(request.calibration)
    target = samples.parent / "quantized" / Path(request.model).name
    target.parent.mkdir()
    found = quantize_model(
        Path(request.model),
        load_file(samples),
        target,
        request.shapes,
        Activations(**request.activations),
    )
    if found is not None:
        Path(request.precision).write_text(json.dumps(found.to_json()), "utf-8")
    if request.dump:
        shutil.copy(target, Path(request.dump) / "quantized.onnx")
    return target


def refuse_float(program: Program, name: str) -> None:
    """Raise InputError for a float model: none of its MACs is on the NPU, as nothing is quantized.

    A model that quantizes while it runs (ConvInteger) is not one: it runs on the host as it is.
    """
    kinds = {operator.kind.lower() for operator in program.operators if operator.device == "host"}
    works = any(part in kind for kind in kinds for part in _MACS)
    quantizes = any("quantize" in kind and "dequantize" not in kind for kind in kinds)
    on_npu = any(operator.macs for operator in program.operators if operator.device == "npu")
    if not works or quantizes or on_npu:
        return
    way = (
        "export it with int8 quantization (TFLite's converter quantizes), as --calibrate takes "
        "ONNX only"
        if program.golden == "tflite"
        else f"quantize it first (lepton compile {name} --calibrate DATA.npz)"
    )
    raise InputError(
        f"{name} is a float model; {way}, or none of it can run on the NPU (lepton run "
        "--device npu,cpu leaves it to the CPU)"
    )


def _watch_parent() -> None:
    """End this process when standard input closes, which is when the parent is gone."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


def main() -> None:
    """Answer the request on standard input."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(sys.stdin.fileno(), 1 << 16)
        if not part:
            return
        line += part
    request = Request(**cast(dict[str, Any], json.loads(line)))
    limit(request)
    # TVM imports torch where it finds it, a second of work; no model file needs it
    sys.modules["torch"] = cast(Any, None)
    threading.Thread(target=_watch_parent, daemon=True).start()
    reply = json.dumps(answer(request))
    Path(request.reply).write_text(reply, encoding="utf-8")
    sys.stdout.flush()
    # the destructors of the native libraries have nothing to add, and may crash
    os._exit(0)


if __name__ == "__main__":
    main()
