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
from lepton.models.quantization.equalization import (
    correct_biases,
    equalize,
    equalizing_factors,
    fold_batch_norms,
)
from lepton.models.quantization.integer_weights import IntegerWeights
from lepton.models.quantization.mixed_precision import (
    Layer,
    bits_for_cost,
    bits_for_size,
    measure_sensitivity,
)
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
from lepton.models.quantization.weight_grids import WeightRounding, weight_report

__all__ = [
    "AwareOptions",
    "Binary",
    "Calibration",
    "Codebook",
    "Entropy",
    "FileOptions",
    "Grid",
    "IntegerWeights",
    "Layer",
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
    "WeightRounding",
    "bits_for_cost",
    "bits_for_size",
    "correct_biases",
    "dynamic_grid",
    "equalize",
    "equalizing_factors",
    "fold_batch_norms",
    "measure_sensitivity",
    "quantize_model",
    "train_quantized",
    "weight_report",
]
