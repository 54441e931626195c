"""Quantization of weights and activations: quantizers, calibration and the int8 file form."""

from lepton.models.quantization.calibration import (
    Calibration,
    Entropy,
    Grid,
    MeanSquare,
    MinMax,
    Percentile,
    Scheme,
)
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
    "Binary",
    "Calibration",
    "Codebook",
    "Entropy",
    "Grid",
    "MeanSquare",
    "MinMax",
    "Percentile",
    "PowersOfTwo",
    "Quantizer",
    "RangeGrid",
    "Scheme",
    "Standardized",
    "Uniform",
    "dynamic_grid",
]
