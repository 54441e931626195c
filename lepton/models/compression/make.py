"""Carry out a recipe of a compressed network, and write the network and what it reached.

`python -m benchmarks.compression NAME` is the command. One machine, one number of threads and fixed
seeds give the same bytes. Validation samples choose the epochs; the test samples choose nothing.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lepton.models.compression.pipeline import Compressed, compress_model
from lepton.models.compression.recipes import CompressedNetwork
from lepton.models.extras import require
from lepton.models.training.make import PACKAGES
from lepton.models.training.recipes import Split
from lepton.program.files import atomic_write

__all__ = ["make_compressed"]

Cost = Callable[[Path], Mapping[str, int]]
"""File of an int8 network -> what its program stores, by name."""


def make_compressed(
    name: str, row: CompressedNetwork, folders: tuple[Path, Path, Path], cost: Cost
) -> dict[str, Any]:
    """Carry out a recipe and return what the recipe file says.

    Args:
        name: of the network's file.
        row: how to make it.
        folders: of the data; of all steps, from which a run that was cut off goes on; and of the
            two files, `NAME.onnx` and `NAME_recipe.json`.
        cost: of each seed's network.

    Raises:
        InputError: the data set's files are missing or damaged, or the steps are another run's.
        LeptonError: PyTorch is not installed.
    """
    require("torch")
    data, work, output = folders
    split = row.load(data)
    results = [_one_seed(name, row, seed, split, (data, work), cost) for seed in row.seeds]
    output.mkdir(parents=True, exist_ok=True)
    shipped = output / f"{name}.onnx"
    shutil.copyfile(work / f"{name}_{row.seeds[0]}.onnx", shipped)
    made = {
        "source": row.source,
        **({"teacher": row.teacher_source} if row.teacher_source else {}),
        "recipe": {key: value for key, value in asdict(row.recipe).items() if key != "seed"},
        "samples": {part: len(getattr(split, part)) for part in Split._fields},
        "results": results,
        "means": _means(results),
        "data": row.data,
        "versions": {"python": platform.python_version()} | {key: version(key) for key in PACKAGES},
        "sha256": hashlib.sha256(shipped.read_bytes()).hexdigest(),
    }
    text = json.dumps(made, indent=2) + "\n"
    (output / f"{name}_recipe.json").write_text(text, encoding="utf-8")
    return made


def _one_seed(
    name: str,
    row: CompressedNetwork,
    seed: int,
    split: Split,
    places: tuple[Path, Path],
    cost: Cost,
) -> dict[str, Any]:
    """Compress with one seed, keep the network, and return how good and how large it is."""
    import torch

    torch.set_num_threads(row.threads)
    torch.use_deterministic_algorithms(True)
    # nothing reads what it has not written, and filling all new tensors costs a sixth of the time
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False
    data, work = places
    work.mkdir(parents=True, exist_ok=True)
    source = row.start(data, work, seed)
    recipe = replace(row.recipe, seed=seed)
    teacher = source if row.teacher is None else row.teacher(data, source)
    made = compress_model(source, split, recipe, work / f"{name}_{seed}", teacher=teacher)
    file = work / f"{name}_{seed}.onnx"
    atomic_write(file, made.model.SerializeToString())
    return {"seed": seed} | _figures(made) | dict(cost(file))


def _figures(made: Compressed) -> dict[str, Any]:
    """Return the scores and weights of the float network, of each step and of the last."""
    first, last = made.stages[0], made.stages[-1]
    steps = [asdict(stage) for stage in made.stages]
    return {
        "float_test": first.test,
        "test": last.test,
        "float_weights": first.weights,
        "weights": last.weights,
        "nonzero_weights": last.weights - last.zeros,
        "steps": steps,
    }


def _means(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean over the seeds of each number."""
    names = [key for key, value in results[0].items() if isinstance(value, int | float)]
    return {key: float(np.mean([row[key] for row in results])) for key in names if key != "seed"}
