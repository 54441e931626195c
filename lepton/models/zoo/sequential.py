"""Networks of sequences of identities [n, length] int64: recurrences and a transformer."""

from __future__ import annotations

import math

import torch
from torch import nn

from lepton.models.zoo.registry import INTENT_LENGTH, INTENT_WORDS, INTENTS, ITEMS

# torch is typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["gru_recommender", "intent_transformer", "lstm_recommender"]


class NextItem(nn.Module):
    """Embeds a history, runs a recurrence over it and scores every item as the next."""

    def __init__(self, recurrence: nn.GRU | nn.LSTM, items: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(items, recurrence.input_size)
        self.recurrence = recurrence
        self.score = nn.Linear(recurrence.hidden_size, items)

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        """Return logits [n, items] of histories [n, length], the latest item last."""
        last = self.recurrence(self.embedding(history))[1]
        return self.score((last[0] if isinstance(last, tuple) else last).squeeze(0))


def gru_recommender(items: int = ITEMS, embedding: int = 32, hidden: int = 64) -> nn.Module:
    """Return a next-item recommender with a GRU.

    Source: B. Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, 2016.
    """
    return NextItem(nn.GRU(embedding, hidden, batch_first=True), items)


def lstm_recommender(items: int = ITEMS, embedding: int = 32, hidden: int = 64) -> nn.Module:
    """Return a next-item recommender with an LSTM."""
    return NextItem(nn.LSTM(embedding, hidden, batch_first=True), items)


class Attention(nn.Module):
    """Multi-head self-attention out of linear layers.

    softmax(Q K^T / sqrt(d)) V for each head of d features.
    Source: A. Vaswani et al., Attention Is All You Need, 2017, equation 1.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(features, features), nn.Linear(features, features)
        self.value, self.merge = nn.Linear(features, features), nn.Linear(features, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of x, [n, length, features]."""
        _, length, features = x.shape
        each = features // self.heads

        def split(made: torch.Tensor) -> torch.Tensor:
            return made.reshape(-1, length, self.heads, each).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        weights = (query @ key.transpose(2, 3) / math.sqrt(each)).softmax(dim=-1)
        return self.merge((weights @ value).transpose(1, 2).reshape(-1, length, features))


class EncoderLayer(nn.Module):
    """Attention and two linear layers, each added to its input and normalized."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(features, heads)
        self.attention_norm = nn.LayerNorm(features)
        self.feed_forward = nn.Sequential(
            nn.Linear(features, 2 * features), nn.ReLU(), nn.Linear(2 * features, features)
        )
        self.norm = nn.LayerNorm(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of x, [n, length, features]."""
        x = self.attention_norm(x + self.attention(x))
        return self.norm(x + self.feed_forward(x))


class SentenceClassifier(nn.Module):
    """Embeds words and positions, encodes them, and classifies the mean of all positions."""

    def __init__(self, words: int, classes: int, features: int, layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, features)
        self.positions = nn.Parameter(0.1 * torch.randn(INTENT_LENGTH, features))
        self.encoder = nn.Sequential(*(EncoderLayer(features, 4) for _ in range(layers)))
        self.logits = nn.Linear(features, classes)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Return logits [n, classes] of sentences [n, length], padded with word 0."""
        return self.logits(self.encoder(self.words(words) + self.positions).mean(dim=1))


def intent_transformer(
    words: int = INTENT_WORDS, classes: int = INTENTS, features: int = 48, layers: int = 2
) -> nn.Module:
    """Return a transformer encoder that classifies sentences of 16 words."""
    return SentenceClassifier(words, classes, features, layers)
