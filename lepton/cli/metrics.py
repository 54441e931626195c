"""Precision, recall, F1 and the confusion matrix of a classifier, as a command prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton.errors import InputError

if TYPE_CHECKING:
    import onnx

    from lepton.models.datasets import Dataset
    from lepton.models.training.metrics import Scores
    from lepton.models.zoo import Task

__all__ = ["check_classes", "metrics_json", "metrics_of", "metrics_table"]

_MOST_COLUMNS = 16
"""Classes whose confusion matrix is printed; `--json` has it of any number."""


def check_classes(task: Task) -> None:
    """Raise InputError if a network of this task does not tell classes apart."""
    from lepton.models.zoo import Task

    if task is Task.RECONSTRUCTION:
        raise InputError("--metrics needs a network that tells classes apart")


def metrics_of(model: onnx.ModelProto, task: Task, samples: Dataset) -> Scores:
    """Return the scores of a model, float or int8, on some samples."""
    from lepton.models.compression.networks import outputs_of
    from lepton.models.training.metrics import scores
    from lepton.models.zoo import Task

    made = outputs_of(model, samples)
    chosen = (made[:, 0] > 0).astype(int) if task is Task.SCORE else made.argmax(axis=1)
    classes = 2 if task is Task.SCORE else made.shape[1]
    return scores(samples.labels, chosen, classes)


def metrics_json(found: Scores, names: tuple[str, ...]) -> dict[str, object]:
    """Return scores as plain values; the confusion matrix has a row for each actual class."""
    return {
        "classes": _names(found, names),
        "precision": found.precision.tolist(),
        "recall": found.recall.tolist(),
        "f1": found.f1.tolist(),
        "macro_f1": found.macro_f1,
        "confusion": found.confusion.tolist(),
    }


def metrics_table(found: Scores, names: tuple[str, ...]) -> str:
    """Return scores as text: a line for each actual class, a column for each predicted one."""
    rows = _names(found, names)
    width = max(len("class"), *map(len, rows))
    shown = len(rows) <= _MOST_COLUMNS
    digits = max(4, len(str(found.confusion.max())) + 1)
    head = f"{'class':{width}} {'precision':>10} {'recall':>8} {'F1':>8}"
    head += "   predicted as" if shown else ""
    lines = [head]
    for number, name in enumerate(rows):
        cells = f"{found.precision[number]:10.4f} {found.recall[number]:8.4f}"
        counts = "".join(f"{count:>{digits}}" for count in found.confusion[number])
        lines.append(f"{name:{width}} {cells} {found.f1[number]:8.4f}{counts if shown else ''}")
    means = f"{found.precision.mean():10.4f} {found.recall.mean():8.4f} {found.macro_f1:8.4f}"
    return "\n".join([*lines, f"{'mean':{width}} {means}"])


def _names(found: Scores, names: tuple[str, ...]) -> list[str]:
    """Return the classes' names, numbers for those that have none."""
    return [*names, *map(str, range(len(names), len(found.f1)))][: len(found.f1)]
