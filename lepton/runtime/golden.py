"""The golden libraries: whose bytes Lepton's must equal.

ONNX models: ONNX Runtime's integer kernels (all optimizations, one thread, the session entry that
keeps int8 graphs in integers). TFLite models: LiteRT's reference kernels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.program import Program

__all__ = ["GoldenModel", "drawn", "onnx_session", "random_inputs", "reason_of"]
__all__ += ["tflite_interpreter"]

Arrays = dict[str, NDArray[Any]]


def onnx_session(
    model: bytes | str,
    threads: int = 1,
    provider: str | tuple[str, dict[str, str]] = "CPUExecutionProvider",
) -> Any:
    """Return an ONNX Runtime session set up as the golden, which has one thread on the CPU.

    Args:
        model: its content, or the path of its file.
        threads: of the CPU.
        provider: of kernels, with its options if it has any.

    Raises:
        InputError: ONNX Runtime refuses the model.
    """
    import onnxruntime as ort

    options: Any = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    try:
        return ort.InferenceSession(model, options, providers=[provider])
    except Exception as error:
        raise InputError(f"ONNX Runtime refuses the graph: {reason_of(error)}") from None


def reason_of(error: Exception) -> str:
    """Return the last line of what a library says."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else "no reason given"


class GoldenModel:
    """A model file run by its golden library.

    Args:
        path: `.onnx` or `.tflite`.
        keep_all: also return every intermediate tensor that the library can give.
    """

    def __init__(self, path: str | Path, keep_all: bool = False) -> None:
        self._path = Path(path)
        self._keep_all = keep_all
        try:
            self._content = self._path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        self.kind = "tflite" if self._content[4:8] == b"TFL3" else "onnx"

    @cached_property
    def _engine(self) -> Any:
        if self.kind == "tflite":
            return tflite_interpreter(self._content, self._keep_all)
        return onnx_session(_with_all_outputs(self._content) if self._keep_all else self._content)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Return the named outputs (and intermediates, if kept) for named inputs."""
        if self.kind == "tflite":
            return self._run_tflite(inputs)
        names = [output.name for output in self._engine.get_outputs()]
        return dict(zip(names, self._engine.run(names, dict(inputs)), strict=True))

    def output_quantization(self) -> tuple[float, int] | None:
        """Return scale and zero point of a TFLite model's first output; None if it has none."""
        if self.kind != "tflite":
            return None
        scale, zero_point = self._engine.get_output_details()[0]["quantization"]
        return (float(scale), int(zero_point)) if scale else None

    def _run_tflite(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        engine = self._engine
        arrays = list(inputs.values())
        details = engine.get_input_details()
        for position, detail in enumerate(details):
            array = inputs.get(detail["name"], arrays[position])
            engine.set_tensor(detail["index"], array)
        engine.invoke()
        outputs = {
            d["name"]: engine.get_tensor(d["index"]).copy() for d in engine.get_output_details()
        }
        if not self._keep_all:
            return outputs
        for detail in engine.get_tensor_details():
            if detail["name"] in outputs or not detail["name"]:
                continue
            try:
                outputs[detail["name"]] = engine.get_tensor(detail["index"]).copy()
            except ValueError:
                continue  # a temporary that the library has not allocated
        return outputs


def tflite_interpreter(content: bytes, keep_all: bool = False, threads: int = 1) -> Any:
    """Return a LiteRT interpreter with reference kernels.

    Raises:
        InputError: LiteRT refuses the model.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

    made: Any = Interpreter
    try:
        engine = made(
            model_content=content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
            experimental_preserve_all_tensors=keep_all,
            num_threads=threads,
        )
        engine.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT refuses the model: {str(error).splitlines()[0]}") from None
    return engine


def _with_all_outputs(content: bytes) -> bytes:
    """Return an ONNX model that also outputs every quantized tensor.

    Changes of scale that the library would merge are merged before: it does not merge what is an
    output, and then rounds otherwise than in the model as it is.
    """
    import onnx
    from onnx import helper

    from lepton.compiler.importers.onnx_pairs import merge_pairs

    model = onnx.load_from_string(content)
    merge_pairs(model.graph)
    have = {output.name for output in model.graph.output}
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.output[0] not in have:
            kind = kinds.get(node.input[2], 2) if len(node.input) > 2 else 2
            model.graph.output.append(helper.make_tensor_value_info(node.output[0], kind, None))
    return model.SerializeToString()


def random_inputs(program: Program, seed: int) -> Arrays:
    """Return seeded random inputs of a program: normal floats, the whole range of narrow integers.

    Integers of 32 and 64 bits are 0 or 1: most are numbers of words or items.
    """
    generator = np.random.default_rng(seed)
    tensors = [program.tensor_by_name[name] for name in program.inputs]
    return {item.name: drawn(generator, item.shape, np.dtype(item.dtype)) for item in tensors}


def drawn(
    generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return a random array, as `random_inputs` has them."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = (limits.min, limits.max) if dtype.itemsize <= 2 else (0, 1)
        return generator.integers(low, high, shape, dtype=dtype, endpoint=True)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
