"""`partition_for_lepton`: a Relax module in, a Relax module with regions out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import lepton
from lepton.compiler import PartitionForLepton, partition_for_lepton
from lepton.errors import ChipError, ImportFailure, InputError
from lepton.models import digits_model_path, load_digits_holdout

tvm: Any = import_module("tvm")  # whose types are stricter than what it takes
relax: Any = tvm.relax
importer: Any = import_module("tvm.relax.frontend.onnx")
IMAGE = load_digits_holdout()[0][:1]


def module() -> Any:
    """Return the digits network as TVM's own importer gives it, and a function beside it."""
    made = importer.from_onnx(onnx.load(str(digits_model_path())))
    builder: Any = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    with builder.function("double", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.add(x, x))
        builder.emit_func_output(result)
    for variable, function in builder.get().functions_items():
        made[variable] = function
    return made


def test_regions_are_functions_of_composites() -> None:
    before = module()
    made: Any = partition_for_lepton(before, "nano")
    relax.analysis.check_well_formed(made)
    assert {item.name_hint for item in made.get_global_vars()} == {"main", "double", "lepton_0"}
    region = made["lepton_0"]
    assert region.attrs["Codegen"] == "lepton"
    assert region.attrs["global_symbol"] == "lepton_0"
    inner = [binding.value for block in region.body.blocks for binding in block.bindings]
    composites = [str(item.attrs["Composite"]) for item in inner if hasattr(item, "attrs")
                  and item.attrs is not None and "Composite" in item.attrs]  # fmt: skip
    assert composites.count("lepton.nn.conv2d") == 6 and "lepton.matmul" in composites
    left = [binding.value for block in made["main"].body.blocks for binding in block.bindings]
    kinds = [str(getattr(item.op, "name", item.op)) for item in left]
    assert [kind.rpartition(".")[2] for kind in kinds[::2]] == ["quantize", "dequantize"]
    assert {item.name_hint for item in before.get_global_vars()} == {"main", "double"}


def test_it_is_a_pass_of_a_user_s_pipeline() -> None:
    pipeline: Any = tvm.transform.Sequential(
        [relax.transform.CanonicalizeBindings(), PartitionForLepton("nano")]
    )
    made: Any = pipeline(module())
    assert "lepton_0" in {item.name_hint for item in made.get_global_vars()}


def test_a_partitioned_module_compiles_to_the_same_program() -> None:
    made = lepton.compile(partition_for_lepton(module(), "nano"), "nano")
    assert made.instructions == lepton.compile(digits_model_path(), "nano").instructions


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: partition_for_lepton(module(), "none"), ChipError, "chip 'none'"),
        (lambda: partition_for_lepton(tvm.IRModule({})), ImportFailure, "no function 'main'"),
        (
            lambda: partition_for_lepton(partition_for_lepton(module())),
            InputError,
            "is partitioned for Lepton already",
        ),
        (
            lambda: lepton.compile(partition_for_lepton(module(), "nano"), "edge"),
            InputError,
            "partitioned for the chip 'nano', not for 'edge'",
        ),
    ],
)
def test_refusals(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_the_compiler_s_package_stays_light() -> None:
    code = "import lepton.compiler, sys; print('tvm' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'partition_for_tensorrt'"):
        _ = lepton.compiler.partition_for_tensorrt  # pyright: ignore[reportAttributeAccessIssue]


# --- external code generation ---------------------------------------------------------------------


def generated(options: dict[str, Any] | None = None) -> Any:
    """Return the digits network with its region compiled by `RunCodegen`."""
    import_module("lepton.tvm_backend")  # registers the code generator
    chosen = {} if options is None else {"lepton": options}
    pipeline: Any = tvm.transform.Sequential(
        [PartitionForLepton("nano"), relax.transform.RunCodegen(chosen)]
    )
    return pipeline(module())


def test_generated_code_simulates() -> None:
    from lepton.tvm_backend import last_result, recorded

    built: Any = tvm.compile(generated({"effort": 0}), "llvm")
    machine: Any = relax.VirtualMachine(built, tvm.cpu())
    with recorded() as results:
        made = machine["main"](tvm.runtime.tensor(IMAGE)).numpy()
    program = lepton.compile(digits_model_path(), "nano", effort=0)
    expected = lepton.simulate(program, IMAGE)
    np.testing.assert_array_equal(made, expected.outputs["logits"])
    result = last_result()
    assert result is not None and result.trace is not None and expected.trace is not None
    assert results == [result] and result.trace.cycles == expected.trace.cycles
    doubled = machine["double"](tvm.runtime.tensor(np.ones(2, np.float32))).numpy()
    np.testing.assert_array_equal(doubled, [2, 2])


def test_an_exported_library_holds_its_programs(tmp_path: Path) -> None:
    built: Any = tvm.compile(generated(), "llvm")
    built.export_library(str(tmp_path / "digits.so"))
    np.save(tmp_path / "image.npy", IMAGE)
    code = (
        "import numpy as np, tvm, lepton.tvm_backend, sys; from tvm import relax;"
        "library = tvm.runtime.load_module(sys.argv[1] + '/digits.so');"
        "machine = relax.VirtualMachine(library, tvm.cpu());"
        "made = machine['main'](tvm.runtime.tensor(np.load(sys.argv[1] + '/image.npy')));"
        "print(int(made.numpy().argmax()), lepton.tvm_backend.last_result().trace.cycles > 0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [str(load_digits_holdout()[1][0]), "True"]


def test_unknown_options_of_the_code_generator() -> None:
    with pytest.raises(Exception, match="codegen 'lepton' has no option 'tiles'"):
        generated({"tiles": 1})


def test_regions_may_have_several_results() -> None:
    builder: Any = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 4, 4, 4), "float32"))

    def rounded(value: Any, scale: float) -> Any:
        parameters = (relax.const(np.float32(scale)), relax.const(np.int32(0)))
        codes = builder.emit(relax.op.quantize(value, *parameters, axis=0, out_dtype="int8"))
        return builder.emit(relax.op.dequantize(codes, *parameters, axis=0))

    with builder.function("main", [x]):
        with builder.dataflow():
            first = rounded(relax.op.add(rounded(x, 0.1), rounded(x, 0.1)), 0.2)
            second = rounded(relax.op.multiply(first, rounded(x, 0.1)), 0.3)
            result = builder.emit_output(relax.Tuple([first, second]))
        builder.emit_func_output(result)
    import_module("lepton.tvm_backend")
    made: Any = relax.transform.RunCodegen()(partition_for_lepton(builder.get(), "nano"))
    machine: Any = relax.VirtualMachine(tvm.compile(made, "llvm"), tvm.cpu())
    array = np.random.default_rng(0).integers(-9, 9, (1, 4, 4, 4)).astype(np.float32) / 10
    sums, products = (item.numpy() for item in machine["main"](tvm.runtime.tensor(array)))
    codes = np.rint(np.rint(array / np.float32(0.1)) * np.float32(0.1) * 2 / np.float32(0.2))
    assert np.abs(sums - codes * 0.2).max() < 1e-5
    assert np.abs(products - sums * array).max() <= 0.15 + 1e-5
