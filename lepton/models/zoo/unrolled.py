"""Recurrent layers as the feed-forward layers of a fixed number of steps.

ONNX's own recurrent operators run on the host; unrolled ones are matrix products and element-wise
operators, which the NPU runs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from lepton.errors import InputError

# torch is typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["Unrolled", "unroll"]

Step = Callable[[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]]


class Unrolled(nn.Module):
    """Computes what a GRU or an LSTM of one layer does, step by step.

    Args:
        recurrence: batch first, one layer, one direction, without projection.

    Raises:
        InputError: the recurrence has another form.
    """

    def __init__(self, recurrence: nn.GRU | nn.LSTM) -> None:
        super().__init__()
        if (
            not recurrence.batch_first
            or recurrence.num_layers != 1
            or recurrence.bidirectional
            or recurrence.proj_size
        ):
            raise InputError(
                "to be unrolled, a recurrence must have the batch first, one layer, one direction "
                "and no projection"
            )
        self.inputs = _linear(recurrence, "ih")
        self.state = _linear(recurrence, "hh")
        is_gru = isinstance(recurrence, nn.GRU)
        self.step: Step = _gru_step if is_gru else _lstm_step
        self.states, self.hidden = (1 if is_gru else 2), recurrence.hidden_size

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, object]:
        """Return what the recurrence does: all states [n, length, hidden], and the last ones."""
        projected = self.inputs(x)
        state = tuple(x.new_zeros(len(x), self.hidden) for _ in range(self.states))
        made: list[torch.Tensor] = []
        for one in projected.split(1, dim=1):
            state = self.step(one.flatten(1), self.state(state[0]), state)
            made.append(state[0])
        last = tuple(one.unsqueeze(0) for one in state)
        return torch.stack(made, dim=1), last if self.states > 1 else last[0]


def _linear(recurrence: nn.GRU | nn.LSTM, kind: str) -> nn.Linear:
    """Return the linear layer of all gates, of the input (`ih`) or of the state (`hh`)."""
    weights = cast(nn.Parameter, getattr(recurrence, f"weight_{kind}_l0"))
    made = nn.Linear(weights.shape[1], weights.shape[0], bias=recurrence.bias)
    made.weight = weights
    if recurrence.bias:
        made.bias = cast(nn.Parameter, getattr(recurrence, f"bias_{kind}_l0"))
    return made


def _gru_step(
    projected: torch.Tensor, recurrent: torch.Tensor, state: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """Return the next state h.

    r, z = sigmoid(W x + U h); c = tanh(W x + r * (U h)); h' = c + z * (h - c).
    Source: K. Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014, with the
    reset gate behind the product, as `torch.nn.GRU` has it.
    """
    x_reset, x_update, x_new = projected.split(state[0].shape[1], dim=1)
    h_reset, h_update, h_new = recurrent.split(state[0].shape[1], dim=1)
    reset, update = torch.sigmoid(x_reset + h_reset), torch.sigmoid(x_update + h_update)
    candidate = torch.tanh(x_new + reset * h_new)
    return (candidate + update * (state[0] - candidate),)


def _lstm_step(
    projected: torch.Tensor, recurrent: torch.Tensor, state: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """Return the next state h and cell c.

    i, f, o = sigmoid(W x + U h); g = tanh(W x + U h); c' = f * c + i * g; h' = o * tanh(c').
    Source: F. Gers, J. Schmidhuber, F. Cummins, Learning to Forget, 2000.
    """
    gates = (projected + recurrent).split(state[0].shape[1], dim=1)
    keep, take, give = torch.sigmoid(gates[1]), torch.sigmoid(gates[0]), torch.sigmoid(gates[3])
    cell = keep * state[1] + take * torch.tanh(gates[2])
    return give * torch.tanh(cell), cell


def unroll(network: nn.Module) -> nn.Module:
    """Return a copy of a network in which each GRU and LSTM is `Unrolled`."""
    made = copy.deepcopy(network)
    for module in list(made.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GRU | nn.LSTM):
                setattr(module, name, Unrolled(child))
    return made
