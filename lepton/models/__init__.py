"""The networks that ship with Lepton, and what makes them.

`trained_networks` names the trained ones, which `lepton.load_model(NAME)` and the commands find,
and `model_path` gives the file of one. `zoo` builds untrained networks, `datasets` loads what they
learn from, `training` trains and measures them.

`digits_model_path` is the default network: a small residual CNN for 8x8 handwritten digits, int8
QDQ ONNX. `load_digits_holdout` gives the images that its training never saw.
`python -m lepton.models.train_digits` makes both files again.

`quantization`, `sharing` and `distillation` make networks smaller.

`light`, `encoder` and `vision` write float ONNX networks with seeded weights, to measure and test
with.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from lepton.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PIXEL_MAXIMUM", "digits_model_path", "load_digits_holdout", "model_path"]
__all__ += ["trained_networks"]

PIXEL_MAXIMUM = 16  # the data set's grey levels are 0..16


def digits_model_path() -> Path:
    """Return the file of the default network (`image` [1, 1, 8, 8] -> `logits` [1, 10])."""
    return Path(str(files(__name__) / "pretrained" / "digits.onnx"))


def trained_networks() -> tuple[str, ...]:
    """Return the names of the trained networks, in alphabetical order."""
    folder = files(__name__) / "pretrained"
    names = (item.name for item in folder.iterdir())
    return tuple(sorted(name.removesuffix(".onnx") for name in names if name.endswith(".onnx")))


def model_path(model: str | Path) -> Path:
    """Return the file of a trained network's name, or the path itself.

    A file of that name comes first.

    Raises:
        InputError: a name without a suffix is neither a file nor a trained network.
    """
    path = Path(model)
    if path.suffix or path.name != str(path) or path.exists():
        return path
    names = trained_networks()
    if path.name not in names:
        raise InputError(
            f"{path}: no such file, and no trained network either: those are {', '.join(names)}"
        )
    return Path(str(files(__name__) / "pretrained" / f"{path.name}.onnx"))


def load_digits_holdout() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Load the held-out digits as the default network takes them.

    Returns:
        The images [n, 1, 8, 8] float32 in 0..1 and their labels [n] int64 in 0..9.
    """
    import numpy as np

    resource = files(__name__) / "pretrained" / "digits_holdout.npz"
    with resource.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        pixels, labels = arrays["x"], arrays["y"]
    return pixels.astype(np.float32) / np.float32(PIXEL_MAXIMUM), labels.astype(np.int64)
