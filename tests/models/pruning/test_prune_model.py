"""Pruning in one call: ONNX files, models in memory and torch modules."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import lepton.models.pruning as pruning
from lepton.errors import ImportFailure, InputError
from lepton.models.encoder import EncoderShape, transformer_encoder
from lepton.models.onnx_module import from_onnx, read_float_model, to_onnx
from lepton.models.pruning.criteria import CRITERIA
from lepton.models.pruning.model import prune_model
from lepton.models.pruning.report import PruningReport
from lepton.models.pruning.schedule import Schedule
from lepton.models.pruning.slopes import loss_slopes
from lepton.models.pruning.surgery import filter_graph
from tests.conftest import data_path

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
ort: Any = pytest.importorskip("onnxruntime", reason="ONNX Runtime is the golden")

RESNET = "mlperf_tiny_onnx/pretrainedResnet_float.onnx"
MNIST = "mnist_onnx/model.onnx"


def images(count: int = 6, shape: tuple[int, ...] = (1, 28, 28)) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((count, *shape)).astype(np.float32)
    return [(drawn[:4], rng.integers(0, 10, 4)), (drawn[4:], rng.integers(0, 10, count - 4))]


def run(model: Any, x: Any) -> Any:
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def arrays(model: Any) -> dict[str, Any]:
    graph = filter_graph(model)
    return {item.layer: graph.weights(item) for item in graph.filters}


def test_names_of_the_package_are_there() -> None:
    assert all(getattr(pruning, name) is not None for name in pruning.__all__)
    with pytest.raises(AttributeError, match="no attribute 'luck'"):
        _ = pruning.luck


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_file_is_pruned_exactly(scope: str) -> None:
    model, report = prune_model(data_path(RESNET), 0.9, scope=scope)
    whole, made = arrays(read_float_model(data_path(RESNET))), arrays(model)
    # of each layer the greatest weight stays in the global scope, whatever the others have
    free = [np.sort(np.abs(w).ravel())[:-1] for w in whole.values()]
    ranked, total = np.sort(np.concatenate(free)), sum(w.size for w in whole.values())
    for row in report.layers:
        w, p = whole[row.layer], made[row.layer]
        count = int(np.floor(0.9 * w.size + 0.5))
        if scope == "global":
            below = int((np.abs(w) < ranked[int(np.floor(0.9 * total + 0.5))]).sum())
            count = min(below, w.size - 1)
        assert (row.weights, row.pruned) == (w.size, count)
        assert (p == 0).sum() == count
        assert np.abs(w[p == 0]).max() <= np.abs(w[p != 0]).min(initial=np.inf)
        np.testing.assert_array_equal(p[p != 0], w[p != 0])
    assert report.rate == pytest.approx(0.9, abs=1e-3)
    assert np.isfinite(run(model, images(5, (3, 32, 32))[1][0])).all()


def test_all_forms_of_a_model_are_pruned_alike() -> None:
    path = data_path(MNIST)
    by_path, report = prune_model(path, 0.5, pattern="2:4")
    by_bytes = prune_model(path.read_bytes(), 0.5, pattern="2:4").model
    by_module = prune_model(from_onnx(path), 0.5, pattern="2:4").model
    assert by_path.SerializeToString() == by_bytes.SerializeToString()
    x = images()[0][0][:1]
    np.testing.assert_allclose(run(to_onnx(by_module), x), run(by_path, x), rtol=0, atol=1e-4)
    assert isinstance(report, PruningReport)


def test_a_pattern_alone_leaves_layers_that_it_does_not_fit() -> None:
    model, report = prune_model(data_path(RESNET), pattern="2:4")
    first, *others = report.layers
    assert (first.weights, first.pruned) == (16 * 3 * 9, 16 * 9)  # 3 input channels: 1 of 3 goes
    assert all(row.rate == 0.5 for row in others)
    for w in arrays(model).values():
        if w.shape[1] % 4 == 0:
            assert ((np.moveaxis(w, 1, -1).reshape(-1, 4) != 0).sum(axis=1) <= 2).all()


def test_layers_without_a_rate_of_their_own_stay_whole() -> None:
    model, report = prune_model(data_path(MNIST), {"Times212": 0.5}, pattern="2:4")
    assert [row.pruned for row in report.layers] == [0, 0, 1280]
    assert ((arrays(model)["Times212"].reshape(-1, 4) != 0).sum(axis=1) == 2).all()


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("pattern", [None, "filters", "blocks 2x2", "2:4"])
def test_every_criterion_with_every_pattern(criterion: str, pattern: str | None) -> None:
    data = images(5)[1:]
    # the first convolution reads one channel, which says nothing of a filter's relative norm
    alone = (criterion, pattern) == ("relative", "filters")
    rate: Any = {"Convolution110": 0.5} if alone else 0.5
    model, report = prune_model(data_path(MNIST), rate, criterion, pattern, data=data)
    assert report.layers[1].pruned >= report.layers[1].weights // 2
    assert run(model, data[0][0][:1]).shape == (1, 10)
    if alone:
        with pytest.raises(InputError, match="'Convolution28': the criterion 'relative' gives all"):
            prune_model(data_path(MNIST), 0.5, criterion, pattern)


def separable(wide: int = 6) -> Any:
    """Return 3 channels -> `wide` -> depthwise -> 4 classes, with random weights."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(2)
    shapes = {"first": (wide, 3, 3, 3), "depthwise": (wide, 1, 3, 3), "last": (4, wide, 1, 1)}
    nodes, before = [], "x"
    for name, shape in shapes.items():
        group = wide if name == "depthwise" else 1
        pads = [shape[2] // 2] * 4
        inputs = [before, f"{name}.w"]
        nodes.append(helper.make_node("Conv", inputs, [name], name=name, pads=pads, group=group))
        before = f"{name} relu"
        nodes.append(helper.make_node("Relu", [name], [before], name=before))
    nodes.append(helper.make_node("GlobalAveragePool", [before], ["y"], name="y"))
    graph = helper.make_graph(
        nodes,
        "separable",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 1, 1))],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), f"{name}.w")
            for name, shape in shapes.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def kept_filters(before: Any, after: Any, name: str) -> list[int]:
    whole, left = arrays(before)[name], arrays(after)[name]
    return [at for at, w in enumerate(whole) if any(np.array_equal(w, item) for item in left)]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_relative_filters_go_with_their_depthwise_ones(scope: str) -> None:
    source = separable()
    model, report = prune_model(source, 0.5, "relative", "filters", scope)
    w = arrays(source)["first"]
    scores = [np.sqrt((f**2).sum()) / np.sqrt((f**2).sum(axis=(1, 2))).sum() for f in w]
    expected = sorted(np.argsort(scores)[3:].tolist())
    assert expected != [3, 4, 5]  # what a rank by place would keep
    assert kept_filters(source, model, "depthwise") == expected
    assert [row.removed for row in report.layers] == [3, 3, 0]


