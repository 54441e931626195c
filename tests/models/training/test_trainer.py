"""The trainer: it learns, picks by validation, repeats itself, and resumes to the same bits."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.datasets import Dataset, generate_clicks
from lepton.models.training import (
    Optimizer,
    Schedule,
    Trained,
    TrainingOptions,
    predict,
    score,
    train,
)
from lepton.models.training.options import rate_at
from lepton.models.training.trainer import Hooks, score_of
from lepton.models.zoo import NETWORKS, Task, build_network

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")

OPTIONS = TrainingOptions(seed=3, epochs=4, batch=8, shift=1, flip=True, learning_rate=0.01)


def stripes(count: int, seed: int) -> Dataset:
    """Return images [n, 1, 8, 8] of upright or lying stripes with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.random((count, 1, 8, 8), np.float32)
    images[:, :, ::2] += (labels == 0)[:, None, None, None]
    images[:, :, :, ::2] += (labels == 1)[:, None, None, None]
    return Dataset((images,), labels, ("lying", "upright"))


SAMPLES = (stripes(40, 0), stripes(30, 1))


def network(dropout: float = 0.0) -> Any:
    body = build_network("digits_cnn", seed=1, width=4, classes=2)
    return torch.nn.Sequential(body, torch.nn.Dropout(dropout))


def same(first: Any, second: Any) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return all(torch.equal(one[key], other[key]) for key in one)


def test_learns_and_repeats_itself() -> None:
    first, second = network(), network()
    trained = train(first, Task.CLASSES, SAMPLES, OPTIONS)
    torch.manual_seed(99)  # the global state must not matter
    assert train(second, Task.CLASSES, SAMPLES, OPTIONS) == trained
    assert same(first, second)
    assert score(first, Task.CLASSES, SAMPLES[1]) == trained.epochs[trained.best].score >= 0.9
    other = network()
    train(other, Task.CLASSES, SAMPLES, dataclasses.replace(OPTIONS, seed=4))
    assert not same(first, other)


def test_validation_picks_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([0.2, 0.7, 0.7, 0.1])
    weights: list[Any] = []

    def scored(made: Any, task: Task, samples: Dataset) -> float:
        assert samples is SAMPLES[1]
        weights.append({key: value.clone() for key, value in made.state_dict().items()})
        return next(given)

    monkeypatch.setattr("lepton.models.training.trainer.score", scored)
    made = network()
    assert train(made, Task.CLASSES, SAMPLES, OPTIONS).best == 1
    assert not made.training
    assert all(torch.equal(value, weights[1][key]) for key, value in made.state_dict().items())
    given = iter([0.2, 0.7, 0.7, 0.1])
    weights.clear()
    hooks = Hooks(keeps_last=True)
    assert train(made, Task.CLASSES, SAMPLES, OPTIONS, hooks=hooks).best == 3
    assert not made.training
    assert all(torch.equal(value, weights[3][key]) for key, value in made.state_dict().items())


