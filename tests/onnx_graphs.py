"""Random small quantized ONNX graphs: drawn from a seed, built, run in the golden, shrunk.

A `Spec` says everything: the same spec always builds the same graph. Each of its steps draws its
own parameters from its own seed, so that a spec with fewer steps or smaller shapes is a legal
graph too, which is what `shrink` tries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lepton.arith.onnx_float import quantization
from tests.onnx_builder import Quantized
from tests.onnx_moves import MOVES
from tests.onnx_piece import TYPES, Array, Piece, Shape, Value, prod
from tests.onnx_steps import STEPS

KINDS = {**STEPS, **MOVES}


@dataclass(frozen=True)
class StepSpec:
    """One operator: its kind, the seed of its parameters, the value it starts from."""

    kind: str
    seed: int
    operand: int


@dataclass(frozen=True)
class Spec:
    """A whole case.

    Attributes:
        shape: of the graph's input.
        is_qoperator: QLinear* operators where there are, else operators between (de)quantizes.
        is_float: whether the graph's inputs and outputs are float32.
        is_open: whether every step's result is an output, not only the last ones.
        chip: name of a chip, see `tests/test_onnx_random.py`.
    """

    seed: int
    shape: Shape
    dtype: str
    is_qoperator: bool
    is_float: bool
    is_open: bool
    chip: str
    steps: tuple[StepSpec, ...]


class Graph:
    """A spec made into pieces of an ONNX graph."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        rng = np.random.default_rng(spec.seed)
        self.source = Value("x", spec.shape, _input_tensor(rng, spec.dtype))
        self.pieces: list[Piece] = []
        self._values = [self.source]
        self._results: list[Value] = []
        for index, step in enumerate(spec.steps):
            self.append(step, index)

    def append(self, step: StepSpec, index: int) -> bool:
        """Add a step if it applies."""
        piece = Piece(step.kind, f"s{index}", step.seed, self.spec.is_qoperator)
        start = self._values[step.operand % len(self._values)]
        _, function = KINDS[step.kind]
        if not function(piece, self._values, start):
            return False
        self.pieces.append(piece)
        self._values += piece.outputs
        return True

    @property
    def results(self) -> list[Value]:
        """Return what nothing reads, and the results whose bytes may differ by 1.

        All results, where the golden runs step by step, or a bias would be rounded, and two changes
        of scale may follow each other: ONNX Runtime merges those unless the first one's result is
        an output.
        """
        is_stepped = any(
            piece.formula is not None or piece.tolerant or piece.has_bias_scale
            for piece in self.pieces
        )
        is_merging = any(piece.kind == "Requantize" for piece in self.pieces)
        is_open = self.spec.is_open or (is_stepped and is_merging)
        read = {value.name for piece in self.pieces for value in piece.inputs}
        return [
            value
            for piece in self.pieces
            for value in piece.outputs
            if is_open or value.name not in read or piece.tolerant
        ]

    def draw(self, seed: int) -> Array:
        """Return input codes over the whole range."""
        return self.source.tensor.draw(np.random.default_rng(seed), self.source.shape)

    def model(self) -> Any:
        """Return the whole graph as an ONNX model."""
        edge = _Edge(self.spec.is_float)
        begin = edge.input(self.source)
        results = [edge.output(value) for value in self.results]
        nodes = [node for piece in self.pieces for node in piece.nodes]
        constants = [item for piece in self.pieces for item in piece.initializers]
        return _model(
            [*edge.first, *nodes, *edge.last], [begin], results, [*edge.constants, *constants]
        )


class _Edge:
    """Inputs and outputs of a graph, as codes or as float."""

    def __init__(self, is_float: bool) -> None:
        self.first: list[Any] = []
        self.last: list[Any] = []
        self.constants: list[Any] = []
        self._is_float = is_float

    def input(self, value: Value) -> Any:
        """Return the description of the input, quantizing it if it is float."""
        from onnx import TensorProto, helper

        if not self._is_float:
            return info(value)
        piece = self._converted("QuantizeLinear", "real_x", value.name, value)
        self.first += piece
        return helper.make_tensor_value_info("real_x", TensorProto.FLOAT, value.shape)

    def output(self, value: Value) -> Any:
        """Return the description of an output, dequantizing it if it is float."""
        from onnx import TensorProto, helper

        if not self._is_float:
            return info(value)
        self.last += self._converted("DequantizeLinear", value.name, f"real_{value.name}", value)
        return helper.make_tensor_value_info(f"real_{value.name}", TensorProto.FLOAT, value.shape)

    def _converted(self, op: str, source: str, result: str, value: Value) -> list[Any]:
        from onnx import helper, numpy_helper

        names = [f"{result}_scale", f"{result}_point"]
        arrays = [value.tensor.scale, value.tensor.zero_point]
        self.constants += [
            numpy_helper.from_array(a, n) for a, n in zip(arrays, names, strict=True)
        ]
        return [helper.make_node(op, [source, *names], [result], name=f"{op}_{result}")]


