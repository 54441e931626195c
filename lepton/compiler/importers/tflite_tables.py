"""Which TFLite operators are seen how, and the tensor that claims another type."""

from __future__ import annotations

from typing import Any

# Operators that choose among elements: TFLite's kernels copy bytes, whatever the parameters say.
RAW = frozenset(
    [
        "ARG_MAX",
        "ARG_MIN",
        "BATCH_TO_SPACE_ND",
        "BROADCAST_TO",
        "DEPTH_TO_SPACE",
        "EXPAND_DIMS",
        "GATHER",
        "GATHER_ND",
        "MAX_POOL_2D",
        "MIRROR_PAD",
        "PACK",
        "PAD",
        "PADV2",
        "RESHAPE",
        "RESIZE_NEAREST_NEIGHBOR",
        "REVERSE_V2",
        "SELECT",
        "SELECT_V2",
        "SLICE",
        "SPACE_TO_BATCH_ND",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "SPLIT_V",
        "SQUEEZE",
        "STRIDED_SLICE",
        "TILE",
        "TRANSPOSE",
        "UNPACK",
        "WHERE",
    ]
)
# Raw if all parameters are equal, computed in float otherwise.
RAW_IF_EQUAL = frozenset(("CONCATENATION",))
CONTROL = frozenset(["CALL", "CALL_ONCE", "IF", "WHILE", "STABLEHLO_WHILE", "STABLEHLO_COMPOSITE"])
# Position of the bias: its scale is sx * sw where the file gives none.
BIASED = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
PRODUCT = {name: (2, 1) if name == "TRANSPOSE_CONV" else (0, 1) for name in BIASED}


class TensorView:
    """A TFLite tensor that claims another element type."""

    def __init__(self, tensor: Any, kind: int) -> None:
        self._tensor = tensor
        self._kind = kind

    def Type(self) -> int:
        """Return the claimed element type."""
        return self._kind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensor, name)
