"""The handwritten digits that scikit-learn bundles."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from lepton.models.datasets.dataset import Dataset
from lepton.models.datasets.idx import DIGIT_NAMES
from lepton.models.extras import require

__all__ = ["load_digits"]

_MAXIMUM = 16


def load_digits() -> Dataset:
    """Load the 1,797 images [n, 1, 8, 8] float32 in 0..1.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.

    Raises:
        LeptonError: scikit-learn is not installed.
    """
    require("sklearn")
    from sklearn import datasets

    loaded = cast(tuple[Any, Any], datasets.load_digits(return_X_y=True))
    images = np.asarray(loaded[0], np.float32).reshape(-1, 1, 8, 8) / np.float32(_MAXIMUM)
    return Dataset((images,), np.asarray(loaded[1], np.int64), DIGIT_NAMES)
