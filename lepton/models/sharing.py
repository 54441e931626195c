"""Weight sharing: the weights of a layer take few values, found by k-means and trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton.errors import InputError
from lepton.models.clustering import Start, cluster_levels
from lepton.models.extras import require
from lepton.models.quantization.integer_weights import IntegerWeights
from lepton.models.quantization.onnx_weights import replace_weights, weight_axes, weight_values
from lepton.models.quantization.quantizers import Codebook, check_finite

if TYPE_CHECKING:
    import onnx
    import torch

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["Shared", "SharingOptions", "share", "share_constants", "share_weights"]

MOST_CLUSTERS = 255
"""As many as the codes of an int8 file, -127 .. 127."""


@dataclass(frozen=True, eq=False)
class Shared:
    """A tensor as levels and codes.

    Attributes:
        levels: `[k]` float32, ascending.
        codes: which level each number has, int64.
    """

    levels: NDArray[np.float32]
    codes: NDArray[np.int64]

    @property
    def values(self) -> NDArray[np.float32]:
        return self.levels[self.codes]


@dataclass(frozen=True)
class SharingOptions:
    """How weights are shared.

    Attributes:
        clusters: of each weight, 1 to 255; or of those named, the others staying as they are.
        start: of the k-means (`lepton.models.clustering`).
        seed: of a random start.
    """

    clusters: int | Mapping[str, int] = 16
    start: Start = "optimal"
    seed: int = 0

    def __post_init__(self) -> None:
        counts = [self.clusters] if isinstance(self.clusters, int) else self.clusters.values()
        wrong = [count for count in counts if not 1 <= count <= MOST_CLUSTERS]
        if wrong:
            raise InputError(f"clusters must be 1 to {MOST_CLUSTERS}, not {wrong[0]}")

    def clusters_of(self, name: str) -> int | None:
        """Return the clusters of a weight, None if it is not shared."""
        return self.clusters if isinstance(self.clusters, int) else self.clusters.get(name)


def share(
    values: ArrayLike,
    clusters: int,
    options: SharingOptions | None = None,
    importance: ArrayLike | None = None,
) -> Shared:
    """Give numbers at most so many levels, of least squared error.

    Where there are zeros, as pruning leaves them, one level is zero and theirs alone.

    Args:
        values: the numbers.
        clusters: levels, the one of zero included.
        options: where the k-means starts.
        importance: a weight of each number's error, as of Choi et al., Towards the Limit of Network
            Quantization, ICLR 2017, who take the second derivative of the loss.
    """
    options = options or SharingOptions()
    array = np.asarray(values, np.float32)
    check_finite(array, "numbers to share")
    weights = None if importance is None else np.asarray(importance, np.float64)
    used = array != 0
    has_zeros = not used.all()
    if has_zeros and clusters == 1 and used.any():
        raise InputError("weights with zeros need at least 2 clusters, one of them for zero")
    levels = np.zeros(0)
    if used.any():
        levels = cluster_levels(
            array[used],
            clusters - has_zeros,
            importance=None if weights is None else weights[used],
            start=options.start,
            seed=options.seed,
        )
    found = np.unique(levels.astype(np.float32))
    codes = np.zeros(array.shape, np.int64)
    if len(found):
        codes[used] = Codebook(found).quantize(array[used])
    if not has_zeros:
        return Shared(found, codes)
    place = int(np.searchsorted(found, 0))
    codes[used] += codes[used] >= place
    codes[~used] = place
    return Shared(np.insert(found, place, np.float32(0)), codes)


def share_weights(
    network: torch.nn.Module,
    options: SharingOptions | None = None,
    *,
    importance: Mapping[str, torch.Tensor] | None = None,
    fine_tune: Callable[[torch.nn.Module], None] | None = None,
) -> dict[str, IntegerWeights]:
    """Share the weights of each layer of a network, in place.

    Args:
        network: any module; its convolutions, linear layers, recurrences and embeddings take part.
        options: clusters and start.
        importance: of weights' errors, by the parameter's path.
        fine_tune: trains the network it gets, whose parameters are the codebooks now.

    Returns:
        The codes for `quantize_model`, by the parameter's path. The network's weights are plain
        parameters again, equal to what the codes stand for.

    Raises:
        LeptonError: PyTorch is not installed.
        InputError: a weight is named that the network has not, is parametrized, or is NaN or
            infinite, before the training or after it; or it is no network.
    """
    require("torch")
    from lepton.models.quantization.torch_weights import (
        bake,
        check_weights,
        refuse_replaced,
        weights_of,
    )
    from lepton.models.torch_sharing import share_network

    if not hasattr(network, "named_modules"):
        kind = type(network).__name__
        raise InputError(
            f"share_weights takes a torch module, not {kind}: give from_onnx of a file"
        )
    options = options or SharingOptions()
    refuse_replaced(network)
    _check_names(options, [weight.name for weight in weights_of(network)])
    check_weights(network)
    share_network(network, options, importance or {})
    if fine_tune is not None:
        fine_tune(network)
        check_weights(network, " after the training: lower its learning rate")
    return bake(network)


def share_constants(
    model: onnx.ModelProto, options: SharingOptions | None = None
) -> tuple[onnx.ModelProto, dict[str, IntegerWeights]]:
    """Share the weights of a float ONNX model, without training.

    Returns:
        The model with its weights replaced, and their codes for `quantize_model`.

    Raises:
        InputError: a weight is named that the model has not, or is NaN or infinite.
    """
    import onnx

    options = options or SharingOptions()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    axes = weight_axes(copy.graph)
    _check_names(options, list(axes))
    values_by_name = weight_values(copy.graph, axes)
    for name, values in values_by_name.items():
        check_finite(values, f"weights '{name}'")
    codes = {
        name: IntegerWeights.of_levels(share(values, clusters, options).values)
        for name, values in values_by_name.items()
        if (clusters := options.clusters_of(name)) is not None
    }
    replace_weights(copy.graph, codes)
    return copy, codes


def _check_names(options: SharingOptions, known: list[str]) -> None:
    named = () if isinstance(options.clusters, int) else options.clusters
    unknown = next((name for name in named if name not in known), None)
    if unknown is not None:
        listed = ", ".join(f"'{name}'" for name in known) or "none"
        raise InputError(f"the network has no weights '{unknown}' (it has {listed})")
