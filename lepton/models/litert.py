"""LiteRT, set up as the golden library of TFLite models."""

from __future__ import annotations

import warnings
from typing import Any

from lepton.errors import InputError

__all__ = ["tflite_interpreter"]


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
