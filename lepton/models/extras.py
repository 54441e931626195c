"""What needs a package that is an extra says so in one sentence."""

from __future__ import annotations

from importlib.util import find_spec

from lepton.errors import LeptonError

__all__ = ["require"]

_EXTRAS = {"torch": "train", "sklearn": "train", "torchao": "train", "PIL": "image"}


def require(*packages: str) -> None:
    """Raise LeptonError naming the extra of the first package that is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise LeptonError(
                f"this needs {package}, which is not installed: "
                f"pip install 'lepton-npu[{_EXTRAS[package]}]'"
            )
