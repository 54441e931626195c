"""Criteria, granularities and masks beside brute-force twins in plain loops."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton.errors import InputError
from lepton.models.pruning import criteria
from lepton.models.pruning.criteria import CRITERIA, Slopes, scores_of
from lepton.models.pruning.granularity import group_sizes, labels_of
from lepton.models.pruning.masks import (
    global_masks,
    layer_mask,
    pattern_mask,
    pattern_of,
    pruned_count,
    threshold_mask,
)

SHAPES = [(4, 6), (3, 5, 3, 3), (2, 1, 3), (8, 4, 1, 1), (1, 7, 2)]
KINDS = ["weights", "filters", "channels", "kernels", "blocks 2x4", "blocks 1x3"]


def drawn(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def naive_group(kind: str, at: tuple[int, ...]) -> tuple[int, ...]:
    """What a weight is pruned together with."""
    if kind.startswith("blocks"):
        rows, columns = (int(part) for part in kind.removeprefix("blocks ").split("x"))
        return (at[0] // rows, at[1] // columns, *at[2:])
    return {"weights": at, "filters": at[:1], "channels": at[1:2], "kernels": at[:2]}[kind]


def naive_groups(shape: tuple[int, ...], kind: str) -> dict[Any, list[tuple[int, ...]]]:
    groups: dict[Any, list[tuple[int, ...]]] = {}
    for at in itertools.product(*(range(extent) for extent in shape)):
        groups.setdefault(naive_group(kind, at), []).append(at)
    return groups


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_groups_are_those_of_the_loops(shape: tuple[int, ...], kind: str) -> None:
    labels = labels_of(shape, kind)
    groups = naive_groups(shape, kind)
    for members in groups.values():
        assert len({int(labels[at]) for at in members}) == 1
    assert sorted(np.unique(labels)) == list(range(len(groups)))
    assert Counter(group_sizes(labels).tolist()) == Counter(map(len, groups.values()))


def naive_relative(w: Any, members: list[tuple[int, ...]]) -> float:
    inputs: dict[int, float] = {}
    for at in members:
        inputs[at[1]] = inputs.get(at[1], 0.0) + w[at] ** 2
    return math.sqrt(sum(w[at] ** 2 for at in members)) / sum(map(math.sqrt, inputs.values()))


def naive_layer_share(w: Any, members: list[tuple[int, ...]], kind: str) -> float:
    norms = [
        math.sqrt(sum(w[at] ** 2 for at in group)) for group in naive_groups(w.shape, kind).values()
    ]
    return math.sqrt(sum(w[at] ** 2 for at in members)) / sum(norms)


def naive_deviation(w: Any, members: list[tuple[int, ...]]) -> float:
    values = [float(item) for item in w.reshape(-1)]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((item - mean) ** 2 for item in values) / len(values))
    return math.sqrt(sum(w[at] ** 2 for at in members) / len(members)) / spread


NAIVE: Mapping[str, Callable[[Any, Any, list[tuple[int, ...]], str], float]] = {
    "l1": lambda w, g, members, kind: sum(abs(w[at]) for at in members),
    "l2": lambda w, g, members, kind: math.sqrt(sum(w[at] ** 2 for at in members)),
    "relative": lambda w, g, members, kind: naive_relative(w, members),
    "layer share": lambda w, g, members, kind: naive_layer_share(w, members, kind),
    "deviation": lambda w, g, members, kind: naive_deviation(w, members),
    "gradient": lambda w, g, members, kind: sum(abs(g[at]) for at in members),
    "saliency": lambda w, g, members, kind: abs(sum(w[at] * g[at] for at in members)),
    "sensitivity": lambda w, g, members, kind: sum(abs(g[at]) for at in members),
    "curvature": lambda w, g, members, kind: sum(w[at] ** 2 * abs(g[at]) / 2 for at in members),
}


def test_every_criterion_has_a_naive_twin() -> None:
    assert NAIVE.keys() == CRITERIA.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CRITERIA)
def test_scores_equal_the_loops(name: str, kind: str) -> None:
    for shape in SHAPES:
        w, slopes = drawn(shape), drawn(shape, 1)
        labels = labels_of(shape, kind)
        made = scores_of(w, labels, name, Slopes(slopes, np.abs(slopes), np.abs(slopes)))
        for members in naive_groups(shape, kind).values():
            expected = NAIVE[name](w, slopes, members, kind)
            assert made[labels[members[0]]] == pytest.approx(expected, rel=1e-12)


def test_scores_of_zeros_are_zero() -> None:
    labels = labels_of((2, 3), "filters")
    for name in CRITERIA:
        zeros = np.zeros((2, 3))
        assert not scores_of(zeros, labels, name, Slopes(zeros, zeros, zeros)).any()


def test_relative_norm_does_not_depend_on_scale() -> None:
    w = drawn((3, 5, 2))
    labels = labels_of(w.shape, "filters")
    np.testing.assert_allclose(
        criteria.input_share(w * 7, labels), criteria.input_share(w, labels), rtol=1e-12
    )


@given(st.integers(0, 400), st.floats(0, 1), st.integers(1, 12), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_layer_mask_prunes_the_lowest_exactly(seed: int, rate: float, rows: int, ins: int) -> None:
    w = np.random.default_rng(seed).integers(-3, 4, (rows, ins, 2)).astype(float)
    for kind in KINDS:
        labels = labels_of(w.shape, kind)
        scores = criteria.magnitude_l1(w, labels)
        mask = layer_mask(scores, labels, rate)
        gone = {int(item) for item in labels[~mask]}
        ranked = sorted(range(len(scores)), key=lambda group: (scores[group], group))
        assert gone == set(ranked[: pruned_count(rate, len(scores))])
        assert not any(int(item) in gone for item in labels[mask])


@given(st.integers(0, 400), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_global_masks_rank_all_layers_together(seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    layers = [rng.integers(-3, 4, shape).astype(float) for shape in ((3, 4), (2, 3, 2), (5, 2))]
    for kind in ("weights", "filters", "blocks 2x2"):
        labels = [labels_of(item.shape, kind) for item in layers]
        scores = [criteria.magnitude_l1(w, at) for w, at in zip(layers, labels, strict=True)]
        masks = global_masks(scores, labels, rate)
        ranked = sorted(
            (score, layer, group)
            for layer, row in enumerate(scores)
            for group, score in enumerate(row)
        )
        left, gone = pruned_count(rate, sum(w.size for w in layers)), set()
        for _, layer, group in ranked:
            left -= int((labels[layer] == group).sum())
            if left < 0:
                break
            gone.add((layer, group))
        for layer, (mask, label) in enumerate(zip(masks, labels, strict=True)):
            expected = [(layer, int(group)) not in gone for group in label.reshape(-1)]
            assert mask.reshape(-1).tolist() == expected


def test_single_weights_are_pruned_exactly() -> None:
    layers = [drawn((7, 3)), drawn((5, 2, 3, 3), 1)]
    labels = [labels_of(item.shape, "weights") for item in layers]
    scores = [criteria.magnitude_l2(w, at) for w, at in zip(layers, labels, strict=True)]
    for rate in (0.0, 0.2, 0.5, 0.9, 1.0):
        pruned = sum(int((~mask).sum()) for mask in global_masks(scores, labels, rate))
        assert pruned == math.floor(rate * (21 + 90) + 0.5)


def test_threshold_is_the_factor_times_the_deviation() -> None:
    w = drawn((6, 5, 3))
    labels = labels_of(w.shape, "weights")
    mask = threshold_mask(criteria.deviation(w, labels), labels, 0.7)
    np.testing.assert_array_equal(mask, np.abs(w) >= 0.7 * w.std())
    assert 0 < mask.sum() < mask.size


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 4), (4, 8), (1, 3)])
@pytest.mark.parametrize("shape", [(3, 8, 2, 2), (2, 6), (4, 3, 3), (2, 1, 3, 3), (2, 13)])
def test_pattern_keeps_the_highest_of_each_group(
    shape: tuple[int, ...], kept: int, group: int
) -> None:
    importance = np.abs(np.random.default_rng(1).integers(-4, 5, shape)).astype(float)
    mask = pattern_mask(importance, kept, group)
    for at in itertools.product(*(range(extent) for extent in (shape[0], *shape[2:]))):
        for start in range(0, shape[1], group):
            members = [(at[0], i, *at[1:]) for i in range(start, min(start + group, shape[1]))]
            ranked = sorted(members, key=lambda item: (importance[item], item[1]))
            stay = set(ranked[max(len(ranked) - kept, 0) :])
            assert {item for item in members if mask[item]} == stay


def test_pattern_is_of_consecutive_bytes_of_a_tflite_file() -> None:
    mask = pattern_mask(np.abs(drawn((4, 8, 3, 3))), 2, 4)
    ohwi = np.moveaxis(mask, 1, -1).reshape(-1, 4)
    assert (ohwi.sum(axis=1) == 2).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: labels_of((3, 3), "rows"), "a granularity is one of weights, .*, not 'rows'"),
        (lambda: labels_of((3, 3), "blocks 0x2"), "not 'blocks 0x2'"),
        (lambda: labels_of((3,), "weights"), r"an output and an input axis, not \[3\]"),
        (lambda: pruned_count(1.5, 3), "a pruning rate is from 0 to 1, not 1.5"),
        (lambda: pruned_count(math.nan, 3), "from 0 to 1, not nan"),
        (lambda: pattern_of("4:4"), "keeps N of M weights, 1 <= N < M, not '4:4'"),
        (
            lambda: scores_of(np.ones((2, 2)), labels_of((2, 2), "weights"), "luck"),
            "a pruning criterion is one of l1, .*, not 'luck'",
        ),
        (
            lambda: scores_of(np.ones((2, 2)), labels_of((2, 2), "weights"), "gradient"),
            "'gradient' needs data",
        ),
        (
            lambda: scores_of(np.full((2, 2), np.nan), labels_of((2, 2), "weights"), "l1"),
            "are not finite",
        ),
    ],
)
def test_faults_are_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
