"""Commands that take a model: compile, run, verify, eval, demo."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from numpy.typing import NDArray

from lepton.cli.arguments import (
    add_chip,
    add_compilation,
    add_shapes,
    file_path,
    model_file,
    natural,
)
from lepton.cli.devices import add_measuring
from lepton.cli.loading import (
    chosen_chip,
    compile_path,
    compile_path_explained,
    program_or_model,
    progress,
    read_inputs,
)
from lepton.cli.photo import add_image, best_classes, image_input, refuse_image, top_json, top_text
from lepton.cli.run_placed import outputs_text, run_placed, settled_on_others, wants_placement
from lepton.cli.writing import refuse_overwrite, write_arrays, write_file
from lepton.errors import InputError
from lepton.program import Program, one_line, read_arrays
from lepton.trace import Trace

if TYPE_CHECKING:
    from lepton.compiler.schedules import Compiled
    from lepton.report.summary import Summary
    from lepton.report.why import Why
    from lepton.runtime.photo import ClassScore

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the parsers of this module's commands."""
    _add_compile(commands)
    _add_run(commands)
    _add_verify(commands)
    _add_eval(commands)
    demo = commands.add_parser(
        "demo", help="the built-in digits network, end to end",
        epilog="example: lepton demo --chip edge --out pictures",
    )  # fmt: skip
    demo.add_argument("--chip", default="nano", metavar="NAME|FILE.toml", help="default nano")
    demo.add_argument(
        "--out", default="out/demo", type=file_path, metavar="DIR", help="for pictures"
    )
    demo.set_defaults(run=_demo)


def _add_compile(commands: Any) -> None:
    parser = commands.add_parser(
        "compile", help="model -> program file",
        epilog="example: lepton compile model.tflite --chip nano -o model.lepton",
    )  # fmt: skip
    parser.add_argument(
        "model", metavar="MODEL", type=model_file, help=".onnx or .tflite, quantized"
    )
    add_chip(parser)
    add_compilation(parser)
    parser.add_argument("-o", "--output", type=file_path, metavar="FILE.lepton")
    parser.add_argument("--why", action="store_true", help="say what runs where, and why")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_compile)


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run", help="simulate a model or a program",
        epilog="example: lepton run model.lepton --input x.npy --output y.npz --trace t.json",
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL|FILE.lepton", type=model_file)
    add_chip(parser, None)
    add_compilation(parser)
    parser.add_argument("--input", type=file_path, metavar="X.npy|X.npz", help="else seeded random")
    parser.add_argument("--seed", type=natural, default=0, help="of the random input; default 0")
    parser.add_argument("--output", type=file_path, metavar="Y.npz")
    parser.add_argument(
        "--device", metavar="npu,cpu,gpu",
        help="npu, or npu,cpu to take float models too; others (gpu, cpu alone, npu2=nano) run "
        "each layer where it is predicted to be fastest",
    )  # fmt: skip
    add_measuring(parser)
    add_image(parser)
    parser.add_argument("--no-values", action="store_true", help="cycles only")
    parser.add_argument("--no-check", action="store_true", help="the program is known to be sound")
    parser.add_argument("--trace", type=file_path, metavar="T.json", help="Perfetto trace")
    parser.add_argument("--save-trace", type=file_path, metavar="T.trace", help="for lepton report")
    parser.add_argument(
        "--report", type=file_path, metavar="R.html", help="one self-contained page"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify", help="compare every layer with the golden library",
        epilog="example: lepton verify model.tflite --input x.npy",
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", type=model_file)
    add_chip(parser)
    add_shapes(parser)
    parser.add_argument("--input", type=file_path, metavar="X.npy|X.npz", help="else seeded random")
    parser.add_argument("--seed", type=natural, default=0, help="of the random input; default 0")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_verify)


