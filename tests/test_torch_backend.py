"""`torch.compile(model, backend="lepton")`: PyTorch's values, and cycles for who asks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import pytest

from lepton.errors import ChipError, ImportFailure, InputError

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")

from lepton import torch_backend  # noqa: E402, after the check for torch
from lepton.torch_backend import last_result, lepton_backend, recorded  # noqa: E402
from lepton.torch_graph import grouped_samples  # noqa: E402

nn = torch.nn
GENERATOR = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> Any:
    return torch.randn(shape, generator=GENERATOR)


X = drawn(1, 3, 8, 8)
SAMPLES = drawn(8, 3, 8, 8)


class Network(nn.Module):
    """A residual convolution with batch norms, pooled and classified."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x).relu()
        return self.head((x + self.inner(x)).relu().mean((2, 3)))


class Broken(nn.Module):
    """Two graphs, with Python between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x: Any) -> Any:
        x = self.first(x).relu()
        torch._dynamo.graph_break()
        return self.second(x)


@pytest.fixture(autouse=True)
def fresh() -> Generator[None]:
    """Let dynamo forget its graphs, and the backend what it has said."""
    torch._dynamo.reset()
    torch_backend._say.cache_clear()
    with torch.no_grad():
        yield


def compiled(model: Any, **options: Any) -> Any:
    return torch.compile(model, backend=lepton_backend, options=options)


def macs_on(device: str) -> int:
    result = last_result()
    assert result is not None
    return sum(item.macs for item in result.program.operators if item.device == device)


def test_pytorch_finds_the_backend_by_its_name() -> None:
    found = [item for item in entry_points(group="torch_dynamo_backends") if item.name == "lepton"]
    if not found:
        pytest.skip("the installed package's metadata is older than setup.cfg: install it again")
    assert found[0].load() is lepton_backend
    assert "lepton" in torch._dynamo.list_backends()
    network = Network().eval()
    with pytest.warns(UserWarning, match="in float"):
        torch.testing.assert_close(torch.compile(network, backend="lepton")(X), network(X))


def test_a_float_model_keeps_its_values_and_says_so_once() -> None:
    network = Network().eval()
    model = compiled(network)
    with pytest.warns(UserWarning, match="runs on the host in float, as it is not quantized"):
        torch.testing.assert_close(model(X), network(X), rtol=1e-5, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(X + 1)
    assert macs_on("npu") == 0 < macs_on("host")


def test_a_calibrated_model_runs_on_the_npu() -> None:
    network = Network().eval()
    made = compiled(network, calibration=SAMPLES, chip="nano")(X)
    result = last_result()
    assert result is not None and result.trace is not None and result.trace.cycles > 0
    assert result.program.chip.name == "nano"
    assert macs_on("host") == 0 < macs_on("npu")
    error = (made - network(X)).abs().max()
    assert 0 < error < 0.05 * network(X).abs().max()


def test_other_shapes_are_compiled_when_they_come() -> None:
    network = Network().eval()
    model = compiled(network, calibration=SAMPLES.numpy(), timing=False)
    shapes = [(1, 3, 8, 8), (3, 3, 8, 8), (2, 3, 8, 8)]
    for shape in shapes:
        x = drawn(*shape)
        assert model(x).shape == (shape[0], 5)
        assert (model(x) - network(x)).abs().max() < 0.1
    result = last_result()
    assert result is not None and result.trace is None


def test_weights_that_change_are_compiled_again() -> None:
    network = Network().eval()
    model = compiled(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model(X)
        network.head.bias += 3
        torch.testing.assert_close(model(X), network(X), rtol=1e-5, atol=1e-6)


def test_graphs_on_both_sides_of_a_break_are_recorded() -> None:
    network = Broken().eval()
    model = compiled(network, calibration="first")
    with recorded() as results:
        made = model(X)
    assert len(results) == 2 and results[-1] is last_result()
    assert all(item.trace is not None and item.trace.cycles > 0 for item in results)
    assert (made - network(X)).abs().max() < 0.1
    with pytest.raises(InputError, match=r"the graph takes \[1, 4, 6, 6\].*calibration='first'"):
        compiled(network, calibration=SAMPLES)(X)


def test_several_inputs_and_results() -> None:
    def function(x: Any, y: Any) -> Any:
        return x @ y, x.shape[0], None, (x + 1).reshape(-1), x

    x, y = drawn(2, 3), drawn(3, 4)
    model = compiled(function, calibration=(x[None], y[None]))
    made = model(x, y)
    assert made[1:3] == (2, None) and made[4] is x
    assert (made[0] - x @ y).abs().max() < 0.2
    assert (made[3] - (x + 1).reshape(-1)).abs().max() < 0.1
    assert macs_on("npu") == 2 * 3 * 4


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: torch.fft.fft(x).real, "Unsupported function types"),
        (lambda x: x.add_(1) * 1, "changes 'l_x_' in place"),
        (lambda x: torch.nn.functional.dropout(x, 0.5), "draws random numbers"),
        (lambda x: x.bfloat16(), "bfloat16, which NumPy does not have"),
    ],
)
def test_what_lepton_cannot_take_runs_in_pytorch(function: Callable[[Any], Any], text: str) -> None:
    torch.manual_seed(1)
    expected = function(X.clone())
    torch.manual_seed(1)
    with pytest.warns(UserWarning, match=f"PyTorch runs a graph that Lepton cannot: .*{text}"):
        made = compiled(function)(X.clone())
    torch.testing.assert_close(made, expected)
    torch._dynamo.reset()
    with pytest.raises((ImportFailure, torch_backend.CompileError), match=text):
        compiled(function, fallback=False)(X.clone())


def test_batch_norm_in_training_runs_in_pytorch() -> None:
    network, twin = Network(), Network()
    with pytest.warns(UserWarning, match="in place; export it in eval mode"):
        made = compiled(network)(SAMPLES)
    torch.testing.assert_close(made, twin(SAMPLES))
    torch.testing.assert_close(network.stem[1].running_mean, twin.stem[1].running_mean)


def test_a_backward_pass_is_refused() -> None:
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = compiled(Network().eval())(X)
        assert made.requires_grad
        with pytest.raises(InputError, match="has no gradient"):
            made.sum().backward()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"chp": "edge"}, torch._dynamo.exc.BackendCompilerFailed, "has no option 'chp'"),
        ({"calibration": "all"}, torch._dynamo.exc.BackendCompilerFailed, "or 'first', not 'all'"),
        ({"chip": "none"}, ChipError, "chip 'none'"),
        ({"effort": 9}, InputError, "effort must be 0 to 3"),
        ({"calibration": SAMPLES[:, :2]}, InputError, r"shape \[8, 2, 8, 8\], and the graph takes"),
        ({"calibration": (SAMPLES, SAMPLES)}, InputError, "samples of 2 inputs"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        compiled(Network().eval(), **options)(X)


def test_samples_are_gathered_to_batches() -> None:
    samples = np.arange(10, dtype=np.float32).reshape(5, 2)
    (made,) = grouped_samples(samples, [torch.zeros(2, 2)], ["x"]).values()
    np.testing.assert_array_equal(made.reshape(-1, 2), samples[[0, 1, 2, 3, 4, 0]])
    assert made.shape == (3, 2, 2)
    for shape, expected in (((2,), (5, 2)), ((5, 2), (1, 5, 2))):
        assert grouped_samples([samples], [torch.zeros(shape)], ["x"])["x"].shape == expected
