"""Passes over Relax bindings: what a rule leaves alone stays, and names stay unique."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton.compiler.importers import import_model
from lepton.compiler.importers.rewriting import is_call, rewrite
from lepton.compiler.patterns import patterns
from tests.compiler import importer_models as made

MODEL = made.qdq(
    "Conv", [(1, 4, 8, 8)], [(made.int8_weights(4, 4, 3, 3), np.full(4, 0.01), 0)], scales=(0.05, 1)
)


def bindings(module: Any) -> list[Any]:
    return [binding for block in module["main"].body.blocks for binding in block.bindings]


def test_bindings_that_a_rule_leaves_alone_are_kept() -> None:
    module = import_model(MODEL).module
    same = rewrite(module, lambda _rewriter, _variable, _value: None)
    for old, new in zip(bindings(module), bindings(same), strict=True):
        assert new.same_as(old)


def test_what_reads_a_changed_binding_is_bound_anew_under_a_name_of_its_own() -> None:
    import tvm

    module = import_model(MODEL).module

    def rule(_rewriter: Any, _variable: Any, value: Any) -> Any:
        if not is_call(value, "relax.nn.conv2d"):
            return None
        return tvm.ir.Call(value.op, list(value.args), value.attrs, [], value.span)

    changed = rewrite(module, rule)
    pairs = list(zip(bindings(module), bindings(changed), strict=True))
    kept = [new.same_as(old) for old, new in pairs]
    first = next(n for n, (old, _) in enumerate(pairs) if is_call(old.value, "relax.nn.conv2d"))
    assert all(kept[:first]) and not kept[first] and not kept[first + 1]
    names = [new.var.name for _, new in pairs]
    assert len(set(names)) == len(names)


def test_only_patterns_whose_operator_occurs_are_looked_for() -> None:
    def check(_context: Any) -> bool:
        return True

    found = {entry[0] for entry in patterns(check, {"nn.conv2d", "quantize", "power"})}
    assert found == {"lepton.nn.conv2d", "lepton.requantize", "lepton.squared_difference"}
    assert patterns(check, set()) == []
