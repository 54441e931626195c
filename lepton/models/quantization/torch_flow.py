"""Which module's result goes where, noted during one run of a network.

Unlike a symbolic trace this takes any network, and what it finds holds for networks whose course
does not depend on their input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["Flow", "recorded_flow"]

_SHAPES = (
    "__get__",
    "size",
    "dim",
    "ndimension",
    "numel",
    "is_floating_point",
    "stride",
    "__len__",
)


@dataclass(eq=False)
class Flow:
    """One computation: a module without modules in it, a function, or the network's result.

    Attributes:
        name: path of the module, or name of the function.
        module: None if it is a function.
        sources: what made the tensors it takes; None for the network's inputs and parameters.
        users: what takes its result.
        parameters: identities of the parameters that it reads.
    """

    name: str
    module: nn.Module | None = None
    sources: list[Flow | None] = field(default_factory=list["Flow | None"])
    users: list[Flow] = field(default_factory=list["Flow"])
    parameters: list[int] = field(default_factory=list[int])


class _Recorder(TorchFunctionMode):
    """Notes functions outside of innermost modules, and those modules as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.flows: list[Flow] = []
        self.depth = 0
        self._makers: dict[int, Flow] = {}
        self._kept: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = str(getattr(func, "__name__", func))
        if self.depth == 0 and name not in _SHAPES:
            self.note(Flow(name), (args, kwargs or {}), made)
        return made

    def note(self, flow: Flow, taken: Any, made: Any) -> None:
        """Add a computation between the tensors taken and made."""
        if flow.module is not None:
            flow.parameters += [id(item) for item in flow.module.parameters()]
        for tensor in _tensors(taken):
            if isinstance(tensor, nn.Parameter):
                flow.parameters.append(id(tensor))
            source = self._makers.get(id(tensor))
            flow.sources.append(source)
            if source is not None:
                source.users.append(flow)
        for tensor in _tensors(made):
            self._makers[id(tensor)] = flow
            self._kept.append(tensor)
        self.flows.append(flow)


def _tensors(values: Any) -> list[torch.Tensor]:
    """Return the tensors in nested arguments."""
    if isinstance(values, torch.Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, tuple | list):
        return [tensor for value in values for tensor in _tensors(value)]
    return []


def recorded_flow(network: nn.Module, example: Sequence[torch.Tensor]) -> list[Flow]:
    """Run a network in eval mode; return its computations in order, the last being its result."""
    recorder = _Recorder()
    handles: list[Any] = []
    for path, module in network.named_modules():
        if next(module.children(), None) is None and path:
            handles += _watch(recorder, path, module)
    training = network.training
    try:
        with torch.no_grad(), recorder:
            made = network.eval()(*example)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    recorder.note(Flow("result"), made, ())
    return recorder.flows


def _watch(recorder: _Recorder, path: str, module: nn.Module) -> list[Any]:
    """Note a module's runs as one computation each."""

    def before(_module: nn.Module, _inputs: object) -> None:
        recorder.depth += 1

    def after(_module: nn.Module, inputs: Any, made: Any) -> None:
        recorder.depth -= 1
        recorder.note(Flow(path, module), inputs, made)

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
