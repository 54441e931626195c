"""Schedules, masks held while a module trains, checkpoints, the sensitivity scan."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.pruning.gradual import FineTuning, Measured, prune_gradually, select
from lepton.models.pruning.holding import apply_masks, hold, layer_weights
from lepton.models.pruning.schedule import Schedule
from lepton.models.pruning.selection import Selection
from lepton.models.pruning.sensitivity import layer_sensitivity, sensitivity_table

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
nn = torch.nn


def network() -> Any:
    """One of each kind of layer that has weights."""
    torch.manual_seed(0)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 8, 3)
            self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
            self.gru = nn.GRU(4 * 8, 6, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            x = self.up(self.conv(x).relu()).flatten(2)
            x = x.reshape(len(x), -1, 32)
            return self.head(self.gru(x)[0][:, -1])

    return Network()


def batch(count: int = 8) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, 1, 6, 6)).astype(np.float32)
    return torch.from_numpy(images), torch.from_numpy(rng.integers(0, 3, count))


def train(module: Any, epochs: int) -> None:
    """Adam with noise from torch's own generator, so that its state matters."""
    images, labels = batch()
    module.train()
    optimizer = torch.optim.Adam(module.parameters(), 0.01, weight_decay=0.01)
    for _ in range(2 * epochs):
        optimizer.zero_grad()
        noisy = images + 0.1 * torch.randn(images.shape)
        nn.functional.cross_entropy(module(noisy), labels).backward()
        optimizer.step()
    module.eval()


def weight_arrays(module: Any) -> dict[str, Any]:
    return {name: item.array() for name, item in layer_weights(module).items()}


def test_every_kind_of_layer_has_its_weights_outputs_first() -> None:
    shapes = {name: item.shape for name, item in weight_arrays(network()).items()}
    assert shapes == {
        "conv.weight": (8, 1, 3, 3),
        "up.weight": (4, 8, 2, 2),
        "gru.weight_ih_l0": (18, 32),
        "gru.weight_hh_l0": (18, 6),
        "head.weight": (3, 6),
    }


def test_shared_weights_count_once() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    assert list(layer_weights(module)) == ["0.weight"]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule(), [0.8]),
        (Schedule("linear", 4), [0.2, 0.4, 0.6, 0.8]),
        (Schedule("cubic", 4), [0.8 * (1 - 27 / 64), 0.8 * (1 - 8 / 64), 0.8 * (1 - 1 / 64), 0.8]),
    ],
)
def test_rates(schedule: Schedule, rates: list[float]) -> None:
    assert schedule.rates(0.8) == pytest.approx(rates, rel=1e-12)
    assert schedule.rates(0.8)[-1] == 0.8


@pytest.mark.parametrize("pattern", ["weights", "2:4", "filters", "blocks 2x2"])
def test_pruned_weights_stay_zero_while_training(pattern: str) -> None:
    module = network()
    masks = select(module, 0.5, Selection(pattern=pattern))
    seen: list[bool] = []

    def is_held(module: Any) -> bool:
        arrays = weight_arrays(module)
        return all(not arrays[name][~mask].any() for name, mask in masks.items())

    images, labels = batch()
    # momentum from before, which would move pruned weights
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    nn.functional.cross_entropy(module(images), labels).backward()
    optimizer.step()
    before = weight_arrays(module)
    with hold(module, masks):
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(images), labels)
            seen.append(is_held(module))
            loss.backward()
            optimizer.step()
    assert seen == [True] * 3
    assert is_held(module)
    after = weight_arrays(module)
    for name, mask in masks.items():
        # exact zeros, no negative ones, which are other bytes
        assert not np.signbit(after[name][~mask]).any()
        assert (after[name][mask] != before[name][mask]).any()
    assert not module.conv._forward_pre_hooks
    module(images).sum().backward()
    assert module.conv.weight.grad[torch.from_numpy(~masks["conv.weight"])].any()


def test_what_ends_a_training_of_rounded_weights_is_not_hidden() -> None:
    from torch.nn.utils import parametrize

    module = network()
    masks = select(module, 0.5, Selection())
    held = layer_weights(module)
    with pytest.raises(KeyboardInterrupt, match="cut off"), hold(module, masks):
        parametrize.register_parametrization(module.conv, "weight", nn.Identity())
        with torch.no_grad():
            for weight in held.values():
                weight.parameter.fill_(1)
        raise KeyboardInterrupt("cut off")
    for name, weight in held.items():
        np.testing.assert_array_equal(weight.array() == 1, masks[name])
    assert not module.conv._forward_pre_hooks


@pytest.mark.parametrize("criterion", ["l1", "saliency", "gradient"])
def test_gradual_pruning_reaches_the_rate_and_never_regrows(criterion: str) -> None:
    module = network()
    zeros: list[dict[str, Any]] = []

    def watched(module: Any, epochs: int) -> None:
        zeros.append({name: item == 0 for name, item in weight_arrays(module).items()})
        train(module, epochs)

    tuning = FineTuning(watched, Schedule("cubic", 4))
    images, labels = batch()
    masks = prune_gradually(
        module, 0.75, Selection(criterion), tuning, Measured([(images, labels)])
    )
    arrays = weight_arrays(module)
    for name, mask in masks.items():
        assert (~mask).sum() == np.floor(0.75 * mask.size + 0.5)
        np.testing.assert_array_equal(arrays[name] == 0, ~mask)
        counts = [int(step[name].sum()) for step in zeros]
        expected = [np.floor(r * mask.size + 0.5) for r in Schedule("cubic", 4).rates(0.75)]
        assert counts == expected
        for early, late in itertools.pairwise(zeros):
            assert not (early[name] & ~late[name]).any()


