"""The module: layers by name, and the graph that joins them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lepton.errors import ImportFailure
from lepton.models.onnx_module.constants import OPERATORS, Constant, compute, fold, stored
from lepton.models.onnx_module.layers import Layer, layer_of, trainable_positions
from lepton.models.onnx_module.reading import default_opset, runtime_inputs
from lepton.models.onnx_module.step import Step, step_of

if TYPE_CHECKING:
    import onnx

# torch and onnx are typed in part only:
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["OnnxModule"]


@dataclass(frozen=True)
class _Owner:
    """The parameter that holds a stored tensor, and where in it each of its elements lies.

    Attributes:
        path: of the parameter in the module.
        index: the constant's; None where the parameter's order is the stored one.
    """

    path: str
    index: torch.Tensor | None

    def inverse(self) -> torch.Tensor | None:
        """Return where in the parameter each stored element lies."""
        return None if self.index is None else torch.argsort(self.index.reshape(-1))


class OnnxModule(nn.Module):
    """A float ONNX graph whose parameters can be trained.

    Weights that the graph computes from other constants, other than by moving their elements, stay
    as they are: no stored tensor could take what they become.

    Attributes:
        layers: the torch layers, by a name that torch allows.
        free: parameters of operators without a torch layer: biases of sums, norms' scales.
        onnx_names: key in `layers` -> what the node is called in the graph.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self._model = model
        self.layers = nn.ModuleDict()
        self.free = nn.ParameterDict()
        self.onnx_names: dict[str, str] = {}
        self._owners: dict[str, _Owner] = {}
        self._keys: dict[str, str] = {}
        self._views: dict[str, _View] = {}
        self._inputs = [item.name for item in runtime_inputs(model.graph)]
        self._outputs = [item.name for item in model.graph.output]
        self._batch = _nominal_batch(model.graph)
        constants = {item.name: stored(item, item.name) for item in model.graph.initializer}
        steps = [step_of(node, default_opset(model)) for node in model.graph.node]
        _refuse_foreign(model)
        self._steps = fold(steps, constants)
        self._check_order(constants)
        ranks = _ranks(model)
        for step in self._steps:
            self._add_layer(step, constants, ranks.get(step.inputs[0]) if step.inputs else None)
        self._add_free(constants)
        self._buffer_names = self._add_buffers(constants)
        self.eval()

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Compute the graph; its output, or a tuple of several."""
        if len(inputs) != len(self._inputs):
            raise TypeError(f"the graph has {len(self._inputs)} inputs, not {len(inputs)}")
        values: dict[str, torch.Tensor] = dict(zip(self._inputs, inputs, strict=True))
        for name, buffer in self._buffer_names.items():
            values[name] = getattr(self, buffer)
        values.update({name: view.of(self) for name, view in self._views.items()})
        batch = inputs[0].shape[0] if inputs and inputs[0].ndim else self._batch
        for step in self._steps:
            values.update(zip(step.outputs, self._computed(step, values, batch), strict=False))
        made = tuple(values[name] for name in self._outputs)
        return made[0] if len(made) == 1 else made

    def to_onnx(self) -> onnx.ModelProto:
        """Return the graph with the present parameters; a tensor that kept its value is as it was.

        Raises:
            InputError: A parameter has another shape than the graph's.
        """
        model = type(self._model)()
        model.CopyFrom(self._model)
        for proto, name in _stored_tensors(model.graph):
            if name in self._owners:
                self._write(proto, name, self._owners[name])
        return model

    def parameter_of(self, name: str) -> torch.Tensor | None:
        """Return the parameter that holds a constant of the graph; None if none does."""
        owner = self._owners.get(name)
        return None if owner is None else attrgetter(owner.path)(self)

    def as_stored(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Return values in a parameter's order, flat, in the order of the constant it holds."""
        inverse = self._owners[name].inverse()
        flat = values.detach().cpu().reshape(-1)
        return flat if inverse is None else flat[inverse]

    def _computed(
        self, step: Step, values: Mapping[str, torch.Tensor], batch: int
    ) -> tuple[torch.Tensor, ...]:
        key = self._keys.get(step.outputs[0])
        if key is not None:
            read = step.inputs[1] if step.kind == "Gather" else step.inputs[0]
            return (self.layers[key](values[read]),)
        given = [values[name] if name else None for name in step.inputs]
        if step.kind == "Reshape" and batch != self._batch:
            given[1] = self._for_batch(given[0], given[1], batch)
        return compute(step, given)

    def _for_batch(self, tensor: Any, target: Any, batch: int) -> torch.Tensor:
        """Return a Reshape's target for another batch than the file's."""
        if target.numel() and int(target[0]) == self._batch and tensor.shape[0] == batch:
            return torch.cat((target.new_tensor([batch]), target[1:]))
        return target

    def _check_order(self, constants: Mapping[str, Constant]) -> None:
        """Refuse operators that nobody knows and tensors that nobody makes."""
        known = {*constants, *self._inputs, ""}
        for step in self._steps:
            if step.kind not in OPERATORS and step.kind != "Dropout":
                raise ImportFailure(f"{step.place} has no trainable form: {_advice(step.kind)}")
            missing = [name for name in step.inputs if name not in known]
            if missing:
                raise ImportFailure(
                    f"{step.place} reads {missing[0]!r}, which nothing makes before"
                )
            made = 1 if step.kind != "Split" else len(step.outputs)
            known.update(step.outputs[:made])
        lost = [name for name in self._outputs if name not in known]
        if lost:
            raise ImportFailure(f"output {lost[0]!r} is made by nothing that can be trained")

    def _add_layer(self, step: Step, constants: Mapping[str, Constant], rank: int | None) -> None:
        inputs = [constants.get(name) for name in step.inputs]
        layer = layer_of(step, inputs, rank)
        if layer is None or not self._can_hold(layer):
            return
        key = _module_key(step.name, self.layers)
        for path, constant in layer.held.items():
            self._hold(layer.module, f"layers.{key}", path, constant)
        self.layers[key] = layer.module
        self.onnx_names[key] = step.name
        self._keys[step.outputs[0]] = key

    def _can_hold(self, layer: Layer) -> bool:
        """Return whether each constant is new, or a parameter that can be shared as it is."""
        for path, constant in layer.held.items():
            owner = self._owners.get(constant.source or "")
            if owner is None:
                continue
            shared = attrgetter(owner.path)(self)
            is_same = shared.shape == constant.value.shape and _is_same(owner.index, constant)
            if not is_same or "running" in path:
                return False
        return True

    def _hold(self, layer: nn.Module, prefix: str, path: str, constant: Constant) -> None:
        """Put a constant into a layer; one that another layer holds becomes shared."""
        parent, _, name = path.rpartition(".")
        target = layer.get_submodule(parent)
        owner = self._owners.get(constant.source or "")
        if owner is not None:
            setattr(target, name, attrgetter(owner.path)(self))
            return
        getattr(target, name).data = constant.value.contiguous().clone()
        self._own(f"{prefix}.{path}", constant)

    def _own(self, path: str, constant: Constant) -> None:
        if constant.source is not None:
            self._owners[constant.source] = _Owner(path, constant.index)

    def _add_free(self, constants: Mapping[str, Constant]) -> None:
        """Make parameters of what operators without a layer train, and view those of layers."""
        for step in self._steps:
            if step.outputs[0] in self._keys:
                continue
            inputs = [constants.get(name) for name in step.inputs]
            for position in trainable_positions(step, inputs):
                constant = inputs[position]
                if constant is not None and constant.source not in self._owners:
                    key = _module_key(constant.source or "", self.free)
                    self.free[key] = nn.Parameter(constant.value.contiguous().clone())
                    self._own(f"free.{key}", constant)
            for name, constant in zip(step.inputs, inputs, strict=True):
                owner = self._owners.get((constant and constant.source) or "")
                if constant is not None and owner is not None:
                    self._views[name] = _view(owner, constant)

    def _add_buffers(self, constants: Mapping[str, Constant]) -> dict[str, str]:
        """Keep the constants that are read as they are; return tensor -> buffer."""
        layered = self._keys
        read = {
            name for step in self._steps if step.outputs[0] not in layered for name in step.inputs
        }
        names: dict[str, str] = {}
        for name in sorted((read | set(self._outputs)) & constants.keys() - self._views.keys()):
            names[name] = f"constant_{len(names)}"
            self.register_buffer(names[name], constants[name].value, persistent=False)
        return names

    def _write(self, proto: Any, name: str, owner: _Owner) -> None:
        from onnx import numpy_helper

        value = self.as_stored(name, attrgetter(owner.path)(self))
        before = numpy_helper.to_array(proto)
        after = value.numpy().astype(before.dtype).reshape(before.shape)
        if before.tobytes() != after.tobytes():
            proto.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(after), proto.name))


