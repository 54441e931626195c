"""Networks of the zoo: deterministic, of the stated shapes, and the same as float ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.export import export_onnx, float_model
from lepton.models.zoo import NETWORKS, Feed, Network, build_network

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")


def example(network: Network, count: int, seed: int = 0) -> tuple[Any, ...]:
    """Return random inputs of a network."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randint(feed.ids, (count, *feed.shape), generator=generator)
        if feed.ids
        else torch.rand((count, *feed.shape), generator=generator)
        for feed in network.inputs
    )


def settled(network: Network) -> Any:
    """Return a network whose batch norms have seen values, in eval mode."""
    made = network.build(seed=3)
    with torch.no_grad():
        for _ in range(3):
            made(*example(network, 4))
    return made.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_equals_torch(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = NETWORKS[name]
    made = settled(network)
    model = float_model(made, network.inputs, network.output)
    assert [item.version for item in model.opset_import] == [17]
    assert [item.name for item in model.graph.input] == [feed.name for feed in network.inputs]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for seed in range(3):
        inputs = example(network, 1, seed)
        feeds = {f.name: v.numpy() for f, v in zip(network.inputs, inputs, strict=True)}
        (result,) = session.run([network.output], feeds)
        expected = made(*inputs).detach().numpy()
        assert result.shape == (1, network.classes)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_same_seed_same_weights(name: str) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build_network(name, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("lenet", 61_706), ("caffe_lenet", 431_080), ("resnet8", 77_946), ("digits_cnn", 5_178)],
)
def test_sizes(name: str, parameters: int) -> None:
    made = build_network(name)
    assert sum(item.numel() for item in made.parameters()) == parameters


def test_width_makes_students() -> None:
    sizes = [
        sum(item.numel() for item in build_network("resnet8", width=width).parameters())
        for width in (8, 16)
    ]
    assert sizes[0] < sizes[1] / 2


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
@pytest.mark.parametrize("bias", [True, False])
def test_unrolled_recurrences(kind: str, bias: bool) -> None:
    from lepton.models.zoo.unrolled import unroll

    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(5, 7, batch_first=True, bias=bias)
    x = torch.randn(3, 4, 5)
    made: Any = next(unroll(torch.nn.Sequential(layer)).children())
    expected, last = layer(x)
    result, states = made(x)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(states, last)


@pytest.mark.parametrize("option", [{"num_layers": 2}, {"bidirectional": True}, {}])
def test_recurrences_that_are_not_unrolled(option: dict[str, Any]) -> None:
    layer = torch.nn.GRU(3, 3, batch_first=bool(option), **option)
    with pytest.raises(InputError, match="one layer, one direction"):
        float_model(torch.nn.Sequential(layer), [Feed("x", (2, 3))])


def test_norms_behind_linear_layers_are_folded(tmp_path: Any) -> None:
    onnx = pytest.importorskip("onnx")
    network = NETWORKS["autoencoder"]
    export_onnx(settled(network), network.inputs, tmp_path / "a.onnx", network.output)
    kinds = [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]
    assert kinds == [*["Gemm", "Relu"] * 5, "Gemm", "Sigmoid"]


def test_unknown_network() -> None:
    with pytest.raises(InputError, match=r"network must be one of lenet, .*, not 'lenett'"):
        build_network("lenett")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "wide_and_deep", "lstm_recommender"])
def test_float_networks_compile_with_calibration(name: str, tmp_path: Any) -> None:
    """Identities stay whole numbers in a calibration."""
    import lepton

    network = NETWORKS[name]
    path = tmp_path / f"{name}.onnx"
    export_onnx(settled(network), network.inputs, path, network.output)
    inputs = example(network, 4)
    samples = {feed.name: one.numpy() for feed, one in zip(network.inputs, inputs, strict=True)}
    program = lepton.compile(path, "edge", calibration=samples, effort=0)
    made = lepton.simulate(program, {key: one[:1] for key, one in samples.items()}, timing=False)
    expected = settled(network)(*(one[:1] for one in inputs)).detach().numpy()
    result = made.outputs[network.output]
    assert np.abs(result - expected).max() <= 0.1 * np.abs(expected).max()
