"""Metrics against scikit-learn, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.training.metrics import confusion_matrix, scores


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 12))
    labels = rng.integers(0, classes, 30)
    predicted = np.where(rng.random(30) < 0.6, labels, rng.integers(0, classes, 30))
    made = scores(labels, predicted, classes)
    every = list(range(classes))
    np.testing.assert_array_equal(
        made.confusion, metrics.confusion_matrix(labels, predicted, labels=every)
    )
    expected = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    for ours, theirs in zip((made.precision, made.recall, made.f1), expected, strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert made.accuracy == metrics.accuracy_score(labels, predicted)
    macro = metrics.f1_score(labels, predicted, labels=every, average="macro", zero_division=0)
    assert made.macro_f1 == pytest.approx(macro, rel=1e-12)


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"not \[2\] and \[3\]"):
        confusion_matrix(np.zeros(2, int), np.zeros(3, int), 2)
    with pytest.raises(InputError, match=r"not \[0\] and \[0\]"):
        confusion_matrix(np.zeros(0, int), np.zeros(0, int), 2)
    with pytest.raises(InputError, match="classes must be 0 to 1, not 0 to 2"):
        confusion_matrix(np.zeros(1, int), np.full(1, 2), 2)
