"""`lepton demo`: the built-in digits network on the simulated NPU, end to end."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from lepton.chip import Chip
from lepton.cli.loading import progress
from lepton.cli.writing import write_file
from lepton.compiler.options import CompileOptions
from lepton.program import one_line
from lepton.program.files import made_folder

__all__ = ["demo"]


def demo(chip: Chip, folder: Path) -> None:
    """Compile, classify the held-out images, print accuracy and table, write the pictures."""
    from lepton.compiler.isolate import compile_file
    from lepton.models import digits_model_path, load_digits_holdout
    from lepton.report.html import html_page
    from lepton.report.perfetto import perfetto_json
    from lepton.report.plots import save_all
    from lepton.report.summary import summarize
    from lepton.report.table import layer_table
    from lepton.runtime.execute import HostRegions, compile_kernels
    from lepton.runtime.golden import GoldenModel
    from lepton.simulator import check, run_values, simulate_timing

    began = time.perf_counter()
    path = digits_model_path()
    program = compile_file(path, chip, CompileOptions())
    compile_seconds = time.perf_counter() - began
    program.save(made_folder(folder) / "digits.lepton")
    compile_kernels(program, "check", "values", "timing", "report")
    check(program)
    images, labels = load_digits_holdout()
    host, golden = HostRegions(program), GoldenModel(path)
    name, output = program.inputs[0], program.outputs[0]
    hits = golden_hits = equal = 0
    for image, label in progress(zip(images, labels, strict=True), len(images), "digits"):
        inputs = {name: image[None].astype(np.float32)}
        ours = run_values(program, inputs, host)[output]
        theirs = next(iter(golden.run(inputs).values()))
        hits += int(ours.argmax() == label)
        golden_hits += int(theirs.argmax() == label)
        equal += int(np.array_equal(ours, theirs))
    began = time.perf_counter()
    trace = simulate_timing(program)
    seconds = time.perf_counter() - began
    count = len(labels)
    print(f"digits on chip {one_line(chip.name)}: {count} held-out images")
    print(f"accuracy   simulated NPU {hits / count:.2%}   ONNX Runtime {golden_hits / count:.2%}")
    print(f"equal to the last bit: {equal} of {count} outputs\n")
    summary = summarize(program, trace, compile_seconds=compile_seconds, simulate_seconds=seconds)
    print(layer_table(summary))
    written = [folder / "digits.lepton", *save_all(program, trace, folder)]
    for file, text in [
        ("trace.json", perfetto_json(program, trace)),
        ("report.html", html_page(program, trace)),
    ]:
        write_file(folder / file, text.encode())
        written.append(folder / file)
    print("\nwritten: " + ", ".join(str(item) for item in written))