@pytest.mark.parametrize("pattern", ["weights", "channels", "kernels", "blocks 1x2", "2:4"])
def test_relative_norms_choose_as_the_loops_do(pattern: str) -> None:
    source = separable()
    names = ["first", "last"] if pattern == "kernels" else list(arrays(source))
    rate = dict.fromkeys(names, 0.5)
    model = prune_model(source, rate, "relative", pattern).model
    for name in names:
        w, p = arrays(source)[name], arrays(model)[name]
        read = [sum(np.sqrt((kernel**2).sum()) for kernel in f) for f in w]
        groups: dict[Any, list[tuple[int, ...]]] = {}
        for at in np.ndindex(w.shape):
            key = {
                "channels": at[1:2],
                "kernels": at[:2],
                "blocks 1x2": (at[0], at[1] // 2, *at[2:]),
            }
            groups.setdefault(key.get(pattern, at), []).append(at)
        scores = {
            key: np.sqrt(sum(float(w[at]) ** 2 for at in members))
            / (sum(read) if pattern == "channels" else read[members[0][0]])
            for key, members in groups.items()
        }
        ranked = sorted(scores, key=lambda key: scores[key])
        if pattern == "2:4":
            low = {
                at
                for at in ranked
                for mates in [[(at[0], c, *at[2:]) for c in range(at[1] // 4 * 4, w.shape[1])][:4]]
                if sorted(mates, key=lambda mate: scores[mate]).index(at) < len(mates) - 2
            }
            ranked.sort(key=lambda at: at not in low)
        gone = {at for key in ranked[: int(len(ranked) / 2 + 0.5)] for at in groups[key]}
        assert {at for at in np.ndindex(w.shape) if p[at] == 0} == gone


@pytest.mark.parametrize("pattern", ["filters", "kernels"])
def test_a_depthwise_layer_alone_has_no_relative_norms(pattern: str) -> None:
    from onnx import TensorProto, helper

    rng = np.random.default_rng(3)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "d.w"], ["d"], name="d", pads=[1] * 4, group=6),
            helper.make_node("Conv", ["d", "p.w"], ["y"], name="p"),
        ],
        "depthwise",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 6, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 8, 8))],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in (("d.w", (6, 1, 3, 3)), ("p.w", (4, 6, 1, 1)))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if pattern == "filters":  # nothing of the input can be removed, and so nothing of `d`
        assert [
            row.removed for row in prune_model(model, 0.5, "relative", pattern).report.layers
        ] == [0, 0]
        return
    with pytest.raises(InputError, match="layer 'd': the criterion 'relative' gives all"):
        prune_model(model, 0.5, "relative", pattern)


