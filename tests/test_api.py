"""The Python interface: what it takes, and one InputError for what it does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton import api
from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.errors import InputError
from lepton.models import digits_model_path, load_digits_holdout
from lepton.program import Program
from lepton.runtime.evaluate import evaluate_program
from tests.programs import hand_program

DIGITS = digits_model_path()
X = load_digits_holdout()[0][:3]


@cache
def digits() -> Program:
    return compile_model(DIGITS, load_chip("nano"))


def predict(x: Any) -> Any:
    return api.Model(digits()).predict(x)


def anything(name: str, *arguments: Any, **options: Any) -> Any:
    """Call a function of the interface with what its types do not allow."""
    return getattr(api, name)(*arguments, **options)


def test_predict_takes_one_sample_or_a_batch() -> None:
    assert predict(X[:1]).shape == (1, 10)
    made = predict(X)
    assert made.shape == (3, 10)
    assert np.array_equal(made, predict(X[:, np.newaxis]))
    assert np.array_equal(made[1:2], predict(X[1:2]))


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (X.reshape(3, 8, 8, 1), r"shape \[1, 1, 8, 8\], or \[n, 1, 8, 8\] .*, not \[3, 8, 8, 1\]"),
        (X.reshape(3, 64), r"not \[3, 64\]"),
        (X[:0], "holds no samples"),
        (np.int8(3), r"not \[\]"),
        (None, "must be an array of numbers, not NoneType"),
        ([[1.0], [1.0, 2.0]], "must be an array of numbers, not list"),
        (np.ma.array(X), "masked array"),
        (X.astype(np.float64), "must be float32, not float64"),
    ],
)
def test_predict_refuses(x: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        predict(x)


def test_predict_needs_an_input() -> None:
    with pytest.raises(InputError, match="must have one input, not 0"):
        api.Model(hand_program("halt")).predict(X)


def test_simulate_takes_the_only_input_alone() -> None:
    named = api.simulate(digits(), {"image": X[:1]}, timing=False).outputs["logits"]
    assert np.array_equal(api.simulate(digits(), X[:1], timing=False).outputs["logits"], named)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: anything("simulate", digits(), [X[:1]]), r"by input name \(image\), not list"),
        (lambda: api.simulate(digits(), {"image": np.ma.array(X[:1])}), "masked array"),
        (lambda: anything("simulate", "k.lepton"), r"load_program\(path\), not 'k.lepton'"),
        (lambda: anything("simulate", None), "not NoneType"),
        (lambda: anything("check", "k.lepton"), r"load_program\(path\), not 'k.lepton'"),
        (lambda: anything("compile", DIGITS, chip=None), "chip must be .*, not None"),
        (lambda: anything("compile", DIGITS, chip=5), "chip must be .*, not 5"),
        (lambda: anything("load_model", None), "a model must be a path.*not NoneType"),
        (lambda: anything("compile", DIGITS, shapes=[1, 2]), "whole numbers by input name"),
        (lambda: anything("compile", DIGITS, shapes={"image": (1.5, 1)}), "whole numbers"),
        (lambda: api.compile(DIGITS, shapes={"image": (1, 1 << 40)}), r"lie in 1\.\.2147483647"),
        (lambda: anything("compile", DIGITS, calibration="x.npz"), "by input name, not str"),
        (lambda: api.compile(DIGITS, calibration=X * np.nan), "holds NaN or infinite"),
        (lambda: api.load_program("a\0b"), "cannot be read: embedded null byte"),
        (lambda: anything("load_program", None), "a path or bytes, not NoneType"),
    ],
)
def test_wrong_arguments_are_input_errors(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()


def test_evaluation_compares_shapes() -> None:
    labels = np.zeros(3, np.int64)
    for x in (X.reshape(3, 8, 8, 1), X.reshape(3, 64)):
        with pytest.raises(InputError, match=r"x must have shape \[1, 1, 8, 8\]"):
            evaluate_program(digits(), Path(DIGITS), x, labels)
    assert evaluate_program(digits(), Path(DIGITS), X, labels).same_class == 3
