"""What the kernels of all kinds of layers share: transfers, units side by side, counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.cost.closed_forms import Walk
from lepton.cost.scalars import CostScalars
from lepton.explore.analytic.machine import Machine, Role
from lepton.explore.analytic.network import Layer
from lepton.jit import njit

__all__ = ["constants_role", "costs", "count_tensors", "moved", "overlapped", "tensors_role"]
__all__ += ["up", "walk"]

F64 = NDArray[np.float64]

(CYCLES, MACS, SUM_ROWS, SUMS, LATCHED, ENTERED, FED, STREAMED) = range(8)
(REQUANTIZED, LANES, LOADED, STORED, INSTRUCTIONS) = range(8, 13)
(CONSTANT_BYTES, READ_BYTES, WRITTEN_BYTES) = range(13, 16)
"""Columns of `COUNT` as plain globals, which kernels freeze."""


@njit(error_model="numpy", inlined=True)
def up(numerator: float, denominator: float) -> float:
    """Return the quotient rounded up."""
    return np.ceil(numerator / denominator)


@njit(error_model="numpy", inlined=True)
def overlapped(a: float, b: float, c: float, d: float) -> float:
    """Return the cycles of work side by side, as the compiler's plans have them: the 4-norm."""
    longest = max(a, b, c, d)
    if longest <= 0.0:
        return 0.0
    scale = 1.0 / (longest * longest)
    squares = a * a * scale, b * b * scale, c * c * scale, d * d * scale
    total = 0.0
    for square in squares:
        total += square * square
    return longest * np.sqrt(np.sqrt(total))


@njit(error_model="numpy", inlined=True)
def moved(role: Role, run: float, runs: float, flying: float) -> float:
    """Return the cycles of runs of bytes that begin anywhere: the memory's, or its latency's."""
    if run <= 0.0 or runs <= 0.0:
        return 0.0
    units = max((run + role.unit - 1.0) / role.unit, 1.0) if runs > 1 else up(run, role.unit)
    requests = max((run + role.burst - 1.0) / role.burst, 1.0)
    own = requests * (role.latency + units / requests * role.unit_cycles) / flying
    return runs * max(units * role.unit_cycles, own)


@njit(error_model="numpy", inlined=True)
def costs(m: Machine) -> CostScalars:
    """Return the scalars of the closed forms."""
    return CostScalars(
        int(m.rows), int(m.columns), int(m.all_columns), int(m.dataflow), m.overlap > 0,
        int(m.dealt), int(m.feed_words), int(m.issue_cycles), int(m.lanes),
        int(m.latency_cycles), int(m.softmax_cycles_per_element), int(m.port_bytes),
        int(m.banks), int(m.decoder_bytes_per_cycle), int(m.entropy_lanes),
    )  # fmt: skip


@njit(error_model="numpy", inlined=True)
def walk(layer: Layer) -> Walk:
    """Return where the reduction of a pixel of a dense layer lies."""
    line = layer.dilation * layer.row_bytes
    if layer.dilation == 1 and layer.groups == 1:
        return Walk(layer.kernel_width * layer.channels, 1, 0, line)
    pitch = layer.dilation * layer.channels * layer.groups
    return Walk(layer.channels, layer.kernel_width, pitch, line)


@njit(error_model="numpy", inlined=True)
def constants_role(m: Machine) -> Role:
    """Return the memory of the constants."""
    return Role(
        m.constants_unit, m.constants_cycles, m.constants_burst, m.constants_reads,
        m.constants_writes, m.constants_latency,
    )  # fmt: skip


@njit(error_model="numpy", inlined=True)
def tensors_role(m: Machine) -> Role:
    """Return the memory of the activations."""
    return Role(
        m.tensors_unit, m.tensors_cycles, m.tensors_burst, m.tensors_reads, m.tensors_writes,
        m.tensors_latency,
    )  # fmt: skip


@njit(error_model="numpy", inlined=True)
def count_tensors(layer: Layer, crossing: int, again: float, out: F64) -> None:
    """Add what crosses the edge of the scratchpad."""
    read = layer.ifm * again if crossing & 1 else 0.0
    if crossing & 2 and not layer.is_constant:
        read += layer.second
    written = float(layer.ofm) if crossing & 4 else 0.0
    out[READ_BYTES] += read
    out[LOADED] += read
    out[WRITTEN_BYTES] += written
    out[STORED] += written
