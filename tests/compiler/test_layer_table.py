"""SCALE-Sim layer tables as workloads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import lepton
from lepton.chip import Dataflow
from lepton.compiler.importers.layer_table import read_layer_table, table_model
from lepton.errors import ImportFailure
from lepton.trace import Trace
from tests.conftest import data_path

HEAD = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, "
    "Strides,\n"
)
CONVOLUTIONS = HEAD + ",,,,,,,,\nfirst, 9, 8, 3, 3, 3, 5, 2,\nsecond,4,4,1,1,40,7,1,,,extra\n"
PRODUCTS = "Layer,M,N,K,\nL0,6,10,33,\n"


def test_convolutions() -> None:
    first, second = read_layer_table(CONVOLUTIONS.encode(), "t.csv")
    assert (first.name, first.ifm, first.kernel, first.stride) == ("first", (9, 8), (3, 3), 2)
    assert first.ofm == (4, 3)
    assert (second.channels, second.filters, second.ofm) == (40, 7, (4, 4))


def test_products_are_rows_of_pixels() -> None:
    (layer,) = read_layer_table(PRODUCTS.encode(), "t.csv")
    assert layer.is_product
    assert (layer.ofm, layer.channels, layer.filters) == ((1, 6), 33, 10)


@pytest.mark.parametrize("text", [CONVOLUTIONS, PRODUCTS])
def test_runs_like_the_golden_library(text: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(text)
    program = lepton.compile(table, chip="nano")
    layers = read_layer_table(text.encode(), "t.csv")
    assert sum(operator.macs for operator in program.operators) == sum(
        np.prod(y.ofm) * y.filters * y.channels * np.prod(y.kernel) for y in layers
    )
    assert all(region.device == "npu" for region in program.regions)
    generator = np.random.default_rng(3)
    inputs = {
        name: generator.integers(-128, 128, program.tensor_by_name[name].shape, np.int8)
        for name in program.inputs
    }
    ours = lepton.simulate(program, inputs).outputs
    golden = ort.InferenceSession(table_model(text.encode(), "t.csv"))
    for name, expected in zip(ours, golden.run(list(ours), inputs), strict=True):
        np.testing.assert_array_equal(ours[name], expected)
        assert len(set(np.asarray(expected).flat)) > 5


def _matrix_cycles(trace: Trace) -> int:
    return trace.attribution()["matrix"]["busy"]


def test_a_dataflow_changes_time_and_no_value(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(CONVOLUTIONS)
    program = lepton.compile(table, chip="nano")
    generator = np.random.default_rng(3)
    inputs = {
        name: generator.integers(-128, 128, program.tensor_by_name[name].shape, np.int8)
        for name in program.inputs
    }
    expected = lepton.simulate(program, inputs)
    assert expected.trace is not None
    for dataflow in Dataflow:
        array = replace(program.chip.array, dataflow=dataflow, overlap=False)
        other = replace(program, chip=replace(program.chip, array=array))
        result = lepton.simulate(other, inputs)
        for name, values in expected.outputs.items():
            np.testing.assert_array_equal(result.outputs[name], values)
        assert result.trace is not None
        assert _matrix_cycles(result.trace) > _matrix_cycles(expected.trace)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a layer table"),
        (b"\xff\xfe\x00", "is not text"),
        (b"name, x\n1,2\n", "is not a layer table"),
        (HEAD.encode(), "has no layers"),
        (HEAD.encode() + b"a,1,2\n", "t.csv:2: a layer has 8 columns, found 3"),
        (HEAD.encode() + b"a,9,9,3,x,3,5,1\n", "not 'x'"),
        (HEAD.encode() + b"a,9,9,3,3,3,0,1\n", "from 1 to 65536, not '0'"),
        (HEAD.encode() + b"a,2,9,3,3,3,5,1\n", "the filter of 3 x 3 is larger than the input"),
        (b"Layer,M,N,K,\nL0,6,-1,33,\n", "not '-1'"),
    ],
)
def test_bad_tables_are_one_sentence(data: bytes, message: str) -> None:
    with pytest.raises(ImportFailure) as error:
        read_layer_table(data, "t.csv")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["vit_s", "Resnet18", "mobilenet", "Resnet50"])
def test_real_tables_are_read(name: str) -> None:
    data = data_path(f"topologies/{name}.csv").read_bytes()
    assert len(read_layer_table(data, name)) >= 5
