"""Partitioning: which operators run on the NPU, in which regions, and why the others do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm.relax.transform import FuseOpsByPattern, FusionPattern, MergeCompositeFunctions

from lepton.chip import Chip, chip_to_table
from lepton.compiler.chip_rules import CHIP_RULES, first_chip_failure, window_pixels
from lepton.compiler.dump import Dump, dump_module, no_dump
from lepton.compiler.golden import Golden
from lepton.compiler.golden_onnx import OnnxGolden
from lepton.compiler.golden_tflite import TfliteGolden
from lepton.compiler.host_average import average_codes
from lepton.compiler.importers import source_of
from lepton.compiler.importers.relax import is_region
from lepton.compiler.importers.rewriting import operator_name
from lepton.compiler.operation import Operation, read_operation
from lepton.compiler.patterns import patterns
from lepton.compiler.rules import first_failure
from lepton.compiler.steps import Verdict
from lepton.compiler.tabulate import tabulate
from lepton.errors import CompileError, InputError

__all__ = ["CHIP", "Partition", "Reasons", "golden_of", "partition"]

CHIP = "lepton.chip"
"""Attribute of regions that a user partitioned: the table of the chip that they fit, as JSON."""

Reasons = dict[str, str]
"""Source operator -> the rule that keeps it off the NPU."""


@dataclass
class Partition:
    """A module with its regions, and what was decided about its operators."""

    module: tvm.IRModule
    reasons: Reasons = field(default_factory=Reasons)
    verdicts: list[Verdict] = field(default_factory=list[Verdict])
    """On which the partition depends and a chip has a say."""


def golden_of(kind: str) -> Golden:
    """Return the golden library called "onnx" or "tflite"."""
    return TfliteGolden() if kind == "tflite" else OnnxGolden()


def _is_partitioned(module: tvm.IRModule, chip: Chip) -> bool:
    """Return whether a user has partitioned a module.

    Raises:
        InputError: for another chip.
    """
    whole: Any = module
    tables = {str(f.attrs[CHIP]) for _, f in whole.functions_items() if is_region(f)}
    for table in tables:
        if json.loads(table) != chip_to_table(chip):
            raise InputError(
                f"the module was partitioned for the chip '{json.loads(table).get('name')}', "
                f"not for '{chip.name}'"
            )
    return bool(tables)


def _probe(golden: Golden, operation: Operation) -> str:
    """Return why the golden has no exact parameters for an operation, "" if it has."""
    from lepton.compiler.nodes import Region, add_operation

    builder = Region(golden, "probe")
    for value in operation.inputs:
        if value.variable is not None:
            builder.bind_input(value.variable, "x", value.shape, value.dtype)
    try:
        add_operation(builder, "y", operation)
    except CompileError as error:
        return str(error)
    return ""


def _checker(golden: Golden, chip: Chip, made: Partition) -> Callable[[Any], bool]:
    """Return the predicate that accepts a match and notes why another is refused."""

    def check(context: Any) -> bool:
        bindings = dict(context.matched_bindings.items())
        root = context.matched_expr
        operation = read_operation(bindings, root, root)
        heart = source_of(operation.call) or source_of(root)
        name = heart.operator if heart is not None else operation.name
        reason = first_failure(operation)
        if not reason and operation.op in CHIP_RULES:
            reason = first_chip_failure(operation, chip)
            made.verdicts.append(Verdict(window_pixels(operation), not reason))
        reason = reason or _probe(golden, operation)
        if reason:
            made.reasons.setdefault(name, f"{operation.op}: {reason}")
            return False
        return True

    return check


def _operators(module: tvm.IRModule) -> set[str]:
    """Return the Relax operators that `main` calls, without `relax.`."""
    return {
        operator_name(binding.value).removeprefix("relax.")
        for block in module["main"].body.blocks
        for binding in block.bindings
    }


def partition(module: tvm.IRModule, kind: str, chip: Chip, dump: Dump = no_dump) -> Partition:
    """Group the operators that the NPU supports into region functions.

    before: main is a flat list of Relax calls
    after:  main calls region functions (attribute Codegen = "lepton"), each a chain of composite
            functions (attribute Composite = "lepton.<op>"); what is left in main is the host's.

    Args:
        module: canonical module (`lepton.compiler.importers`); one that `partition_for_lepton`
            made stays as it is.
        kind: "onnx" or "tflite", whose arithmetic decides.
        chip: what the regions must fit.
        dump: takes the module after each pass.
    """
    golden = golden_of(kind)
    if _is_partitioned(module, chip):
        return Partition(module)
    module = tabulate(module, golden, kind)
    dump_module(dump, "tabulate", module)
    made = Partition(module)
    checker = _checker(golden, chip, made)
    entries: list[FusionPattern | tuple[Any, ...]] = [*patterns(checker, _operators(module))]
    module = FuseOpsByPattern(entries, bind_constants=True)(module)
    dump_module(dump, "fuse_operators", module)
    module = MergeCompositeFunctions()(module)
    dump_module(dump, "merge_regions", module)
    if kind == "tflite":
        module = average_codes(module)
        dump_module(dump, "average_codes", module)
    made.module = module
    return made
