"""Import an ONNX model: read, check, fix shapes, fold constants, convert, canonicalize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lepton.compiler.importers.model import ImportedModel
from lepton.errors import ImportFailure

if TYPE_CHECKING:
    import onnx

Shapes = Mapping[str, Sequence[int]]
_OLDEST_OPSET = 7


def import_onnx(data: bytes | onnx.ModelProto, name: str, shapes: Shapes) -> ImportedModel:
    """Turn a serialized or parsed ONNX model into canonical form.

    Args:
        data: The file's bytes or a `ModelProto`, which is not changed.
        name: How messages call the model.
        shapes: Input name -> shape, to fix dynamic dimensions.

    Raises:
        ImportFailure: It is no ONNX model, is damaged, or uses what is not supported.
    """
    from lepton.compiler.importers.canonical import canonicalize
    from lepton.compiler.importers.onnx_bias import adopt_bias_scales
    from lepton.compiler.importers.onnx_checks import refuse_bad_scales
    from lepton.compiler.importers.onnx_folding import fold_graph
    from lepton.compiler.importers.onnx_importer import OnnxImporter
    from lepton.compiler.importers.onnx_pairs import merge_pairs
    from lepton.compiler.importers.result import make_result

    model, opset = read_onnx(data, name, shapes)
    refuse_bad_scales(model.graph)
    model = fold_graph(_infer_shapes(model, name))
    merge_pairs(model.graph)
    adopt_bias_scales(model.graph)
    importer = OnnxImporter()
    module = importer.convert(model.graph, opset)
    return make_result(
        canonicalize(module, importer.recorder.sources),
        golden="onnx",
        name=name,
        inputs=[value.name for value in model.graph.input],
        outputs=[value.name for value in model.graph.output],
    )


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
    opset = versions[0] if versions else 1
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


def _fix_shapes(model: onnx.ModelProto, name: str, shapes: Shapes) -> None:
    """Write the given shapes into the inputs and check that none is dynamic."""
    constant = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in constant}
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

    tensor = value.type.tensor_type
    if tensor.elem_type == onnx.TensorProto.STRING:
        raise ImportFailure(f"{name}: input {value.name!r} holds texts; only numbers can be input")
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
    if any(extent.HasField("dim_value") and extent.dim_value < 1 for extent in declared):
        raise ImportFailure(
            f"{name}: every dimension of input {value.name!r} must be positive, not [{text}]"
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


def _infer_shapes(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Infer all shapes anew from the inputs' static ones."""
    import onnx

    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        raise ImportFailure(f"{name} has inconsistent shapes: {error}") from error
