"""Bring transposes of more than four dimensions, which no NPU tensor has, down to fewer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax

from lepton.compiler.importers.names import inner_source, source_of
from lepton.compiler.importers.rewriting import Rewriter, is_call, rewrite, shape_of, with_source

__all__ = ["merge_dimensions"]

_MOST = 4


def merge_dimensions(module: tvm.IRModule) -> tvm.IRModule:
    """Move together the dimensions that a transpose between two reshapes keeps together.

    before: r = R.reshape(x, [1, 4, 28, 7, 7]); p = R.permute_dims(r, [0, 2, 1, 3, 4])
            y = R.reshape(p, [1, 112, 7, 7])
    after:  r = R.reshape(x, [4, 28, 49]); p = R.permute_dims(r, [1, 0, 2])
            y = R.reshape(p, [1, 112, 7, 7])
    """

    def rule(rewriter: Rewriter, variable: Any, value: Any) -> Any:
        if not is_call(value, "relax.reshape"):
            return None
        turn = rewriter.call(value.args[0], "relax.permute_dims")
        split = None if turn is None else rewriter.call(turn.args[0], "relax.reshape")
        if turn is None or split is None:
            return None
        shape, target = shape_of(turn.args[0]), shape_of(variable)
        if shape is None or target is None or len(shape) <= _MOST:
            return None
        axes = turn.attrs.axes
        order = range(len(shape))[::-1] if axes is None else [int(axis) for axis in axes]
        merged, places = _merged(shape, order)
        if len(merged) > _MOST:
            return None
        flat = _emit_reshape(rewriter, split.args[0], merged, split)
        turned = rewriter.emit(relax.op.permute_dims(flat, places), inner_source(source_of(turn)))
        # TVM's annotation allows only a tuple of one.
        made = relax.op.reshape(turned, target)  # pyright: ignore[reportArgumentType]
        return with_source(made, source_of(value))

    return rewrite(module, rule)


def _emit_reshape(rewriter: Rewriter, data: Any, shape: Sequence[int], like: Any) -> Any:
    """Bind a reshape in the place of another."""
    made = relax.op.reshape(data, tuple(shape))  # pyright: ignore[reportArgumentType]
    return rewriter.emit(made, inner_source(source_of(like)))


def _merged(shape: Sequence[int], order: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the shape with what stays together merged and ones left out, and its order."""
    kept = [axis for axis in order if shape[axis] > 1]
    rank = {axis: place for place, axis in enumerate(sorted(kept))}
    runs: list[list[int]] = []
    for axis in kept:
        if runs and rank[axis] == rank[runs[-1][-1]] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    rising = sorted(runs)
    merged = [math.prod(shape[axis] for axis in run) for run in rising]
    return merged or [1], [rising.index(run) for run in runs] or [0]
