"""Run the property tests whole, and write docs/campaign.json and its pages.

Parts whose committed result covers the present sources are left out. Finished cases are kept in
out/campaign/, so a run that was stopped goes on where it was.

    python -m benchmarks.campaign [--jobs N] [--part NAME] [--again] [--count N]
    python -m benchmarks.campaign --part NAME --seed N     one case, with its failure in full
    python -m benchmarks.campaign --page                   the pages from docs/campaign.json
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import queue
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import onnx_nodes
from tests.campaign_parts import PARTS, SAMPLE, sources_hash

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "campaign.json"
PAGE = ROOT / "docs" / "campaign.md"
NODES_PAGE = ROOT / "docs" / "onnx_nodes.md"
CASE_SECONDS = 300
MOST_FAILURES = 20
"""A part with so many is stopped."""

PACKAGES = ("numpy", "numba", "apache-tvm", "onnx", "onnxruntime", "ai-edge-litert")


@dataclass(frozen=True)
class Case:
    """What became of one seed; `failure` is "" where nothing is wrong."""

    seed: int
    failure: str
    seconds: float
    counts: dict[str, int] = field(default_factory=dict[str, int])


# --- the workers -------------------------------------------------------------------------------


def serve(name: str) -> None:
    """Answer each seed on standard input with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    run = PARTS[name].start()
    for line in sys.stdin:
        began, failure, counts = time.monotonic(), "", Counter[str]()
        try:
            counts = run(int(line))
        except BaseException as error:  # a failure of pytest is no Exception
            failure = f"{type(error).__name__}: {error}"
        case = Case(int(line), failure, round(time.monotonic() - began, 3), dict(counts))
        answers.write(json.dumps(asdict(case)) + "\n")
        answers.flush()


class Worker:
    """A process that answers seeds, and may die of one."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    def run(self, seed: int) -> Case:
        """Run a case; one that dies or hangs is a failure, and the next one gets a new process."""
        began = time.monotonic()
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, cwd=ROOT, text=True, start_new_session=True,
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{seed}\n")
            process.stdin.flush()
        is_ready = bool(select.select([process.stdout], [], [], CASE_SECONDS)[0])
        answer = process.stdout.readline() if is_ready else ""
        if answer:
            return Case(**json.loads(answer))
        if is_ready:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
        self.close()
        reason = f"exit status {process.returncode}" if is_ready else f"over {CASE_SECONDS} s"
        return Case(seed, f"the process ended: {reason}", round(time.monotonic() - began, 3))

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


def run_cases(part: str, seeds: Sequence[int], jobs: int) -> Iterator[Case]:
    """Yield the cases of seeds as they finish, in so many processes."""
    command = [sys.executable, "-m", "benchmarks.campaign", "--part", part, "--serve"]
    workers = [Worker(command) for _ in range(jobs)]
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(seed: int) -> Case:
        worker = idle.get()
        try:
            return worker.run(seed)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(jobs)
    try:
        for future in as_completed([pool.submit(run, seed) for seed in seeds]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.close()


# --- one part ----------------------------------------------------------------------------------


def finished_cases(state: Path) -> dict[int, Case]:
    """Return the cases of an earlier run, by seed: no failures, and no line that was cut short."""
    found: dict[int, Case] = {}
    if state.exists():
        for line in state.read_text().splitlines():
            if line.endswith("}}"):
                case = Case(**json.loads(line))
                found[case.seed] = case
    return {seed: case for seed, case in found.items() if not case.failure}


def run_part(name: str, count: int, jobs: int, *, again: bool = False) -> dict[str, Any]:
    """Run what is left of a part; return its entry of docs/campaign.json."""
    from tqdm import tqdm

    sources = sources_hash(name)
    state = ROOT / "out" / "campaign" / f"{name}-{sources}.jsonl"
    state.parent.mkdir(parents=True, exist_ok=True)
    if again:
        state.unlink(missing_ok=True)
    cases = finished_cases(state)
    left = [seed for seed in range(count) if seed not in cases]
    failures = 0
    with (
        state.open("a") as kept,
        contextlib.closing(run_cases(name, left, jobs)) as running,
        tqdm(desc=name, total=count, initial=count - len(left), disable=None) as bar,
    ):
        kept.write("\n")  # after a line that was cut short
        for case in running:
            cases[case.seed] = case
            kept.write(json.dumps(asdict(case)) + "\n")
            kept.flush()
            bar.update()
            if case.failure:
                failures += 1
                bar.write(f"{name} {case.seed}: {first_line(case.failure)}", file=sys.stderr)
            if failures == MOST_FAILURES:
                break
    return entry(name, sources, [cases[seed] for seed in sorted(cases) if seed < count])


def entry(name: str, sources: str, cases: list[Case]) -> dict[str, Any]:
    """Return the summary of a part's cases."""
    counts: Counter[str] = Counter()
    for case in cases:
        counts.update(case.counts)
    return {
        "title": PARTS[name].title,
        "sources": sources,
        "written": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {package: version(package) for package in PACKAGES},
        "cases": len(cases),
        "failures": [
            {"seed": case.seed, "message": first_line(case.failure)}
            for case in cases
            if case.failure
        ],
        "verdict": PARTS[name].verdict(counts),
        "seconds": round(sum(case.seconds for case in cases)),
        "sample_seconds": round(sum(case.seconds for case in cases[:SAMPLE])),
        "counts": dict(sorted(counts.items())),
    }


