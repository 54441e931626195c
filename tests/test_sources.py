"""One network by every way in: file, ModelProto, Relax module, torch.export program."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import lepton
from lepton.compiler.importers import import_model
from lepton.models import digits_model_path, load_digits_holdout


def logits(program: lepton.Program) -> Any:
    """Return the first output for the first held-out digit."""
    inputs = {program.inputs[0]: load_digits_holdout()[0][:1]}
    return next(iter(lepton.simulate(program, inputs).outputs.values()))


def test_file_proto_and_relax_module_give_the_same_bytes() -> None:
    path = digits_model_path()
    from_file = lepton.compile(path, chip="nano")
    from_proto = lepton.compile(onnx.load(str(path)), chip="nano")
    from_relax = lepton.compile(import_model(path).module, chip="nano")
    expected = logits(from_file)
    np.testing.assert_array_equal(logits(from_proto), expected)
    np.testing.assert_array_equal(logits(from_relax), expected)
    assert from_proto.instructions == from_file.instructions
    assert from_relax.instructions == from_file.instructions


def test_load_model_predicts_a_batch() -> None:
    images, labels = load_digits_holdout()
    model = lepton.load_model(digits_model_path(), chip="nano")
    scores = model.predict(images[:20])
    assert scores.shape == (20, 10)
    assert (scores.argmax(1) == labels[:20]).mean() >= 0.9
    np.testing.assert_array_equal(model.predict(images[:1])[0], scores[0])
    with pytest.raises(lepton.LeptonError, match="must have shape"):
        model.predict(np.zeros((3, 5), np.float32))


def test_torch_export_program_runs_on_the_npu() -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    pytest.importorskip("torch.ao.quantization.fx._decomposed")
    ops = torch.ops.quantized_decomposed
    generator = np.random.default_rng(0)
    weights = torch.from_numpy(generator.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8))

    class Network(torch.nn.Module):
        """A quantized convolution as PT2E writes it, and a max pool."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weights", weights)
            self.bias = torch.nn.Parameter(torch.linspace(-3, 3, 6))

        def _rounded(self, x: Any, scale: float) -> Any:
            limits = (scale, 3, -128, 127, torch.int8)
            return ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *limits), *limits)

        def forward(self, x: Any) -> Any:
            w = ops.dequantize_per_tensor(self.weights, 0.02, 0, -127, 127, torch.int8)
            y = torch.conv2d(self._rounded(x, 0.05), w, self.bias, padding=1)
            return torch.max_pool2d(self._rounded(torch.relu(y), 0.3), 2)

    network = Network().eval()
    data = torch.from_numpy(generator.standard_normal((1, 4, 8, 8)).astype(np.float32))
    program = lepton.compile(torch.export.export(network, (data,)), chip="nano")
    outputs = lepton.simulate(program, {program.inputs[0]: data.numpy()}).outputs
    found = next(iter(outputs.values()))
    assert any(o.kind == "convolution" and o.device == "npu" for o in program.operators)
    np.testing.assert_allclose(found, network(data).detach().numpy(), atol=0.3001)
    differing = (np.abs(found - network(data).detach().numpy()) > 1e-6).mean()
    assert differing <= 0.02


def exported(function: Any, *shapes: tuple[int, ...]) -> Any:
    """Return the exported program of a function of random tensors."""
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")

    class Network(torch.nn.Module):
        def forward(self, *tensors: Any) -> Any:
            return function(*tensors)

    torch.manual_seed(0)
    return torch.export.export(Network(), tuple(torch.randn(shape) for shape in shapes))


def test_attention_of_torch_runs_on_the_npu() -> None:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    attention = torch.nn.functional.scaled_dot_product_attention
    shapes = [(1, 2, 6, 8), (1, 2, 5, 8), (1, 2, 5, 4)]
    program = exported(lambda q, k, v: attention(q, k, v, scale=0.5), *shapes)
    compiled = lepton.compile(program, "nano")
    rng = np.random.default_rng(0)
    feed = {name: rng.standard_normal(shape).astype(np.float32)
            for name, shape in zip(compiled.inputs, shapes, strict=True)}  # fmt: skip
    expected = attention(*map(torch.from_numpy, feed.values()), scale=0.5).numpy()
    (made,) = lepton.simulate(compiled, feed).outputs.values()
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)
    samples = {name: array[None] for name, array in feed.items()}
    quantized = lepton.compile(program, "nano", calibration=samples)
    assert [item.kind for item in quantized.operators if item.macs] == ["product", "product"]
    assert all(item.device == "npu" for item in quantized.operators if item.macs)
    (made,) = lepton.simulate(quantized, feed).outputs.values()
    assert 0 < np.abs(made - expected).max() < 0.05 * np.abs(expected).max()


def causal_attention(x: Any) -> Any:
    torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
    return torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: (x, None), "result 1 of the exported program is no tensor"),
        (lambda x: x.add_(1), "changes '.*' in place"),
        (lambda x: x + x.bernoulli(), "draws random numbers"),
        (lambda x: causal_attention(x), "operator 'full' .* runs neither"),
    ],
)
def test_exported_programs_that_no_npu_can_run(function: Any, text: str) -> None:
    with pytest.raises(lepton.LeptonError, match=text):
        lepton.compile(exported(function, (2, 3)))
