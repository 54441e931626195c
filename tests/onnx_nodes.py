"""The ONNX standard's node tests (`onnx.backend.test`), each through Lepton's public interface.

A test passes if its outputs are the standard's within the test's own tolerances. One that does not
is refused in a sentence, or gives exactly what ONNX Runtime gives, whose kernels are the golden of
`.onnx` models. Everything else is a fault.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import lepton
from lepton.errors import LeptonError

__all__ = ["FLOAT_SHARE", "Outcome", "node_tests", "nodes_verdict", "run_index", "run_test"]

FLOAT_SHARE = 0.8
"""Least share of the float inference tests that pass."""

_FLOATS = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")

_PHRASES = (
    (r"tensors? of type (\w+) are not supported", r"\1 tensors"),
    (r"is of type (\w+); inputs can", r"\1 tensors"),
    (r"holds texts", "string tensors"),
    (r"training mode|ai\.onnx\.preview\.training", "training operator"),
    (r"operator of domain (\S+) is not supported", r"domain \1"),
    (r"random numbers", "random numbers: no expected values"),
    (r"(\w+) \('[^']*'\): control flow", r"control flow (\1)"),
    (r"depends on (values that are )?computed", "dynamic shape: sizes depend on values"),
    (r"its version of (opset \d+) is not supported", r"\1 is newer than ONNX Runtime's 26"),
    (r"uses ONNX opset (\d+);", r"opset \1 is too old"),
    (r"Could not find an implementation for (\w+)", "ONNX Runtime has no kernel for these types"),
    (r"Unrecognized attribute: (\w+)", r"ONNX Runtime's version has no attribute \1"),
    (r"\(layout == 1\)", "ONNX Runtime has no batchwise layout"),
    (r"must give '\w+' as .*", "ONNX infers another shape than ONNX Runtime makes"),
    (r"remainder of floats", "floored remainder of floats"),
)  # fmt: skip
"""Pattern of a message -> the phrase that the table has for it."""


class Outcome(NamedTuple):
    """What became of a test; `reason` is "" if it passed."""

    name: str
    operator: str
    is_float: bool
    reason: str


@functools.cache
def node_tests() -> dict[str, Any]:
    """Return the standard's node tests by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators overflow and divide by zero on purpose
        from onnx.backend.test import loader

        return {case.name: case for case in loader.load_model_tests(kind="node")}


def run_index(index: int) -> Counter[str]:
    """Run one test, counting what docs/onnx_nodes.md shows."""
    cases = list(node_tests().values())
    if index >= len(cases):
        return Counter()
    outcome = run_test(cases[index])
    counts = Counter({f"total {outcome.operator}": 1})
    counts["float total"] += outcome.is_float
    if not outcome.reason:
        counts[f"passed {outcome.operator}"] += 1
        counts["float passed"] += outcome.is_float
        return +counts
    mark = "*" if outcome.is_float else ""
    counts[f"failed {outcome.operator} | {outcome.reason} | {outcome.name}{mark}"] += 1
    return +counts


def nodes_verdict(counts: Counter[str]) -> str:
    """Judge whether enough of the float inference tests pass."""
    passed, total = counts["float passed"], counts["float total"]
    return f"{passed} of {total} float tests pass" if passed < FLOAT_SHARE * total else ""


def run_test(case: Any) -> Outcome:
    """Run one node test.

    Raises:
        AssertionError: the values are neither the standard's nor ONNX Runtime's.
        Exception: anything but a `LeptonError` is a fault too.
    """
    reason = ""
    for inputs, expected in case.data_sets:
        reason = reason or _reason(case, _arrays(inputs), _arrays(expected))
    return Outcome(case.name, operator_of(case), is_float_inference(case), reason)


def _reason(case: Any, inputs: Sequence[Any], expected: Sequence[Any]) -> str:
    """Return why one set of data does not give what the standard expects, "" if it does."""
    from onnx.backend.test.runner import Runner

    graph = case.model.graph
    constant = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in constant]
    feeds = dict(zip(names, inputs, strict=False))
    try:
        program = lepton.load_program(lepton.compile(case.model).to_bytes())
        made = lepton.simulate(program, feeds).outputs
    except LeptonError as error:
        return phrase(str(error))
    ours = [made[value.name] for value in graph.output]
    try:
        Runner.assert_similar_outputs(expected, ours, case.rtol, case.atol)
    except AssertionError:
        for mine, theirs in zip(ours, _golden(case.model, feeds), strict=True):
            np.testing.assert_array_equal(mine, theirs, "neither the standard's nor the golden's")
        return f"ONNX Runtime's values, {_distance(ours, expected)} from the standard's"
    return ""


def _arrays(values: Iterable[Any]) -> list[Any]:
    """Return tensors of narrow types, which a test holds as protocol buffers, as arrays."""
    from onnx import TensorProto, numpy_helper

    made = [numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for v in values]
    return [np.asarray(value) if isinstance(value, np.generic) else value for value in made]


def _golden(model: Any, feeds: dict[str, Any]) -> list[Any]:
    """Return what ONNX Runtime computes for a whole model."""
    from lepton.runtime.golden import onnx_session

    return onnx_session(model.SerializeToString()).run(None, feeds)


def _distance(ours: Sequence[Any], expected: Sequence[Any]) -> str:
    """Return how far results are apart at most."""
    furthest = 0.0
    for mine, theirs in zip(ours, expected, strict=True):
        if mine.shape != theirs.shape:
            return f"of shape {list(mine.shape)} instead of {list(theirs.shape)},"
        with np.errstate(invalid="ignore"):
            apart = np.abs(mine.astype(np.float64) - theirs.astype(np.float64))
        furthest = max(furthest, float(np.nanmax(apart, initial=0.0)))
    return f"{furthest:.1g}"


def phrase(message: str) -> str:
    """Return a message's phrase for the table, without what names one model's parts."""
    for pattern, text in _PHRASES:
        found = re.search(pattern, message)
        if found:
            return found.expand(text)
    shortened = re.sub(r" ?\(?'[^']*'\)?", "", message).replace("|", "/")
    return shortened[:160]


def operator_of(case: Any) -> str:
    """Return which operator a test is about; those of its definition are named so."""
    base = re.match(r"(.*)_expanded", case.name)
    if base is not None and base[1] in node_tests():
        return f"{operator_of(node_tests()[base[1]])}, expanded"
    nodes = case.model.graph.node
    return nodes[-1].op_type if len(nodes) else "none"


def is_float_inference(case: Any) -> bool:
    """Return whether a test has one node of the default domain and a float input, no training."""
    from onnx import TensorProto

    graph = case.model.graph
    if len(graph.node) != 1 or graph.node[0].domain not in ("", "ai.onnx"):
        return False
    kinds = [
        TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        for value in graph.input
        if value.type.HasField("tensor_type")
    ]
    return "training" not in case.name and any(kind in _FLOATS for kind in kinds)
