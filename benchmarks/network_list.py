"""The networks of docs/networks.md and where their inputs are from."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.torch_networks import calibrated_cnn, quantized_cnn
from lepton.models.light import LIGHT_NETWORKS, light_network, light_samples

__all__ = ["NETWORKS", "Network"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Network:
    """A network and where its inputs are from.

    Attributes:
        source: who made it, for the table.
        write: writes the model into a folder and returns its path, and inputs `[n, ...]` of the
            model's only input: of a float model, the first half is for calibration.
        is_float: whether it is to be calibrated.
        shape: of its input, where the model leaves it open.
        is_trained: whether its weights are; a decision of drawn ones says nothing of a quantizer.
        decisions: axis of the last output that a decision is made along; None is all of it.
        is_recurrent: whether the lower limit holds.
        needs: packages that are extras.
    """

    name: str
    source: str
    write: Callable[[Path], tuple[Path, Array]]
    is_float: bool = True
    is_trained: bool = False
    shape: tuple[int, ...] | None = None
    decisions: int | None = None
    is_recurrent: bool = False
    needs: tuple[str, ...] = ()

    @property
    def lacks(self) -> str:
        """The first package that is needed and not installed, or ""."""
        return next((name for name in self.needs if find_spec(name) is None), "")

    def shapes(self, model: Path) -> dict[str, tuple[int, ...]]:
        """Return the shape of a model's only input, where the model leaves it open."""
        if self.shape is None:
            return {}
        import onnx

        graph = onnx.load(str(model)).graph
        constants = {item.name for item in graph.initializer}
        return {i.name: self.shape for i in graph.input if i.name not in constants}


def _saved(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def _light(name: str) -> Network:
    def write(folder: Path) -> tuple[Path, Array]:
        return _saved(light_network(name), folder / f"{name}.onnx"), light_samples(8, seed=2)

    return Network(name, "onnx, light (seeded)", write)


def _encoder(folder: Path) -> tuple[Path, Array]:
    from lepton.models.encoder import encoder_samples, transformer_encoder

    return _saved(transformer_encoder(), folder / "encoder.onnx"), encoder_samples(count=8)


def _encoder_decoder(folder: Path) -> tuple[Path, Array]:
    from lepton.models.vision import encoder_decoder, images

    return _saved(encoder_decoder(), folder / "encoder_decoder.onnx"), images(128, 8)


def _detector(folder: Path) -> tuple[Path, Array]:
    from lepton.models.vision import detector_head, images

    return _saved(detector_head(), folder / "detector_head.onnx"), images(160, 8)


def _spotter(name: str, shape: tuple[int, ...]) -> Network:
    def write(_folder: Path) -> tuple[Path, Array]:
        with np.load(_data(f"kws_onnx/{name}_io.npz")) as arrays:
            inputs = np.stack([arrays[f"x{index}"] for index in range(24)])
        return _data(f"kws_onnx/{name}.onnx"), inputs.reshape(24, *shape).astype(np.float32)

    is_recurrent = name != "DS_CNN_S"
    return Network(
        name, "ML-KWS-for-MCU", write, is_trained=True, shape=shape, is_recurrent=is_recurrent
    )


def _stored(path: str, inputs: Callable[[], Array]) -> Network:
    """Return a network that is quantized already."""
    source = "Coral" if path.startswith("mobilenet/") else "MLPerf Tiny"
    kind = Path(path).suffix.removeprefix(".")
    return Network(
        f"{Path(path).stem} ({kind})", source, lambda _: (_data(path), inputs()), is_float=False
    )


def _data(relative: str) -> Path:
    return Path(os.environ["LEPTON_DATA"]) / relative


def _words() -> Array:
    with np.load(_data("mlperf_tiny/kws01_inputs.npz")) as arrays:
        return arrays["x"][:50]


def _word_features() -> Array:
    return (_words().astype(np.float32).reshape(-1, 490) - 83) * np.float32(0.5847029)


def _pictures() -> Array:
    with np.load(_data("cifar10/test_first1000.npz")) as arrays:
        return arrays["x"][:50]


def _codes() -> Array:
    return (_pictures().astype(np.int16) - 128).astype(np.int8)


def _drawn(shape: Sequence[int], dtype: str, count: int = 10) -> Callable[[], Array]:
    def draw() -> Array:
        rng = np.random.default_rng(0)
        if dtype == "float32":
            return rng.random((count, *shape), np.float32)
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max + 1, (count, *shape)).astype(dtype)

    return draw


NETWORKS = (
    *(_light(name) for name in LIGHT_NETWORKS),
    Network("BERT-base encoder, 128 tokens", "lepton.models (seeded)", _encoder, decisions=-1),
    _spotter("LSTM_S", (1, 25, 10)),
    _spotter("GRU_S", (1, 25, 10)),
    _spotter("DS_CNN_S", (1, 49, 10)),
    Network("encoder_decoder", "lepton.models (seeded)", _encoder_decoder, decisions=1),
    Network("detector_head", "lepton.models (seeded)", _detector, decisions=-1),
    _stored("mlperf_tiny/kws_ref_model.tflite", _words),
    _stored("mlperf_tiny/vww_96_int8.tflite", _drawn((96, 96, 3), "int8")),
    _stored("mlperf_tiny/pretrainedResnet_quant.tflite", _codes),
    _stored("mlperf_tiny/pretrainedResnet_large_int8.tflite", lambda: _codes()[:10]),
    _stored("mlperf_tiny/ad01_int8.tflite", _drawn((640,), "int8")),
    _stored("mlperf_tiny_onnx/kws_ref_model.onnx", _word_features),
    _stored("mlperf_tiny_onnx/mobilenet_v1.onnx", _drawn((3, 96, 96), "float32")),
    _stored("mlperf_tiny_onnx/resnet.onnx", lambda: _pictures().astype(np.float32)),
    _stored("mlperf_tiny_onnx/deep_autoencoder.onnx", _drawn((640,), "float32")),
    _stored("mobilenet/mobilenet_v1_0.25_128_quant.tflite", _drawn((128, 128, 3), "uint8", 4)),
    _stored("mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite", _drawn((224, 224, 3), "uint8", 4)),
    Network(
        "residual CNN (torch.export)",
        "PyTorch, digits",
        calibrated_cnn,
        is_trained=True,
        needs=("torch", "sklearn"),
    ),
    Network(
        "residual CNN (PT2E)",
        "PyTorch, torchao, digits",
        quantized_cnn,
        is_float=False,
        is_trained=True,
        needs=("torch", "torchao", "sklearn"),
    ),
)
