"""What LiteRT's integer kernels make of the zero points of int8 weights."""

from __future__ import annotations

import numpy as np

from lepton.compiler.importers.tflite_quantization import Quantization
from lepton.errors import ImportFailure

__all__ = ["quantization_as_computed"]


def quantization_as_computed(kind: str, weights: Quantization) -> Quantization:
    """Return the parameters that LiteRT computes with for the int8 weights of an operator.

    Depthwise and transposed convolutions, and fully connected layers with a scale per channel, take
    the codes as they are, whatever the zero points; a fully connected layer with one scale heeds
    its zero point.

    Raises:
        ImportFailure: a convolution whose weights have a zero point, which LiteRT refuses.

    Source: LiteRT tflite/kernels/conv.cc, depthwise_conv.cc, transpose_conv.cc, fully_connected.cc.
    """
    if not np.any(weights.zero_point):
        return weights
    if kind == "CONV_2D":
        raise ImportFailure("its int8 weights have a zero point other than 0, which LiteRT refuses")
    if kind == "FULLY_CONNECTED" and weights.scale.size == 1:
        return weights
    return Quantization(weights.scale, np.zeros_like(weights.zero_point), weights.axis)
