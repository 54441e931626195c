"""Changes of scale right behind another, which ONNX Runtime merges: results and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="ONNX Runtime is the golden")
pytest.importorskip("tvm")

from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.runtime.execute import simulate
from lepton.runtime.golden import GoldenModel
from lepton.runtime.verify import verify
from tests.compiler import importer_models as made


def chain(readers: int, constants_are_nodes: bool = False) -> Any:
    """Return a model of two changes of scale, the second read by several operators."""
    from onnx import TensorProto, helper, numpy_helper

    scales = {"x": 0.02, "a": 0.013, "b": 0.02, "y": 0.025}
    points = {"x": 3, "a": -40, "b": 100, "y": -128}
    values: dict[str, Any] = {f"{n}s": np.float32(scale) for n, scale in scales.items()}
    values |= {f"{n}z": np.int8(point) for n, point in points.items()}
    nodes: list[Any] = []
    if constants_are_nodes:
        for name, value in values.items():
            tensor = numpy_helper.from_array(np.asarray(value), name)
            nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        values = {}

    def pair(kind: str, source: str, target: str, name: str) -> None:
        nodes.append(made.node(f"{kind}Linear", [source, f"{name}s", f"{name}z"], target))

    pair("Dequantize", "x", "xd", "x")
    pair("Quantize", "xd", "a", "a")
    pair("Dequantize", "a", "ad", "a")
    pair("Quantize", "ad", "b", "b")
    for index in range(readers):
        pair("Dequantize", "b", f"b{index}", "b")
        nodes.append(made.node(("Sigmoid", "Neg")[index], [f"b{index}"], f"r{index}"))
        pair("Quantize", f"r{index}", f"y{index}", "y")
    outputs = [(f"y{index}", TensorProto.INT8) for index in range(readers)]
    return made.onnx_model(nodes, values, [("x", TensorProto.INT8, (1, 256))], outputs)


@pytest.mark.parametrize("constants_are_nodes", [False, True])
@pytest.mark.parametrize("readers", [1, 2])
def test_merged_changes_of_scale(readers: int, constants_are_nodes: bool, tmp_path: Path) -> None:
    path = tmp_path / "chain.onnx"
    path.write_bytes(chain(readers, constants_are_nodes).SerializeToString())
    feeds = {"x": np.arange(-128, 128, dtype=np.int8).reshape(1, 256)}
    ours = simulate(compile_model(path, load_chip("nano")), feeds).outputs
    for name, golden in GoldenModel(path).run(feeds).items():
        np.testing.assert_array_equal(ours[name], golden)
    report = verify(path, load_chip("nano"), feeds)
    assert report.is_equal, report.text()
    assert len(report.compared) > readers
