"""Networks of fully connected layers: an autoencoder and a wide-and-deep recommender."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from lepton.models.zoo.registry import CROSSED_IDS, NUMBERS

# torch is typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["autoencoder", "wide_and_deep"]


def autoencoder(
    features: int = 784, hidden: Sequence[int] = (128, 64), code: int = 16
) -> nn.Module:
    """Return an MLP from features [n, features] in 0..1 to themselves through a narrow code.

    Batch norm and ReLU follow each layer but the last, which ends in a sigmoid.
    Source: the layout of MLPerf Tiny's anomaly detection network (github.com/mlcommons/tiny), which
    has 640 features, four layers of 128 on each side, a code of 8 and no sigmoid.
    """
    sizes = (features, *hidden, code, *reversed(hidden))
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], features), nn.Sigmoid())


class WideAndDeep(nn.Module):
    """A linear model of identities and crossed identities beside an MLP of embeddings.

    Source: H.-T. Cheng et al., Wide & Deep Learning for Recommender Systems, 2016, section 3.
    """

    def __init__(self, ids: int, numbers: int, embedding: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.weights = nn.Embedding(ids, 1)
        self.embeddings = nn.Embedding(ids, embedding)
        nn.init.zeros_(self.weights.weight)
        nn.init.normal_(self.embeddings.weight, std=0.1)
        sizes = (3 * embedding + numbers, *hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.deep = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Return logits [n, 1] of identities [n, 4] (the last crossed) and numbers [n, m]."""
        wide = self.weights(ids).sum(dim=1)
        embedded = self.embeddings(ids[:, :3]).flatten(1)
        return wide + self.deep(torch.cat((embedded, numbers), dim=1))


def wide_and_deep(
    ids: int = CROSSED_IDS,
    numbers: int = NUMBERS,
    embedding: int = 8,
    hidden: Sequence[int] = (64, 32),
) -> nn.Module:
    """Return a recommender from identities [n, 4] and numbers [n, m] to the logit of a click."""
    return WideAndDeep(ids, numbers, embedding, hidden)
