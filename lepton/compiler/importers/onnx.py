"""Import an ONNX model: read, check, fix shapes, fold constants, convert, canonicalize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lepton.compiler.dump import Dump, no_dump
from lepton.compiler.importers.model import ImportedModel
from lepton.errors import ImportFailure

if TYPE_CHECKING:
    import onnx
    import tvm

    from lepton.compiler.importers.names import Source

Shapes = Mapping[str, Sequence[int]]
_OLDEST_OPSET = 7


def import_onnx(
    data: bytes | onnx.ModelProto, name: str, shapes: Shapes, dump: Dump = no_dump
) -> ImportedModel:
    """Turn a serialized or parsed ONNX model into canonical form.

    Args:
        data: The file's bytes or a `ModelProto`, which is not changed.
        name: How messages call the model.
        shapes: Input name -> shape, to fix dynamic dimensions.
        dump: Takes every form of the module.

    Raises:
        ImportFailure: It is no ONNX model, is damaged, or uses what is not supported.
    """
    from lepton.compiler.importers.canonical import canonicalize, drop_dead_code
    from lepton.compiler.importers.onnx_checks import refuse_bad_scales
    from lepton.compiler.importers.result import make_result

    model, opset = read_onnx(data, name, shapes)
    refuse_bad_scales(model.graph)
    module, sources = _convert(_settle(model, name), name, opset)
    return make_result(
        # what a converter left behind that gave up is dropped before any pass looks at it
        canonicalize(drop_dead_code(module), sources, dump),
        golden="onnx",
        name=name,
        inputs=[value.name for value in runtime_inputs(model.graph)],
        outputs=[value.name for value in model.graph.output],
    )


def _convert(
    settled: onnx.ModelProto, name: str, opset: int
) -> tuple[tvm.IRModule, Mapping[Any, Source]]:
    """Return the module of a model, and where its variables are from.

    An operator that runs nowhere is replaced by the standard's own definition, if it has one.
    """
    from lepton.compiler.importers.onnx_bias import adopt_bias_scales
    from lepton.compiler.importers.onnx_bodies import with_bodies
    from lepton.compiler.importers.onnx_folding import drop_copies
    from lepton.compiler.importers.onnx_importer import NeedsBody, OnnxImporter
    from lepton.compiler.importers.onnx_pairs import merge_pairs

    model = type(settled)()
    model.CopyFrom(settled)
    drop_copies(model.graph)
    merge_pairs(model.graph)
    adopt_bias_scales(model.graph)
    importer = OnnxImporter()
    try:
        return importer.convert(model.graph, opset), importer.recorder.sources
    except NeedsBody as error:
        try:
            return _convert(_settle(with_bodies(settled, error.kind, opset), name), name, opset)
        except (ImportFailure, ValueError) as inner:
            raise ImportFailure(f"{error}; nor can what defines it: {inner}") from None


def read_onnx(
    data: bytes | onnx.ModelProto, name: str, shapes: Shapes
) -> tuple[onnx.ModelProto, int]:
    """Return a checked copy of a model whose inputs have static shapes, and its opset.

    Recurrences are unrolled.

    Raises:
        ImportFailure: It is no ONNX model, is damaged, or the shapes do not fit it.
    """
    from lepton.compiler.importers.onnx_unroll import unrolled

    model = _parse(data, name)
    opset = _check(model, name)
    _fix_shapes(model, name, shapes)
    return unrolled(model), opset


def _parse(data: bytes | onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return our own copy of the model."""
    import google.protobuf.message
    import onnx

    model = onnx.ModelProto()
    if not isinstance(data, bytes):
        model.CopyFrom(data)
        return model
    try:
        model.ParseFromString(data)
    except (google.protobuf.message.DecodeError, RuntimeError, ValueError) as error:
        raise ImportFailure(f"{name} is not an ONNX model, or it is truncated") from error
    if not model.graph.node and not model.graph.output:
        raise ImportFailure(f"{name} is not an ONNX model: it has no graph")
    return model


def _check(model: onnx.ModelProto, name: str) -> int:
    """Check the model's structure and versions and return its opset."""
    import onnx

    from lepton.compiler.importers.onnx_checks import refuse_bad_names

    _refuse_external_data(model, name)
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    is_default = any(node.domain in ("", "ai.onnx") for node in model.graph.node)
    opset = versions[0] if versions else 1 if is_default else onnx.defs.onnx_opset_version()
    newest = onnx.defs.onnx_opset_version()
    if not _OLDEST_OPSET <= opset <= newest:
        raise ImportFailure(
            f"{name} uses ONNX opset {opset}; opsets {_OLDEST_OPSET} to {newest} are supported: "
            "convert it with onnx.version_converter"
        )
    refuse_bad_names(model.graph, name)
    # The checker wants a shape where onnxruntime does not; all are inferred anew later.
    for value in model.graph.output:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise ImportFailure(f"{name} is not a valid ONNX model: {reason}") from error
    return opset


def _refuse_external_data(model: onnx.ModelProto, name: str) -> None:
    """Refuse tensors kept in other files: a model must not make us read arbitrary paths."""
    import onnx

    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ImportFailure(
                f"{name}: tensor {tensor.name!r} is stored in another file; save the model as "
                "one file (onnx.save with save_as_external_data=False)"
            )