@dataclass(frozen=True)
class _View:
    """A constant made of a parameter's elements: in their order, or at `index`."""

    path: str
    shape: torch.Size
    index: torch.Tensor | None

    def of(self, module: nn.Module) -> torch.Tensor:
        flat = attrgetter(self.path)(module).reshape(-1)
        chosen = flat if self.index is None else flat[self.index.to(flat.device)]
        return chosen.reshape(self.shape)


def _view(owner: _Owner, constant: Constant) -> _View:
    """Return how a constant is read from the parameter that holds its source."""
    inverse = owner.inverse()
    is_same = _is_same(owner.index, constant)
    places = constant.places().reshape(-1)
    index = None if is_same else places if inverse is None else inverse[places]
    return _View(owner.path, constant.value.shape, index)


def _is_same(index: torch.Tensor | None, constant: Constant) -> bool:
    """Return whether two constants of one source hold its elements in the same order."""
    if index is None or constant.index is None:
        return index is constant.index
    return torch.equal(index.reshape(-1), constant.index.reshape(-1))


def _stored_tensors(graph: Any) -> list[tuple[Any, str]]:
    """Return the tensors of a graph that hold values, with the names that operators read."""
    nodes = [
        (attribute.t, node.output[0])
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    return [(item, item.name) for item in graph.initializer] + nodes


def _refuse_foreign(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ImportFailure(
                f"{node.op_type} {node.name!r} is of the domain {node.domain!r}, which has no "
                "trainable form"
            )


def _advice(kind: str) -> str:
    if "Quantize" in kind or "Integer" in kind or kind.startswith("QLinear"):
        return "the model is quantized; give the float model that it was made from"
    return "replace it, or train the network before it is exported"


def _nominal_batch(graph: onnx.GraphProto) -> int:
    """Return the batch that the file fixes; 0 if it fixes none."""
    for item in runtime_inputs(graph)[:1]:
        dims = item.type.tensor_type.shape.dim
        return int(dims[0].dim_value) if dims else 0
    return 0


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Return the ranks of a graph's tensors, as far as they follow from its inputs."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # the library raises its own errors and bare RuntimeErrors
        return {}
    return {
        item.name: len(item.type.tensor_type.shape.dim)
        for item in [*inferred.value_info, *inferred.input]
        if item.type.tensor_type.HasField("shape")
    }


def _module_key(name: str, taken: Any) -> str:
    """Return a name that torch allows for a child module or parameter."""
    key = re.sub(r"\W+", "_", name).strip("_") or "layer"
    used: Sequence[str] = list(taken)
    while key in used or hasattr(taken, key):
        key += "_"
    return key
