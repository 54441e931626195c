"""A transformer encoder with seeded weights, as float ONNX.

    python -m lepton.models.encoder FILE.onnx [--layers N]

writes one of BERT-base's shape for 128 tokens, and `FILE.npz` with samples to calibrate it by.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.models.onnx_writer import GraphWriter

if TYPE_CHECKING:
    import onnx

__all__ = ["EncoderShape", "encoder_samples", "transformer_encoder"]


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of an encoder; the defaults are those of BERT-base.

    Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019.
    """

    layers: int = 12
    tokens: int = 128
    width: int = 768
    heads: int = 12
    inner: int = 3072

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        products = self.tokens * self.width * (4 * self.width + 2 * self.inner)
        return self.layers * (products + 2 * self.tokens**2 * self.width)


def transformer_encoder(shape: EncoderShape | None = None, seed: int = 0) -> onnx.ModelProto:
    """Return a post-norm encoder: `embedded` to `encoded`, both `[1, tokens, width]` float32.

    Attention is written out as exporters do: scores are divided by the root of a head's width;
    GELU is the exact one, by Erf.
    """
    sizes = shape or EncoderShape()
    writer = GraphWriter("encoder", seed)
    tensor = writer.feed("embedded", (1, sizes.tokens, sizes.width))
    for layer in range(sizes.layers):
        tensor = _layer(writer, sizes, f"layer{layer}", tensor)
    return writer.finish([writer.add("Identity", "encoded", tensor)])


def encoder_samples(
    shape: EncoderShape | None = None, count: int = 4, seed: int = 1
) -> NDArray[np.float32]:
    """Return inputs `[count, 1, tokens, width]`: normal, as a layer norm leaves embeddings."""
    sizes = shape or EncoderShape()
    drawn = np.random.default_rng(seed).standard_normal((count, 1, sizes.tokens, sizes.width))
    return drawn.astype(np.float32)


def _layer(writer: GraphWriter, sizes: EncoderShape, name: str, tensor: str) -> str:
    """Add attention and the feed-forward network, each with its residual and its norm."""
    attended = _attention(writer, sizes, f"{name}.attention", tensor)
    first = _normalized_sum(writer, sizes, f"{name}.norm1", tensor, attended)
    inner = _linear(writer, f"{name}.inner", first, (sizes.width, sizes.inner))
    active = _gelu(writer, f"{name}.gelu", inner)
    outer = _linear(writer, f"{name}.outer", active, (sizes.inner, sizes.width))
    return _normalized_sum(writer, sizes, f"{name}.norm2", first, outer)


def _linear(writer: GraphWriter, name: str, tensor: str, extents: tuple[int, int]) -> str:
    """Add a product with weights `[in, out]` and a bias."""
    weights = writer.weights(f"{name}.weight", extents, extents[0])
    product = writer.add("MatMul", f"{name}.product", tensor, weights)
    return writer.add("Add", name, product, writer.biases(f"{name}.bias", extents[1]))


def _attention(writer: GraphWriter, sizes: EncoderShape, name: str, tensor: str) -> str:
    """Add multi-head self-attention and its output projection."""
    head = sizes.width // sizes.heads
    square = (sizes.width, sizes.width)
    parts: dict[str, str] = {}
    for part, order in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3))):
        whole = _linear(writer, f"{name}.{part}", tensor, square)
        split = writer.reshape(f"{name}.{part}.heads", whole, (1, sizes.tokens, sizes.heads, head))
        parts[part] = writer.add("Transpose", f"{name}.{part}.turned", split, perm=order)
    scores = writer.add("MatMul", f"{name}.scores", parts["query"], parts["key"])
    root = writer.constant(f"{name}.root", np.array(head**0.5, np.float32))
    scaled = writer.add("Div", f"{name}.scaled", scores, root)
    weights = writer.add("Softmax", f"{name}.softmax", scaled, axis=-1)
    mixed = writer.add("MatMul", f"{name}.mixed", weights, parts["value"])
    turned = writer.add("Transpose", f"{name}.turned", mixed, perm=(0, 2, 1, 3))
    joined = writer.reshape(f"{name}.joined", turned, (1, sizes.tokens, sizes.width))
    return _linear(writer, f"{name}.output", joined, square)


def _normalized_sum(
    writer: GraphWriter, sizes: EncoderShape, name: str, left: str, right: str
) -> str:
    """Add a residual addition and a layer norm over the last axis."""
    total = writer.add("Add", f"{name}.sum", left, right)
    scale = writer.constant(f"{name}.scale", np.ones(sizes.width, np.float32))
    bias = writer.biases(f"{name}.bias", sizes.width)
    return writer.add("LayerNormalization", name, total, scale, bias, axis=-1, epsilon=1e-12)


def _gelu(writer: GraphWriter, name: str, tensor: str) -> str:
    """Add x / 2 (1 + erf(x / sqrt 2))."""
    root, one, half = (
        writer.constant(f"{name}.{label}", np.array(value, np.float32))
        for label, value in (("root", 2**0.5), ("one", 1.0), ("half", 0.5))
    )
    scaled = writer.add("Div", f"{name}.scaled", tensor, root)
    error = writer.add("Erf", f"{name}.erf", scaled)
    gate = writer.add("Add", f"{name}.gate", error, one)
    doubled = writer.add("Mul", f"{name}.doubled", tensor, gate)
    return writer.add("Mul", name, doubled, half)


def main() -> None:
    """Write a model and its calibration samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", type=Path, metavar="FILE.onnx")
    parser.add_argument("--layers", type=int, default=EncoderShape.layers)
    options = parser.parse_args()
    shape = EncoderShape(layers=options.layers)
    options.target.write_bytes(transformer_encoder(shape).SerializeToString())
    np.savez(options.target.with_suffix(".npz"), embedded=encoder_samples(shape))


if __name__ == "__main__":
    main()
