"""Write the list of kernels that processes compile together, `lepton/jit_ahead.json`.

Two small networks are compiled and run in fresh processes, and the kernels that each step calls are
noted. A test says when the list no longer fits; it takes some minutes to write.

    python -m benchmarks.kernels
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import ROOT
from tests.tflite_builder import TfliteBuilder

__all__ = ["LIST", "called_kernels", "plain_type"]

LIST = ROOT / "lepton" / "jit_ahead.json"
_DIGITS = ROOT / "lepton" / "models" / "pretrained" / "digits.onnx"
Called = dict[str, list[dict[str, Any]]]


def image_network() -> bytes:
    """Return a network of the layers that most small `.tflite` ones have."""
    b = TfliteBuilder()
    weights = np.random.default_rng(0).integers(-9, 9, (4, 8, 3, 3, 3)).astype(np.int8)
    scales, points = np.full(8, 0.02), np.zeros(8, int)
    window = {"padding": "SAME", "stride_h": 1, "stride_w": 1}

    def constant(values: np.ndarray[Any, Any], axis: int = 0) -> Any:
        return b.constant(f"c{len(b.tensors)}", values, scales, points, axis)

    def after(kind: str, shape: list[int], *operands: Any, **options: Any) -> Any:
        made = b.tensor(f"t{len(b.tensors)}", shape, scale=0.5)
        b.operator(kind, operands, [made], **options)
        return made

    x = b.input("x", [1, 8, 8, 3], scale=0.5)
    biases = [constant(np.zeros(8, np.int32)) for _ in range(3)]
    y = after("CONV_2D", [1, 8, 8, 8], x, constant(weights[0]), biases[0], **window)
    kernel = constant(weights[1, :3].reshape(9, 9)[:, :8].reshape(1, 3, 3, 8).copy(), 3)
    y = after("DEPTHWISE_CONV_2D", [1, 8, 8, 8], y, kernel, biases[1], depth_multiplier=1, **window)
    pool = {"padding": "VALID", "stride_h": 1, "stride_w": 1}
    y = after("AVERAGE_POOL_2D", [1, 1, 1, 8], y, filter_height=8, filter_width=8, **pool)
    y = after("RESHAPE", [1, 8], y, b.constant("shape", np.array([1, 8], np.int32)))
    last = b.constant("last", weights[2, :, 0, :2].reshape(8, 6)[:, :1] * np.ones(8, np.int8), 0.02)
    y = after("FULLY_CONNECTED", [1, 8], y, last, b.constant("b", np.zeros(8, np.int32), 0.01))
    out = b.tensor("out", [1, 8], scale=1 / 256, zero_point=-128)
    b.operator("SOFTMAX", [y], [out], beta=1.0)
    return b.build([x], [out])


def plain_type(kind: Any) -> object:
    """Return an argument's type as `lepton.jit_ahead` reads it."""
    from numba import types

    if isinstance(kind, types.Array):
        assert kind.layout == "C" and kind.aligned, kind
        return f"{'' if kind.mutable else 'const '}{plain_type(kind.dtype)}[{kind.ndim}]"
    if isinstance(kind, types.BaseTuple):
        members: Any = kind
        items = [plain_type(member) for member in members]
        made: Any = getattr(kind, "instance_class", None)
        return items if made is None else {f"{made.__module__}:{made.__qualname__}": items}
    assert isinstance(kind, types.Number | types.Boolean), kind
    return str(kind)


