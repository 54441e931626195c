"""Measure sweeps: points per second of both tiers, what two-fidelity search finds, workers, kills.

    python -m benchmarks.sweep [--write] [--only PART ...] [--runs DIR] [--zigzag PYTHON]

Needs the extras `sweep` and `cluster`, and the environment variable LEPTON_DATA, which names the
folder of the models. The parts are `analytic`, `event`, `search`, `workers`, `cluster` and `kills`;
`search` simulates all of a space of 4,000 chips first (some ten minutes), unless the folder
`--runs` has its runs from before. `--zigzag` names a Python that has zigzag-dse, to time it on the
same network. With `--write` the figures of docs/sweeps.md are replaced, of the measured parts.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT, best
from benchmarks.page import (
    Limit,
    limits_table,
    markdown_table,
    origin,
    page_parser,
    replace_section,
)
from tests.explore.killing import begun, known_runs

PAGE = ROOT / "docs" / "sweeps.md"
HEADINGS = {
    "analytic": "### The analytic tier", "event": "### The event tier",
    "search": "### Two-fidelity search", "workers": "### Two workers",
    "cluster": "### A Dask cluster", "kills": "### Ten kills",
}  # fmt: skip
"""Sections of the page, by the part that they are of."""
PARTS = tuple(HEADINGS)

SPACE = """\
base = "edge"
objectives = ["latency_ms", "energy_mj", "area_mm2"]

[parameters]
array.rows = [8, 16, 32, 64, 128]
array.columns = [8, 16, 32, 64, 128]
scratchpad.size_kib = {sizes}
scratchpad.port_bytes = {{ follows = "array.rows" }}
weight_buffer.decoder_bytes_per_cycle = {{ follows = "array.columns" }}
weight_buffer.entropy_lanes = [0]
weight_buffer.size_kib = [256]
memory.dram.channels = [1, 2, 4, 8]
vector.lanes = [16, 64]
array.clock_mhz = [250, 500, 1000, 1600]

[[workload]]
model = "{model}"
"""
"""4,000 chips."""

_ZIGZAG = """
import sys, time, tempfile, os
from zigzag.api import get_hardware_performance_zigzag
import zigzag
inputs = os.path.join(os.path.dirname(zigzag.__file__), "inputs")
began = time.process_time()
found = get_hardware_performance_zigzag(
    sys.argv[1], inputs + "/hardware/tpu_like.yaml", inputs + "/mapping/tpu_like.yaml",
    dump_folder=tempfile.mkdtemp(), loma_show_progress_bar=False)
print(time.process_time() - began, found[1])
"""


@dataclass
class Figures:
    """Limits with what was measured, tables, and remarks."""

    limits: list[Limit] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        return "\n\n".join([limits_table(self.limits), *self.tables, *self.notes])


def resnet50_space(folder: Path) -> Path:
    """Write ResNet-50 in int8 with random weights, and a space for it; return the space's file."""
    from tests.resnet50 import resnet50

    model = folder / "resnet50.tflite"
    model.write_bytes(resnet50())
    return _written(folder, model, "[128, 256, 512, 1024, 2048]")


def resnet8_space(folder: Path) -> Path:
    """Write a space for MLPerf Tiny's ResNet-8."""
    model = Path(os.environ["LEPTON_DATA"]) / "mlperf_tiny" / "pretrainedResnet_quant.tflite"
    return _written(folder, model.absolute(), "[32, 64, 128, 256, 512]")


def _written(folder: Path, model: Path, sizes: str) -> Path:
    path = folder / f"{model.stem}.toml"
    path.write_text(SPACE.format(model=model, sizes=sizes))
    return path


