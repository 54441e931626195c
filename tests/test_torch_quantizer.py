"""PT2E with the quantizer for Lepton: all of the work is on the NPU, equal to the golden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton
from lepton.compiler.to_onnx import write_onnx
from lepton.runtime.golden import GoldenModel

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
pt2e: Any = pytest.importorskip(
    "torchao.quantization.pt2e.quantize_pt2e", reason="the training extra is not installed"
)
nn = torch.nn


class Network(nn.Module):
    """One of each: fused activations, a residual sum, depthwise, pooling, concatenation, dense."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.side = nn.Conv2d(8, 8, 1)
        self.head = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 16, 5))

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = (x + self.depthwise(x)).relu()
        return self.head(torch.cat((y, self.side(y).sigmoid()), 1))


@pytest.fixture(scope="module")
def program() -> Any:
    """Return the exported quantized network."""
    from lepton.torch_quantizer import LeptonQuantizer

    torch.manual_seed(1)
    x = (torch.randn(1, 3, 8, 8),)
    prepared = pt2e.prepare_pt2e(
        torch.export.export(Network().eval(), x).module(), LeptonQuantizer()
    )
    for _ in range(8):
        prepared(torch.randn(1, 3, 8, 8))
    return torch.export.export(pt2e.convert_pt2e(prepared), x)


def test_all_work_is_on_the_npu_and_equals_the_golden(program: Any, tmp_path: Path) -> None:
    compiled = lepton.compile(program, "nano")
    assert all(item.device == "npu" for item in compiled.operators if item.macs)
    assert all(item.kind in ("quantize", "dequantize") for item in compiled.operators
               if item.device == "host")  # fmt: skip
    write_onnx(program, tmp_path / "golden.onnx")
    golden = GoldenModel(tmp_path / "golden.onnx")
    module = program.module()
    for seed in range(4):
        x = np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype(np.float32)
        (ours,) = lepton.simulate(compiled, x).outputs.values()
        (theirs,) = golden.run({"x": x}).values()
        np.testing.assert_array_equal(ours, theirs)
        # PyTorch computes a quantized graph in float, so that a tie may be rounded otherwise
        real = module(torch.from_numpy(x)).detach().numpy()
        assert np.abs(ours - real).max() < 0.1 * np.abs(real).max()


def test_torch_compile_runs_a_quantized_graph_as_it_is(program: Any) -> None:
    from lepton.torch_backend import last_result, lepton_backend

    torch._dynamo.reset()
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        made = torch.compile(program.module(), backend=lepton_backend)(x)
    (expected,) = lepton.simulate(lepton.compile(program), x.numpy()).outputs.values()
    np.testing.assert_array_equal(made.numpy(), expected)
    result = last_result()
    assert result is not None and result.trace is not None and result.trace.cycles > 0
    with pytest.raises(lepton.LeptonError, match="quantized already"):
        lepton.compile(program, calibration=x.numpy())