def test_equal_filters_go_in_their_order() -> None:
    source = separable(80)
    values = np.ones((80, 3, 3, 3), np.float32)
    for at, w in enumerate(values.reshape(80, -1)):
        w[:7] = [-1 if at >> bit & 1 else 1 for bit in range(7)]
        w *= 1 + at % 2
    for item in source.graph.initializer:
        if item.name in ("first.w", "depthwise.w"):
            flat = values if item.name == "first.w" else np.full((80, 1, 3, 3), 1e-3, np.float32)
            item.CopyFrom(numpy_helper.from_array(flat, item.name))
    model = prune_model(source, 0.25, "l1", "filters").model
    np.testing.assert_array_equal(arrays(model)["first"], np.delete(values, range(0, 40, 2), 0))


def test_a_nan_names_its_layer() -> None:
    source = read_float_model(data_path(MNIST))
    for item in source.graph.initializer:
        if item.name == "Parameter87":
            values = numpy_helper.to_array(item).copy()
            values[3, 1, 0, 0] = np.nan
            item.CopyFrom(numpy_helper.from_array(values, item.name))
    for pattern in (None, "filters", "2:4"):
        with pytest.raises(InputError, match="layer 'Convolution110': NaN or infinite weights"):
            prune_model(source, 0.5, pattern=pattern)


def test_filters_go_by_their_measured_slopes() -> None:
    data = images()
    source = read_float_model(data_path(MNIST))
    module = from_onnx(source)
    conv: Any = module.layers["Convolution110"]
    slopes = loss_slopes(module, {"w": conv[1].weight}, data)["w"]
    scores = np.abs((slopes * conv[1].weight.detach().numpy()).sum(axis=(1, 2, 3)))
    kept = np.sort(np.argsort(scores)[8:])
    made = prune_model(source, {"Convolution110": 0.5}, "saliency", "filters", data=data).model
    whole = {t.name: numpy_helper.to_array(t) for t in source.graph.initializer}
    small = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    np.testing.assert_array_equal(small["Parameter87"], whole["Parameter87"][kept])
    np.testing.assert_array_equal(small["Parameter5"], whole["Parameter5"])


def test_filters_leave_and_the_report_says_which() -> None:
    model, report = prune_model(data_path(RESNET), 0.25, "l2", "filters")
    assert [(row.filters, row.removed) for row in report.layers] == [
        *[(16, 4)] * 3,
        *[(32, 8)] * 3,
        *[(64, 16)] * 3,
        (10, 0),
    ]
    for row, w in zip(report.layers, arrays(model).values(), strict=True):
        assert row.weights - row.pruned == w.size
    assert "Softmax" in (report.layers[-1].reason or "")
    assert "12 of 16" in str(report)
    assert len(model.SerializeToString()) < data_path(RESNET).stat().st_size * 0.62


def test_global_scope_takes_the_weakest_filters_of_all_layers() -> None:
    source = read_float_model(data_path(MNIST))
    model, report = prune_model(source, 0.5, "layer share", "filters", "global")
    graph = filter_graph(source)
    norms = [
        np.sqrt(np.square(graph.weights(item)).sum(axis=(1, 2, 3))) for item in graph.filters[:2]
    ]
    ranked = np.sort(np.concatenate([row / row.sum() for row in norms]))
    expected = [int((row / row.sum() < ranked[12]).sum()) for row in norms]
    assert [row.removed for row in report.layers] == [*expected, 0]
    assert arrays(model)["Convolution110"].shape[0] == 16 - expected[1]


def tuned(module: Any, epochs: int) -> None:
    torch.manual_seed(0)
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), 1e-3)
    for _ in range(epochs):
        for batch, labels in images():
            optimizer.zero_grad()
            made = module(torch.from_numpy(batch))
            torch.nn.functional.cross_entropy(made, torch.from_numpy(labels)).backward()
            optimizer.step()
    module.eval()


def test_fine_tuned_weights_come_back_as_onnx() -> None:
    schedule = Schedule("linear", 2)
    model, report = prune_model(data_path(MNIST), 0.75, train=tuned, schedule=schedule)
    assert [row.layer for row in report.layers] == ["Convolution28", "Convolution110", "Times212"]
    for row, w in zip(report.layers, arrays(model).values(), strict=True):
        assert (w == 0).sum() == row.pruned == np.floor(0.75 * row.weights + 0.5)
    plain = prune_model(data_path(MNIST), 0.75).model
    assert any((arrays(model)[name] != w).any() for name, w in arrays(plain).items())
    some = prune_model(data_path(MNIST), {"Times212": 0.5}, train=tuned).report
    assert [row.rate for row in some.layers] == [0, 0, 0.5]


