"""Muon's steps against singular value decompositions, and Adam's against PyTorch's."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.models.training import Optimizer, TrainingOptions, score, train
from lepton.models.zoo import Task, build_network
from tests.models.training.test_trainer import SAMPLES, network, resumed, same

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")

from lepton.models.training.torch_muon import (  # noqa: E402 (it imports torch)
    ADAM_RATIO,
    Muon,
    matrices_of,
    muon_of,
    orthogonalized,
)

OPTIONS = TrainingOptions(seed=3, epochs=4, batch=8, learning_rate=0.02, optimizer=Optimizer.MUON)


def seeded(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def by_svd(matrix: Any) -> Any:
    """Return what the five iterations make, of the singular values one by one."""
    left, values, right = np.linalg.svd(matrix.numpy(), full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right, values


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5), (2, 64)])
def test_orthogonal_matrices_are_those_of_the_decomposition(shape: tuple[int, int]) -> None:
    matrix = seeded(*shape)
    expected, values = by_svd(matrix)
    np.testing.assert_allclose(orthogonalized(matrix).numpy(), expected, atol=1e-9)
    assert values.min() > 0.68 and values.max() < 1.21
    assert not orthogonalized(torch.zeros(shape)).any()


def test_singular_values_end_near_one() -> None:
    for value in np.geomspace(0.01, math.sqrt(0.5), 200):
        both = torch.tensor([value, math.sqrt(1 - value**2)], dtype=torch.float64)
        made = np.diag(orthogonalized(torch.diag(both)).numpy())
        assert made.min() > 0.68 and made.max() < 1.21


def test_steps_of_kernels_are_those_of_the_rule() -> None:
    start, rate = seeded(6, 3, 2, 2), 0.01
    kernels = torch.nn.Parameter(start.clone())
    optimizer = Muon([{"params": [kernels], "is_matrix": True, "ratio": 1.0}], rate)
    expected, momentum = start.reshape(6, 12).numpy().copy(), np.zeros((6, 12))
    scale = np.linalg.norm(expected) / math.sqrt(6)
    for seed in range(1, 4):
        kernels.grad = seeded(6, 3, 2, 2, seed=seed)
        slopes = kernels.grad.reshape(6, 12).numpy()
        momentum = 0.95 * momentum + 0.05 * slopes
        unit, _ = by_svd(torch.from_numpy(0.05 * slopes + 0.95 * momentum))
        expected -= rate * scale * unit
        optimizer.step()
        np.testing.assert_allclose(kernels.detach().reshape(6, 12).numpy(), expected, atol=1e-9)


def test_the_first_step_has_the_size_of_the_kernel_times_the_rate() -> None:
    kernels = torch.nn.Parameter(seeded(8, 20))
    start = kernels.detach().clone()
    optimizer = Muon([{"params": [kernels], "is_matrix": True, "ratio": 1.0}], 0.1)
    kernels.grad = seeded(8, 20, seed=5)
    optimizer.step()
    moved = float((kernels.detach() - start).norm() / start.norm())
    assert 0.068 < moved < 0.121
    zeros = torch.nn.Parameter(torch.zeros(4, 4))
    optimizer = Muon([{"params": [zeros], "is_matrix": True, "ratio": 1.0}], 0.1)
    zeros.grad = torch.eye(4)
    optimizer.step()
    assert 0.068 < float(-zeros.detach()[0, 0]) < 0.121


def test_other_parameters_step_by_adam() -> None:
    start, rate = seeded(7, 2), 0.03
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    unseen = torch.nn.Parameter(start.clone())
    optimizer = Muon([{"params": [ours, unseen], "is_matrix": False, "ratio": 0.5}], rate)
    adam = torch.optim.Adam([theirs], rate / 2, betas=(0.9, 0.99), eps=1e-8)
    for seed in range(1, 6):
        for group, part in ((optimizer.param_groups[0], 1), (adam.param_groups[0], 0.5)):
            group["lr"] = rate / seed * part
        ours.grad = theirs.grad = seeded(7, 2, seed=seed)
        optimizer.step()
        adam.step()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert torch.equal(unseen, start)


class Halved(torch.nn.Module):
    def forward(self, given: Any) -> Any:
        return given / 2

    def right_inverse(self, given: Any) -> Any:
        return given * 2


def test_kernels_of_hidden_layers_are_the_matrices() -> None:
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.BatchNorm2d(8),
        torch.nn.Conv2d(8, 8, 3, groups=8),  # depthwise
        torch.nn.Conv2d(8, 12, 1),
        torch.nn.Conv2d(12, 1, 1),  # one output
        torch.nn.Flatten(),
        torch.nn.Linear(16, 6),
        torch.nn.Embedding(5, 6),
        torch.nn.Linear(6, 4),
    )
    torch.nn.utils.parametrize.register_parametrization(body[3], "weight", Halved())
    kernel = body[3].parametrizations["weight"].original
    expected = [body[0].weight, kernel, body[6].weight]
    assert list(map(id, matrices_of(body))) == list(map(id, expected))
    optimizer = muon_of(body, 0.3)
    whole = [id(item) for group in optimizer.param_groups for item in group["params"]]
    assert sorted(whole) == sorted(map(id, body.parameters()))
    matrices, rest = optimizer.param_groups
    assert (matrices["is_matrix"], matrices["ratio"]) == (True, 1)
    assert (rest["is_matrix"], rest["ratio"]) == (False, ADAM_RATIO)
    last = torch.nn.Sequential(torch.nn.Linear(3, 2))
    assert [group["is_matrix"] for group in muon_of(last, 0.3).param_groups] == [False]


def test_a_network_learns_by_muon_and_another_optimizer_differs() -> None:
    made, other = network(), network()
    trained = train(made, Task.CLASSES, SAMPLES, OPTIONS)
    assert score(made, Task.CLASSES, SAMPLES[1]) == trained.epochs[trained.best].score >= 0.9
    train(other, Task.CLASSES, SAMPLES, dataclasses.replace(OPTIONS, optimizer=Optimizer.ADAMW))
    assert not same(made, other)


def test_bytes_are_the_same_with_kernels_channels_last(tmp_path: Path) -> None:
    def made() -> Any:
        body: Any = build_network("digits_cnn", seed=1, width=4, classes=2)
        return body.to(memory_format=torch.channels_last)

    whole = made()
    train(whole, Task.CLASSES, SAMPLES, OPTIONS)
    again, _ = resumed(made, OPTIONS, tmp_path / "state.pt", 12)
    assert same(again, whole)
