"""Import a `torch.export` program; PyTorch is needed only by who has such a program."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from lepton.compiler.dump import Dump, no_dump
from lepton.compiler.importers.model import ImportedModel
from lepton.errors import ImportFailure


def import_torch(
    program: Any, shapes: Mapping[str, Sequence[int]], dump: Dump = no_dump
) -> ImportedModel:
    """Turn an exported program, float or quantized by PT2E, into canonical form.

    Args:
        program: `torch.export.ExportedProgram`; it is not changed.
        shapes: Must agree with the program's inputs: export fixes shapes.
        dump: Takes every form of the module.

    Raises:
        ImportFailure: It has dynamic dimensions or operators that are not supported, changes a
            tensor in place, draws random numbers, or returns what is no tensor.
    """
    from lepton.compiler.importers.canonical import canonicalize
    from lepton.compiler.importers.result import make_result
    from lepton.compiler.importers.torch_importer import TorchImporter

    inputs = list(program.graph_signature.user_inputs)
    outputs = [str(name) for name in program.graph_signature.user_outputs]
    _check_shapes(program, inputs, shapes)
    _check_outputs(program)
    with warnings.catch_warnings():
        # PyTorch's copies of its own trees warn of PyTorch's future
        warnings.simplefilter("ignore", FutureWarning)
        program = program.run_decompositions(_decompositions())
        _check_effects(program)
        importer = TorchImporter(program)
        module = importer.convert()
    return make_result(
        canonicalize(module, importer.sources(module), dump),
        golden="onnx",
        name=type(program).__name__,
        inputs=[str(name) for name in inputs],
        outputs=outputs,
    )


def _check_shapes(program: Any, inputs: list[Any], shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuse dynamic inputs and shapes that contradict the program's."""
    known: dict[str, tuple[Any, ...]] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            value = node.meta.get("val")
            known[node.name] = tuple(getattr(value, "shape", ()))
            dynamic = [extent for extent in known[node.name] if not isinstance(extent, int)]
            if dynamic:
                raise ImportFailure(
                    f"input {node.name!r} has the dynamic dimension {dynamic[0]}; export the "
                    "program without dynamic_shapes"
                )
    for name, shape in shapes.items():
        if name not in known or known[name] != tuple(shape):
            raise ImportFailure(
                f"the exported program has no input {name!r} of shape "
                f"{','.join(map(str, shape))}; export it again with that shape"
            )


def _decompositions() -> Any:
    """Return PyTorch's decompositions, with attention as two products and a softmax."""
    torch: Any = import_module("torch")

    table: Any = torch.export.default_decompositions()
    table[torch.ops.aten.scaled_dot_product_attention.default] = _attention
    return table


def _attention(query: Any, key: Any, value: Any, *mask: Any, **options: Any) -> Any:
    """Compute attention without a mask, `[..., tokens, features]`.

    PyTorch's own decomposition has a softmax for rows that are masked as a whole, whose tests and
    zeros no NPU has; without a mask there are none. Attention of another kind is left to it.
    """
    torch: Any = import_module("torch")

    scale = options.get("scale")
    is_plain = all(name == "scale" or not value for name, value in options.items())
    if mask or not is_plain or query.shape[:-2] != key.shape[:-2]:
        return torch.ops.aten._scaled_dot_product_attention_math(
            query, key, value, *mask, **options
        )[0]
    tokens, features = query.shape[-2:]
    factor = features**-0.5 if scale is None else scale
    flat = [item.reshape(-1, *item.shape[-2:]) for item in (query * factor, key, value)]
    weights = flat[0].bmm(flat[1].transpose(1, 2)).softmax(-1)
    return weights.bmm(flat[2]).reshape(*query.shape[:-2], tokens, value.shape[-1])


def _check_outputs(program: Any) -> None:
    """Refuse numbers, texts and None among the results."""
    for position, spec in enumerate(program.graph_signature.output_specs):
        kind = type(spec.arg).__name__
        if kind != "TensorArgument":
            raise ImportFailure(f"result {position} of the exported program is no tensor ({kind})")


def _check_effects(program: Any) -> None:
    """Refuse what a program of an NPU does not do: change its operands, draw random numbers."""
    torch: Any = import_module("torch")

    signature = program.graph_signature
    changed = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if changed:
        raise ImportFailure(
            f"the exported program changes {changed[0]!r} in place; export it in eval mode"
        )
    for node in program.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise ImportFailure(
                f"{node.name!r} draws random numbers ({node.target}); export it in eval mode"
            )
