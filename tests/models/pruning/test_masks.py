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
from lepton.models.pruning.selection import Selection, masks_for

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
    read = 0.0
    for out in {at[0] for at in members}:
        for channel in range(w.shape[1]):
            read += math.sqrt(sum(item**2 for item in w[out, channel].reshape(-1).tolist()))
    return math.sqrt(sum(w[at] ** 2 for at in members)) / read


def naive_says_nothing(name: str, groups: Mapping[Any, list[tuple[int, ...]]], w: Any) -> bool:
    """Whether each of several groups is all that one filter has, of one input channel."""
    whole = w[0].size
    return (
        name == "relative"
        and w.shape[1] == 1
        and len(groups) > 1
        and all(
            len(members) == whole and len({at[0] for at in members}) == 1
            for members in groups.values()
        )
    )


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
        groups = naive_groups(shape, kind)
        assert criteria.cannot_compare(name, labels) == naive_says_nothing(name, groups, w)
        if criteria.cannot_compare(name, labels):
            continue
        made = scores_of(w, labels, name, Slopes(slopes, np.abs(slopes), np.abs(slopes)))
        for members in groups.values():
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
        criteria.relative_norm(w * 7, labels), criteria.relative_norm(w, labels), rtol=1e-12
    )


def naive_gone(
    scores: Mapping[tuple[int, ...], float], shape: tuple[int, ...], kind: str, rate: float
) -> set[tuple[int, ...]]:
    """Which weights go: of N:M the lowest of each group first, the earlier one of equals."""
    found = pattern_of(kind)
    groups = naive_groups(shape, "weights" if found else kind)
    first: set[Any] = set()
    if found:
        kept, group = found
        for out, *position in itertools.product(*(range(e) for e in (shape[0], *shape[2:]))):
            for start in range(0, shape[1], group):
                channels = range(start, min(start + group, shape[1]))
                members = [(out, channel, *position) for channel in channels]
                members.sort(key=lambda at: (scores[at], at[1]))
                first |= set(members[: max(len(members) - kept, 0)])
    keys = list(groups)
    order = sorted(keys, key=lambda at: (bool(found) and at not in first, scores[at]))
    count = math.floor(rate * len(keys) + 0.5)
    return {at for key in order[:count] for at in groups[key]}


@pytest.mark.parametrize("kind", [*KINDS, "2:4", "1:3"])
@pytest.mark.parametrize("name", CRITERIA)
def test_the_weights_that_go_are_those_of_the_loops(name: str, kind: str) -> None:
    rng = np.random.default_rng(5)
    for shape in [(6, 8), (4, 7, 3, 3), (9, 1, 3, 3), (5, 4, 1, 1), (1, 9, 2)]:
        for is_tied, rate in itertools.product((False, True), (0.5, 0.8)):
            w = rng.integers(-2, 3, shape) * 1.0 if is_tied else rng.standard_normal(shape)
            w[0, 0] = 1.5  # a layer of zeros has no deviation
            g = np.full(shape, 0.5) if is_tied else rng.standard_normal(shape)
            slopes = {"layer": Slopes(g, np.abs(g), np.abs(g))}
            groups = naive_groups(shape, "weights" if pattern_of(kind) else kind)
            selection = Selection(name, kind)
            rate = max(rate, selection.pattern_rate)
            if naive_says_nothing(name, groups, w):
                with pytest.raises(
                    InputError, match="layer 'layer': the criterion 'relative' gives"
                ):
                    masks_for({"layer": w}, selection, rate, slopes)
                continue
            granularity = "weights" if pattern_of(kind) else kind
            # sums of other orders differ in the last places, which would part equal scores
            scores = {
                key: round(NAIVE[name](w, g, members, granularity), 12)
                for key, members in groups.items()
            }
            if is_tied and len(set(scores.values())) == len(scores):
                continue
            mask = masks_for({"layer": w}, selection, rate, slopes)["layer"]
            gone = naive_gone(scores, shape, kind, rate)
            made = {tuple(map(int, at)) for at in np.argwhere(~mask)}
            if is_tied:
                # which of equal scores goes may hang on their last places: compare the scores
                lost = [
                    sorted(scores[group_of(at, kind)] for at in chosen) for chosen in (gone, made)
                ]
                assert lost[0] == lost[1]
            else:
                assert made == gone


def group_of(at: tuple[int, ...], kind: str) -> tuple[int, ...]:
    return at if pattern_of(kind) else naive_group(kind, at)


