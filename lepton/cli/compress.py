"""The command that makes a network small: train, prune, distil, share or quantize."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton.cli.arguments import add_chip, file_path, natural
from lepton.cli.budget import add_budget, chosen_budget
from lepton.cli.loading import chosen_chip
from lepton.cli.metrics import check_classes, metrics_json, metrics_of, metrics_table
from lepton.cli.writing import refuse_overwrite, write_file
from lepton.errors import InputError

if TYPE_CHECKING:
    import onnx

    from lepton.chip import Chip
    from lepton.models.compression import Compressed

# onnx is typed in part only:
# pyright: reportUnknownMemberType=false

__all__ = ["add_commands"]

_DATA = (
    "digits, intents, clicks or next_item; mnist:DIR or fashion:DIR (IDX files); cifar10:DIR (the "
    "binary version); a folder with a "
    "folder of pictures for each class; TRAIN.npz or TRAIN.npz,TEST.npz with x [n, ...] and y [n]"
)
_OPTIMIZER = "of the trainings: default adamw; muon makes the steps of kernels orthogonal"


def add_commands(commands: Any) -> None:
    """Add the parser of `lepton compress`."""
    parser = commands.add_parser(
        "compress", help="float network -> pruned, shared or few-bit int8 network",
        epilog="examples: lepton compress digits_cnn --data digits --prune 0.8 --bits 5 -o a.onnx; "
        "lepton compress digits_cnn --data digits --budget-cycles 4000 --chip nano -o b.onnx",
    )  # fmt: skip
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="float .onnx, .tflite (an int8 one as the float network that it stands for), or a "
        "network of lepton.models.zoo to train",
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
    parser.add_argument("--share", type=natural, metavar="LEVELS", help="of each layer's weights")
    parser.add_argument(
        "--distil",
        type=file_path,
        metavar="TEACHER",
        help="network to learn from, .onnx or .tflite as for MODEL",
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
    parser.add_argument("--learning-rate", type=float, default=5e-3, help="default 0.005")
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
    from lepton.models.tflite_float import float_network
    from lepton.models.training import Optimizer
    from lepton.models.training.named import named_split
    from lepton.models.zoo import NETWORKS, Network, Task

    model = NETWORKS.get(options.model) or file_path(options.model)
    refuse_overwrite([model if isinstance(model, Path) else None, options.distil], [options.output])
    if options.output.suffix != ".onnx":
        raise InputError(f"{options.output}: the result is an .onnx file")
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
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    task = model.task if isinstance(model, Network) else Task.CLASSES
    if options.metrics:
        check_classes(task)
    folder = options.work or options.output.with_suffix(".steps")
    split = named_split(options.data)
    source = float_network(model) if isinstance(model, Path) else model
    teacher = options.distil and float_network(options.distil)
    budget = chosen_budget(options, chip)
    made = compress_model(source, split, recipe, folder, teacher=teacher, budget=budget)
    write_file(options.output, made.model.SerializeToString())
    costs = {"float, 8 bits": _cost(quantized(made.source, split), chip)}
    costs[made.stages[-1].name] = _cost(made.model, chip)
    if options.json:
        stages = [vars(stage) for stage in made.stages]
        printed: dict[str, object] = {
            "output": str(options.output),
            "stages": stages,
            "costs": costs,
        }
        if options.metrics:
            found = metrics_of(made.model, task, split.test)
            printed["metrics"] = metrics_json(found, split.test.classes)
        print(json.dumps(printed))
    else:
        print(_table(made, costs, chip.name))
        if options.metrics:
            found = metrics_of(made.model, task, split.test)
            print(f"\n{metrics_table(found, split.test.classes)}")
        print(f"{options.output}: {len(made.model.SerializeToString()):,} bytes")


def _cost(model: onnx.ModelProto, chip: Chip) -> dict[str, int]:
    """Return what a network takes on a chip: cycles, and bytes of its stored weights."""
    from lepton.api import compile, simulate
    from lepton.report.traffic import weight_stream_bytes

    program = compile(model, chip)
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
