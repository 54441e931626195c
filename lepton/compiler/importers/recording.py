"""Remember, while an importer runs, which source operator each variable comes from."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from typing import Any

import tvm
from tvm import relax

from lepton.compiler.importers.names import Source


class SourceRecorder:
    """Collects variable -> source by walking back from each operator's result.

    An importer emits inner steps through C++ (normalization), which Python cannot observe; the
    bindings between an operator's result and its already known operands are exactly its own.
    """

    def __init__(self, builder: relax.BlockBuilder) -> None:
        self._builder = builder
        self.sources: dict[Any, Source] = {}

    def know(self, variable: Any, source: Source) -> None:
        """Record a variable that no operator makes (an input)."""
        self.sources[variable] = source

    def new_calls(self, results: Iterable[Any]) -> list[Any]:
        """Return the calls since the last record that results depend on."""
        found: list[Any] = []
        seen: set[Any] = set()
        pending = list(results)
        while pending:
            expr = pending.pop()
            if isinstance(expr, relax.Var):
                if expr in self.sources or expr in seen:
                    continue
                seen.add(expr)
                expr = self._builder.lookup_binding(expr)
            if isinstance(expr, tvm.ir.Call):
                found.append(expr)
            pending += _operands(expr)
        return found

    def record(self, result: Any, source: Source) -> None:
        """Give `source` to every new variable that `result` depends on.

        The result itself carries the tensor name, inner steps none.
        """
        inner = Source(source.operator, "", source.index)
        pending: list[tuple[Any, Source]] = [(result, source)]
        while pending:
            expr, label = pending.pop()
            if isinstance(expr, relax.Var):
                if expr in self.sources:
                    continue
                self.sources[expr] = label
                value = self._builder.lookup_binding(expr)
                if value is not None:
                    pending.extend((operand, inner) for operand in _operands(value))
            else:
                pending.extend((operand, inner) for operand in _operands(expr))


@contextmanager
def abandoned_on_error(builder: Any) -> Generator[None, None, None]:
    """Close the block that an error leaves open, else TVM warns on stderr about it."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # it may not have been opened yet
            builder._end_block()
        raise


def _operands(value: Any) -> list[Any]:
    """List the operands of a flat expression."""
    if isinstance(value, relax.Var):
        return [value]
    if isinstance(value, tvm.ir.Call):
        return list(value.args)
    if isinstance(value, relax.Tuple):
        return list(value.fields)
    if isinstance(value, relax.TupleGetItem):
        return [value.tuple_value]
    return []
