"""The networks that come as `torch.export` programs, and what they are compared with.

The golden library of such a program is ONNX Runtime on the program written as ONNX
(`lepton.compiler.to_onnx`); the float model is PyTorch itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

__all__ = ["FLOAT", "TorchModel", "calibrated_cnn", "quantized_cnn", "written"]

Array = NDArray[Any]

FLOAT = "float.pt2"
"""The float program beside a quantized one."""

SEED, EPOCHS, BATCH, SAMPLES = 0, 12, 64, 128


def calibrated_cnn(folder: Path) -> tuple[Path, Array]:
    """Write the float network, and images of which the first half is for calibration."""
    import torch

    network, train, holdout = _trained()
    torch.export.save(torch.export.export(network, (train[:1],)), folder / FLOAT)
    images = torch.cat([train[: len(holdout)], holdout])
    return folder / FLOAT, images.numpy()


def quantized_cnn(folder: Path) -> tuple[Path, Array]:
    """Write the network quantized by PT2E, and held-out images."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from lepton.torch_quantizer import LeptonQuantizer

    network, train, holdout = _trained()
    exported = torch.export.export(network, (train[:1],))
    torch.export.save(exported, folder / FLOAT)
    prepared = prepare_pt2e(exported.module(), LeptonQuantizer())
    for image in train[:SAMPLES]:
        prepared(image[None])
    program = torch.export.export(convert_pt2e(prepared), (train[:1],))
    torch.export.save(program, folder / "quantized.pt2")
    return folder / "quantized.pt2", holdout.numpy()


def written(model: Path, folder: Path) -> Path:
    """Return the file of a model: a program of PyTorch is written as ONNX first."""
    if model.suffix != ".pt2":
        return model
    from lepton.compiler.to_onnx import write_onnx

    path = folder / f"{model.stem}.onnx"
    write_onnx(TorchModel(model).program, path)
    return path


class TorchModel:
    """An exported program run by PyTorch."""

    def __init__(self, path: Path) -> None:
        import torch
        import torch.ao.quantization.fx._decomposed  # the operators of a quantized program

        self.program: Any = torch.export.load(path)
        self._call: Callable[..., Any] = self.program.module()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the only output for the only input."""
        import torch

        (array,) = inputs.values()
        (name,) = self.program.graph_signature.user_outputs
        with torch.no_grad():
            return {name: self._call(torch.from_numpy(array)).numpy()}


def _trained() -> tuple[Any, Any, Any]:
    """Return a small residual and depthwise network, training images and held-out images."""
    import torch

    from lepton.models.train_digits import images, load_split

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    digits = load_split(SEED)
    train, holdout = (
        torch.from_numpy(images(part)) for part in (digits.train_pixels, digits.holdout_pixels)
    )
    labels = torch.from_numpy(digits.train_labels)
    network = _network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(train)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(train[chosen]), labels[chosen]).backward()
            optimizer.step()
    return network.eval(), train, holdout


def _network() -> Any:
    """Return the untrained network: images [n, 1, 8, 8] to logits [n, 10]."""
    from torch import nn

    def layer(inputs: int, outputs: int, activation: Any, **options: int) -> Any:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **options)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), activation)

    class Residual(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.inner = nn.Sequential(
                layer(channels, channels, nn.ReLU()), layer(channels, channels, nn.Identity())
            )

        def forward(self, x: Any) -> Any:
            return (x + self.inner(x)).relu()

    return nn.Sequential(
        layer(1, 16, nn.ReLU()),
        Residual(16),
        layer(16, 32, nn.ReLU(), stride=2),
        Residual(32),
        layer(32, 32, nn.ReLU6(), groups=32),
        nn.Conv2d(32, 64, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
