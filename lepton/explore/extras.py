"""Libraries of the extra `sweep`, imported where they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lepton.errors import InputError

__all__ = ["needs"]


def needs(module: str) -> Any:
    """Return a module of the extra `sweep`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        package = module.partition(".")[0]
        raise InputError(
            f"sweeps need {package}: install the extra with pip install 'lepton-npu[sweep]'"
        ) from None
