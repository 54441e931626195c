from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models import digits_model_path
from lepton.runtime.devices.library import drawn_inputs, piece_runner
from lepton.runtime.golden import GoldenModel
from lepton.runtime.split import read_network
from lepton.runtime.split.grouping import GraphNode, grouped
from tests.conftest import data_path
from tests.runtime.mixed_network import mixed_network


def _equals_golden_unit_by_unit(path: Path) -> None:
    network = read_network(path)
    values = drawn_inputs(network, network.inputs)
    expected = GoldenModel(path).run(values)
    for number in range(len(network.units)):
        inputs, _ = network.edges([number])
        run = piece_runner(network.format, network.piece([number]), 1)
        values.update(run({name: values[name] for name in inputs}))
    for name in network.outputs:
        assert values[name].tobytes() == expected[name].tobytes()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.onnx"
    path.write_bytes(mixed_network())
    return path


def test_units_run_one_by_one_give_the_bytes_of_the_whole(mixed: Path) -> None:
    _equals_golden_unit_by_unit(digits_model_path())
    _equals_golden_unit_by_unit(mixed)


@pytest.mark.parametrize(
    "name", ["mlperf_tiny/kws_ref_model.tflite", "mlperf_tiny_onnx/resnet.onnx"]
)
def test_units_of_real_models_too(name: str) -> None:
    _equals_golden_unit_by_unit(data_path(name))


def test_a_unit_is_what_its_library_computes_as_one(mixed: Path) -> None:
    network = read_network(mixed)
    assert {unit.name: set(unit.names) for unit in network.units} == {
        "n_xq": {"n_xq"},
        "n_c0": {"n_c0", "n_r0", "n_a"},
        "n_c1": {"n_c1", "n_b"},
        "n_c2": {"n_c2", "n_e", "n_c"},
        "n_s": {"n_s", "n_t"},
        "n_y": {"n_y"},
    }
    stem = next(unit for unit in network.units if unit.name == "n_c0")
    assert (stem.inputs, stem.outputs) == (("xq",), ("a",))
    assert stem.macs == 8 * 16 * 16 * 3 * 9
    assert stem.is_integer


def test_a_norm_that_is_spelled_out_is_one_unit() -> None:
    """x -> MatMul -> mean, difference, square, mean, root, quotient -> MatMul."""
    nodes = [
        GraphNode("MatMul", ("x",), ("h",)),
        GraphNode("ReduceMean", ("h",), ("m",)),
        GraphNode("Sub", ("h", "m"), ("d",)),
        GraphNode("Pow", ("d",), ("p",)),
        GraphNode("ReduceMean", ("p",), ("v",)),
        GraphNode("Sqrt", ("v",), ("r",)),
        GraphNode("Div", ("d", "r"), ("n",)),
        GraphNode("MatMul", ("n",), ("y",)),
    ]
    assert grouped(nodes, {"y"}, {}) == [[0], [1, 2, 3, 4, 5, 6], [7]]


def test_a_way_around_a_product_does_not_join_its_ends() -> None:
    nodes = [
        GraphNode("Add", ("x", "z"), ("a",)),
        GraphNode("MatMul", ("a",), ("h",)),
        GraphNode("Add", ("a", "h"), ("y",)),
    ]
    assert grouped(nodes, {"y"}, {}) == [[0], [1], [2]]


def test_a_change_of_layout_after_dequantize_belongs_to_its_only_reader() -> None:
    nodes = [
        GraphNode("QuantizeLinear", ("x",), ("q",)),
        GraphNode("Reshape", ("f",), ("r",)),
        GraphNode("Gemm", ("r",), ("g",)),
        GraphNode("Add", ("g", "x"), ("s",)),
        GraphNode("Gemm", ("s",), ("y",)),
    ]
    assert grouped(nodes, {"y"}, {"f": "q"}) == [[0], [1, 2], [3], [4]]


def test_units_of_random_graphs_can_run_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    kinds = ["MatMul", "Add", "Relu", "Concat", "QuantizeLinear", "Mul"]
    for _ in range(300):
        nodes: list[GraphNode] = []
        repeated: dict[str, str] = {}
        for number in range(int(rng.integers(2, 16))):
            names = ["x", *(name for node in nodes for name in node.outputs), *repeated]
            kind = kinds[rng.integers(len(kinds))]
            count = 1 if kind in ("Relu", "QuantizeLinear", "MatMul") else 2
            nodes.append(GraphNode(kind, tuple(rng.choice(names, count).tolist()), (f"t{number}",)))
            if kind == "QuantizeLinear":
                repeated[f"f{number}"] = f"t{number}"
        made: set[str] = {"x"}
        for group in grouped(nodes, {nodes[-1].outputs[0]}, repeated):
            own = {name for number in group for name in nodes[number].outputs}
            for number in group:
                assert {repeated.get(n, n) for n in nodes[number].inputs} <= made | own
            made |= own


def test_files_that_cannot_be_split(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"x\.onnx is not an ONNX model"):
        read_network(path)
    path = tmp_path / "x.tflite"
    path.write_bytes(b"\x08\0\0\0TFL3")
    with pytest.raises(InputError, match="LiteRT refuses the model"):
        read_network(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_network(tmp_path / "none.onnx")


def test_unknown_dimensions_are_asked_for() -> None:
    path = data_path("kws_onnx/DS_CNN_S.onnx")
    with pytest.raises(InputError, match="has unknown dimensions; give its shape"):
        read_network(path)
    network = read_network(path, {"Mfcc:0": (1, 49, 10)})
    assert network.tensors["Mfcc:0"].shape == (1, 49, 10)
    with pytest.raises(InputError, match="has 3 dimensions"):
        read_network(path, {"Mfcc:0": (1, 49)})


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    content = data_path("mlperf_tiny/ad01_int8.tflite").read_bytes()
    path = tmp_path / "x.tflite"
    path.write_bytes(content.replace(b"Identity", b"Identit\xff"))
    with pytest.raises(InputError, match=r"x\.tflite is damaged: a name in it is not UTF-8"):
        read_network(path)


def test_damaged_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    """Every cut, and some flipped bytes, of a small file of each format."""
    rng = np.random.default_rng(0)
    onnx_file, tflite_file = mixed_network(), data_path("mlperf_tiny/ad01_int8.tflite").read_bytes()
    for name, content in (("x.onnx", onnx_file), ("x.tflite", tflite_file)):
        path = tmp_path / name
        for trial in range(12):
            damaged = bytearray(content)
            if trial % 2:
                del damaged[int(rng.integers(len(damaged))) :]
            else:
                damaged[int(rng.integers(len(damaged)))] ^= 0x55
            path.write_bytes(damaged)
            try:
                read_network(path)
            except InputError as error:
                assert "\n" not in str(error)
