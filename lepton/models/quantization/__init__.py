"""Quantization of weights and activations: quantizers, calibration and the int8 file form."""

from lepton.models.quantization.aware import AwareOptions, Trained, train_quantized
from lepton.models.quantization.calibration import (
    Calibration,
    Entropy,
    Grid,
    MeanSquare,
    MinMax,
    Percentile,
    Scheme,
)
from lepton.models.quantization.integer_weights import IntegerWeights
from lepton.models.quantization.onnx_file import FileOptions, quantize_model
from lepton.models.quantization.quantizers import (
    Binary,
    Codebook,
    PowersOfTwo,
    Quantizer,
    RangeGrid,
    Standardized,
    Uniform,
    dynamic_grid,
)

__all__ = [
    "AwareOptions",
    "Binary",
    "Calibration",
    "Codebook",
    "Entropy",
    "FileOptions",
    "Grid",
    "IntegerWeights",
    "MeanSquare",
    "MinMax",
    "Percentile",
    "PowersOfTwo",
    "Quantizer",
    "RangeGrid",
    "Scheme",
    "Standardized",
    "Trained",
    "Uniform",
    "dynamic_grid",
    "quantize_model",
    "train_quantized",
]