def test_a_pattern_alone_prunes_no_more_than_it_says() -> None:
    module = network()
    chosen = Selection(pattern="2:4", is_pattern_alone=True)
    tuning = FineTuning(train, Schedule("linear", 3))
    masks = prune_gradually(module, 1.0, chosen, tuning)
    assert masks["conv.weight"].all()  # one input channel
    for name in ("up.weight", "gru.weight_ih_l0"):
        groups = np.moveaxis(masks[name], 1, -1).reshape(-1, 4)
        assert (groups.sum(axis=1) == 2).all()
    whole, tail = masks["head.weight"][:, :4], masks["head.weight"][:, 4:]
    assert (whole.sum(axis=1) == 2).all()
    assert tail.all()


def test_a_rate_above_the_pattern_goes_on_top_of_it() -> None:
    masks = select(network(), 0.8, Selection(pattern="2:4"))["gru.weight_ih_l0"]
    assert (~masks).sum() == np.floor(0.8 * masks.size + 0.5)
    assert (masks.reshape(-1, 4).sum(axis=1) <= 2).all()
    part = select(network(), 0.2, Selection(pattern="2:4"))["gru.weight_ih_l0"]
    assert (~part).sum() == np.floor(0.2 * masks.size + 0.5)
    assert (part.reshape(-1, 4).sum(axis=1) >= 2).all()


class Killed(Exception):
    """Stands for a process that dies."""


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    chosen, schedule = Selection("saliency", scope="global"), Schedule("cubic", 4)
    data = Measured([batch()])
    torch.manual_seed(5)
    whole = network()
    prune_gradually(whole, 0.7, chosen, FineTuning(train, schedule), data)
    calls = []

    def dying(module: Any, epochs: int) -> None:
        if len(calls) == 2:
            raise Killed
        calls.append(epochs)
        train(module, epochs)

    file = tmp_path / "steps.pt"
    torch.manual_seed(5)
    with pytest.raises(Killed):
        prune_gradually(network(), 0.7, chosen, FineTuning(dying, schedule, file), data)
    resumed = network()
    torch.manual_seed(99)
    prune_gradually(resumed, 0.7, chosen, FineTuning(train, schedule, file), data)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert [path.name for path in tmp_path.iterdir()] == ["steps.pt"]


def test_a_checkpoint_of_another_run_or_damaged_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "steps.pt"
    prune_gradually(network(), 0.5, Selection(), FineTuning(None, Schedule(), file))
    with pytest.raises(InputError, match="belongs to another run"):
        prune_gradually(network(), 0.6, Selection(), FineTuning(None, Schedule(), file))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="not a checkpoint, or a damaged one"):
        prune_gradually(network(), 0.5, Selection(), FineTuning(None, Schedule(), file))
    with pytest.raises(InputError, match="cannot be written"):
        (tmp_path / "none").touch()
        tuning = FineTuning(None, Schedule(), tmp_path / "none" / "steps.pt")
        prune_gradually(network(), 0.5, Selection(), tuning)


def test_sensitivity_is_measured_one_layer_at_a_time() -> None:
    module = network()
    before = copy.deepcopy(module.state_dict())

    def zeros(module: Any) -> float:
        return float(sum((item == 0).sum() for item in weight_arrays(module).values()))

    rows = layer_sensitivity(module, zeros, (0.25, 0.5))
    assert [(row.layer, row.rate) for row in rows] == [
        (name, rate) for name in layer_weights(module) for rate in (0.25, 0.5)
    ]
    for row in rows:
        assert row.pruned == np.floor(row.rate * row.weights + 0.5) == row.metric == row.change
    for name, value in before.items():
        assert torch.equal(module.state_dict()[name], value)
    table = sensitivity_table(rows).splitlines()
    assert table[0].split() == ["layer", "25%", "50%"]
    assert table[1].split() == ["conv.weight", "+18.0000", "+36.0000"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Schedule("slow"), "a pruning schedule is one of one-shot, linear, cubic, not"),
        (lambda: Schedule("one-shot", 2), "a one-shot schedule cannot have 2 steps"),
        (lambda: Schedule(epochs=-1), "epochs of fine-tuning cannot be -1"),
        (lambda: Selection(scope="all"), "a scope is 'layer' or 'global', not 'all'"),
        (lambda: Selection(pattern="rows"), "a granularity is one of"),
        (lambda: Selection(pattern="2:4", threshold=1.0), "cannot go with the pattern '2:4'"),
        (lambda: Selection(scope="global", layer_rates={"a": 0.1}), "need the scope 'layer'"),
        (
            lambda: select(network(), 0.5, Selection(layer_rates={"a": 0.1})),
            "there is no layer 'a' to prune",
        ),
        (lambda: select(nn.ReLU(), 0.5, Selection()), "has no layer with weights to prune"),
        (
            lambda: apply_masks(network(), {"a": np.ones((1, 1), bool)}),
            "there is no layer 'a' to prune",
        ),
        (
            lambda: apply_masks(network(), {"up.weight": np.ones((8, 4, 2, 2), bool)}),
            r"'up.weight' has the shape \[8, 4, 2, 2\], not \[4, 8, 2, 2\]",
        ),
    ],
)
def test_faults_are_one_sentence(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
