"""The light networks of the onnx package, with weights that make them compute something.

The package ships nine well-known networks whose weights are all one constant, so that any two
outputs agree. Here weights are drawn, and each layer's are scaled by what it computes of sample
images, as a trained network's batch norms are: channels of mean 0 and variance 1.

    python -m lepton.models.light NAME FILE.onnx

writes one as float ONNX, and `FILE.npz` with samples to calibrate it by.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

__all__ = ["LIGHT_NETWORKS", "light_network", "light_samples"]

Array = NDArray[Any]

LIGHT_NETWORKS = {
    "alexnet": "bvlc_alexnet",
    "densenet121": "densenet121",
    "inception_v1": "inception_v1",
    "inception_v2": "inception_v2",
    "resnet50": "resnet50",
    "shufflenet": "shufflenet",
    "squeezenet": "squeezenet",
    "vgg19": "vgg19",
    "zfnet512": "zfnet512",
}
"""Name -> the package's name; each takes one image `[1, 3, 224, 224]` float32."""

_SIDE = 224
_IMAGES = 4
"""Images that weights are scaled by."""
_FEWEST = 100
"""Values that a channel's own deviation is taken from."""
_LOGITS = 4.0
"""Standard deviation of what the last layer computes: a clear first class, as trained ones have."""


def light_samples(count: int, seed: int = 1) -> NDArray[np.float32]:
    """Return images `[count, 1, 3, 224, 224]`: seeded smooth colours of mean 0 and variance 1."""
    rng = np.random.default_rng(seed)
    image = np.zeros((count, 1, 3, _SIDE, _SIDE), np.float32)
    for cells in (4, 14, 56, _SIDE):
        coarse = rng.standard_normal((count, 1, 3, cells, cells), np.float32)
        image += coarse.repeat(_SIDE // cells, 3).repeat(_SIDE // cells, 4)
    return image / np.float32(2)


def light_network(name: str, seed: int = 0) -> onnx.ModelProto:
    """Return a network with drawn weights, as the package wrote it otherwise.

    Raises:
        KeyError: no such network.
    """
    import onnx

    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(str(folder / f"light_{LIGHT_NETWORKS[name]}.onnx"))
    _Weights(model, seed).fill(light_samples(_IMAGES, seed + 1))
    return model


class _Weights:
    """Draws a model's weights while one pass over the graph computes sample images."""

    def __init__(self, model: onnx.ModelProto, seed: int) -> None:
        from onnx import numpy_helper

        self._model = model
        self._rng = np.random.default_rng(seed)
        self._constants: dict[str, Array] = {
            item.name: numpy_helper.to_array(item) for item in model.graph.initializer
        }
        self._shapes = {
            node.output[0]: tuple(int(extent) for extent in self._constants[node.input[0]])
            for node in model.graph.node
            if node.op_type == "ConstantOfShape"
        }

    def fill(self, images: Array) -> None:
        """Replace every ConstantOfShape by an initializer."""
        from onnx import numpy_helper

        graph = self._model.graph
        nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
        (image,) = (item for item in graph.input if item.name not in self._constants)
        readers = _last_readers(nodes)
        values: dict[str, list[Array]] = {image.name: list(images)}
        last = [node.name or node.output[0] for node in nodes if node.op_type in _LAYERS][-1]
        for position, node in enumerate(nodes):
            gain = _LOGITS if (node.name or node.output[0]) == last else 1.0
            self._draw(node, values, gain)
            made = self._run(node, values)
            if all(item in self._constants for item in node.input):
                self._constants[node.output[0]] = made[0]
            else:
                values[node.output[0]] = made
            for item in [item for item in values if readers.get(item, position) <= position]:
                del values[item]
        used = {item for node in nodes for item in node.input}
        made_here = {item for node in nodes for item in node.output}
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.initializer[:]
        graph.initializer.extend(
            numpy_helper.from_array(value, item)
            for item, value in self._constants.items()
            if item in used and item not in made_here
        )
        # constants need not be inputs from this version on
        self._model.ir_version = 4
        kept = [type(image).FromString(image.SerializeToString())]
        del graph.input[:]
        graph.input.extend(kept)

    def _draw(self, node: onnx.NodeProto, values: Mapping[str, list[Array]], gain: float) -> None:
        """Draw the constants that a node reads."""
        wanted = [item for item in node.input if item in self._shapes]
        for item in wanted:
            self._constants.setdefault(item, self._drawn(node, list(node.input).index(item), item))
        if not wanted or node.op_type not in (*_LAYERS, "BatchNormalization"):
            return
        if node.op_type == "BatchNormalization":
            mean, deviation = _statistics(values[node.input[0]])
            self._constants[node.input[3]] = mean
            self._constants[node.input[4]] = np.square(deviation)
            return
        mean, deviation = _statistics(self._run(node, values))
        weights = self._constants[node.input[1]]
        is_turned = any(item.name == "transB" and item.i for item in node.attribute)
        is_row = node.op_type == "Gemm" and not is_turned
        spread = deviation if is_row else deviation.reshape(-1, *[1] * (weights.ndim - 1))
        self._constants[node.input[1]] = np.float32(gain) * weights / spread
        if len(node.input) > 2:
            bias = self._constants[node.input[2]]
            self._constants[node.input[2]] = np.float32(gain) * (bias - mean / deviation)

    def _drawn(self, node: onnx.NodeProto, position: int, name: str) -> Array:
        """Return normal weights; near 1 for factors, near 0 for summands."""
        shape = self._shapes[name]
        normal = self._rng.standard_normal(shape, np.float32)
        if node.op_type in _LAYERS and position == 1:
            return normal / np.float32(math.sqrt(np.prod(shape[1:])))
        is_factor = node.op_type == "BatchNormalization" and position in (1, 4)
        offset = 1.0 if is_factor or self._is_factor(node) else 0.0
        return np.float32(offset) + np.float32(0.1) * normal

    def _is_factor(self, node: onnx.NodeProto) -> bool:
        """Return whether what an Unsqueeze gives is multiplied."""
        nodes = self._model.graph.node
        return node.op_type == "Unsqueeze" and any(
            reader.op_type == "Mul" and node.output[0] in reader.input for reader in nodes
        )

    def _run(self, node: onnx.NodeProto, values: Mapping[str, list[Array]]) -> list[Array]:
        """Return a node's result for every image."""
        import onnxruntime as ort
        from onnx import TypeProto, helper

        graph = helper.make_graph(
            [node],
            "node",
            [
                helper.make_tensor_value_info(
                    item, helper.np_dtype_to_tensor_dtype(self._example(item, values).dtype), None
                )
                for item in dict.fromkeys(node.input)
            ],
            [helper.make_value_info(node.output[0], TypeProto())],
        )
        model = helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=8)
        session = ort.InferenceSession(model.SerializeToString())
        count = max(len(values.get(item, [0])) for item in node.input)
        return [
            np.asarray(
                session.run(
                    [node.output[0]],
                    {
                        item: values[item][index] if item in values else self._constants[item]
                        for item in node.input
                    },
                )[0]
            )
            for index in range(count)
        ]

    def _example(self, item: str, values: Mapping[str, list[Array]]) -> Array:
        return values[item][0] if item in values else self._constants[item]