def runtime_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that a run is given; older files list the initializers among them too."""
    constant = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constant]


def _fix_shapes(model: onnx.ModelProto, name: str, shapes: Shapes) -> None:
    """Write the given shapes into the inputs and check that none is dynamic."""
    inputs = {value.name: value for value in runtime_inputs(model.graph)}
    for wanted in shapes:
        if wanted not in inputs:
            raise ImportFailure(
                f"{name} has no input {wanted!r}; its inputs are {', '.join(inputs) or 'none'}"
            )
    for input_name, value in inputs.items():
        if input_name in shapes:
            _set_shape(value, tuple(shapes[input_name]), name)
        _require_static(value, name)


def _set_shape(value: Any, shape: tuple[int, ...], name: str) -> None:
    """Give an input a static shape that agrees with what the model says."""
    tensor = value.type.tensor_type
    declared = list(tensor.shape.dim) if tensor.HasField("shape") else None
    if declared is not None:
        fixed = [extent.dim_value if extent.HasField("dim_value") else 0 for extent in declared]
        agrees = len(fixed) == len(shape) and all(
            have in (0, want) for have, want in zip(fixed, shape, strict=True)
        )
        if not agrees:
            text = ",".join(str(extent or "?") for extent in fixed)
            raise ImportFailure(
                f"{name}: input {value.name!r} has shape {text}; "
                f"--shape {value.name}={','.join(map(str, shape))} does not fit it"
            )
    if any(extent < 1 for extent in shape):
        raise ImportFailure(f"{name}: the shape of input {value.name!r} must be positive")
    tensor.shape.ClearField("dim")
    for extent in shape:
        tensor.shape.dim.add().dim_value = extent


def _require_static(value: Any, name: str) -> None:
    """Raise if an input has a dynamic dimension, saying how to fix it."""
    import onnx

    from lepton.compiler.importers.onnx_types import DTYPES, type_of

    tensor = value.type.tensor_type
    if tensor.elem_type == onnx.TensorProto.STRING:
        raise ImportFailure(f"{name}: input {value.name!r} holds texts; only numbers can be input")
    kind = type_of(value.type)
    if kind.dtype not in DTYPES and value.type.WhichOneof("value"):
        raise ImportFailure(
            f"{name}: input {value.name!r} is of type {kind.dtype}; inputs can be tensors of "
            f"{', '.join(sorted(DTYPES))}"
        )
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise ImportFailure(
            f"{name}: input {value.name!r} has no shape; give it the sizes that it "
            f"takes, as in --shape {value.name}=1,3,224,224"
        )
    declared = list(tensor.shape.dim)
    extents = [
        str(extent.dim_value) if extent.HasField("dim_value") else (extent.dim_param or "?")
        for extent in declared
    ]
    text = ", ".join(extents)
    if any(extent.HasField("dim_value") and extent.dim_value < 0 for extent in declared):
        raise ImportFailure(
            f"{name}: no dimension of input {value.name!r} may be negative, as in [{text}]"
        )
    dynamic = [extent for extent in extents if not extent.isdigit()]
    if dynamic:
        # the first dimension is the batch; only the user knows the others
        example = [extents[0] if extents[0].isdigit() else "1", *extents[1:]]
        unknown = dict.fromkeys(extent for extent in example if not extent.isdigit())
        sizes = f" with your sizes in place of {', '.join(unknown)}" if unknown else ""
        raise ImportFailure(
            f"{name}: input {value.name!r} has a dynamic dimension ({dynamic[0]!r} in [{text}]); "
            f"fix it with --shape {value.name}={','.join(example)}{sizes}"
        )


def _settle(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Infer shapes and fold constants, each of which makes more of the other possible."""
    from lepton.compiler.importers.onnx_folding import fold_graph, is_settled

    folded = fold_graph(_infer_shapes(model, name))
    while not is_settled(folded):
        again = fold_graph(_infer_shapes(folded, name))
        if len(again.graph.node) == len(folded.graph.node):
            return again
        folded = again
    return folded


def _infer_shapes(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Infer all shapes anew from the inputs' static ones.

    Where they depend on values, what the file states of its outputs is kept: a run that makes
    another shape is refused.
    """
    import onnx

    stated = {output.name: _copied(output.type) for output in model.graph.output}
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        raise ImportFailure(f"{name} has inconsistent shapes: {error}") from error
    for output in inferred.graph.output:
        _keep_stated(output.type.tensor_type, stated[output.name].tensor_type)
    return inferred


def _copied(kind: onnx.TypeProto) -> onnx.TypeProto:
    """Return a copy of a type."""
    copy = type(kind)()
    copy.CopyFrom(kind)
    return copy


def _keep_stated(inferred: Any, stated: Any) -> None:
    """Take the shape that the file states, if none was inferred and it is static and agrees.

    (`_check` states a shape of no extents where there is none.)
    """
    extents = stated.shape.dim
    known = inferred.shape.dim if inferred.HasField("shape") else extents
    agrees = len(known) == len(extents) and all(
        extent.HasField("dim_value") and found.dim_value in (0, extent.dim_value)
        for found, extent in zip(known, extents, strict=True)
    )
    if len(extents) and agrees:
        inferred.shape.CopyFrom(stated.shape)