def first_line(text: str) -> str:
    """Return the first line of a message, at most 300 characters."""
    return (text.splitlines() or [""])[0][:300]


# --- the result --------------------------------------------------------------------------------


def is_current(name: str, made: dict[str, Any]) -> bool:
    """Return whether an entry covers the present sources with all cases, and nothing is wrong."""
    return (
        made.get("sources") == sources_hash(name)
        and made["cases"] >= PARTS[name].count
        and not made["failures"]
        and not PARTS[name].verdict(Counter(made["counts"]))
    )


def page(result: dict[str, Any]) -> str:
    """Return docs/campaign.md."""
    lines = [
        "# Campaign",
        "",
        "Property tests with more seeds than CI has time for, written by `make campaign`. CI runs",
        f"the first {SAMPLE} of `onnx` and `hostile` and some of the rest, and fails when a part",
        "here does not cover the present sources: the package without `cli`, `models` and",
        "`report`, which no case runs, the generators in `tests` that the part uses, and the",
        "pinned versions of the golden libraries. Comments and docstrings do not count.",
        "",
        f"| part | cases | failures | s | s of {SAMPLE} | sources | written |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for name, made in result.items():
        lines.append(
            f"| {name} | {made['cases']:,} | {len(made['failures'])} | {made['seconds']:,} "
            f"| {made['sample_seconds']:,} | `{made['sources']}` | {made['written']} |"
        )
    lines += ["", "Seconds are summed over the processes, the start of each included.", ""]
    for name, made in result.items():
        lines += [f"- **{name}**: {made['title']}."]
        lines += [f"  {made['machine']}; {', '.join(map(' '.join, made['versions'].items()))}."]
    failures = [
        f"- `{reproduce(name, failure['seed'])}`: {failure['message'].replace('](', '] (')}"
        for name, made in result.items()
        for failure in made["failures"]
    ]
    failures += [f"- {name}: {made['verdict']}" for name, made in result.items() if made["verdict"]]
    lines += ["", "## Failures", "", *(failures or ["None."])]
    tables = [
        ("ONNX operators", "onnx", "operator "),
        ("Damaged files", "hostile", ""),
        ("Timing", "timing", ""),
    ]
    for heading, part, prefix in tables:
        lines += ["", f"## {heading}", "", *_counted(result.get(part, {}), prefix)]
    return "\n".join(lines) + "\n"


def write_pages(result: dict[str, Any]) -> None:
    """Write docs/campaign.md and docs/onnx_nodes.md."""
    PAGE.write_text(page(result))
    if "nodes" in result:
        NODES_PAGE.write_text(onnx_nodes.page(result["nodes"]))


def _counted(made: dict[str, Any], prefix: str) -> list[str]:
    """Return a table of counts, of those whose name starts with a prefix."""
    counts = {k: v for k, v in made.get("counts", {}).items() if k.startswith(prefix)}
    lines = ["| what | number |", "| --- | ---: |"]
    return [*lines, *(f"| {k.removeprefix(prefix)} | {v:,} |" for k, v in counts.items())]


def reproduce(name: str, seed: int) -> str:
    """Return the command that repeats a case."""
    return f"python -m benchmarks.campaign --part {name} --seed {seed}"


def repeat(run: Callable[[int], Counter[str]], seed: int) -> int:
    """Run one case here; print its counts, or its failure in full."""
    try:
        counts = run(seed)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    print("\n".join(f"{name}: {number}" for name, number in sorted(counts.items())))
    return 0


def campaign(options: argparse.Namespace) -> int:
    """Run the parts that are not current, writing the result after each."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in [options.part] if options.part else PARTS:
        if name in result and is_current(name, result[name]) and not options.again:
            continue
        result[name] = run_part(
            name, options.count or PARTS[name].count, options.jobs, again=options.again
        )
        result = {known: result[known] for known in PARTS if known in result}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        write_pages(result)
    print(page(result))
    bad = [name for name in result if not is_current(name, result[name])]
    return 1 if bad else 0


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--part", choices=list(PARTS))
    parser.add_argument("--again", action="store_true", help="parts that are current, too")
    parser.add_argument("--count", type=int, metavar="N", help="fewer cases, for a trial")
    parser.add_argument("--seed", type=int, metavar="N", help="repeat one case of --part")
    parser.add_argument("--page", action="store_true", help="only write the pages again")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.page:
        write_pages(json.loads(RESULT.read_text()))
        return 0
    if (options.serve or options.seed is not None) and options.part is None:
        parser.error("--seed needs --part")
    if options.serve:
        serve(options.part)
        return 0
    if options.seed is not None:
        return repeat(PARTS[options.part].start(), options.seed)
    try:
        return campaign(options)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
