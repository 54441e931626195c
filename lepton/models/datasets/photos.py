"""The user's own images: a folder with one folder of pictures for each class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.datasets.dataset import Dataset, image_dataset
from lepton.models.extras import require
from lepton.program import refuse_special

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["load_image_folder"]

_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def load_image_folder(folder: Path | str, side: int = 64, *, is_grey: bool = False) -> Dataset:
    """Load pictures as squares: the largest centred square, resized.

    Args:
        folder: its folders are the classes, in alphabetical order; hidden ones are left out.
        side: of the images, pixels.
        is_grey: one channel instead of three.

    Returns:
        Images [n, 3 or 1, side, side] uint8, class by class, by file name.

    Raises:
        InputError: there are no pictures of two classes, or one cannot be read.
        LeptonError: pillow is not installed.
    """
    require("PIL")
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: not a folder")
    names = sorted(item.name for item in root.iterdir() if item.is_dir() and item.name[:1] != ".")
    files = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((root / name).iterdir())
        if path.suffix.lower() in _SUFFIXES
    ]
    if len({label for _, label in files}) < 2:
        raise InputError(f"{root}: must hold folders with pictures, one for each of two classes")
    images = [_square(path, side, "L" if is_grey else "RGB") for path, _ in files]
    return image_dataset(np.stack(images), [label for _, label in files], names)


def _square(path: Path, side: int, mode: str) -> NDArray[np.uint8]:
    """Return one picture [channels, side, side]."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    refuse_special(path)
    try:
        with Image.open(path) as opened:
            picture: Image.Image = ImageOps.fit(
                ImageOps.exif_transpose(opened).convert(mode), (side, side),
                Image.Resampling.BILINEAR,
            )  # fmt: skip
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
        raise InputError(f"{path}: not a picture that can be read") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: the picture has too many pixels") from None
    pixels = np.asarray(picture, np.uint8).reshape(side, side, -1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