def test_of_equal_scores_the_earlier_goes() -> None:
    for name in ("l1", "l2", "relative", "layer share", "deviation"):
        for kind in KINDS:
            mask = masks_for({"layer": np.ones((4, 12, 2, 2))}, Selection(name, kind), 0.5)["layer"]
            labels = labels_of((4, 12, 2, 2), kind)
            groups = [int(item) for item in np.unique(labels[~mask])]
            assert groups == list(range(len(np.unique(labels)) // 2))
        mask = masks_for({"layer": np.ones((2, 8))}, Selection(name, "2:4"), 0.5)["layer"]
        assert mask.astype(int).tolist() == [[0, 0, 1, 1, 0, 0, 1, 1]] * 2


def test_relative_norms_by_hand() -> None:
    w = np.array([[3.0, 4.0, 0.0], [1.0, 1.0, 2.0]])
    by_kind = {
        "filters": [5 / 7, math.sqrt(6) / 4],
        "weights": [3 / 7, 4 / 7, 0, 1 / 4, 1 / 4, 2 / 4],
        "channels": [math.sqrt(10) / 11, math.sqrt(17) / 11, 2 / 11],
        "blocks 1x2": [5 / 7, 0, math.sqrt(2) / 4, 2 / 4],
        "blocks 2x2": [math.sqrt(27) / 11, 2 / 11],
    }
    for kind, expected in by_kind.items():
        np.testing.assert_allclose(criteria.relative_norm(w, labels_of(w.shape, kind)), expected)
    depthwise = np.array([[[3.0, 4.0]], [[0.0, 2.0]]])
    made = criteria.relative_norm(depthwise, labels_of(depthwise.shape, "weights"))
    np.testing.assert_allclose(made, [3 / 5, 4 / 5, 0, 1])


def test_layers_at_rate_zero_are_not_ranked() -> None:
    weights = {"dense": drawn((4, 6)), "depthwise": drawn((4, 1, 3, 3))}
    masks = masks_for(weights, Selection("relative", "filters", layer_rates={"dense": 0.5}), 0.0)
    assert masks["depthwise"].all()
    assert (~masks["dense"]).all(axis=1).sum() == 2


def test_a_damaged_layer_is_named() -> None:
    damaged = drawn((4, 6))
    damaged[1, 2] = np.nan
    for name in CRITERIA:
        with pytest.raises(InputError, match="layer 'second': NaN or infinite weights"):
            masks_for({"first": drawn((2, 2)), "second": damaged}, Selection(name), 0.5, SLOPES)


SLOPES = {
    name: Slopes(np.ones(shape), np.ones(shape), np.ones(shape))
    for name, shape in (("first", (2, 2)), ("second", (4, 6)))
}


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


@given(st.integers(0, 400), st.floats(0, 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_global_masks_rank_all_layers_together(seed: int, rate: float, empties: bool) -> None:
    rng = np.random.default_rng(seed)
    layers = [rng.integers(-3, 4, shape).astype(float) for shape in ((3, 4), (2, 3, 2), (5, 2))]
    for kind in ("weights", "filters", "blocks 2x2"):
        labels = [labels_of(item.shape, kind) for item in layers]
        scores = [criteria.magnitude_l1(w, at) for w, at in zip(layers, labels, strict=True)]
        masks = global_masks(scores, labels, rate, empties_layers=empties)
        ranked = sorted(
            (score, layer, group)
            for layer, row in enumerate(scores)
            for group, score in enumerate(row)
        )
        lasts = [max(item for item in ranked if item[1] == layer) for layer in range(3)]
        ranked = [item for item in ranked if empties or item not in lasts]
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
        assert pruned == min(math.floor(rate * (21 + 90) + 0.5), 21 + 90 - 2)


def test_the_global_scope_leaves_a_layer_its_best() -> None:
    weights = {"weak": drawn((4, 5)) / 1000, "strong": drawn((10, 18), 1)}
    for pattern in ("weights", "filters", "2:4"):
        masks = masks_for(weights, Selection("l1", pattern, "global"), 0.9)
        groups = np.abs(weights["weak"])
        stays = masks["weak"]
        if pattern == "filters":
            groups, stays = groups.sum(axis=1), stays.all(axis=1)
        elif pattern == "2:4":
            # the best of what the pattern leaves, which is the best of all here
            assert stays[np.unravel_index(groups.argmax(), groups.shape)]
        np.testing.assert_array_equal(stays, groups == groups.max())
        gone = sum(int((~mask).sum()) for mask in masks.values())
        assert gone == (180 if pattern != "filters" else 3 * 5 + 9 * 18)
        emptied = masks_for(weights, Selection("l1", pattern, "global", empties_layers=True), 0.9)
        assert not emptied["weak"].any()


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
            "weights: NaN or infinite weights cannot be ranked",
        ),
        (
            lambda: scores_of(
                np.ones((2, 2)),
                labels_of((2, 2), "weights"),
                "gradient",
                Slopes(np.full((2, 2), np.inf)),
            ),
            "slopes are not finite, so 'gradient'",
        ),
        (lambda: Selection(threshold=math.nan), "a pruning threshold is a finite number, not nan"),
    ],
)
def test_faults_are_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
