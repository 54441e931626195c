"""Teachers that are several networks: their mean, in ONNX Runtime and in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.compression.recipes import COMPRESSED
from lepton.models.compression.teachers import mean_teacher
from lepton.models.onnx_writer import GraphWriter
from tests.conftest import data_path

Floats = NDArray[np.float32]


def network(seed: int, classes: int = 5, name: str = "x") -> onnx.ModelProto:
    """Return a convolution and a product; all of them use the same names."""
    writer = GraphWriter("net", seed)
    fed = writer.feed(name, [1, 2, 4, 4])
    kernels = writer.weights("w", (3, 2, 3, 3), 18)
    made = writer.add("Conv", "h", fed, kernels, writer.biases("b", 3))
    flat = writer.add("Flatten", "flat", writer.add("Relu", "r", made), axis=1)
    matrix, bias = writer.weights("m", (classes, 12), 12), writer.biases("n", classes)
    return writer.finish([writer.add("Gemm", "y", flat, matrix, bias, transB=1)])


def older(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return a model whose operators mean the same in an older opset."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.opset_import[0].version = opset
    return made


def run(model: onnx.ModelProto, images: Floats) -> Floats:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(model.SerializeToString())
    (given,) = session.get_inputs()
    rows = [session.run(None, {given.name: images[at : at + 1]})[0][0] for at in range(len(images))]
    return np.array(rows)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_answer_is_the_mean_of_the_single_ones(count: int) -> None:
    models = [network(seed, name=f"x{seed}") for seed in range(count)]
    models[-1] = older(models[-1], 13)
    images = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)
    made = mean_teacher(models)
    wanted = np.mean([run(model, images) for model in models], 0)
    np.testing.assert_allclose(run(made, images), wanted, rtol=1e-5, atol=1e-6)
    assert [item.name for item in (*made.graph.input, *made.graph.output)] == ["input", "mean"]


def test_it_is_a_module_that_takes_batches() -> None:
    torch = pytest.importorskip("torch", reason="the training extra is not installed")
    from lepton.models.onnx_module import from_onnx

    models = [network(0), network(1), network(0)]
    images = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    found = from_onnx(mean_teacher(models))(images)
    wanted = torch.stack([from_onnx(model)(images) for model in models]).mean(0)
    np.testing.assert_allclose(found.detach(), wanted.detach(), rtol=1e-5, atol=1e-6)


def test_networks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="needs at least one network"):
        mean_teacher([])
    with pytest.raises(InputError, match=r"network 2 is \[1, 2, 4, 4\] -> \[1, 6\], and the first"):
        mean_teacher([network(0), network(1, classes=6)])
    twice = network(2)
    twice.graph.output.append(twice.graph.output[0])
    with pytest.raises(InputError, match="network 1 has 1 inputs and 2 outputs"):
        mean_teacher([twice])
    foreign = older(network(3), 13)
    foreign.graph.node[1].op_type = "Unheard"
    with pytest.raises(InputError, match="network 2 cannot be put in opset 17"):
        mean_teacher([network(0), foreign])


def test_the_student_learns_from_resnet8_and_the_large_resnet(tmp_path: Any) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    import torch

    from lepton.models.compression.recipes import classifier_of_pixels
    from lepton.models.onnx_module import from_onnx

    data, row = data_path("."), COMPRESSED["resnet8_student"]
    large_file = data_path("mlperf_tiny/pretrainedResnet_large_int8.tflite")
    assert row.teacher is not None and row.teacher_source
    small = row.start(data, tmp_path, 0)
    test = row.load(data).test
    (images,) = test.batch(slice(0, 200))
    inputs = torch.from_numpy(images)
    with torch.no_grad():
        found = from_onnx(row.teacher(data, small))(inputs)
        large = from_onnx(classifier_of_pixels(large_file, 255))(inputs)
        wanted = (from_onnx(small)(inputs) + large) / 2
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
    assert np.mean(large.argmax(1).numpy() == test.labels[:200]) >= 0.9
