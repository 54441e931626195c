"""The backend of `torch.compile(model, backend="lepton")`: graphs run on the simulated NPU.

PyTorch finds `lepton_backend` by the entry point group `torch_dynamo_backends`. A graph that is
quantized (by PT2E) is compiled as it is; a float graph is quantized if the option `calibration` is
given, and else runs on the host in float, with a warning. What Lepton cannot take runs in PyTorch,
with a warning that says why. `last_result` says what the last graph cost.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from lepton.chip import Chip
from lepton.embedded import EmbeddedProgram, last_result, recorded
from lepton.errors import CompileError, ImportFailure, InputError
from lepton.program import Program
from lepton.torch_graph import bound_module, grouped_samples

# torch is an extra, and typed in part only:
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["Options", "last_result", "lepton_backend", "recorded"]

FIRST = "first"
"""Value of the option `calibration`: the inputs of a graph's first call are its samples."""

MOST_VARIANTS = 8
"""Programs that a graph keeps, one for each combination of shapes and weights."""


@dataclass(frozen=True)
class Options:
    """The backend's options.

    Attributes:
        chip: preset, path of a chip file, or `Chip`.
        calibration: samples `[n, ...]` of the graph's input, a tuple of them for several inputs,
            or "first"; None leaves a float graph in float.
        effort: 0 to 3, how long to search for better tiles.
        timing: False computes values only, and no cycles.
        fallback: whether PyTorch runs what Lepton cannot take; False raises the reason.
    """

    chip: str | Chip = "edge"
    calibration: Any = None
    effort: int = 1
    timing: bool = True
    fallback: bool = True

    @classmethod
    def parsed(cls, options: Mapping[str, Any] | None) -> Options:
        """Return the options of `torch.compile`.

        Raises:
            InputError: there is no such option.
        """
        given = dict(options or {})
        unknown = [name for name in given if name not in cls.__dataclass_fields__]
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise InputError(f"backend 'lepton' has no option '{unknown[0]}' (it has {known})")
        calibration = given.get("calibration")
        if isinstance(calibration, str) and calibration != FIRST:
            raise InputError(f"calibration must be samples or '{FIRST}', not '{calibration}'")
        return cls(**given)


def lepton_backend(
    graph: torch.fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
) -> CompiledGraph:
    """Return what runs a graph that TorchDynamo captured.

    Args:
        graph: whose placeholders are its inputs, parameters and buffers.
        example_inputs: a value of each.
        options: fields of `Options` by name.

    Raises:
        InputError: an option is at fault.
    """
    return CompiledGraph(graph, example_inputs, Options.parsed(options))


@dataclass(frozen=True)
class _Variant:
    """A program for some shapes and weights; without one, PyTorch runs the graph."""

    key: tuple[Any, ...]
    weights: list[torch.Tensor]
    run: _Run | None

    def fits(self, key: tuple[Any, ...], weights: Sequence[torch.Tensor]) -> bool:
        return key == self.key and all(map(torch.equal, weights, self.weights))