def analytic(figures: Figures, folder: Path) -> None:
    """Measure the analytic tier on every point of the space of ResNet-50."""
    from lepton.explore import load_space
    from lepton.explore.analytic import AnalyticTier
    from lepton.explore.analytic.machine import Machines
    from lepton.explore.fronts import load_front

    space = load_space(resnet50_space(folder))
    front = load_front(space.workloads[0], space.base)
    tier = AnalyticTier([front], [1.0])
    points = space.points(np.arange(space.size))
    whole = best(lambda: tier.evaluate(space, points))
    machines = Machines(space, points)
    kernel = best(lambda: tier.counts(tier.networks[0], machines))
    cold = AnalyticTier([front], [1.0])
    first = best(lambda: cold.evaluate(space, points[:1]), 1)
    rate = space.size / whole.cpu_s
    figures.limits.append(Limit("analytic tier, ResNet-50: points / s / core", 10_000, rate, True))
    rows = [
        ("cycles and counts", f"{1e6 * kernel.cpu_s / space.size:.1f}",
         f"{space.size / kernel.cpu_s:,.0f}"),
        ("the same, contradictions, area, energy, metrics",
         f"{1e6 * whole.cpu_s / space.size:.1f}", f"{rate:,.0f}"),
    ]  # fmt: skip
    table = markdown_table(("ResNet-50, 4,000 chips", "us / point", "points / s / core"), rows, 1)
    figures.tables.append(
        f"{table}\n\nThe first point, weights sampled: {first.cpu_s:.2f} s. "
        f"{len(tier.networks[0].rows)} different layers."
    )


def event(figures: Figures, folder: Path, zigzag: str | None) -> None:
    """Measure the event tier on random points of the same space, and how the tiers agree."""
    from scipy.stats import kendalltau, spearmanr

    from lepton.explore import load_space
    from lepton.explore.analytic import AnalyticTier
    from lepton.explore.events import EventTier
    from lepton.explore.fronts import load_front
    from lepton.explore.samplers import drawn
    from lepton.explore.space import Setting

    space = load_space(resnet50_space(folder))
    front = load_front(space.workloads[0], space.base)
    tier = EventTier(space.workloads, [front])
    tier.run(0, space.base, Setting())
    numbers = drawn(space, "random", 40, 1)
    points = space.points(numbers)
    chips = [space.chip(point) for point in points.tolist()]
    began = time.process_time()
    runs = [tier.run(0, chip, Setting()) for chip in chips]
    seconds = time.process_time() - began
    rate = len(chips) / seconds
    clock = np.array([float(chip.array.clock_mhz) for chip in chips])
    simulated = np.array([run.cycles for run in runs]) / clock / 1000
    closed = AnalyticTier([front], [1.0]).evaluate(space, points)
    ratio = np.abs(closed.metrics["latency_ms"] / simulated - 1)
    rank = _first(spearmanr(closed.metrics["latency_ms"], simulated))
    energy = _first(spearmanr(closed.metrics["energy_mj"], [run.joules for run in runs]))
    tau = _first(kendalltau(closed.metrics["latency_ms"], simulated))
    figures.limits += [
        Limit("event tier, ResNet-50: points / s / core", 0.5, rate, True),
        Limit("ResNet-50, 40 random chips: rank correlation of latencies", 0.9, rank, True),
    ]
    figures.notes.append(
        f"40 random chips of the space of ResNet-50, compiled at effort 0 and simulated: "
        f"{seconds / len(chips):.2f} CPU s a point. Closed forms beside the simulator: latency "
        f"Spearman {rank:.3f}, Kendall {tau:.3f}, off by {100 * np.median(ratio):.0f} % in the "
        f"median and {100 * np.percentile(ratio, 95):.0f} % in the 95th percentile; "
        f"energy Spearman {energy:.3f}."
    )
    if zigzag:
        figures.notes.append(_zigzag(zigzag, folder, seconds / len(chips)))


def _first(found: object) -> float:
    return float(np.asarray(found)[0])


