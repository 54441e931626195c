"""A graph without some filters computes what the whole one does with these filters zeroed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from lepton.errors import ImportFailure, LeptonError
from lepton.models.encoder import EncoderShape, transformer_encoder
from lepton.models.onnx_writer import GraphWriter
from lepton.models.pruning.surgery import FilterGraph, filter_graph
from tests.conftest import data_path

ort: Any = pytest.importorskip("onnxruntime", reason="ONNX Runtime is the golden")


class Writer(GraphWriter):
    """Layers in one line each, and how many channels their results have."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__("drawn", seed)
        self.names: list[str] = []
        self.of: dict[str, int] = {}
        self.side = 8
        self.image = self.feed("x", (1, 3, self.side, self.side))
        self.of["x"] = 3

    def step(self, kind: str, *inputs: str, **given: Any) -> str:
        name = self.add(kind, f"{kind.lower()}{len(self.names)}", *inputs, **given)
        self.names.append(name)
        self.of[name] = self.of[inputs[0]]
        return name

    def conv(self, x: str, out: int, group: int = 1, bias: bool = True, kernel: int = 3) -> str:
        at = f"{len(self.names)}"
        shape = (out, self.of[x] // group, kernel, kernel)
        parts = [x, self.weights(f"w{at}", shape, int(np.prod(shape[1:])))]
        parts += [self.biases(f"b{at}", out, 1.0)] if bias else []
        name = self.step("Conv", *parts, pads=[kernel // 2] * 4, group=group)
        self.of[name] = out
        return name

    def norm(self, x: str) -> str:
        at, count = len(self.names), self.of[x]
        parts = [self.biases(f"n{at}.{part}", count, 1.0) for part in range(3)]
        variance = self.constant(f"n{at}.v", np.linspace(0.5, 2, count).astype(np.float32))
        return self.step("BatchNormalization", x, *parts, variance)

    def dense(self, x: str, inputs: int, out: int, **given: Any) -> str:
        at = len(self.names)
        shape = (out, inputs) if given.get("transB") else (inputs, out)
        parts = [self.weights(f"w{at}", shape, inputs), self.biases(f"b{at}", out)]
        name = self.step("Gemm", x, *parts, **given)
        self.of[name] = out
        return name

    def head(self, x: str) -> Any:
        pooled = self.step("GlobalAveragePool", x)
        return self.finish([self.dense(self.step("Flatten", pooled), self.of[x], 4)])


def run(model: Any, x: Any) -> Any:
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def chosen(graph: FilterGraph, rate: float = 0.5, seed: int = 0) -> list[int]:
    """Channels drawn from every set; one of each set stays at least."""
    rng = np.random.default_rng(seed)
    gone: list[int] = []
    for item in graph.sets():
        count = min(int(rate * len(item.classes) + 0.5), len(item.classes) - 1)
        gone += rng.permutation(item.classes)[:count].tolist()
    return gone


def agree(model: Any, shape: tuple[int, ...] = (1, 3, 8, 8), seed: int = 0) -> FilterGraph:
    """Assert that the smaller network equals the masked one, and that masking changes something."""
    graph = filter_graph(model)
    gone = chosen(graph, seed=seed)
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    masked, small = run(graph.zeroed(gone), x), run(graph.without(gone), x)
    scale = max(float(np.abs(masked).max()), 1.0)
    np.testing.assert_allclose(small, masked, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(run(graph.without([]), x), run(model, x), rtol=0, atol=1e-5 * scale)
    if gone:
        assert np.abs(run(model, x) - masked).max() > 1e-4
        assert len(graph.without(gone).SerializeToString()) < len(model.SerializeToString())
    return graph


def sets(graph: FilterGraph) -> list[tuple[tuple[str, ...], int]]:
    return [
        (tuple(graph.filters[at].layer for at in item.layers), len(item.classes))
        for item in graph.sets()
    ]


def test_plain_chain() -> None:
    w = Writer()
    x = w.step("Relu", w.norm(w.conv(w.image, 8, bias=False)))
    x = w.step("MaxPool", w.conv(x, 6), kernel_shape=[2, 2], strides=[2, 2])
    graph = agree(w.head(x))
    assert sets(graph) == [(("conv0",), 8), (("conv3",), 6)]
    assert graph.reason(graph.filters[2]) == "it makes the network's output"


def test_weights_and_biases_lose_the_same_filters() -> None:
    w = Writer()
    graph = filter_graph(w.head(w.conv(w.step("Relu", w.norm(w.conv(w.image, 8))), 6)))
    gone = graph.sets()[0].classes[[1, 4, 6]]
    made = {
        t.name: numpy_helper.to_array(t) for t in graph.without(gone.tolist()).graph.initializer
    }
    whole = {t.name: numpy_helper.to_array(t) for t in graph.without([]).graph.initializer}
    left = [0, 2, 3, 5, 7]
    for name in ("w0", "b0", "n1.0", "n1.1", "n1.2", "n1.v"):
        np.testing.assert_array_equal(made[name], whole[name][left])
    np.testing.assert_array_equal(made["w3"], whole["w3"][:, left])
    zeroed = {
        t.name: numpy_helper.to_array(t) for t in graph.zeroed(gone.tolist()).graph.initializer
    }
    for name in ("w0", "b0", "n1.0", "n1.1"):
        assert not zeroed[name][[1, 4, 6]].any()
        np.testing.assert_array_equal(zeroed[name][left], whole[name][left])
    np.testing.assert_array_equal(zeroed["w3"], whole["w3"])


def test_residual_sums_tie_the_layers_that_they_add() -> None:
    w = Writer()
    stem = w.step("Relu", w.conv(w.image, 8))
    inner = w.conv(w.step("Relu", w.conv(stem, 5)), 8)
    x = w.step("Relu", w.step("Add", inner, stem))
    graph = agree(w.head(w.step("Add", w.conv(x, 8), x)))
    assert sets(graph) == [(("conv0", "conv4", "conv7"), 8), (("conv2",), 5)]


def test_a_sum_with_the_input_keeps_its_filters() -> None:
    w = Writer()
    x = w.step("Add", w.conv(w.image, 3), w.image)
    graph = agree(w.head(w.conv(x, 4)))
    assert sets(graph) == [(("conv2",), 4)]
    assert graph.reason(graph.filters[0]) == "Add 'add1' adds or multiplies what has to stay"


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_goes_with_its_input(multiplier: int) -> None:
    w = Writer()
    x = w.conv(w.step("Relu", w.norm(w.conv(w.image, 6))), 6 * multiplier, group=6)
    graph = agree(w.head(w.conv(x, 4)))
    assert sets(graph) == [(("conv0", "conv3"), 6), (("conv4",), 4)]
    small = graph.without(graph.sets()[0].classes[:2].tolist())
    groups = [a.i for node in small.graph.node for a in node.attribute if a.name == "group"]
    assert groups == [1, 4, 1]


def test_groups_stay_equal() -> None:
    w = Writer()
    graph = agree(w.head(w.conv(w.conv(w.conv(w.image, 8), 12, group=4), 5)))
    assert sets(graph) == [(("conv0",), 2), (("conv1",), 3), (("conv2",), 5)]


def parts(w: Writer, x: str, *sizes: int) -> list[str]:
    """Split channels, a node with several outputs."""
    names = [f"part{len(w.names)}.{at}" for at in range(len(sizes))]
    target = w.constant(f"{names[0]}.sizes", np.array(sizes))
    w._nodes.append(helper.make_node("Split", [x, target], names, name=names[0], axis=1))
    w.names += names
    w.of.update(zip(names, sizes, strict=True))
    return names


def test_concatenations_and_splits_keep_their_order() -> None:
    w = Writer()
    left, right = w.conv(w.image, 5), w.conv(w.image, 3)
    whole = w.step("Concat", left, w.image, right, axis=1)
    w.of[whole] = 11
    one, other = parts(w, w.conv(whole, 8), 3, 5)
    graph = agree(w.head(w.step("Add", w.conv(one, 4), w.conv(other, 4))))
    # of the 8 that are split, one of each part stays
    assert [item[1] for item in sets(graph)] == [5, 3, 6, 4]


def test_a_part_of_one_channel_stays() -> None:
    w = Writer()
    gate, rest = parts(w, w.conv(w.image, 5), 1, 4)
    graph = agree(w.head(w.conv(w.step("Mul", rest, w.step("Sigmoid", gate)), 6)))
    assert [item[1] for item in sets(graph)] == [3, 6]
    everything = [label for item in graph.sets() for label in item.classes[1:].tolist()]
    x = np.ones((1, 3, 8, 8), np.float32)
    small, masked = run(graph.without(everything), x), run(graph.zeroed(everything), x)
    np.testing.assert_allclose(small, masked, rtol=0, atol=1e-5)


def test_flatten_to_gemm_drops_every_pixel_of_a_channel() -> None:
    w = Writer()
    x = w.step("Flatten", w.step("Relu", w.conv(w.image, 6)))
    x = w.dense(w.step("Relu", w.dense(x, 6 * 64, 10, transB=1)), 10, 3)
    graph = agree(w.finish([x]))
    assert sets(graph) == [(("conv0",), 6), (("gemm3",), 10)]


@pytest.mark.parametrize("target", [(1, -1), (0, 384), (1, 6, 64), (-1, 384)])
def test_reshapes_get_new_targets(target: tuple[int, ...]) -> None:
    w = Writer()
    x = w.conv(w.image, 6)
    shape = w.constant("target", np.array(target))
    x = w.step("Reshape", x, shape)
    if len(target) == 3:
        x = w.step("Reshape", x, w.constant("flat", np.array([1, 384])))
    graph = agree(w.finish([w.dense(x, 384, 3)]))
    assert sets(graph) == [(("conv0",), 6)]


def test_a_dense_layer_that_makes_an_image_loses_channels() -> None:
    w = Writer()
    x = w.dense(w.step("Flatten", w.image), 192, 5 * 16)
    x = w.step("Reshape", x, w.constant("target", np.array([1, 5, 4, 4])))
    w.of[x] = 5
    graph = agree(w.head(w.conv(x, 4)))
    assert sets(graph) == [(("gemm1",), 5), (("conv3",), 4)]


def test_gates_go_with_what_they_gate() -> None:
    w = Writer()
    x = w.step("Relu", w.conv(w.image, 8))
    squeezed = w.step("GlobalAveragePool", x)
    inner = w.step("Relu", w.conv(squeezed, 4, kernel=1))
    gate = w.step("Sigmoid", w.conv(inner, 8, kernel=1))
    graph = agree(w.head(w.conv(w.step("Mul", x, gate), 6)))
    assert sets(graph) == [(("conv0", "conv5"), 8), (("conv3",), 4), (("conv8",), 6)]


@pytest.mark.parametrize("kind", ["Sigmoid", "Exp", "Softplus", "HardSigmoid"])
def test_what_is_not_zero_at_zero_keeps_its_filters(kind: str) -> None:
    w = Writer()
    graph = agree(w.head(w.conv(w.step(kind, w.conv(w.image, 8)), 6)))
    assert sets(graph) == [(("conv2",), 6)]
    reason = graph.reason(graph.filters[0])
    assert reason == "a removed channel would not be 0 where Conv 'conv2' reads it"


def test_a_sum_with_a_number_keeps_its_filters_and_one_with_a_vector_not() -> None:
    w = Writer()
    number = w.constant("number", np.array(0.5, np.float32))
    x = w.step(
        "Add", w.conv(w.image, 8, bias=False), w.constant("v", np.ones((8, 1, 1), np.float32))
    )
    x = w.step("Add", w.conv(x, 6), number)
    graph = agree(w.head(w.conv(x, 5)))
    assert sets(graph) == [(("conv0",), 8), (("conv4",), 5)]


def test_shuffles_are_followed() -> None:
    w = Writer()
    x = w.conv(w.image, 12)
    split = w.step("Reshape", x, w.constant("split", np.array([1, 3, 4, 8, 8])))
    turned = w.step("Transpose", split, perm=[0, 2, 1, 3, 4])
    x = w.step("Reshape", turned, w.constant("join", np.array([1, 12, 8, 8])))
    graph = agree(w.head(w.conv(x, 6, group=3)))
    assert sets(graph)[0][0] == ("conv0",)


def test_transposed_convolutions() -> None:
    w = Writer()
    x = w.conv(w.image, 6)
    x = w.step(
        "ConvTranspose", x, w.weights("t", (6, 5, 2, 2), 6), w.biases("tb", 5), strides=[2, 2]
    )
    w.of[x] = 5
    graph = agree(w.head(w.conv(x, 4)))
    assert [count for _, count in sets(graph)] == [6, 5, 4]


def test_attention_loses_the_same_width_in_every_head() -> None:
    shape = EncoderShape(layers=1, tokens=6, width=16, heads=2, inner=24)
    graph = agree(transformer_encoder(shape), (1, 6, 16))
    assert [count for _, count in sets(graph)] == [8, 8, 24]


def test_what_nobody_knows_keeps_its_filters() -> None:
    w = Writer()
    x = w.step("LRN", w.conv(w.image, 6), size=3)
    graph = agree(w.head(w.conv(x, 4)))
    assert sets(graph) == [(("conv2",), 4)]
    reason = graph.reason(graph.filters[0])
    assert reason == "LRN 'lrn1' reads it, which no filter can be removed from"


def test_shared_weights_lose_the_same_filters() -> None:
    w = Writer()
    shared = w.weights("shared", (6, 6, 3, 3), 54)
    x = w.conv(w.image, 6)
    for _ in range(2):
        x = w.step("Relu", w.step("Conv", x, shared, pads=[1, 1, 1, 1]))
    graph = agree(w.head(x))
    assert [count for _, count in sets(graph)] == [6]


def test_the_only_filter_stays() -> None:
    w = Writer()
    graph = agree(w.head(w.conv(w.conv(w.image, 1), 4)))
    assert graph.reason(graph.filters[0]) == "it is the layer's only filter"


REAL = {
    "mlperf_tiny_onnx/pretrainedResnet_float.onnx": ((1, 3, 32, 32), [16, 16, 32, 32, 64, 64]),
    "kws_onnx/DS_CNN_S.onnx": ((1, 49, 10), [64] * 5),
    "mnist_onnx/model.onnx": ((1, 1, 28, 28), [8, 16]),
}


@pytest.mark.parametrize("file", REAL)
def test_real_networks(file: str) -> None:
    from lepton.models.onnx_module import read_float_model

    shape, counts = REAL[file]
    graph = agree(read_float_model(data_path(file)), shape)
    assert [count for _, count in sets(graph)] == counts


UNARY = ("Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Softplus", "Neg", "Exp")


def random_graph(seed: int) -> Any:
    """A graph of layers drawn one after the other, each on tensors drawn from those before."""
    rng = np.random.default_rng(seed)
    w = Writer(seed)
    live = [w.image, w.conv(w.image, int(rng.integers(2, 9)))]

    def pick() -> str:
        return live[int(rng.integers(max(len(live) - 4, 0), len(live)))]

    def conv() -> str:
        return w.conv(pick(), int(rng.integers(1, 9)), bias=bool(rng.integers(2)))

    def binary() -> str:
        one = pick()
        same = [name for name in live if w.of[name] == w.of[one]]
        kind = ("Add", "Mul", "Sub", "Max")[rng.integers(4)]
        return w.step(kind, one, same[int(rng.integers(len(same)))])

    def joined() -> str:
        one, other = pick(), pick()
        name = w.step("Concat", one, other, axis=1)
        w.of[name] = w.of[one] + w.of[other]
        return name

    def grouped() -> str:
        one = pick()
        return w.conv(one, w.of[one] * int(rng.integers(1, 3)), group=w.of[one])

    def gated() -> str:
        one = pick()
        return w.step("Mul", one, w.step("Sigmoid", w.step("GlobalAveragePool", one)))

    def flat() -> str:
        one = pick()
        whole = w.step("Reshape", one, w.constant(f"t{len(w.names)}", np.array([1, -1, 4, 16])))
        w.of[whole] = w.of[one]
        return w.step("Reshape", whole, w.constant(f"t{len(w.names)}", np.array([1, -1, 8, 8])))

    makers: list[Callable[[], str]] = [conv, conv, conv, binary, binary, joined, grouped, gated]
    makers += [flat, lambda: w.norm(pick()), lambda: w.step(UNARY[rng.integers(8)], pick())]
    for _ in range(int(rng.integers(5, 16))):
        live.append(makers[int(rng.integers(len(makers)))]())
    # all channels of one magnitude, or a tolerance would not mean the same for each graph
    return w.head(w.step("Tanh", w.norm(w.conv(live[-1], 6))))


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed: int) -> None:
    model = random_graph(seed)
    graph = filter_graph(model)
    gone = chosen(graph, seed=seed)
    x = np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype(np.float32)
    masked, small = run(graph.zeroed(gone), x), run(graph.without(gone), x)
    np.testing.assert_allclose(small, masked, rtol=1e-5, atol=1e-5)


def test_random_graphs_lose_filters() -> None:
    assert sum(bool(filter_graph(random_graph(seed)).sets()) for seed in range(40)) > 30


def test_damaged_models_are_refused_or_legal() -> None:
    whole = random_graph(3).SerializeToString()
    rng = np.random.default_rng(0)
    for case in range(60):
        damaged = bytearray(whole)
        if case % 3 == 0:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            for at in rng.integers(0, len(whole), 3):
                damaged[at] = rng.integers(256)
        try:
            graph = filter_graph(bytes(damaged))
            graph.without(chosen(graph))
        except LeptonError as error:
            assert "\n" not in str(error)


def test_shapes_that_do_not_fit_are_refused() -> None:
    w = Writer()
    x = w.conv(w.image, 6)
    model = w.head(w.step("Relu", x))
    next(t for t in model.graph.initializer if t.name == "w0").CopyFrom(
        numpy_helper.from_array(np.ones((6, 5, 3, 3), np.float32), "w0")
    )
    with pytest.raises(ImportFailure, match="Conv 'conv0'"):
        graph = filter_graph(model)
        graph.without(chosen(graph))
