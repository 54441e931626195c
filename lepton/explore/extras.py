"""Libraries of the extras `sweep` and `cluster`, imported where they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lepton.errors import InputError

__all__ = ["needs"]


def needs(module: str) -> Any:
    """Return a module of the extra `sweep`, or `cluster`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        package = module.partition(".")[0]
        extra = "cluster" if package == "distributed" else "sweep"
        raise InputError(
            f"this sweep needs {package}: install the extra with pip install 'lepton-npu[{extra}]'"
        ) from None