_LAYERS = ("Conv", "Gemm")


def _last_readers(nodes: Iterable[onnx.NodeProto]) -> dict[str, int]:
    """Return the position of each tensor's last reader."""
    return {item: position for position, node in enumerate(nodes) for item in node.input}


def _statistics(results: list[Array]) -> tuple[Array, Array]:
    """Return mean and standard deviation per channel; where samples are few, one deviation."""
    whole = np.concatenate(results).astype(np.float64)
    axes = tuple(axis for axis in range(whole.ndim) if axis != 1)
    mean, deviation = whole.mean(axis=axes), whole.std(axis=axes)
    typical = float(np.sqrt(np.mean(np.square(deviation)))) + 1e-6
    is_few = whole.size // whole.shape[1] < _FEWEST
    deviation = np.full_like(deviation, typical) if is_few else np.maximum(deviation, 0.1 * typical)
    return mean.astype(np.float32), deviation.astype(np.float32)


def main() -> None:
    """Write a model and its calibration samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=LIGHT_NETWORKS)
    parser.add_argument("target", type=Path, metavar="FILE.onnx")
    options = parser.parse_args()
    model = light_network(options.name)
    options.target.write_bytes(model.SerializeToString())
    samples = {model.graph.input[0].name: light_samples(4, seed=2)}
    np.savez(options.target.with_suffix(".npz"), allow_pickle=False, **samples)


if __name__ == "__main__":
    main()
