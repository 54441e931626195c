"""TFLite files taken apart: operators, shapes, and constants in float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError

__all__ = ["TfliteFile", "TfliteOperator", "read_tflite"]

_STORED: Mapping[int, str] = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 7: "<i2", 9: "i1"}
"""Element types of constants. Source: TensorFlow Lite's schema, TensorType."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TfliteOperator:
    """An operator of a file.

    Attributes:
        kind: its name in the schema.
        inputs: numbers of the tensors that it reads; -1 for one that is left out.
        outputs: numbers of the tensors that it makes.
        options: its table in the schema; None if it has none.
        place: how errors call it.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any
    place: str

    def read(self, position: int) -> int:
        """Return the number of an input, -1 for one that is left out."""
        return self.inputs[position] if position < len(self.inputs) else -1

    def option(self, key: str) -> Any:
        """Return an option.

        Raises:
            InputError: the file does not give it.
        """
        if not hasattr(self.options, key):
            raise InputError(f"{self.place} has no options: the file is damaged")
        return getattr(self.options, key)


class TfliteFile:
    """A file that LiteRT accepts, with one subgraph.

    Attributes:
        name: of the file, for errors.
        inputs: numbers of the tensors that the network takes.
        outputs: numbers of the tensors that it gives.
    """

    def __init__(self, model: Any, shapes: Mapping[int, tuple[int, ...]], name: str) -> None:
        self._model, self._graph, self._shapes = model, model.subgraphs[0], shapes
        self.name = name
        self.inputs = _numbers(self._graph.inputs)
        self.outputs = _numbers(self._graph.outputs)

    def shape(self, number: int) -> tuple[int, ...]:
        """Return a tensor's shape as LiteRT works it out."""
        return self._shapes[number]

    def label(self, number: int) -> str:
        """Return a tensor's name, which may be that of others too."""
        name = self._graph.tensors[number].name
        return name.decode(errors="replace") if name else f"tensor_{number}"

    def is_constant(self, number: int) -> bool:
        """Return whether the file holds a tensor's values."""
        data = self._model.buffers[self._graph.tensors[number].buffer].data
        return data is not None and len(data) > 0

    def is_float(self, number: int) -> bool:
        """Return whether a tensor stands for real numbers: float, or quantized with a scale."""
        tensor = self._graph.tensors[number]
        return tensor.type in (0, 1) or _scales(tensor) is not None

    def codes(self, number: int) -> NDArray[Any]:
        """Return a constant as it is stored.

        Raises:
            InputError: it has a type that nothing here reads.
        """
        tensor = self._graph.tensors[number]
        dtype = _STORED.get(tensor.type)
        if dtype is None or tensor.sparsity is not None:
            raise InputError(f"{self._place(number)} has a type or a storage that is not read")
        data = np.asarray(self._model.buffers[tensor.buffer].data, np.uint8)
        shape = self._shapes[number]
        if data.size != np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64)):
            raise InputError(f"{self._place(number)} is damaged: its size is not that of its shape")
        return data.view(dtype).reshape(shape)

    def values(self, number: int) -> Floats:
        """Return a constant in float: (code - zero point) x scale, per tensor or per channel.

        Raises:
            InputError: it is no quantized tensor, or damaged.
        """
        codes, tensor = self.codes(number), self._graph.tensors[number]
        if codes.dtype.kind == "f":
            return codes.astype(np.float32)
        scales = _scales(tensor)
        if scales is None:
            raise InputError(f"{self._place(number)} has integers without a scale")
        points = np.asarray(tensor.quantization.zeroPoint, np.float64)
        axis = int(tensor.quantization.quantizedDimension)
        if scales.size > 1:
            if not 0 <= axis < codes.ndim or scales.size != codes.shape[axis]:
                raise InputError(f"{self._place(number)} does not have a scale for each channel")
            along = [-1 if at == axis else 1 for at in range(codes.ndim)]
            scales = scales.reshape(along)
            points = points.reshape(along) if points.size > 1 else points
        made = (codes - points) * scales
        if not np.all(np.abs(made) <= np.finfo(np.float32).max):
            raise InputError(f"{self._place(number)} stands for numbers that float32 does not have")
        return made.astype(np.float32)

    @cached_property
    def operators(self) -> tuple[TfliteOperator, ...]:
        """The operators, in the file's order."""
        return tuple(self._operator(operator) for operator in self._graph.operators or ())

    def _operator(self, operator: Any) -> TfliteOperator:
        from ai_edge_litert.schema_py_generated import BuiltinOperator

        code = self._model.operatorCodes[operator.opcodeIndex]
        wanted = max(code.builtinCode, code.deprecatedBuiltinCode)
        members = vars(BuiltinOperator).items()
        kind = next((key for key, value in members if value == wanted and key.isupper()), "CUSTOM")
        outputs = _numbers(operator.outputs)
        label = f" '{self.label(outputs[0])}'" if outputs else ""
        place = f"{kind}{label} of {self.name}"
        return TfliteOperator(
            kind, _numbers(operator.inputs), outputs, operator.builtinOptions, place
        )

    def _place(self, number: int) -> str:
        return f"constant '{self.label(number)}' of {self.name}"


def read_tflite(content: bytes, name: str) -> TfliteFile:
    """Take a file apart.

    Args:
        content: of the file.
        name: of the file, for errors.

    Raises:
        InputError: it is no TFLite model, is damaged, or has several subgraphs.
    """
    from ai_edge_litert.schema_py_generated import ModelT

    # a file that LiteRT accepts is sound, and may be taken apart
    try:
        details = _tensor_details(content)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{name} is no sound TFLite model: {reason}") from None
    model: Any = ModelT.InitFromPackedBuf(content, 0)
    if len(model.subgraphs) != 1:
        raise InputError(f"{name} has several subgraphs, which are not read")
    shapes = {int(row["index"]): tuple(int(n) for n in row["shape"]) for row in details}
    missing = set(range(len(model.subgraphs[0].tensors))) - shapes.keys()
    return TfliteFile(model, shapes | dict.fromkeys(missing, ()), name)


def _tensor_details(content: bytes) -> list[dict[str, Any]]:
    """Return what LiteRT says of the tensors of a file that it accepts, shapes among it."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

    made: Any = Interpreter
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    engine = made(model_content=content, experimental_op_resolver_type=plain)
    engine.allocate_tensors()
    return engine.get_tensor_details()


def _numbers(found: Any) -> tuple[int, ...]:
    return () if found is None else tuple(int(number) for number in found)


def _scales(tensor: Any) -> NDArray[np.float64] | None:
    """Return a tensor's scales; None where it is not quantized."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) == 0:
        return None
    if quantization.zeroPoint is None or len(quantization.zeroPoint) not in (
        1,
        len(quantization.scale),
    ):
        return None
    return np.asarray(quantization.scale, np.float64)
