"""Generated data sets: they follow their stated rules."""

from __future__ import annotations

import re

import numpy as np

from lepton.models.datasets import encode_sentence, generate_clicks, generate_histories
from lepton.models.datasets.intents import (
    GRAMMAR,
    INTENT_NAMES,
    OMISSION,
    generate_intents,
    generate_sentence,
    vocabulary,
)
from lepton.models.datasets.interactions import (
    FOLLOWING,
    best_next_item,
    click_probability,
)
from lepton.models.zoo.registry import CROSSED_IDS, INTENT_WORDS, INTENTS, ITEMS, USERS


def test_grammar_fits_the_network() -> None:
    assert len(INTENT_NAMES) == INTENTS
    assert max(vocabulary().values()) < INTENT_WORDS
    symbols = {name.upper() for name in INTENT_NAMES}
    symbols |= {"OPENING", "CLOSING"}
    for alternatives in GRAMMAR.values():
        for text in alternatives:
            words = text.split()
            symbols |= {word for word in words if word in GRAMMAR}
            assert all(word in GRAMMAR or re.fullmatch("[a-z]+", word) for word in words)
    assert symbols == set(GRAMMAR)


def derivable(symbol: str) -> str:
    """Return a regular expression of what a symbol gives, each word followed by a space."""

    def word(text: str) -> str:
        return derivable(text) if text in GRAMMAR else f"(?:{text} )?"

    alternatives = ("".join(word(part) for part in text.split()) for text in GRAMMAR[symbol])
    return f"(?:{'|'.join(alternatives)})"


def test_sentences_are_of_the_grammar() -> None:
    rng = np.random.default_rng(0)
    opening, closing = derivable("OPENING"), derivable("CLOSING")
    for number in range(60):
        words = generate_sentence(number % INTENTS, rng)
        body = derivable(INTENT_NAMES[number % INTENTS].upper())
        text = "".join(f"{word} " for word in words)
        assert re.fullmatch(opening + body + closing, text), text


def test_words_are_numbers() -> None:
    known = vocabulary()
    row = encode_sentence("Cancel, my FRIGATE order!")
    assert row.tolist() == [known["cancel"], known["my"], 1, known["order"]] + [0] * 12
    assert (encode_sentence("help " * 40) == known["help"]).all()
    assert encode_sentence("").tolist() == [0] * 16
    assert 0 < OMISSION < 1


def test_same_seed_same_samples() -> None:
    for made in (generate_intents, generate_clicks, generate_histories):
        first, again, other = made(50, 3), made(50, 3), made(50, 4)
        for one, same in zip(first.inputs, again.inputs, strict=True):
            np.testing.assert_array_equal(one, same)
        np.testing.assert_array_equal(first.labels, again.labels)
        assert not np.array_equal(first.inputs[0], other.inputs[0])


def test_histories_follow_their_rule() -> None:
    histories = generate_histories(4000, 0)
    history = histories.inputs[0]
    assert (history.min(), history.max()) == (0, ITEMS - 1)
    expected = FOLLOWING + (1 - FOLLOWING) / ITEMS
    right = float(np.mean(best_next_item(history) == histories.labels))
    assert abs(right - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)
    inner = float(np.mean(best_next_item(history[:, :-1]) == history[:, -1]))
    assert abs(inner - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)


def test_clicks_follow_their_rule() -> None:
    clicks = generate_clicks(20_000, 0)
    ids, numbers = clicks.inputs
    assert (ids.min(), ids.max()) == (0, CROSSED_IDS - 1)
    assert (ids[:, 0] < USERS).all() and (ids[:, 1] >= USERS).all()
    chance = click_probability(ids, numbers, 0)
    # within each tenth of the probabilities, as many clicks as they say
    for part in np.array_split(np.argsort(chance), 10):
        deviation = np.sqrt(np.mean(chance[part] * (1 - chance[part])) / len(part))
        assert abs(clicks.labels[part].mean() - chance[part].mean()) < 4.5 * deviation
