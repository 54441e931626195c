"""Measure what a user waits for: compile, check, timing, values, memory, and what dominates.

Prints tables; with `--write` it also replaces docs/results.md. Times are CPU seconds unless
a line says wall; machines are noisy, so compare ratios within one run.

    python -m benchmarks.speed [--write] [MODEL ...]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT, run_python
from benchmarks.page import Limit, limits_table, markdown_table, origin

DEFAULT = (
    "mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite",
    "mlperf_tiny/pretrainedResnet_quant.tflite",
    "mlperf_tiny/kws_ref_model.tflite",
)
_INSIDE = """
import json, resource, sys, time
from lepton.program import load_program
from lepton.runtime.golden import random_inputs
from lepton.runtime.execute import HostRegions
from lepton.simulator import check, run_values, simulate_timing

def cpu(function, *arguments):
    began = time.process_time()
    result = function(*arguments)
    return time.process_time() - began, result

program = load_program(sys.argv[1])
first_check, _ = cpu(check, program)
first_timing, trace = cpu(simulate_timing, program)
inputs = random_inputs(program, 0)
host = HostRegions(program)
first_values, _ = cpu(run_values, program, inputs, host)
fresh = [load_program(sys.argv[1]) for _ in range(3)]
check_s = min(cpu(check, p)[0] for p in fresh)
timing_s = min(cpu(simulate_timing, p)[0] for p in fresh)
values_s = min(cpu(run_values, p, inputs, host)[0] for p in fresh)
print(json.dumps({
    "first_check": first_check, "first_timing": first_timing, "first_values": first_values,
    "check": check_s, "timing": timing_s, "values": values_s, "cycles": trace.cycles,
    "instructions": len(program.decoded),
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


_PROFILE = """
import cProfile, json, pstats, sys
from pathlib import Path
from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.program import load_program
from lepton.runtime.golden import random_inputs
from lepton.runtime.execute import HostRegions
from lepton.simulator import run_values

def place(path):
    parts = Path(path).parts
    for package in ("lepton", "tvm", "tvm_ffi", "onnxruntime", "numpy", "numba"):
        if package in parts:
            inside = parts[len(parts) - parts[::-1].index(package) - 1:]
            return "/".join(inside[:3] if package == "lepton" else inside[:1])
    return "Python" if path.endswith(".py") else "built-in functions"

def shares(function, *arguments):
    profile = cProfile.Profile()
    profile.runcall(function, *arguments)
    own = {}
    for (path, _, _), (_, _, seconds, _, _) in pstats.Stats(profile).stats.items():
        own[place(path)] = own.get(place(path), 0) + seconds
    total = sum(own.values())
    return {name: own[name] / total for name in sorted(own, key=own.get, reverse=True)[:6]}

program = load_program(sys.argv[2])
inputs, host = random_inputs(program, 0), HostRegions(program)
run_values(program, inputs, host)
print(json.dumps({
    "compile": shares(compile_model, Path(sys.argv[1]), load_chip(sys.argv[3])),
    "values": shares(run_values, program, inputs, host),
}))
"""
LIMITS = {
    "compile cold, wall s": 15,
    "timing warm s": 0.2,
    "values warm s": 3,
    "compile peak MB": 1500,
    "simulate peak MB": 1500,
}
"""What MobileNetV2, the first of the models, must keep on the preset edge."""


@dataclass(frozen=True)
class Measured:
    """What one model takes.

    Attributes:
        shares: of own time by module, for a warm compile and for the values.
    """

    figures: dict[str, float]
    shares: dict[str, dict[str, float]]


def measure(model: Path, chip: str) -> Measured:
    """Return what one model takes, cold (empty kernel cache) and warm."""
    with tempfile.TemporaryDirectory() as home:
        target = str(Path(home) / "model.lepton")
        command = ["-m", "lepton", "compile", str(model), "--chip", chip, "-o", target]
        cold_compile = run_python(command, home)
        cold = json.loads(run_python(["-c", _INSIDE, target], home).output)
        warm_compile = run_python(command, home)
        warm = json.loads(run_python(["-c", _INSIDE, target], home).output)
        shares = json.loads(run_python(["-c", _PROFILE, str(model), target, chip], home).output)
    parts = ("check", "timing", "values")
    figures = {
        "compile cold, wall s": cold_compile.wall_s,
        "compile cold s": cold_compile.cpu_s,
        "compile warm, wall s": warm_compile.wall_s,
        "compile warm s": warm_compile.cpu_s,
        "compile peak MB": max(cold_compile.peak_mb, warm_compile.peak_mb),
        **{f"{part} warm s": warm[part] for part in parts},
        **{f"{part} cold s": cold[f"first_{part}"] for part in parts},
        "compiling the kernels s": sum(cold[f"first_{part}"] - warm[part] for part in parts),
        "simulate peak MB": max(cold["peak_mb"], warm["peak_mb"]),
        "instructions": warm["instructions"],
        "cycles": warm["cycles"],
        "M cycles per CPU s": warm["cycles"] / warm["timing"] / 1e6,
    }
    return Measured(figures, shares)


def table(rows: dict[str, Measured]) -> str:
    """Return the figures as Markdown, a column per model."""
    models = list(rows.values())
    lines = [(name, *(m.figures[name] for m in models)) for name in models[0].figures]
    return markdown_table(("figure", *rows), lines, 1)


def dominating(rows: dict[str, Measured]) -> str:
    """Return where the time goes, as Markdown."""
    head = ("model", "work", "share of the time by module, under the profiler")
    lines = [
        (name, work, ", ".join(f"{place} {share:.0%}" for place, share in shares.items()))
        for name, made in rows.items()
        for work, shares in made.shares.items()
    ]
    return markdown_table(head, lines, 3)


def acceptance(figures: dict[str, float]) -> str:
    """Return the limits and whether they are met, as Markdown."""
    return limits_table([Limit(name, limit, figures[name]) for name, limit in LIMITS.items()])


NOTES = "## Changes of presets"
"""What follows this heading in docs/results.md is written by hand and kept."""


def page(rows: dict[str, Measured], chip: str, *, with_limits: bool) -> str:
    """Return docs/results.md."""
    parts = [
        "# Results",
        f"Written by `python -m benchmarks.speed --write` {origin()}, chip `{chip}`.",
        "CPU seconds unless a line says wall; cold is an empty kernel cache (the\n"
        "kernels are compiled), warm a filled one. Timing and values do not include the check.",
        table(rows),
    ]
    if with_limits:
        name = next(iter(rows))
        parts += [f"## Limits of {name}", acceptance(rows[name].figures)]
    parts += ["## What dominates", dominating(rows)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--chip", default="edge")
    parser.add_argument("--write", action="store_true", help="replace docs/results.md")
    options = parser.parse_args()
    data = Path(os.environ.get("LEPTON_DATA", "."))
    models = [Path(m) for m in options.models] or [data / name for name in DEFAULT]
    rows = {model.stem: measure(model, options.chip) for model in models}
    has_limits = not options.models and options.chip == "edge"
    text = page(rows, options.chip, with_limits=has_limits)
    print(text)
    if options.write:
        results = ROOT / "docs" / "results.md"
        _, found, notes = results.read_text().partition(NOTES)
        results.write_text(text + ("\n" + found + notes if found else ""))


if __name__ == "__main__":
    main()