def _zigzag(python: str, folder: Path, ours: float) -> str:
    """Time ZigZag on ResNet-50 and its own chip of 32 x 32 MACs."""
    import onnx

    from lepton.models.light import light_network

    path = folder / "resnet50.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(light_network("resnet50")), str(path))
    # threads that wait for each other would count as work
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", _ZIGZAG, str(path)], capture_output=True, text=True, cwd=folder,
        check=False, env=alone,
    )  # fmt: skip
    if done.returncode:
        return f"ZigZag failed: {done.stderr.strip().splitlines()[-1][:200]}"
    seconds, cycles = map(float, done.stdout.split()[-2:])
    return (
        f"ZigZag (zigzag-dse, its `tpu_like` of 32 x 32) takes {seconds:.1f} CPU s for one design "
        f"point of ResNet-50 ({cycles:,.0f} cycles) on the same machine: "
        f"{seconds / ours:.0f} times the event tier's."
    )


def search(figures: Figures, folder: Path, runs: Path | None) -> None:
    """Compare two-fidelity search with the whole space of ResNet-8, simulated."""
    from lepton.explore import load_space
    from lepton.explore.engine import SweepOptions, run_sweep
    from lepton.explore.metrics import objective_matrix
    from lepton.explore.pareto import hypervolume_share, non_dominated

    space = load_space(resnet8_space(folder))
    kept = runs or folder / "whole"
    began = time.perf_counter()
    workers = os.cpu_count() or 1
    whole = run_sweep(space, SweepOptions(sampler="grid", workers=workers), kept)
    seconds = time.perf_counter() - began
    everything = objective_matrix(whole.metrics, space.objectives)
    front = set(whole.numbers[non_dominated(everything)].tolist())
    rows: list[tuple[str, str, str, str]] = []
    shares: list[float] = []
    for share in (0.025, 0.05):
        for seed in range(3):
            options = SweepOptions(points=int(share * space.size), seed=seed)
            found = run_sweep(space, options, kept)
            values = objective_matrix(found.metrics, space.objectives)
            got = hypervolume_share(values, everything)
            if share == 0.05:
                shares.append(got)
            met = len(front & set(found.numbers.tolist()))
            rows.append((f"{len(found.numbers)} ({100 * share:g} %), seed {seed}",
                         f"{met} of {len(front)}", f"{100 * got:.2f}",
                         f"{found.agreement()['latency_ms']:.3f}"))  # fmt: skip
    figures.limits.append(
        Limit(
            "two-fidelity, 5 % of 4,000: share of the hypervolume [%]", 95, 100 * min(shares), True
        )
    )
    agreement = whole.agreement()
    head = ("ResNet-8, simulations", "front found", "hypervolume [%]", "rank agreement of latency")
    figures.tables.append(
        f"{markdown_table(head, rows, 1)}\n\nObjectives: {', '.join(space.objectives)}. Over all "
        f"4,000 chips the tiers' ranks agree with {agreement['latency_ms']:.4f} (latency) and "
        f"{agreement['energy_mj']:.4f} (energy); those that a search simulates lie close together."
    )
    if whole.fresh == space.size:
        figures.notes.append(
            f"All 4,000 runs of ResNet-8: {seconds:,.0f} s with {workers} workers, "
            f"{1000 * seconds / space.size:.0f} ms a point."
        )


def workers(figures: Figures, folder: Path) -> None:
    """Time one and two workers, from when they are ready, on the same points in the same order."""
    from lepton.explore import load_space
    from lepton.explore.task import Task
    from lepton.explore.workers import ProcessWorkers

    space = load_space(resnet8_space(folder))
    points = space.points(np.arange(0, space.size, 8))
    tasks = [
        Task(str(number), 0, space.chip(point), space.setting(point))
        for number, point in enumerate(points.tolist())
    ]
    seconds: dict[int, float] = {}
    results: dict[int, dict[str, int]] = {}
    for count in (1, 2, 1, 2):
        with ProcessWorkers(space.workloads, space.base, count) as pool:
            list(pool.run([Task("", 0, space.base, tasks[0].setting)] * 2 * count))
            began = time.perf_counter()
            results[count] = {task.key: run.cycles for task, run in pool.run(tasks)}
            spent = time.perf_counter() - began
        seconds[count] = min(seconds.get(count, spent), spent)
    assert results[1] == results[2]
    gain = seconds[1] / seconds[2]
    figures.limits.append(Limit("two workers: times one worker's speed", 1.8, gain, True))
    figures.notes.append(
        f"{len(tasks)} chips for ResNet-8: {seconds[1]:.1f} s with one worker, {seconds[2]:.1f} s "
        "with two, from when they are ready, the better of two runs; all results are equal."
    )


