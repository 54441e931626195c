"""The command that makes a network small: train, prune, distil, share or quantize."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton.cli.arguments import add_chip, file_path, model_file, natural
from lepton.cli.budget import add_budget, chosen_budget
from lepton.cli.loading import chosen_chip
from lepton.cli.metrics import check_classes, metrics_json, metrics_of, metrics_table
from lepton.cli.writing import refuse_overwrite, refuse_unwritable, write_file
from lepton.errors import InputError

if TYPE_CHECKING:
    import onnx

    from lepton.chip import Chip
    from lepton.models.compression import Compressed
    from lepton.models.datasets import Dataset

# onnx is typed in part only:
# pyright: reportUnknownMemberType=false

__all__ = ["add_commands"]

_DATA = (
    "digits, intents, clicks or next_item; mnist:DIR or fashion:DIR (IDX files); cifar10:DIR (the "
    "binary version); a folder with a "
    "folder of pictures for each class; TRAIN.npz or TRAIN.npz,TEST.npz with x [n, ...] and y [n]"
)
_FRESH_RATE, _GENTLE_RATE = 5e-3, 1e-3
_RATE = (
    f"at its peak: default {_GENTLE_RATE}, which keeps what a trained network knows, and "
    f"{_FRESH_RATE} for one of the zoo"
)
_OPTIMIZER = "of the trainings: default adamw; muon makes the steps of kernels orthogonal"


def add_commands(commands: Any) -> None:
    """Add the parser of `lepton compress`."""
    parser = commands.add_parser(
        "compress", help="float network -> pruned, shared or few-bit int8 network",
        epilog="example: lepton compress digits --data digits --prune 0.8 --bits 5 -o small.onnx",
    )  # fmt: skip
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=".onnx, .tflite or the name of a trained network (an int8 one as the float network "
        "that it stands for; a last Softmax is left out), or a network of lepton.models.zoo to "
        "train, which comes first where both have the name",
    )
    parser.add_argument("--data", required=True, metavar="SAMPLES", help=_DATA)
    parser.add_argument("--prune", type=float, metavar="RATE", help="pruned / total, 0 to 1")
    parser.add_argument(
        "--pattern",
        help="weights (default), N:M as 2:4, filters, channels, kernels or 'blocks RxC'",
    )
    parser.add_argument(
        "--criterion", default="layer share", help="by which to prune; default 'layer share'"
    )
    parser.add_argument("--scope", default="global", choices=("layer", "global"))
    parser.add_argument("--bits", type=natural, default=8, help="of the weights, 1 to 8; default 8")
    add_budget(parser)
    parser.add_argument("--share", type=natural, metavar="LEVELS",
        help="values of each layer's weights, 2 to 255; with --bits each is one of their codes",
    )  # fmt: skip
    parser.add_argument(
        "--distil",
        type=model_file,
        metavar="TEACHER",
        help="network to learn from: .onnx, .tflite or a trained network, as for MODEL",
    )
    parser.add_argument(
        "--epochs", type=natural, help="of training in each step; default 3, on few samples more"
    )
    parser.add_argument(
        "--mirrored",
        action="store_true",
        help="the network answers with the mean for an image and its mirror image: more are right, "
        "for no stored bytes and twice the multiplications",
    )
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "muon"), help=_OPTIMIZER)
    parser.add_argument("--learning-rate", type=float, help=_RATE)
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("-o", "--output", type=file_path, required=True, metavar="OUT.onnx")
    parser.add_argument(
        "--work", type=file_path, metavar="DIR",
        help="for the steps, from which a run that was cut off goes on; default OUT.steps",
    )  # fmt: skip
    add_chip(parser)
    parser.add_argument(
        "--metrics", action="store_true",
        help="also print precision, recall, F1 and the confusion matrix on the test samples",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_compress)


def _compress(options: argparse.Namespace) -> None:
    """Run `lepton compress`."""
    from lepton.models.compression import CompressionRecipe, compress_model, quantized
    from lepton.models.compression.sources import task_of
    from lepton.models.training import Optimizer
    from lepton.models.training.named import named_split
    from lepton.models.zoo import NETWORKS

    model = NETWORKS.get(options.model) or model_file(options.model)
    refuse_overwrite([model if isinstance(model, Path) else None, options.distil], [options.output])
    if options.output.suffix != ".onnx":
        raise InputError(f"{options.output}: the result is an .onnx file")
    refuse_unwritable(options.output)
    chip = chosen_chip(options.chip)
    recipe = CompressionRecipe(
        prune=options.prune,
        pattern=options.pattern,
        criterion=options.criterion,
        scope=options.scope,
        share=options.share,
        bits=options.bits,
        mirrored=options.mirrored,
        epochs=options.epochs,
        optimizer=Optimizer(options.optimizer),
        learning_rate=_rate(options.learning_rate, is_trained=isinstance(model, Path)),
        counts_start=True,
        seed=options.seed,
    )
    task = task_of(options.model) if isinstance(model, Path) else model.task
    if options.metrics:
        check_classes(task)
    folder = options.work or options.output.with_suffix(".steps")
    split = named_split(options.data)
    made = compress_model(
        model,
        split,
        recipe,
        folder,
        task=task,
        teacher=options.distil,
        budget=chosen_budget(options, chip),
        note=_warn,
    )
    write_file(options.output, made.model.SerializeToString())
    costs = {"float, 8 bits": _cost(quantized(made.source, split), split.test, chip)}
    costs[made.stages[-1].name] = _cost(made.model, split.test, chip)
    found = metrics_of(made.model, task, split.test) if options.metrics else None
    names = split.test.classes
    if options.json:
        stages = [vars(stage) for stage in made.stages]
        printed = {"output": str(options.output), "stages": stages, "costs": costs}
        extra = {} if found is None else {"metrics": metrics_json(found, names)}
        print(json.dumps(printed | extra))
        return
    print(_table(made, costs, chip.name))
    if found is not None:
        print(f"\n{metrics_table(found, names)}")
    print(f"{options.output}: {len(made.model.SerializeToString()):,} bytes")


def _rate(given: float | None, *, is_trained: bool) -> float:
    """Return the learning rate: what is given, or what suits the network."""
    if given is not None:
        return given
    return _GENTLE_RATE if is_trained else _FRESH_RATE


def _warn(sentence: str) -> None:
    print(f"lepton: {sentence}", file=sys.stderr)


def _cost(model: onnx.ModelProto, samples: Dataset, chip: Chip) -> dict[str, int]:
    """Return what a network takes for a sample on a chip: cycles, bytes of weights and streams."""
    from lepton.api import compile, simulate
    from lepton.models.onnx_module.reading import runtime_inputs
    from lepton.report.traffic import weight_stream_bytes

    names = [item.name for item in runtime_inputs(model.graph)]
    shapes = [(1, *array.shape[1:]) for array in samples.inputs]
    program = compile(model, chip, shapes=dict(zip(names, shapes, strict=True)))
    trace = simulate(program).trace
    assert trace is not None
    weights = sum(operator.weight_bytes for operator in program.operators)
    stored = int(weight_stream_bytes(program).sum())
    return {"cycles": trace.cycles, "weight_bytes": weights, "stored_bytes": stored}


def _table(made: Compressed, costs: dict[str, dict[str, int]], chip: str) -> str:
    lines = [f"{'step':16} {'validation':>10} {'test':>8} {'zeros':>8}"]
    for stage in made.stages:
        zeros = stage.zeros / max(stage.weights, 1)
        lines.append(f"{stage.name:16} {stage.validation:10.4f} {stage.test:8.4f} {zeros:8.1%}")
    lines += ["", f"{'on ' + chip:16} {'cycles':>12} {'weight bytes':>13} {'stored':>10}"]
    for name, cost in costs.items():
        lines.append(
            f"{name:16} {cost['cycles']:12,} {cost['weight_bytes']:13,} {cost['stored_bytes']:10,}"
        )
    return "\n".join(lines)
