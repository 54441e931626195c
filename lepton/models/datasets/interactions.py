"""Synthetic data for recommenders: clicks and histories, drawn by stated rules.

Both rules are known, and so is the best accuracy that any network can reach (`best_next_item`,
`click_probability`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.models.datasets.dataset import Dataset
from lepton.models.zoo.registry import GOODS, HISTORY, ITEMS, NUMBERS, USERS, WEEKDAYS

__all__ = ["best_next_item", "click_probability", "generate_clicks", "generate_histories"]

CLASSES = 8
"""Classes that users and goods belong to: their number modulo this."""
FOLLOWING = 0.85
"""Part of the steps of a history that follow the rule; the others are drawn uniformly."""


def click_probability(
    ids: NDArray[np.int64], numbers: NDArray[np.float32], seed: int
) -> NDArray[np.float64]:
    """Return the probability of a click, [n].

    sigmoid(2 s), s = taste[user class, good class] + favourite[user, good] + trend[weekday] +
    w . numbers, with taste and w standard normal, favourite 2 for a twentieth of all pairs and else
    0, and trend normal with deviation 1/2, all drawn from the seed.

    Args:
        ids: [n, 4] as `generate_clicks` makes them.
        numbers: [n, 4].
        seed: of the rule.
    """
    rng = np.random.default_rng(seed)
    taste = rng.standard_normal((CLASSES, CLASSES))
    favourite = 2.0 * (rng.random((USERS, GOODS)) < 0.05)
    trend = 0.5 * rng.standard_normal(WEEKDAYS)
    slopes = rng.standard_normal(NUMBERS) / np.sqrt(NUMBERS)
    user, good, weekday = ids[:, 0], ids[:, 1] - USERS, ids[:, 2] - USERS - GOODS
    score = taste[user % CLASSES, good % CLASSES] + favourite[user, good] + trend[weekday]
    return 1 / (1 + np.exp(-2 * (score + numbers @ slopes)))


def generate_clicks(samples: int, seed: int, rule_seed: int = 0) -> Dataset:
    """Draw what users were shown and whether they clicked.

    User, good and weekday are uniform, the numbers standard normal; a click has the probability of
    `click_probability`.

    Args:
        samples: how many.
        seed: of the samples.
        rule_seed: of the rule, the same for training and test.

    Returns:
        Identities [n, 4] int64 (user, good, weekday, pair of user and good, each field in a range
        of its own), numbers [n, 4] float32; labels 1 for a click.
    """
    rng = np.random.default_rng(seed)
    user, good, weekday = (rng.integers(0, count, samples) for count in (USERS, GOODS, WEEKDAYS))
    offset = USERS + GOODS
    crossed = offset + WEEKDAYS + user * GOODS + good
    ids = np.stack([user, USERS + good, offset + weekday, crossed], axis=1)
    numbers = rng.standard_normal((samples, NUMBERS), np.float32)
    is_click = rng.random(samples) < click_probability(ids, numbers, rule_seed)
    return Dataset((ids, numbers), is_click.astype(np.int64), ("ignored", "clicked"))


def best_next_item(history: NDArray[np.int64], rule_seed: int = 0) -> NDArray[np.int64]:
    """Return the likeliest next items [n] of histories [n, length].

    If the last two items are of one class (their number modulo 8), the last one's successor in a
    first permutation drawn from the seed, else its successor in a second one.
    """
    rng = np.random.default_rng(rule_seed)
    loyal, changing = rng.permutation(ITEMS), rng.permutation(ITEMS)
    last, before = history[:, -1], history[:, -2]
    return np.where(last % CLASSES == before % CLASSES, loyal[last], changing[last])


def generate_histories(samples: int, seed: int, rule_seed: int = 0) -> Dataset:
    """Draw histories of items and the next item.

    The first two items are uniform; each further one follows `best_next_item` with probability 0.85
    and is else uniform. So no network predicts more than 0.85 + 0.15 / 64 of them.

    Args:
        samples: how many.
        seed: of the samples.
        rule_seed: of the rule, the same for training and test.

    Returns:
        Histories [n, 12] int64, the latest item last; the next item as label.
    """
    rng = np.random.default_rng(seed)
    items = rng.integers(0, ITEMS, (samples, HISTORY + 1))
    follows = rng.random((samples, HISTORY + 1)) < FOLLOWING
    for step in range(2, HISTORY + 1):
        best = best_next_item(items[:, :step], rule_seed)
        items[:, step] = np.where(follows[:, step], best, items[:, step])
    names = tuple(f"item{number}" for number in range(ITEMS))
    return Dataset((items[:, :HISTORY],), items[:, HISTORY], names)
