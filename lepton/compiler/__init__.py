"""The compiler: model in, Program out.

`partition_for_lepton` and `PartitionForLepton` are for users of TVM; TVM is imported when one of
them is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lepton.compiler.partition_module import PartitionForLepton, partition_for_lepton

__all__ = ["PartitionForLepton", "partition_for_lepton"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'lepton.compiler' has no attribute '{name}'")
    return getattr(import_module("lepton.compiler.partition_module"), name)
