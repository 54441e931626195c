"""Distillation: losses in plain loops, students that learn, trainings that resume."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton.errors import InputError
from lepton.models.distillation import DistilOptions, distil

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")
nn = torch.nn


def naive_soft(teacher: Any, student: Any, temperature: float) -> float:
    total = 0.0
    for row_t, row_s in zip(teacher.tolist(), student.tolist(), strict=True):
        p = [math.exp(x / temperature) for x in row_t]
        q = [math.exp(x / temperature) for x in row_s]
        for a, b in zip(p, q, strict=True):
            total -= a / sum(p) * math.log(b / sum(q))
    return total / len(teacher) * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_losses_are_their_formulas(temperature: float) -> None:
    from lepton.models.torch_distillation import distillation_loss, soft_cross_entropy

    torch.manual_seed(0)
    teacher, student = torch.randn(5, 4) * 3, torch.randn(5, 4)
    labels = torch.tensor([0, 3, 1, 1, 2])
    soft = naive_soft(teacher, student, temperature)
    assert float(soft_cross_entropy(teacher, student, temperature)) == pytest.approx(soft, rel=1e-5)
    hard = 0.0
    for row, label in zip(student.tolist(), labels.tolist(), strict=True):
        hard -= math.log(math.exp(row[label]) / sum(math.exp(x) for x in row)) / 5
    mixed = distillation_loss((teacher, student), labels, temperature, 0.3)
    assert float(mixed) == pytest.approx(0.7 * soft + 0.3 * hard, rel=1e-5)
    alone = distillation_loss((teacher, student), None, temperature, 0.3)
    assert float(alone) == pytest.approx(soft, rel=1e-5)


def test_features_are_projected_and_pooled() -> None:
    from lepton.models.torch_distillation import FeatureMatch

    torch.manual_seed(0)
    teacher, student = nn.Sequential(nn.Conv2d(1, 3, 1)), nn.Sequential(nn.Conv2d(1, 2, 1, 2))
    match: Any = FeatureMatch((teacher, student), {"0": "0"}, [(3, 2)])
    x = torch.randn(2, 1, 4, 4)
    wanted, found = teacher(x).detach(), student(x).detach()
    projection = match.projections[0].weight.detach()
    total = 0.0
    for n in range(2):
        for row in range(2):
            for column in range(2):
                for c in range(3):
                    window = wanted[n, c, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                    made = sum(projection[c, k] * found[n, k, row, column] for k in range(2))
                    total += float(window.mean() - made) ** 2
    assert float(match().detach()) == pytest.approx(total / 24, rel=1e-5)
    match.detach()
    assert not teacher[0]._forward_hooks


def networks() -> tuple[Any, Any]:
    torch.manual_seed(1)
    teacher = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))
    student = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))
    return teacher, student


def batches(epoch: int) -> Any:
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(6):
        x = torch.randn(32, 6, generator=generator)
        yield x, (x[:, :3].argmax(1))


OPTIONS = DistilOptions(epochs=4, learning_rate=0.02, features={"1": "1"})


def test_a_student_learns_from_its_teacher() -> None:
    teacher, student = networks()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    teacher.train()
    losses = distil(teacher, student, batches, OPTIONS)
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert teacher.training
    assert not student.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_training_resumes_to_the_same_end(tmp_path: Path) -> None:
    teacher, whole = networks()
    losses = distil(teacher, whole, batches, OPTIONS)
    _, student = networks()
    path = tmp_path / "state.pt"

    def failing(epoch: int) -> Any:
        if epoch == 2:
            raise KeyboardInterrupt
        return batches(epoch)

    with pytest.raises(KeyboardInterrupt):
        distil(teacher, student, failing, OPTIONS, checkpoint=path)
    _, student = networks()
    seen: list[int] = []

    def noting(epoch: int) -> Any:
        seen.append(epoch)
        return batches(epoch)

    assert distil(teacher, student, noting, OPTIONS, checkpoint=path) == losses
    # the first batch is looked at for its features
    assert seen == [0, 2, 3]
    for one, other in zip(whole.parameters(), student.parameters(), strict=True):
        assert torch.equal(one, other)


def test_refusals(tmp_path: Path) -> None:
    teacher, student = networks()
    path = tmp_path / "state.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a checkpoint, or a damaged one"):
        distil(teacher, student, batches, OPTIONS, checkpoint=path)
    path.unlink()
    distil(teacher, student, batches, replace(OPTIONS, epochs=1), checkpoint=path)
    with pytest.raises(InputError, match="belongs to another run"):
        distil(teacher, student, batches, OPTIONS, checkpoint=path)
    other = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
    with pytest.raises(InputError, match="belongs to another run"):
        distil(teacher, other, batches, replace(OPTIONS, epochs=1), checkpoint=path)
    with pytest.raises(InputError, match="no module 'z' to match"):
        distil(teacher, student, batches, replace(OPTIONS, features={"1": "z"}))
    with pytest.raises(InputError, match="epoch 0 has no batches"):
        distil(teacher, student, lambda epoch: [], DistilOptions())
    wrongs: list[dict[str, Any]] = [{"temperature": 0}, {"hard_share": 1.5}, {"epochs": 0}]
    for wrong in wrongs:
        with pytest.raises(InputError, match=next(iter(wrong))):
            DistilOptions(**wrong)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", float("nan"), "temperature must be positive, not nan"),
        ("temperature", float("inf"), "temperature must be positive, not inf"),
        ("learning_rate", float("nan"), "learning_rate must be positive, not nan"),
        ("feature_share", float("nan"), "feature_share must not be negative, not nan"),
        ("weight_decay", -1.0, "weight_decay must not be negative, not -1"),
        ("hard_share", float("nan"), "hard_share must be 0 to 1, not nan"),
    ],
)
def test_options_that_are_no_numbers(name: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DistilOptions(**{name: value})  # pyright: ignore[reportArgumentType]


def unlike(student: Any, x: Any, labels: Any = None) -> None:
    teacher, _ = networks()
    distil(teacher, student, lambda epoch: [(x, labels)], DistilOptions())


def test_a_loss_of_other_shapes_is_refused_and_not_broadcast() -> None:
    from lepton.models.torch_distillation import distillation_loss, soft_cross_entropy

    student = torch.zeros(64, 4)
    for shape in ((1, 4), (64, 4, 1, 1), (64, 1), (4,), (64, 7)):
        wrong = rf"must both be \[n, classes\], not \[{', '.join(map(str, shape))}\] and \[64, 4\]"
        with pytest.raises(InputError, match=wrong):
            distillation_loss((torch.zeros(shape), student), None, 4.0, 0.1)
        with pytest.raises(InputError, match="must both be"):
            soft_cross_entropy(torch.zeros(shape), student, 4.0)
    with pytest.raises(InputError, match=r"not \[64\] and \[64\]"):
        soft_cross_entropy(student[:, 0], student[:, 0], 4.0)


def test_a_student_of_other_classes_or_with_two_outputs_is_refused() -> None:
    x = torch.zeros(5, 6)
    with pytest.raises(InputError, match=r"must both be .*, not \[5, 3\] and \[5, 1\]"):
        unlike(nn.Linear(6, 1), x)

    class Two(nn.Linear):  # pyright: ignore[reportUntypedBaseClass] (torch is an extra)
        def forward(self, x: Any) -> Any:
            return x, x

    with pytest.raises(InputError, match=r"not \[5, 3\] and \[\]"):
        unlike(Two(6, 3), x)


def test_labels_and_samples_that_cannot_be_learned_are_refused() -> None:
    student, x = nn.Linear(6, 3), torch.zeros(5, 6)
    with pytest.raises(InputError, match="labels must be 0 to 2, not 0 to 4"):
        unlike(student, x, torch.arange(5))
    # torch leaves the label -100 out of its loss without a word
    with pytest.raises(InputError, match="labels must be 0 to 2, not -100 to 0"):
        unlike(student, x, torch.tensor([0, 0, 0, -100, 0]))
    with pytest.raises(InputError, match=r"must be int64 \[5\], not float32 \[5\]"):
        unlike(student, x, torch.zeros(5))
    with pytest.raises(InputError, match=r"must be int64 \[5\], not int64 \[4\]"):
        unlike(student, x, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(InputError, match="the loss is nan in epoch 1"):
        unlike(student, x * float("nan"))
