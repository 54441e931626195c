"""Arrays that a user gives: checked before anything computes with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.program.records import Program

__all__ = ["as_array", "as_batch", "only_input"]


def as_array(value: object, label: str) -> NDArray[np.generic]:
    """Return a plain array of numbers.

    Raises:
        InputError: a masked array, or no array of numbers.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(f"{label} must not be a masked array; fill it first (x.filled(value))")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        array = None
    if array is None or array.dtype.kind not in "biuf":
        found = type(value).__name__ if array is None or not array.ndim else str(array.dtype)
        raise InputError(f"{label} must be an array of numbers, not {found}")
    return array


def only_input(program: Program) -> tuple[str, tuple[int, ...]]:
    """Return name and shape of the one input of a program.

    Raises:
        InputError: it has another number of inputs.
    """
    if len(program.inputs) != 1:
        raise InputError(f"the model must have one input, not {len(program.inputs)}")
    name = program.inputs[0]
    return name, program.tensor_by_name[name].shape


def as_batch(array: NDArray[np.generic], shape: tuple[int, ...], label: str) -> NDArray[np.generic]:
    """Return samples as `[samples, *shape]`.

    Args:
        array: one sample of the model's shape, or several: the shape behind a leading batch, or
            with the batch in place of its leading 1.
        shape: the model's.
        label: what messages call the array.

    Raises:
        InputError: another shape, however many elements it has, or no sample at all.
    """
    if array.shape == shape:
        return array[np.newaxis]
    leads = array.ndim > 0 and array.shape[1:] == shape
    replaces = shape[:1] == (1,) and array.ndim == len(shape) and array.shape[1:] == shape[1:]
    if not leads and not replaces:
        rest = shape[1:] if shape[:1] == (1,) else shape
        batch = ", ".join(["n", *map(str, rest)])
        raise InputError(
            f"{label} must have shape {list(shape)}, or [{batch}] for n samples, "
            f"not {list(array.shape)}"
        )
    if not len(array):
        raise InputError(f"{label} holds no samples: its shape is {list(array.shape)}")
    return array if leads else array[:, np.newaxis]