def cluster(figures: Figures, folder: Path) -> None:
    """Measure what a Dask cluster of one process adds to a point."""
    import distributed

    from lepton.explore import load_space
    from lepton.explore.cluster import DaskWorkers
    from lepton.explore.task import Task
    from lepton.explore.workers import ProcessWorkers, Workers

    path = folder / "cluster.toml"
    path.write_text(
        resnet8_space(folder).read_text().partition('model = "')[0] + 'model = "digits"'
    )
    space = load_space(path)
    tasks = [Task(str(n), 0, space.base, space.setting((0,) * 8)) for n in range(300)]

    def seconds(workers: Workers) -> float:
        list(workers.run(tasks[:20]))
        began = time.perf_counter()
        list(workers.run(tasks))
        return (time.perf_counter() - began) / len(tasks)

    with ProcessWorkers(space.workloads, space.base, 1) as pool:
        here = min(seconds(pool) for _ in range(3))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as made:
        workers = DaskWorkers(space.workloads, space.base, made.scheduler_address)
        there = min(seconds(workers) for _ in range(3))
        workers.close()
    added = 1000 * (there - here)
    figures.limits.append(Limit("distributed engine: added to a point [ms]", 10, added))
    figures.notes.append(
        f"A point of `digits` takes {1000 * here:.1f} ms with a worker process here and "
        f"{1000 * there:.1f} ms with a Dask cluster of one process on the same machine."
    )


def kills(figures: Figures, folder: Path, count: int = 10) -> None:
    """Kill a sweep of 2,000 points ten times at random moments, and compare its table."""
    from lepton.explore import load

    text = resnet8_space(folder).read_text().replace("[16, 64]", "[64]")
    text = text.replace(text[text.index('model = "') :], 'model = "digits"\n')
    space = folder / "kills.toml"
    space.write_text(text)
    out, rng = folder / "killed", random.Random(3)
    for number in range(count):
        process = begun(space, out, 1 + number % 2)
        wanted = known_runs(out) + rng.randint(20, 180)
        while known_runs(out) < wanted and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = known_runs(out)
    printed, _ = begun(space, out, 2).communicate()
    repeated = before + int(printed) - 2000
    begun(space, folder / "unkilled", 2).communicate()
    same = load(out).equals(load(folder / "unkilled"))
    figures.limits.append(Limit("2,000 points, ten kills: runs done twice", 0, repeated))
    figures.notes.append(
        f"2,000 points (`digits`), killed {count} times after {before:,} runs: the table is "
        f"{'the same as' if same else 'NOT that of'} a sweep that was not killed."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the chosen parts, print and write them."""
    parser = page_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--zigzag")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure: dict[str, Callable[[Figures], None]] = {
            "analytic": lambda figures: analytic(figures, folder),
            "event": lambda figures: event(figures, folder, options.zigzag),
            "search": lambda figures: search(figures, folder, options.runs),
            "workers": lambda figures: workers(figures, folder),
            "cluster": lambda figures: cluster(figures, folder),
            "kills": lambda figures: kills(figures, folder),
        }
        for part in dict.fromkeys(options.only):
            figures = Figures()
            measure[part](figures)
            text = f"Measured {origin()}.\n\n{figures.text()}"
            print(f"{HEADINGS[part]}\n\n{text}\n", flush=True)
            if options.write:
                replace_section(PAGE, HEADINGS[part], text)


if __name__ == "__main__":
    main()