class _Run:
    """A program that takes and gives tensors."""

    def __init__(self, program: Program, outputs: Sequence[str], timing: bool) -> None:
        self._embedded = EmbeddedProgram(program, timing)
        self._outputs = outputs

    def __call__(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        made = self._embedded([tensor.detach().cpu().numpy() for tensor in inputs])
        device = inputs[0].device if inputs else torch.device("cpu")
        return tuple(torch.from_numpy(made[name].copy()).to(device) for name in self._outputs)


class _WithoutGradient(torch.autograd.Function):
    """Values that a backward pass refuses, as a program has no gradient."""

    @staticmethod
    def forward(
        ctx: Any, run: _Run, inputs: list[torch.Tensor], *_operands: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        del ctx
        return run(inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise InputError(
            "a graph that backend 'lepton' runs has no gradient: train the model without it"
        )


class CompiledGraph:
    """A captured graph, compiled when it is called with shapes or weights that are new to it."""

    def __init__(
        self, graph: torch.fx.GraphModule, example_inputs: Sequence[Any], options: Options
    ) -> None:
        self._graph = graph
        self._options = options
        self._is_fixed = [_is_static(value) for value in example_inputs]
        self._variants: list[_Variant] = []

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        """Return the graph's results, tensors of its own."""
        pairs = list(zip(arguments, self._is_fixed, strict=True))
        weights = [value for value, is_fixed in pairs if is_fixed]
        inputs = [
            value for value, is_fixed in pairs if not is_fixed and isinstance(value, torch.Tensor)
        ]
        run = self._variant(arguments, inputs, weights).run
        if run is None:
            return self._graph(*arguments)
        tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return cast(Any, _WithoutGradient).apply(run, inputs, *tensors)
        return run(inputs)

    def _variant(
        self, arguments: Sequence[Any], inputs: list[torch.Tensor], weights: list[torch.Tensor]
    ) -> _Variant:
        """Return the variant of these shapes and weights, compiled if there is none yet."""
        key = tuple(
            (value.shape, value.dtype, value.device) if isinstance(value, torch.Tensor) else value
            for value in arguments
        )
        for variant in self._variants:
            if variant.fits(key, weights):
                return variant
        copies = [tensor.detach().clone() for tensor in weights]
        made = _Variant(key, copies, self._compiled(arguments, inputs))
        self._variants = [*self._variants[1 - MOST_VARIANTS :], made]
        return made

    def _compiled(self, arguments: Sequence[Any], inputs: list[torch.Tensor]) -> _Run | None:
        """Return the program of a graph, None if PyTorch must run it."""
        try:
            exported = self._exported(arguments, inputs)
            program = self._program(exported, inputs)
        except (CompileError, ImportFailure) as error:
            if not self._options.fallback:
                raise
            _say(f"PyTorch runs a graph that Lepton cannot: {error}")
            return None
        return _Run(program, exported.graph_signature.user_outputs, self._options.timing)

    def _exported(self, arguments: Sequence[Any], inputs: list[torch.Tensor]) -> Any:
        """Return the graph with its weights and numbers as `torch.export` gives it."""
        fixed = [
            is_fixed or not isinstance(value, torch.Tensor)
            for value, is_fixed in zip(arguments, self._is_fixed, strict=True)
        ]
        examples = tuple(tensor.detach() for tensor in inputs)
        try:
            with torch.no_grad():
                return torch.export.export(bound_module(self._graph, arguments, fixed), examples)
        except Exception as error:  # whatever PyTorch raises, the graph cannot be exported
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ImportFailure(f"the graph cannot be exported: {reason}") from error

    def _program(self, exported: Any, inputs: list[torch.Tensor]) -> Program:
        """Compile an exported graph, and quantize it if it is float and that was asked for."""
        import lepton

        chip, effort = self._options.chip, self._options.effort
        program = lepton.compile(exported, chip, effort=effort)
        _check_types(program)
        devices = {operator.device for operator in program.operators if operator.macs}
        if devices != {"host"}:
            return program
        calibration = self._options.calibration
        if calibration is None:
            _say(
                f"a graph of {len(program.operators)} operators runs on the host in float, as it "
                "is not quantized: give options={'calibration': samples} to have it quantized, or "
                "quantize it by PT2E"
            )
            return program
        given = inputs if isinstance(calibration, str) else calibration
        samples = grouped_samples(given, inputs, program.inputs)
        return lepton.compile(exported, chip, calibration=samples, effort=effort)


def _check_types(program: Program) -> None:
    """Refuse tensors of a type that NumPy does not have, such as bfloat16."""
    for name in (*program.inputs, *program.outputs):
        dtype = program.tensor_by_name[name].dtype
        if np.dtype(dtype).isbuiltin != 1:
            raise CompileError(f"tensor '{name}' is of type {dtype}, which NumPy does not have")


@functools.cache
def _say(text: str) -> None:
    """Warn once; the filters of `warnings` would forget it, as PyTorch changes them."""
    warnings.warn(text, stacklevel=3)


def _is_static(value: Any) -> bool:
    """Return whether a graph's input is a parameter, a buffer or another tensor of a module."""
    from torch._dynamo.utils import get_static_address_type

    is_marked = isinstance(value, torch.Tensor) and get_static_address_type(value) is not None
    return is_marked or isinstance(value, torch.nn.Parameter)
