"""From a float network to a compressed int8 one: prune, distil, share or quantize, in one run."""

from lepton.models.compression.pipeline import Compressed, Stage, compress_model, quantized
from lepton.models.compression.recipe import CompressionRecipe

__all__ = ["Compressed", "CompressionRecipe", "Stage", "compress_model", "quantized"]
