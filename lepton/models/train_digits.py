"""Train, fold, quantize and check the default network: a residual CNN for handwritten digits.

    python -m lepton.models.train_digits [--output DIR] [--epochs N]

Writes `digits.onnx` (int8 QDQ), `digits_holdout.npz` and `digits_recipe.json`. Needs the extra
`train`. Seeds are fixed and one thread is used, so the same library versions on the same kind of
processor write the same bytes; another processor's float kernels may round differently. The
held-out images choose nothing: the last epoch is kept, and calibration sees training images only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lepton.errors import LeptonError
from lepton.models import PIXEL_MAXIMUM, digits_model_path
from lepton.models.int8 import golden_session, quantize_int8, run_each
from lepton.program.files import temporary_folder

# torch, onnx and onnxruntime are typed in part only, and torch is an extra:
# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportMissingModuleSource=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

if TYPE_CHECKING:
    import onnx
    import torch

Pixels: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]

HOLDOUT_IMAGES = 360
FEATURES, CLASSES = 32, 10
# Opset 17 is the newest that every importer in use reads, and it has per-channel DequantizeLinear.
OPSET, IR_VERSION = 17, 8
BATCH_NORM_EPSILON = 1e-5
INTEGER_KINDS = frozenset(
    ("QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm", "Flatten", "Transpose")
)
DATA_SOURCE: Mapping[str, str] = {
    "name": "Optical Recognition of Handwritten Digits, test part (1,797 images of 8x8)",
    "from": "sklearn.datasets.load_digits",
    "licence": "CC BY 4.0 (the data set); BSD-3-Clause (scikit-learn)",
    "citation": "E. Alpaydin, C. Kaynak (1998). Optical Recognition of Handwritten Digits. "
    "UCI Machine Learning Repository. https://doi.org/10.24432/C50P49",
    "changes": "split by image, so the same writers occur in both parts; pixels stay 0..16",
}
PACKAGES = ("torch", "scikit-learn", "numpy", "onnx", "onnxruntime")


class Convolution(NamedTuple):
    """Shape of one square convolution, padded by `kernel // 2` on each side."""

    input_channels: int
    output_channels: int
    kernel: int = 3
    stride: int = 1


CONVOLUTIONS: Mapping[str, Convolution] = {
    "stem": Convolution(1, 16),
    "block1_conv1": Convolution(16, 16),
    "block1_conv2": Convolution(16, 16),
    "block2_conv1": Convolution(16, FEATURES, stride=2),
    "block2_conv2": Convolution(FEATURES, FEATURES),
    "block2_shortcut": Convolution(16, FEATURES, kernel=1, stride=2),
}
# The ONNX graph in order of execution, the same network as `forward`: kind, inputs, output.
OPERATORS = (
    ("Conv", ("image",), "stem"),
    ("Relu", ("stem",), "stem_relu"),
    ("Conv", ("stem_relu",), "block1_conv1"),
    ("Relu", ("block1_conv1",), "block1_relu1"),
    ("Conv", ("block1_relu1",), "block1_conv2"),
    ("Add", ("block1_conv2", "stem_relu"), "block1_add"),
    ("Relu", ("block1_add",), "block1_relu2"),
    ("Conv", ("block1_relu2",), "block2_conv1"),
    ("Relu", ("block2_conv1",), "block2_relu1"),
    ("Conv", ("block2_relu1",), "block2_conv2"),
    ("Conv", ("block1_relu2",), "block2_shortcut"),
    ("Add", ("block2_conv2", "block2_shortcut"), "block2_add"),
    ("Relu", ("block2_add",), "block2_relu2"),
    ("GlobalAveragePool", ("block2_relu2",), "pooled"),
    ("Flatten", ("pooled",), "features"),
    ("Gemm", ("features",), "logits"),
)


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result; `minimum_accuracy` (0..1) decides if it is kept."""

    seed: int = 20_260
    epochs: int = 80
    batch: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    calibration_images: int = 512
    minimum_accuracy: float = 0.97


@dataclass(frozen=True)
class Digits:
    """The data set, split: pixels [n, 1, 8, 8] uint8 in 0..16, labels [n]."""

    train_pixels: Pixels
    train_labels: NDArray[np.int64]
    holdout_pixels: Pixels
    holdout_labels: NDArray[np.int64]


