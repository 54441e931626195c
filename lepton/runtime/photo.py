"""Photos in, classes out: an image as the input of a network, and the best of its scores."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.extras import require
from lepton.program import read_file

__all__ = ["CENTRE", "ClassScore", "PixelScale", "preprocess_image", "read_labels", "top_classes"]

CENTRE = 0.875
"""Share of the shorter side that is kept: 224 of 256.

Source: the evaluation of Inception and MobileNet in TensorFlow's slim library, torchvision's too.
"""
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in 0 to 1. Source: torchvision's presets."""
_MAXIMUM_BYTES = 1 << 30
_MAXIMUM_PIXELS = 1 << 27


class PixelScale(StrEnum):
    """What the pixels 0 to 255 become in a float input."""

    PIXELS = "pixels"
    """0 to 255."""
    UNIT = "unit"
    """0 to 1."""
    SIGNED = "signed"
    """-1 to 1, as MobileNet and Inception of TensorFlow."""
    IMAGENET = "imagenet"
    """By mean and deviation of each colour, as the networks of torchvision and the ONNX zoo."""


@dataclass(frozen=True)
class ClassScore:
    """A class of a network, and what the network gives it."""

    number: int
    score: float
    label: str


def preprocess_image(
    image: str | Path | NDArray[np.uint8],
    shape: Sequence[int],
    dtype: str = "float32",
    scale: PixelScale | str | None = None,
    *,
    crop: float | None = CENTRE,
) -> NDArray[Any]:
    """Return a photo as the input of a network.

    What the network sees is resized bilinearly, with antialiasing.

    Args:
        image: file that Pillow reads, or `[h, w, 3]` or `[h, w]` uint8.
        shape: of the input, `[1, h, w, c]`, `[1, c, h, w]` or without the 1; c is 1 or 3.
        dtype: float, uint8 or int8. 8-bit inputs take the pixels as they are, int8 less 128.
        scale: of a float input; by default `imagenet` where the colours come first, else `signed`.
        crop: share of the shorter side that the network sees, in the middle; None is the whole
            photo, stretched.

    Raises:
        LeptonError: Pillow is not installed.
        InputError: there is no such image, or the input takes none.
    """
    lead, (height, width, colours), is_first = _layout(shape)
    if crop is not None and not 0 < crop <= 1:
        raise InputError(f"crop must be above 0 and at most 1, not {crop}")
    pixels = _resized(_opened(image, colours), height, width, crop)
    array = np.asarray(pixels, np.uint8).reshape(height, width, colours)
    kind = np.dtype(dtype)
    if kind == np.uint8:
        made: NDArray[Any] = array
        _refuse_scale(scale, kind)
    elif kind == np.int8:
        made = (array.astype(np.int16) - 128).astype(np.int8)
        _refuse_scale(scale, kind)
    elif kind.kind == "f":
        chosen = scale or (PixelScale.IMAGENET if is_first else PixelScale.SIGNED)
        made = _scaled(array, chosen).astype(kind)
    else:
        raise InputError(f"an image cannot be an input of {kind}; it must be float or 8 bits")
    made = made.transpose(2, 0, 1) if is_first else made
    return np.ascontiguousarray(made[None] if lead else made)


def _refuse_scale(scale: str | None, kind: np.dtype[Any]) -> None:
    if scale is not None:
        raise InputError(f"an input of {kind} takes the pixels as they are, not '{scale}'")


def _layout(shape: Sequence[int]) -> tuple[bool, tuple[int, int, int], bool]:
    """Return whether there is a batch, height, width and colours, and whether these come first."""
    extents = list(shape)
    lead = len(extents) == 4 and extents[0] == 1
    inner = extents[1:] if lead else extents
    if len(inner) == 3 and inner[2] in (1, 3):
        return lead, (inner[0], inner[1], inner[2]), False
    if len(inner) == 3 and inner[0] in (1, 3):
        return lead, (inner[1], inner[2], inner[0]), True
    raise InputError(
        f"an image cannot be an input of shape {extents}; "
        "it must be [1, h, w, c] or [1, c, h, w] with 1 or 3 colours"
    )