@pytest.mark.parametrize(("start", "best"), [(0.75, -1), (0.7, -1), (0.6, 1)])
def test_the_start_is_a_candidate(
    start: float, best: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = iter([start, 0.2, 0.7, 0.7, 0.1])
    made, untrained = network(), network()
    monkeypatch.setattr("lepton.models.training.trainer.score", lambda *_: next(given))
    hooks, path = Hooks(counts_start=True), tmp_path / "state.pt"
    trained = train(made, Task.CLASSES, SAMPLES, OPTIONS, checkpoint=path, hooks=hooks)
    assert (trained.best, trained.start) == (best, start)
    assert not made.training and same(made, untrained) == (best == -1)
    # a training that goes on knows the start, and does not score it again
    again = network()
    assert train(again, Task.CLASSES, SAMPLES, OPTIONS, checkpoint=path, hooks=hooks) == trained
    assert same(again, made)


class Cut(Exception):
    """Stands for a kill."""


def resumed(
    made: Callable[[], Any], options: TrainingOptions, path: Path, step: int
) -> tuple[Any, Trained]:
    """Return a network whose training was cut off at a step and went on, and how it went."""
    steps = iter(range(100))

    def stop() -> None:
        if next(steps) == step:
            raise Cut

    with pytest.raises(Cut):
        train(made(), Task.CLASSES, SAMPLES, options, checkpoint=path, hooks=Hooks(after_step=stop))
    again = made()
    return again, train(again, Task.CLASSES, SAMPLES, options, checkpoint=path)


@pytest.mark.parametrize("optimizer", Optimizer)
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resumed_training_ends_as_an_uninterrupted_one(
    tmp_path: Path, epoch: int, optimizer: Optimizer
) -> None:
    options = dataclasses.replace(OPTIONS, optimizer=optimizer)
    whole, path = network(0.3), tmp_path / "state.pt"
    expected = train(whole, Task.CLASSES, SAMPLES, options)
    # amid an epoch of 5 steps
    made, trained = resumed(lambda: network(0.3), options, path, 5 * epoch + 2)
    assert trained == expected
    assert same(made, whole)
    again = network(0.3)
    assert train(again, Task.CLASSES, SAMPLES, options, checkpoint=path) == expected
    assert same(again, whole)
    assert [item.name for item in tmp_path.iterdir()] == ["state.pt"]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_trainer import *
torch.set_num_threads({threads})
steps = iter(range(100))
def stop():
    if next(steps) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
train(network(0.3), Task.CLASSES, SAMPLES, OPTIONS, checkpoint=Path({path!r}),
      hooks=Hooks(after_step=stop))
"""


@pytest.mark.slow
def test_a_killed_training_resumes(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    # sums are split over the threads, so as many of them give the same bits
    threads = torch.get_num_threads()
    code = KILLED.format(folder=str(Path(__file__).parent), path=str(path), threads=threads)
    made = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[3])
    assert made.returncode == -signal.SIGKILL
    whole, resumed = network(0.3), network(0.3)
    expected = train(whole, Task.CLASSES, SAMPLES, OPTIONS)
    assert train(resumed, Task.CLASSES, SAMPLES, OPTIONS, checkpoint=path) == expected
    assert same(whole, resumed)


def test_checkpoints_of_other_trainings(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    short = dataclasses.replace(OPTIONS, epochs=1)
    train(network(), Task.CLASSES, SAMPLES, short, checkpoint=path)
    with pytest.raises(InputError, match="belongs to another run"):
        train(network(), Task.CLASSES, SAMPLES, OPTIONS, checkpoint=path)
    wider = build_network("digits_cnn", width=8, classes=2)
    with pytest.raises(InputError, match="belongs to another run"):
        train(wider, Task.CLASSES, SAMPLES, short, checkpoint=path)
    whole = path.read_bytes()
    for content in (b"", b"junk", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a checkpoint, or a damaged one"):
            train(network(), Task.CLASSES, SAMPLES, short, checkpoint=path)


class Runs:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_checkpoints_execute_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"training": Runs(tmp_path / "ran"), "state": {}}, path)
    with pytest.raises(InputError, match="not a checkpoint"):
        train(network(), Task.CLASSES, SAMPLES, OPTIONS, checkpoint=path)
    assert not (tmp_path / "ran").exists()


def test_rates() -> None:
    def rates(schedule: Schedule) -> list[float]:
        options = TrainingOptions(learning_rate=2.0, schedule=schedule)
        return [rate_at(options, step, 20) for step in range(20)]

    assert set(rates(Schedule.CONSTANT)) == {2.0}
    cosine = rates(Schedule.COSINE)
    np.testing.assert_allclose(cosine, 1 + np.cos(np.pi * np.arange(20) / 20))
    warm = rates(Schedule.WARM_UP_COSINE)
    np.testing.assert_allclose(warm[:4], [0.4, 0.8, 1.2, 1.6])
    np.testing.assert_allclose(warm[4:], 1 + np.cos(np.pi * np.arange(16) / 16))
    assert rate_at(TrainingOptions(epochs=1), 0, 1) > 0


@pytest.mark.parametrize("name", ["wide_and_deep", "autoencoder", "gru_recommender"])
def test_tasks(name: str) -> None:
    entry = NETWORKS[name]
    rng = np.random.default_rng(0)
    if name == "wide_and_deep":
        samples = generate_clicks(64, 0)
    else:
        shape = (64, *entry.inputs[0].shape)
        array = (
            rng.integers(0, entry.inputs[0].ids, shape)
            if entry.inputs[0].ids
            else rng.random(shape, np.float32)
        )
        samples = Dataset((array,), rng.integers(0, entry.classes, 64))
    made = entry.build(0)
    options = TrainingOptions(epochs=6, batch=16, learning_rate=0.01)
    trained = train(made, entry.task, (samples, samples), options)
    assert trained.epochs[-1].loss < trained.epochs[0].loss
    outputs = predict(made, samples)
    assert outputs.shape == (64, entry.classes)
    if entry.task is Task.RECONSTRUCTION:
        expected = -np.mean((outputs - samples.inputs[0]) ** 2)
        assert score_of(outputs, entry.task, samples) == pytest.approx(expected)


def test_own_loss_and_masks() -> None:
    made = network()
    weights = next(made.parameters())

    def mask() -> None:
        with torch.no_grad():
            weights[0] = 0

    def loss(model: Any, inputs: Any, labels: Any) -> Any:
        return (model(*inputs) ** 2).sum()

    train(made, Task.CLASSES, SAMPLES, OPTIONS, hooks=Hooks(loss, mask))
    assert not weights[0].any() and weights[1].any()


def test_augmentation() -> None:
    from lepton.models.training.augmentation import flipped, shifted

    torch.manual_seed(0)
    image = torch.arange(1, 17.0).reshape(1, 1, 4, 4).repeat(200, 1, 1, 1)
    moved = shifted(image, 1)
    padded = torch.nn.functional.pad(image[0, 0], (1, 1, 1, 1))
    windows = [padded[y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
    seen = [[torch.equal(one[0], window) for window in windows].index(True) for one in moved]
    assert set(seen) == set(range(9))
    repeated = torch.tensor(np.pad(image[0, 0].numpy(), 1, mode="edge"))
    windows = [repeated[y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
    moved = shifted(image, 1, repeat_edges=True)
    seen = [[torch.equal(one[0], window) for window in windows].index(True) for one in moved]
    assert set(seen) == set(range(9))
    mirrored = [torch.equal(one, image[0].flip(2)) for one in flipped(image)]
    assert 60 < sum(mirrored) < 140


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, not nan"),
        ({"weight_decay": float("nan")}, "weight_decay must not be negative, not nan"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in 0..1"),
        ({"shift": -1}, "shift must not be negative, not -1"),
    ],
)
def test_options_are_checked(option: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingOptions(**option)


def test_refusals() -> None:
    empty = SAMPLES[0].take(slice(0, 0))
    with pytest.raises(InputError, match="there must be samples"):
        train(network(), Task.CLASSES, (SAMPLES[0], empty), OPTIONS)
    wild = dataclasses.replace(OPTIONS, learning_rate=1e30)
    with pytest.raises(InputError, match="choose a lower learning rate"):
        train(network(), Task.CLASSES, SAMPLES, wild)