def _add_eval(commands: Any) -> None:
    parser = commands.add_parser(
        "eval", help="accuracy beside the golden library's",
        epilog="example: lepton eval model.tflite --data test.npz",
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", type=model_file)
    add_chip(parser)
    add_shapes(parser)
    parser.add_argument(
        "--data", type=file_path, required=True, metavar="X.npz", help="arrays x and y"
    )
    parser.add_argument("--limit", type=natural, default=0, help="first N samples only; 0 for all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_eval)


def _compile(options: argparse.Namespace) -> None:
    """Run `lepton compile`."""
    began = time.perf_counter()
    output = options.output or Path(f"{options.model.stem or 'model'}.lepton")
    refuse_overwrite([options.model, options.calibrate], [output])
    made = compile_path_explained(options, chosen_chip(options.chip), explain=options.why)
    program = made.program
    seconds = time.perf_counter() - began
    program.save(output)
    layers = _why(made) if options.why else ()
    if options.json:
        summary = _summary(program, None, compile_seconds=seconds).to_json()
        reasons = {why.index: why.to_json() for why in layers}
        for layer in cast(list[dict[str, object]], summary["layers"]):
            layer |= {"why": reasons[cast(int, layer["index"])]} if options.why else {}
        summary |= {"precision": made.precision.to_json()} if made.precision else {}
        print(json.dumps(summary | {"output": str(output)}))
        return
    if options.why:
        from lepton.report.why import why_text

        print(why_text(layers, program.objective))
    kinds = [region.device for region in program.regions]
    print(
        f"{output}: {len(program.decoded)} instructions, {len(program.constants)} bytes of "
        f"constants, {kinds.count('npu')} NPU and {kinds.count('host')} host regions, "
        f"for chip {one_line(program.chip.name)}, optimized for {program.objective}, "
        f"in {seconds:.1f} s"
    )
    if made.precision:
        print(made.precision.text())
    if program.arenas:
        from lepton.report.names import arena_text

        print("activations: " + "; ".join(arena_text(arena) for arena in program.arenas))


def _why(made: Compiled) -> tuple[Why, ...]:
    """Return what decided about each layer."""
    from lepton.cost.estimate import estimate_program
    from lepton.report.why import why_layers

    return why_layers(made.program, estimate_program(made.program), made.schedules)


def _summary(program: Program, trace: Trace | None, **seconds: float) -> Summary:
    """Return the figures of a program and, with a trace, of its run and its estimate."""
    from lepton.report.summary import summarize

    if trace is None:
        return summarize(program, None, None, **seconds)
    from lepton.cost.estimate import estimate_program

    return summarize(program, trace, estimate_program(program), **seconds)


def _devices(options: argparse.Namespace, program: Program) -> None:
    """Check `--device` against the program."""
    wanted = [name.strip() for name in (options.device or "npu,cpu").split(",")]
    for name in wanted:
        if name not in ("npu", "cpu"):
            raise InputError(f"device '{name}' does not exist here; choose from npu, cpu")
    if "npu" not in wanted:
        raise InputError("--device must include npu; the CPU runs only what the NPU cannot")
    host = [o for o in program.operators if o.device == "host"]
    if "cpu" not in wanted and host:
        raise InputError(
            f"operator '{host[0].name}' ({host[0].kind}) needs the CPU: {host[0].reason}; "
            "use --device npu,cpu"
        )


def _refuse_run(options: argparse.Namespace) -> None:
    """Raise InputError for options of `lepton run` that contradict each other."""
    refuse_image(options)
    if options.no_values and options.output is not None:
        raise InputError("--output needs values, which --no-values leaves out")
    refuse_overwrite(
        [options.model, options.input, options.calibrate, options.image, options.labels],
        [options.output, options.trace, options.save_trace, options.report],
    )


def _run(options: argparse.Namespace) -> None:
    """Run `lepton run`."""
    from lepton.runtime.execute import compile_kernels, simulate

    _refuse_run(options)
    if wants_placement(options) and settled_on_others(options):
        run_placed(options)
        return
    began = time.perf_counter()
    program = program_or_model(options)
    compile_seconds = time.perf_counter() - began
    _devices(options, program)
    inputs, note = _run_inputs(options, program)
    began = time.perf_counter()
    compile_kernels(program, "check", *([] if inputs is None else ["values"]), "timing", "report")
    result = simulate(program, inputs, checked=options.no_check)
    seconds = time.perf_counter() - began
    assert result.trace is not None
    if options.output is not None:
        write_arrays(options.output, result.outputs)
    _write_reports(options, program, result.trace)
    summary_seconds = {"compile_seconds": compile_seconds, "simulate_seconds": seconds}
    photo: Path | None = options.image
    top = None if photo is None else _best(options, program, result.outputs)
    if options.json:
        made = _summary(program, result.trace, **summary_seconds).to_json()
        print(json.dumps(made if top is None else made | {"top": top_json(top)}))
        return
    from lepton.report.table import layer_table

    if note:
        print(note)
    print(layer_table(_summary(program, result.trace, **summary_seconds)))
    if result.outputs:
        print(outputs_text(result.outputs))
    if photo is not None and top is not None:
        print(top_text(photo, top))


def _run_inputs(options: argparse.Namespace, program: Program) -> tuple[dict[str, Any] | None, str]:
    """Return the inputs, None for cycles only, and a sentence about drawn ones."""
    from lepton.runtime.golden import random_inputs

    if options.image is not None:
        return image_input(options, {n: program.tensor_by_name[n] for n in program.inputs}), ""
    if options.input is not None:
        inputs = read_inputs("program", program.inputs, options.input)
        return (None if options.no_values else inputs), ""
    if options.no_values:
        return None, ""
    note = f"no --input: a random one with seed {options.seed}"
    return random_inputs(program, options.seed), note


def _best(
    options: argparse.Namespace, program: Program, outputs: Mapping[str, NDArray[Any]]
) -> list[ClassScore]:
    """Return the best classes of the first output."""
    tensor = program.tensor_by_name[program.outputs[0]]
    quantization = None if tensor.scale is None else (tensor.scale, tensor.zero_point)
    return best_classes(options, outputs[tensor.name], quantization)


def _write_reports(options: argparse.Namespace, program: Program, trace: Trace) -> None:
    """Write the files that `run` was asked for."""
    if options.trace is not None:
        from lepton.report.perfetto import perfetto_json

        write_file(options.trace, perfetto_json(program, trace).encode())
    if options.save_trace is not None:
        from lepton.report.trace_file import trace_bytes

        write_file(options.save_trace, trace_bytes(program, trace))
    if options.report is not None:
        from lepton.report.html import html_page

        write_file(options.report, html_page(program, trace).encode())


def _verify(options: argparse.Namespace) -> None:
    """Run `lepton verify`."""
    from lepton.runtime.verify import verify_program

    inputs = None if options.input is None else read_arrays(options.input)
    program = compile_path(options, chosen_chip(options.chip), keep_all=True)
    report = verify_program(program, options.model, inputs, seed=options.seed)
    print(json.dumps(report.to_json()) if options.json else report.text())


def _eval(options: argparse.Namespace) -> None:
    """Run `lepton eval`."""
    from lepton.runtime.evaluate import evaluate_program

    arrays = read_arrays(options.data)
    if "x" not in arrays or "y" not in arrays:
        raise InputError(f"{options.data}: must hold arrays x and y, not {', '.join(arrays)}")
    x, y = arrays["x"], arrays["y"]
    if x.ndim == 0:
        raise InputError(f"{options.data}: x must be [samples, ...], not a single number")
    count = min(len(x), options.limit or len(x))
    program = compile_path(options, chosen_chip(options.chip))
    _refuse_labels(options.data, y, program)
    report = evaluate_program(
        program, options.model, x, y, limit=count,
        progress=lambda items: progress(items, count, "eval"),
    )  # fmt: skip
    print(json.dumps(report.to_json()) if options.json else one_line(report.text()))


def _refuse_labels(path: Path, labels: NDArray[Any], program: Program) -> None:
    """Raise InputError for a label that is no class of the first output."""
    classes = math.prod(program.tensor_by_name[program.outputs[0]].shape)
    if labels.dtype.kind in "iu":
        for label in labels[(labels < 0) | (labels >= classes)].flat:
            raise InputError(f"{path}: y must hold classes from 0 to {classes - 1}, not {label}")


def _demo(options: argparse.Namespace) -> None:
    """Run `lepton demo`."""
    from lepton.cli.demo import demo

    demo(chosen_chip(options.chip), options.out)
