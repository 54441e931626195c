"""Carry out a recipe: train, export, quantize, measure, and write the network and what it reached.

    python -m lepton.models.training.make NAME [--data DIR] [--output DIR] [--checkpoints DIR]

Writes `NAME.onnx` (int8 QDQ) and `NAME_recipe.json`. One thread and fixed seeds: the same library
versions on the same kind of processor give the same bytes. Validation samples choose the epoch; the
test samples choose nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import LeptonError
from lepton.models import model_path
from lepton.models.datasets import Dataset
from lepton.models.export import export_onnx
from lepton.models.extras import require
from lepton.models.int8 import golden_session, quantize_int8, run_each
from lepton.models.training.recipes import RECIPES, Recipe, Split
from lepton.models.training.trainer import Trained, score, score_of, train
from lepton.models.zoo import Network, network_named
from lepton.program.files import temporary_folder

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

if TYPE_CHECKING:
    import torch

__all__ = ["PACKAGES", "main", "make", "named_inputs", "trained_network"]

PACKAGES = ("torch", "numpy", "onnx", "onnxruntime")


def named_inputs(network: Network, samples: Dataset) -> dict[str, NDArray[Any]]:
    """Return samples as a network takes them, [n, ...] by input name."""
    arrays = samples.batch(slice(None))
    return {feed.name: array for feed, array in zip(network.inputs, arrays, strict=True)}


def make(
    name: str, recipe: Recipe, output: Path, data: Path | None = None, work: Path | None = None
) -> dict[str, Any]:
    """Carry out a recipe and return what the recipe file says.

    Args:
        name: of the network's file.
        recipe: how to make it.
        output: folder of the two files.
        data: folder of the data set's files.
        work: folder of checkpoints, and of the float networks, `NAME_SEED.onnx`; None keeps none.

    Raises:
        InputError: the data set's files are missing or damaged.
        LeptonError: PyTorch is not installed.
    """
    require("torch")
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    network, split = network_named(recipe.network), recipe.load(data)
    with temporary_folder() as temporary:
        folder = temporary if work is None else work
        folder.mkdir(parents=True, exist_ok=True)
        results = [_one_seed(name, seed, recipe, split, folder) for seed in recipe.seeds]
        output.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / f"{name}_{recipe.seeds[0]}_int8.onnx", output / f"{name}.onnx")
    made = {
        "network": recipe.network,
        "parameters": sum(item.numel() for item in network.build().parameters()),
        "options": {key: v for key, v in asdict(recipe.options).items() if key != "seed"},
        "samples": {part: len(getattr(split, part)) for part in Split._fields},
        "calibration_samples": recipe.calibration,
        "measure": f"{network.task.value}: see lepton.models.zoo.Task",
        "results": results,
        "mean_test": float(np.mean([row["test"] for row in results])),
        "data": recipe.data,
        "versions": {"python": platform.python_version()} | {key: version(key) for key in PACKAGES},
        "sha256": hashlib.sha256((output / f"{name}.onnx").read_bytes()).hexdigest(),
    }
    text = json.dumps(made, indent=2) + "\n"
    (output / f"{name}_recipe.json").write_text(text, encoding="utf-8")
    return made


def trained_network(
    name: str, seed: int, recipe: Recipe, split: Split, folder: Path
) -> tuple[torch.nn.Module, Trained]:
    """Return a recipe's float network of one seed; its training is kept as `NAME_SEED.pt`."""
    network = network_named(recipe.network)
    model = network.build(seed)
    trained = train(
        model, network.task, (split.train, split.validation), replace(recipe.options, seed=seed),
        checkpoint=folder / f"{name}_{seed}.pt",
    )  # fmt: skip
    return model, trained


def _one_seed(
    name: str, seed: int, recipe: Recipe, split: Split, folder: Path
) -> dict[str, float | int]:
    """Train with one seed, write float and int8 networks, and return their scores."""
    network = network_named(recipe.network)
    model, trained = trained_network(name, seed, recipe, split, folder)
    source, target = folder / f"{name}_{seed}.onnx", folder / f"{name}_{seed}_int8.onnx"
    export_onnx(model, network.inputs, source, network.output)
    quantize_int8(
        source, target, named_inputs(network, split.train.take(slice(0, recipe.calibration)))
    )
    return _scores(model, network, trained, split, target) | {"seed": seed}


def _scores(
    model: torch.nn.Module, network: Network, trained: Trained, split: Split, int8: Path
) -> dict[str, float | int]:
    """Return the scores of the float network, and of the int8 one on the golden."""
    made = run_each(golden_session(int8), named_inputs(network, split.test))
    return {
        "best_epoch": trained.best + 1,
        "validation": trained.epochs[trained.best].score,
        "test": score(model, network.task, split.test),
        "int8_test": score_of(made, network.task, split.test),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit code 2 if the data is at fault."""
    parser = argparse.ArgumentParser(prog="python -m lepton.models.training.make")
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", type=Path, help="folder of the data set's files")
    parser.add_argument("--output", type=Path, default=model_path("digits").parent)
    parser.add_argument("--checkpoints", type=Path, help="resume from here, keep float networks")
    options = parser.parse_args(arguments)
    try:
        made = make(
            options.name, RECIPES[options.name], options.output, options.data, options.checkpoints
        )
    except LeptonError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{json.dumps(made, indent=2)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