class _Recorder:
    """Notes the kernels that Python calls; with an empty cache also how long they compile."""

    def __init__(self) -> None:
        from numba.core import event

        recorder = self

        class Listener(event.Listener):
            depth = 0
            began = 0.0

            def on_start(self, event: Any) -> None:
                self.began = self.began if self.depth else time.process_time()
                self.depth += 1

            def on_end(self, event: Any) -> None:
                self.depth -= 1
                if self.depth == 0:
                    recorder.has_compiled = True
                    seconds = time.process_time() - self.began
                    recorder.note(event.data["dispatcher"], event.data["args"], seconds)

        self.steps: Called = {}
        self.has_compiled = False
        self._loaded: set[Any] = set()
        event.register("numba:compile", Listener())

    def note(self, dispatcher: Any, arguments: Any, seconds: float) -> None:
        """Add a kernel to the last step."""
        python = dispatcher.py_func
        kernel = {"module": python.__module__, "name": python.__qualname__}
        plain = [plain_type(kind) for kind in arguments]
        kernel |= {"seconds": round(seconds, 1), "arguments": plain}
        next(reversed(self.steps.values())).append(kernel)

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        """Note under a name what is called in the block and was not called before."""
        self.steps[name] = []
        yield
        loaded = _loaded()
        # a process that compiles also loads what its kernels call
        for dispatcher, arguments in () if self.has_compiled else loaded - self._loaded:
            self.note(dispatcher, arguments, 0)
        self._loaded = loaded


def _loaded() -> set[Any]:
    """Return the kernels that this process has loaded from disk, and their arguments."""
    from numba.core.dispatcher import Dispatcher

    modules = [module for name, module in sys.modules.items() if name.startswith("lepton.")]
    kernels = {x for module in modules for x in vars(module).values() if isinstance(x, Dispatcher)}
    return {(kernel, kinds) for kernel in kernels for kinds in kernel.stats.cache_hits}


def _record_compilation(recorder: _Recorder, model: Path) -> None:
    """Compile a model; the program goes beside it."""
    from lepton.chip import load_chip
    from lepton.compiler.compile import compile_model

    with recorder.step("compile"):
        compile_model(model, load_chip("edge")).save(model.with_suffix(".lepton"))


def _record_run(recorder: _Recorder, path: Path) -> None:
    """Run a program as `lepton run` does."""
    from lepton.cost.estimate import estimate_program
    from lepton.program import load_program
    from lepton.report.summary import summarize
    from lepton.runtime.execute import HostRegions
    from lepton.runtime.golden import random_inputs
    from lepton.simulator import check, run_values, simulate_timing

    with recorder.step("check"):
        program = load_program(path)
        check(program)
    with recorder.step(f"values-{program.golden}"):
        run_values(program, random_inputs(program, 0), HostRegions(program))
    with recorder.step("timing"):
        trace = simulate_timing(program)
    with recorder.step("report"):
        summarize(program, trace, estimate_program(program))


def called_kernels(*, cold: bool) -> Called:
    """Return the kernels of each step, from fresh processes.

    Args:
        cold: compile them in empty caches, which says how long each takes; else those that the
            user's cache lacks are compiled first.
    """
    merged: Called = {}
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "digits.onnx", Path(folder) / "image.tflite"
        models[0].write_bytes(_DIGITS.read_bytes())
        models[1].write_bytes(image_network())
        for path in (*models, *(model.with_suffix(".lepton") for model in models)):
            home = {"HOME": tempfile.mkdtemp(dir=folder)} if cold else {}
            made = _recorded(path, home)
            while made["has_compiled"] and not cold:
                made = _recorded(path, home)
            _merge(merged, made["steps"])
    return merged


def _recorded(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what a fresh process records of a model or a program."""
    command = [sys.executable, "-m", "benchmarks.kernels", str(path)]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, check=True
    )
    return json.loads(ended.stdout.splitlines()[-1])


def _merge(merged: Called, steps: Called) -> None:
    """Add the kernels of each step that are new."""
    for step, kernels in steps.items():
        known = merged.setdefault(step, [])
        places = [(k["module"], k["name"], k["arguments"]) for k in known]
        known += [k for k in kernels if (k["module"], k["name"], k["arguments"]) not in places]


def main() -> None:
    """Write the list, or print what one model's process records."""
    if sys.argv[1:]:
        recorder, path = _Recorder(), Path(sys.argv[1])
        (_record_run if path.suffix == ".lepton" else _record_compilation)(recorder, path)
        print(json.dumps({"steps": recorder.steps, "has_compiled": recorder.has_compiled}))
        return
    called = called_kernels(cold=True)
    lines = [
        f"{json.dumps(step)}: [\n  " + ",\n  ".join(map(json.dumps, kernels)) + "\n]"
        for step, kernels in sorted(called.items())
    ]
    LIST.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
