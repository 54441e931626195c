"""Samples of a user's arrays: what is taken, and what is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.datasets import Dataset
from lepton.models.training.named import named_split

X = np.random.default_rng(0).random((12, 3, 8, 8)).astype(np.float32)
Y = np.arange(12) % 2


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (X, Y + 10**9, "y must be class numbers below 65,536, not 1000000001$"),
        (X, Y.astype(np.uint64) + 2**63, "y must be class numbers below 65,536, not 9223372036854"),
        (X, Y + 2**16 - 1, "y must be class numbers below 65,536, not 65536$"),
        (X, Y - 1, r"y must be class numbers \[n\], from 0 on$"),
        (X, Y.astype(np.float32), r"y must be class numbers \[n\], from 0 on$"),
        (X, np.int64(1), r"y must be class numbers \[n\], from 0 on$"),
        (np.float32(3), Y, r"x must be real numbers \[n, \.\.\.\], not float32 \[\]$"),
        (X.astype("S5"), Y, r"x must be real numbers \[n, \.\.\.\], not \|S5 \[12, 3, 8, 8\]$"),
        (X.astype(complex), Y, r"x must be real numbers .*, not complex128 \[12, 3, 8, 8\]$"),
        (X.astype("M8[s]"), Y, r"x must be real numbers .*, not datetime64\[s\]"),
        (X[:5], Y[:5], "data: 5 samples are too few .*: give 6 or more$"),
        (X[:5], Y, r"one length, not \[5, 12\]$"),
    ],
)
def test_arrays_that_are_no_samples(x: Any, y: Any, reason: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=x, y=y)
    with pytest.raises(InputError, match=reason):
        named_split(str(tmp_path / "a.npz"))


def test_what_a_type_becomes(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for dtype, found in [(np.bool_, np.float32), (np.float16, np.float32), (np.int8, np.int64)]:
        np.savez(tmp_path / "a.npz", x=(X > 0.5).astype(dtype), y=Y + 2**16 - 2)
        (array,) = named_split(str(tmp_path / "a.npz")).train.inputs
        assert array.dtype == found
    np.savez(tmp_path / "a.npz", x=X.astype(np.float64) * 1e300, y=Y)
    # no sample, which compress_model says; and no warning before
    assert np.isinf(named_split(str(tmp_path / "a.npz")).test.inputs[0]).all()
    assert not recwarn.list


@pytest.mark.parametrize(("x", "y"), [(np.float32(3), Y), (X, np.int64(3))])
def test_a_data_set_is_of_arrays(x: Any, y: Any) -> None:
    with pytest.raises(InputError, match=r"arrays .*: one is a single number"):
        Dataset((np.asarray(x),), np.asarray(y))