class Measured(NamedTuple):
    """Parts (0..1) of the held-out images right, and the operators that the golden runs."""

    float_accuracy: float
    int8_accuracy: float
    golden_operators: dict[str, int]


def images(pixels: Pixels) -> Floats:
    """Scale pixels 0..16 to the network's input range 0..1."""
    return pixels.astype(np.float32) / np.float32(PIXEL_MAXIMUM)


def load_split(seed: int) -> Digits:
    """Load scikit-learn's digits and hold out 360 images, every class in proportion."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    flat, classes = load_digits(return_X_y=True)
    pixels = np.asarray(flat, dtype=np.uint8).reshape(-1, 1, 8, 8)
    labels = np.asarray(classes, dtype=np.int64)
    train, holdout = train_test_split(
        np.arange(len(labels)), test_size=HOLDOUT_IMAGES, stratify=labels, random_state=seed
    )
    return Digits(pixels[train], labels[train], pixels[holdout], labels[holdout])


def build_network() -> torch.nn.ModuleDict:
    """Make the untrained layers: each convolution with its batch norm, and the logits."""
    from torch import nn

    layers: dict[str, nn.Module] = {}
    for name, shape in CONVOLUTIONS.items():
        convolution = nn.Conv2d(*shape, padding=shape.kernel // 2, bias=False)
        batch_norm = nn.BatchNorm2d(shape.output_channels, BATCH_NORM_EPSILON)
        layers[name] = nn.Sequential(convolution, batch_norm)
    layers["logits"] = nn.Linear(FEATURES, CLASSES)
    return nn.ModuleDict(layers)


def forward(network: torch.nn.ModuleDict, image: torch.Tensor) -> torch.Tensor:
    """Compute the logits [n, 10] of images [n, 1, 8, 8]."""
    stem = network["stem"](image).relu()
    inner = network["block1_conv1"](stem).relu()
    block1 = (network["block1_conv2"](inner) + stem).relu()
    inner = network["block2_conv1"](block1).relu()
    block2 = (network["block2_conv2"](inner) + network["block2_shortcut"](block1)).relu()
    return network["logits"](block2.mean(dim=(2, 3)))


def train(network: torch.nn.ModuleDict, digits: Digits, settings: Settings) -> None:
    """Fit the layers in place with AdamW under a one-cycle rate, and leave them in eval mode."""
    import torch
    from tqdm import tqdm

    from lepton.models.training.augmentation import shifted

    generator = torch.Generator().manual_seed(settings.seed)
    image = torch.from_numpy(images(digits.train_pixels))
    label = torch.from_numpy(digits.train_labels)
    rate, decay = settings.learning_rate, settings.weight_decay
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)
    steps = settings.epochs * -(-len(image) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    objective = torch.nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    network.train()
    # disable=None shows the bar on a terminal only
    with tqdm(total=steps, desc="training", unit="step", disable=None) as progress:
        for _ in range(settings.epochs):
            order = torch.randperm(len(image), generator=generator)
            for batch in order.split(settings.batch):
                optimizer.zero_grad()
                logits = forward(network, shifted(image[batch], 1, generator))
                objective(logits, label[batch]).backward()
                optimizer.step()
                schedule.step()
                progress.update()
    network.eval()


def fold(network: torch.nn.ModuleDict) -> dict[str, Floats]:
    """Name weights [o, i, k, k] or [o, i] and biases [o], batch norms folded in (in float64)."""
    state = {name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()}
    constants = {"logits_weights": state["logits.weight"], "logits_bias": state["logits.bias"]}
    for name in CONVOLUTIONS:
        variance = state[f"{name}.1.running_var"] + BATCH_NORM_EPSILON
        gain = state[f"{name}.1.weight"] / np.sqrt(variance)
        constants[f"{name}_weights"] = state[f"{name}.0.weight"] * gain[:, None, None, None]
        mean = state[f"{name}.1.running_mean"]
        constants[f"{name}_bias"] = state[f"{name}.1.bias"] - mean * gain
    return {name: array.astype(np.float32) for name, array in constants.items()}


def graph_node(kind: str, inputs: tuple[str, ...], ofm: str) -> onnx.NodeProto:
    """Make the ONNX node of one row of the operator table."""
    from onnx import helper

    attributes: dict[str, int | list[int]] = {"transB": 1} if kind == "Gemm" else {}
    if kind == "Conv":
        kernel, stride = CONVOLUTIONS[ofm][2:]
        pads = [kernel // 2] * 4
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads}
    if attributes:
        inputs = (*inputs, f"{ofm}_weights", f"{ofm}_bias")
    node = helper.make_node(kind, inputs, [ofm], name=ofm)
    node.attribute.extend(helper.make_attribute(*attribute) for attribute in attributes.items())
    return node


def float_model(constants: Mapping[str, Floats]) -> onnx.ModelProto:
    """Build the float ONNX model: `image` [1, 1, 8, 8] in 0..1 -> `logits` [1, 10]."""
    from onnx import TensorProto, checker, helper, numpy_helper

    graph = helper.make_graph(
        [graph_node(*operator) for operator in OPERATORS],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets)
    checker.check_model(model, full_check=True)
    return model


def executed_operators(optimized: Path) -> dict[str, int]:
    """Count the operator kinds of an optimized graph; raise if any computes in float."""
    import onnx

    kinds = Counter(step.op_type for step in onnx.load(optimized).graph.node)
    stray = {kind: count for kind, count in kinds.items() if kind not in INTEGER_KINDS}
    if stray != {"QuantizeLinear": 1, "DequantizeLinear": 1}:
        raise LeptonError(f"digits.onnx: only its two ends may convert to float, not {stray}")
    return dict(sorted(kinds.items()))


def measure(network: torch.nn.ModuleDict, digits: Digits, folder: Path) -> Measured:
    """Run both models of `folder` on the held-out images; float must equal the trained network."""
    import torch

    optimized = folder / "optimized.onnx"
    batch, labels = images(digits.holdout_pixels), digits.holdout_labels
    with torch.no_grad():
        trained = forward(network, torch.from_numpy(batch)).numpy()
    folded = run_each(golden_session(folder / "float.onnx", optimized), {"image": batch})
    # logits span about 10; folding only changes the order of float32 operations
    np.testing.assert_allclose(folded, trained, rtol=0, atol=1e-3)
    quantized = run_each(golden_session(folder / "digits.onnx", optimized), {"image": batch})
    return Measured(
        float(np.mean(folded.argmax(axis=1) == labels)),
        float(np.mean(quantized.argmax(axis=1) == labels)),
        executed_operators(optimized),
    )


def recipe(output: Path, settings: Settings, measured: Measured) -> dict[str, object]:
    """Describe how the artefacts in `output` were made and what they reach."""
    return {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        "settings": asdict(settings),
        "holdout_images": HOLDOUT_IMAGES,
        **measured._asdict(),
        "sha256": {
            name: hashlib.sha256((output / name).read_bytes()).hexdigest()
            for name in ("digits.onnx", "digits_holdout.npz")
        },
        "data": dict(DATA_SOURCE),
    }


def build(output: Path, settings: Settings) -> dict[str, object]:
    """Make the three artefacts in `output` and return the recipe.

    Raises:
        LeptonError: The int8 model errs too often or computes in float; then nothing is written.
    """
    import onnx
    import torch

    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    digits, network = load_split(settings.seed), build_network()
    train(network, digits, settings)
    with temporary_folder() as folder:
        onnx.save(float_model(fold(network)), folder / "float.onnx")
        calibration = images(digits.train_pixels[: settings.calibration_images])
        quantize_int8(folder / "float.onnx", folder / "digits.onnx", {"image": calibration})
        measured = measure(network, digits, folder)
        if measured.int8_accuracy < settings.minimum_accuracy:
            rule = f"at least {settings.minimum_accuracy}, not {measured.int8_accuracy:.4f}"
            raise LeptonError(f"digits.onnx: int8 accuracy must be {rule}; train for more epochs")
        output.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "digits.onnx", output / "digits.onnx")
    labels = digits.holdout_labels.astype(np.uint8)
    np.savez_compressed(output / "digits_holdout.npz", x=digits.holdout_pixels, y=labels)
    made = recipe(output, settings, measured)
    (output / "digits_recipe.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; exit code 2 if the network is not good enough to ship."""
    parser = argparse.ArgumentParser(prog="python -m lepton.models.train_digits")
    parser.add_argument("--output", type=Path, default=digits_model_path().parent)
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    options = parser.parse_args(arguments)
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, not {options.epochs}")
    try:
        made = build(options.output, Settings(epochs=options.epochs))
    except LeptonError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{json.dumps(made, indent=2)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