def _opened(image: str | Path | NDArray[np.uint8], colours: int) -> Any:
    """Return an image of Pillow in so many colours."""
    require("PIL")
    from PIL import Image, ImageOps

    library: Any = Image
    mode = "RGB" if colours == 3 else "L"
    if not isinstance(image, str | Path):
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
            raise InputError(
                f"an image must be uint8 [h, w, 3] or [h, w], not {array.dtype} {list(array.shape)}"
            )
        if array.ndim == 3 and array.shape[2] not in (3, 4):
            raise InputError(f"an image must have 3 or 4 colours, not {array.shape[2]}")
        return library.fromarray(array).convert(mode)
    from io import BytesIO

    content = read_file(Path(image), _MAXIMUM_BYTES, "an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = library.open(BytesIO(content))
            if found.width * found.height > _MAXIMUM_PIXELS:
                raise InputError(f"{image}: has more than {_MAXIMUM_PIXELS:,} pixels")
            return ImageOps.exif_transpose(found).convert(mode)
    except InputError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else "damaged"
        raise InputError(f"{image}: is not an image that Pillow reads: {reason}") from None


def _resized(image: Any, height: int, width: int, crop: float | None) -> Any:
    """Return the middle of an image in another size."""
    from PIL import Image

    box = None
    if crop is not None:
        ratio = max(height / image.height, width / image.width) / crop
        tall, wide = height / ratio, width / ratio
        left, top = (image.width - wide) / 2, (image.height - tall) / 2
        box = left, top, min(left + wide, image.width), min(top + tall, image.height)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def _scaled(pixels: NDArray[np.uint8], scale: str) -> NDArray[np.float32]:
    """Return pixels `[h, w, c]` as numbers."""
    if scale not in list(PixelScale):
        raise InputError(f"pixels become one of {', '.join(PixelScale)}, not '{scale}'")
    values = pixels.astype(np.float32)
    if scale == PixelScale.PIXELS:
        return values
    if scale == PixelScale.SIGNED:
        return values / np.float32(127.5) - np.float32(1)
    values = values / np.float32(255)
    if scale == PixelScale.UNIT:
        return values
    count = pixels.shape[2]
    mean = np.array(_MEAN if count == 3 else np.mean(_MEAN), np.float32)
    deviation = np.array(_DEVIATION if count == 3 else np.mean(_DEVIATION), np.float32)
    return (values - mean) / deviation


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Return the names of classes, a line each in a text file.

    Raises:
        InputError: it cannot be read, is no text or is empty.
    """
    try:
        text = read_file(Path(path), _MAXIMUM_BYTES, "a label file").decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text of a label per line") from None
    labels = tuple(line.strip() for line in text.strip("\n").splitlines())
    if not any(labels):
        raise InputError(f"{path}: holds no labels")
    return labels


def top_classes(
    scores: NDArray[Any],
    labels: Sequence[str] | None = None,
    count: int = 5,
    quantization: tuple[float, int] | None = None,
) -> list[ClassScore]:
    """Return the best classes of an output; of equal scores the first.

    Args:
        scores: an element per class.
        labels: of the classes; without them classes have numbers only.
        count: how many.
        quantization: scale and zero point of integers.

    Raises:
        InputError: there are more or fewer labels than classes.
    """
    flat = np.asarray(scores).reshape(-1).astype(np.float64)
    if labels is not None and len(labels) != len(flat):
        raise InputError(f"there are {len(labels)} labels for {len(flat)} classes")
    if quantization is not None:
        flat = (flat - quantization[1]) * quantization[0]
    order = np.argsort(-flat, kind="stable")[:count]
    names = [""] * len(flat) if labels is None else list(labels)
    return [ClassScore(int(n), float(flat[n]), names[int(n)]) for n in order]