def test_filters_leave_step_by_step_and_resume(tmp_path: Path) -> None:
    file, calls = tmp_path / "steps.pt", []

    def counted(module: Any, epochs: int) -> None:
        calls.append([tuple(p.shape) for p in module.layers["Convolution28"].parameters()])
        if len(calls) == 2:
            raise KeyboardInterrupt
        tuned(module, epochs)

    schedule = Schedule("linear", 2)
    given: Any = {"pattern": "filters", "schedule": schedule}
    whole, report = prune_model(data_path(MNIST), 0.5, train=tuned, **given)
    assert [row.removed for row in report.layers] == [4, 8, 0]
    with pytest.raises(KeyboardInterrupt):
        prune_model(data_path(MNIST), 0.5, train=counted, checkpoint=file, **given)
    assert calls == [[(6, 1, 5, 5)], [(4, 1, 5, 5)]]
    resumed = prune_model(data_path(MNIST), 0.5, train=tuned, checkpoint=file, **given).model
    assert resumed.SerializeToString() == whole.SerializeToString()


def test_a_module_is_copied_not_changed() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    before = copy.deepcopy(module.state_dict())
    made, report = prune_model(module, threshold=0.5, criterion="deviation")
    for name, value in before.items():
        assert torch.equal(module.state_dict()[name], value)
    for row in report.layers:
        w, p = before[row.layer].numpy(), made.state_dict()[row.layer].numpy()
        np.testing.assert_array_equal(p, np.where(np.abs(w) < 0.5 * w.std(), 0, w))
        assert 0 < row.pruned < row.weights


def test_a_module_of_a_graph_loses_filters() -> None:
    module = from_onnx(data_path(MNIST))
    pruned = prune_model(module, 0.5, pattern="filters")
    made: Any = pruned.model
    assert made.layers["Convolution28"][1].weight.shape == (4, 1, 5, 5)
    assert made(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
    assert [row.removed for row in pruned.report.layers] == [4, 8, 0]


def test_the_encoder_is_pruned() -> None:
    source = transformer_encoder(EncoderShape(layers=1, tokens=6, width=16, heads=2, inner=24))
    model, report = prune_model(source, 0.5, pattern="filters")
    assert [row.removed for row in report.layers] == [8, 8, 8, 0, 12, 0]
    assert run(model, np.ones((1, 6, 16), np.float32)).shape == (1, 6, 16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give a pruning rate, a threshold, or an N:M pattern"),
        ({"rate": 0.5, "threshold": 1.0}, "a pruning rate or a threshold, not both"),
        ({"rate": 0.4, "pattern": "2:4"}, "2:4 prunes 0.5: the rate cannot be 0.4"),
        ({"rate": 1.5}, "a pruning rate is from 0 to 1, not 1.5"),
        ({"rate": 0.5, "criterion": "luck"}, "a pruning criterion is one of"),
        ({"rate": 0.5, "criterion": "gradient"}, "'gradient' needs data"),
        ({"threshold": float("nan")}, "a pruning threshold is a finite number, not nan"),
        ({"rate": float("nan")}, "a pruning rate is from 0 to 1, not nan"),
        ({"rate": 0.5, "criterion": "gradient", "pattern": "filters"}, "'gradient' needs data"),
        ({"rate": {"none": 0.5}}, "there is no layer 'none' to prune"),
        ({"rate": {"none": 0.5}, "train": tuned}, "there is no layer 'none' to prune"),
        ({"rate": {"none": 0.5}, "pattern": "filters"}, "'none' whose filters can be removed"),
        ({"threshold": 0.5, "pattern": "filters"}, "removed by a rate, not by a threshold"),
    ],
)
def test_options_that_contradict_are_one_sentence(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune_model(data_path(MNIST), **given)


def test_filters_of_a_module_without_a_graph() -> None:
    with pytest.raises(InputError, match="which a Linear does not have: export it to ONNX"):
        prune_model(torch.nn.Linear(4, 4), 0.5, pattern="filters")


def test_a_model_without_layers_and_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data_path(MNIST).read_bytes()[:9000])
    with pytest.raises(ImportFailure, match="is not an ONNX model, or it is truncated"):
        prune_model(tmp_path / "m.onnx", 0.5)
    with pytest.raises(InputError, match="cannot be read"):
        prune_model(tmp_path / "none.onnx", 0.5)
