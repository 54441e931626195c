"""Measure what a user waits for: compile, check, timing, values, memory; cold and warm.

Prints a table; with `--write` it also replaces docs/results.md. Times are CPU seconds of one
process unless a head says wall; machines are noisy, so compare ratios within one run.

    python benchmarks/speed.py [--write] [MODEL ...]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
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


def _environment(home: str | None) -> dict[str, str]:
    """Return the environment of a child; another home has an empty kernel cache."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = str(ROOT)
    if home is not None:
        environment["HOME"] = home
    return environment


def _compile(model: Path, chip: str, target: Path, home: str | None) -> tuple[float, float]:
    """Return wall seconds and peak MB of `lepton compile` as a whole process."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lepton", "compile", str(model), "--chip", chip, "-o", str(target)],
        check=True, env=_environment(home), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return time.perf_counter() - began, peak


def _simulate(target: Path, home: str | None) -> dict[str, float]:
    """Return the figures of one simulating process."""
    done = subprocess.run(
        [sys.executable, "-c", _INSIDE, str(target)],
        check=True, env=_environment(home), stdout=subprocess.PIPE,
    )  # fmt: skip
    return json.loads(done.stdout)


def measure(model: Path, chip: str) -> dict[str, float]:
    """Return all figures of one model, cold (empty kernel cache) and warm."""
    with tempfile.TemporaryDirectory() as home:
        target = Path(home) / "model.lepton"
        cold_compile, compile_peak = _compile(model, chip, target, home)
        cold = _simulate(target, home)
        warm_compile, _ = _compile(model, chip, target, home)
        warm = _simulate(target, home)
    return {
        "compile cold, wall s": cold_compile,
        "compile warm, wall s": warm_compile,
        "compile peak MB": compile_peak,
        "check cold s": cold["first_check"],
        "check warm s": warm["check"],
        "timing cold s": cold["first_timing"],
        "timing warm s": warm["timing"],
        "values cold s": cold["first_values"],
        "values warm s": warm["values"],
        "simulate peak MB": max(cold["peak_mb"], warm["peak_mb"]),
        "instructions": warm["instructions"],
        "cycles": warm["cycles"],
        "M cycles per CPU s": warm["cycles"] / warm["timing"] / 1e6,
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return the figures as Markdown, a column per model."""
    names = list(rows)
    lines = ["| figure | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for figure in rows[names[0]]:
        cells = [
            f"{rows[n][figure]:,.0f}" if rows[n][figure] >= 100 else f"{rows[n][figure]:.3g}"
            for n in names
        ]
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
    text = table(rows)
    print(text)
    if options.write:
        machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
        head = (
            "# Results\n\nWritten by `python benchmarks/speed.py --write` on a machine of "
            f"{machine}, chip `{options.chip}`.\nCPU seconds of one process unless a line says "
            "wall; cold is an empty kernel cache (the kernels are compiled), warm a filled one.\n"
            "Timing and values do not include the check.\n\n"
        )
        (ROOT / "docs" / "results.md").write_text(head + text + "\n")


if __name__ == "__main__":
    main()
