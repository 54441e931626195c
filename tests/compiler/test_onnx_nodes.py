"""A seeded sample of the ONNX standard's node tests; the campaign runs all of them."""

from __future__ import annotations

import random
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from lepton.cli.main import main
from tests import onnx_nodes
from tests.campaign_parts import PARTS

SAMPLE = 200


def test_a_sample_of_the_standards_tests() -> None:
    total = len(onnx_nodes.node_tests())
    if version("onnx").startswith("1.23."):
        assert total == PARTS["nodes"].count
    counts: Counter[str] = Counter()
    for index in random.Random(1).sample(range(total), SAMPLE):
        counts += onnx_nodes.run_index(index)
    assert counts["float total"] > SAMPLE // 3
    assert counts["float passed"] > 0.7 * counts["float total"]


def test_one_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = onnx_nodes.node_tests()["test_conv_with_strides_padding"]
    inputs, (expected,) = case.data_sets[0]
    model, x, y = tmp_path / "m.onnx", tmp_path / "x.npz", tmp_path / "y.npz"
    model.write_bytes(case.model.SerializeToString())
    np.savez(x, **dict(zip("xW", inputs, strict=True)))
    arguments = ["run", str(model), "--input", str(x), "--output", str(y)]
    assert main([*arguments, "--device", "npu,cpu"]) == 0
    np.testing.assert_allclose(np.load(y)["y"], expected, case.rtol, case.atol)
    assert main(arguments) == 2
    assert "--device npu,cpu leaves it to the CPU" in capsys.readouterr().err


def test_verdict() -> None:
    assert onnx_nodes.nodes_verdict(Counter({"float total": 10, "float passed": 8})) == ""
    assert "7 of 10" in onnx_nodes.nodes_verdict(Counter({"float total": 10, "float passed": 7}))


def test_phrases_name_no_part_of_a_model() -> None:
    long = "Cast 'y' cannot be imported: tensors of type uint4 are not supported (tensor 'y')"
    assert onnx_nodes.phrase(long) == "uint4 tensors"
    assert onnx_nodes.phrase("Foo 'a/b' fails | here ('c')") == "Foo fails / here"