def info(value: Value) -> Any:
    """Return the description of a graph's input or output."""
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
    return helper.make_tensor_value_info(value.name, kind, value.shape)


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> Any:
    """Return an ONNX model."""
    from onnx import helper

    graph = helper.make_graph(nodes, "random", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def piece_model(piece: Piece) -> Any:
    """Return one step as a model of its own."""
    inputs = [info(value) for value in piece.inputs]
    outputs = [info(value) for value in piece.outputs]
    return _model(piece.nodes, inputs, outputs, piece.initializers)


# --- drawing -----------------------------------------------------------------------------------


def _input_tensor(rng: np.random.Generator, dtype: str) -> Quantized:
    """Return the quantization of the graph's input."""
    limits = np.iinfo(dtype)
    scale = 10.0 ** rng.uniform(-2.5, 0)
    point = int(rng.choice([limits.min, 0, int(rng.integers(limits.min, limits.max + 1))]))
    return Quantized(dtype, quantization(scale, point, dtype))


def _shape(rng: np.random.Generator) -> Shape:
    """Return an input shape, mostly of an image; some force tiling on small chips."""
    rank = int(rng.choice([2, 3, 4], p=[0.1, 0.1, 0.8]))
    if rank == 2:
        return int(rng.integers(1, 9)), int(rng.choice([3, 10, 64, 200, 700]))
    if rank == 3:
        return int(rng.integers(1, 5)), int(rng.integers(1, 20)), int(rng.integers(1, 40))
    batch = int(rng.choice([1, 1, 1, 2, 3]))
    side = int(rng.choice([3, 6, 9, 16, 28]))
    height, width = (max(1, side + int(rng.integers(-2, 3))) for _ in range(2))
    most = max(1, min(120, 8000 // (batch * height * width)))
    channels = int(rng.choice([1, 3, 4, 8, 16, 24, 40, 100, int(rng.integers(1, 65))]))
    return batch, min(channels, most), height, width


def draw_spec(seed: int, chips: Sequence[str]) -> Spec:
    """Return the case of a seed."""
    rng = np.random.default_rng(seed)
    spec = Spec(
        seed=seed,
        shape=_shape(rng),
        dtype=str(rng.choice(TYPES)),
        is_qoperator=bool(rng.random() < 0.4),
        is_float=bool(rng.random() < 0.2),
        is_open=bool(rng.random() < 0.15),
        chip=str(rng.choice(list(chips))),
        steps=(),
    )
    wanted = int(rng.integers(1, 7))
    graph = Graph(spec)
    steps: list[StepSpec] = []
    kinds = list(KINDS)
    weights = np.array([weight for weight, _ in KINDS.values()])
    for _ in range(60):
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        count = len(graph._values)  # pyright: ignore[reportPrivateUsage]
        operand = count - 1 if rng.random() < 0.6 else int(rng.integers(count))
        step = StepSpec(kind, int(rng.integers(1 << 31)), operand)
        if graph.append(step, len(steps)):
            steps.append(step)
        if len(steps) == wanted:
            break
    return replace(spec, steps=tuple(steps))


# --- shrinking ---------------------------------------------------------------------------------


def _smaller(spec: Spec) -> Iterator[Spec]:
    """Yield specs that are simpler by one thing."""
    for index in range(len(spec.steps)):
        kept = spec.steps[:index] + spec.steps[index + 1 :]
        if kept:
            yield replace(spec, steps=kept)
    for axis, extent in enumerate(spec.shape):
        for less in sorted({1, extent // 2, extent - 1}):
            if 0 < less < extent:
                yield replace(spec, shape=(*spec.shape[:axis], less, *spec.shape[axis + 1 :]))
    if spec.is_float:
        yield replace(spec, is_float=False)
    if spec.is_open:
        yield replace(spec, is_open=False)
    if spec.is_qoperator:
        yield replace(spec, is_qoperator=False)
    if spec.chip != "edge":
        yield replace(spec, chip="edge")


def shrink(spec: Spec, fails: Callable[[Spec], bool], tries: int = 150) -> Spec:
    """Return a smaller spec that still fails, after at most so many tries."""
    again = True
    while again:
        again = False
        for candidate in _smaller(spec):
            tries -= 1
            if tries < 0:
                return spec
            graph = Graph(candidate)
            if graph.pieces and prod(candidate.shape) and fails(candidate):
                spec, again = candidate, True
                break
    return spec
