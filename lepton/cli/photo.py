"""A photo as the input of `run`, and its best classes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from lepton.cli.arguments import file_path
from lepton.errors import InputError
from lepton.program import one_line, starts_like_program

if TYPE_CHECKING:
    from lepton.runtime.photo import ClassScore

__all__ = ["add_image", "best_classes", "image_input", "refuse_image", "top_json", "top_text"]

_SCALES = ("pixels", "unit", "signed", "imagenet")


class Tensor(Protocol):
    """What is asked of a network's input."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...


def add_image(parser: Any) -> None:
    """Add `--image` and what goes with it."""
    parser.add_argument(
        "--image", type=file_path, metavar="PHOTO",
        help="a photo as the only input (pip install 'lepton-npu[image]'); shows the best classes",
    )  # fmt: skip
    parser.add_argument(
        "--labels", type=file_path, metavar="LABELS.txt", help="names of the classes, one a line"
    )
    parser.add_argument(
        "--pixels", choices=_SCALES,
        help="what 0 to 255 become in a float input: themselves, 0 to 1, -1 to 1, or by ImageNet's "
        "mean and deviation; default imagenet where the colours come first, else signed",
    )  # fmt: skip
    parser.add_argument(
        "--crop", metavar="SHARE|whole",
        help="share of the shorter side that the network sees, in the middle, or the whole photo, "
        "stretched; default 0.875",
    )  # fmt: skip


def refuse_image(options: argparse.Namespace) -> None:
    """Raise InputError for options that contradict each other."""
    if options.image is None:
        for name in ("labels", "pixels", "crop"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} is for a photo; give one with --image")
    elif options.input is not None:
        raise InputError("--image and --input are both given; choose one")
    elif options.no_values:
        raise InputError("--image needs values, which --no-values leaves out")


def image_input(
    options: argparse.Namespace, inputs: Mapping[str, Tensor]
) -> dict[str, NDArray[Any]]:
    """Return the photo as the only input of a network.

    Raises:
        InputError: there are several inputs, or it takes no photo.
    """
    from lepton.runtime.photo import preprocess_image

    if len(inputs) != 1:
        raise InputError(f"--image is for a model with one input, not {', '.join(inputs)}")
    ((name, tensor),) = inputs.items()
    array = preprocess_image(
        options.image, tensor.shape, tensor.dtype, options.pixels, crop=_crop(options.crop)
    )
    return {name: array}


def _crop(text: str | None) -> float | None:
    """Return the value of `--crop`."""
    from lepton.runtime.photo import CENTRE

    if text is None:
        return CENTRE
    if text == "whole":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--crop must be a share or whole, not '{text}'") from None


def best_classes(
    options: argparse.Namespace,
    scores: NDArray[Any],
    quantization: tuple[float, int] | None = None,
) -> list[ClassScore]:
    """Return the best five classes of an output.

    Integers are scored by their scale, which a TFLite file has; else as they are.
    """
    from lepton.runtime.golden import GoldenModel
    from lepton.runtime.photo import read_labels, top_classes

    labels = None if options.labels is None else read_labels(options.labels)
    if (
        quantization is None
        and scores.dtype.kind in "iu"
        and not starts_like_program(options.model)
    ):
        quantization = GoldenModel(options.model).output_quantization()
    return top_classes(scores, labels, 5, quantization)


def top_text(photo: Path, classes: Sequence[ClassScore]) -> str:
    """Return the best classes as text."""
    lines = [f"top {len(classes)} of {one_line(str(photo))}"]
    for item in classes:
        label = one_line(item.label) if item.label else "class"
        lines.append(f"{item.score:9.4f}  {label} ({item.number})")
    return "\n".join(lines)


def top_json(classes: Sequence[ClassScore]) -> list[dict[str, object]]:
    """Return the best classes as JSON types."""
    return [{"class": c.number, "score": c.score, "label": c.label or None} for c in classes]
