"""Cycles and counts of every layer of a network on every chip, in closed form.

docs/sweeps.md says what is left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.cost.closed_forms import Walk, depthwise_cycles
from lepton.cost.dataflows import Product, matmul_cost
from lepton.cost.scalars import CostScalars
from lepton.explore.analytic.dense import dense_layer
from lepton.explore.analytic.machine import COUNT, Machine
from lepton.explore.analytic.network import CROSSINGS, Kind, Layer
from lepton.explore.analytic.shared import (
    CONSTANT_BYTES,
    CYCLES,
    INSTRUCTIONS,
    LANES,
    MACS,
    REQUANTIZED,
    STREAMED,
    SUMS,
    constants_role,
    costs,
    count_tensors,
    moved,
    overlapped,
    tensors_role,
    up,
)
from lepton.isa.instructions import Stationary
from lepton.jit import njit

__all__ = ["evaluate_points"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_DENSE, _DEPTHWISE, _PRODUCT = int(Kind.DENSE), int(Kind.DEPTHWISE), int(Kind.PRODUCT)
_SCRATCHPAD = int(Stationary.SCRATCHPAD)
_CROSSINGS, _COUNTS = CROSSINGS, COUNT.ALL


@njit(error_model="numpy", inlined=True)
def _simple(
    m: Machine, p: CostScalars, layer: Layer, stored: float, crossing: int, out: F64
) -> float:
    """Return the cycles of any other layer: its units side by side; add its counts."""
    constants, tensors = constants_role(m), tensors_role(m)
    elements = float(layer.ofm)
    compute = 0.0
    if layer.kind == _DEPTHWISE:
        size = layer.height, layer.width
        kernel = layer.kernel_height, layer.kernel_width
        one = depthwise_cycles(p, kernel, layer.stride, layer.dilation, size, layer.columns)[0]
        compute = float(layer.images * one) / m.cores
        out[MACS] += elements * layer.kernel_height * layer.kernel_width
        out[SUMS] += elements
        out[STREAMED] += layer.weights
    elif layer.kind == _PRODUCT:
        packed = Walk(layer.channels, 1, 0, layer.channels)
        product = Product(
            layer.channels, layer.columns, 1, layer.width, packed, layer.channels, layer.columns,
            _SCRATCHPAD,
        )  # fmt: skip
        compute = float(layer.images * matmul_cost(p, product)[1]) / m.cores
        out[MACS] += elements * layer.channels
        out[SUMS] += elements * up(layer.channels, m.rows)
    lanes = elements * layer.steps
    vector = (up(lanes, m.lanes) + m.latency_cycles) / m.cores
    brought = layer.weights * stored + layer.columns * layer.parameters
    if layer.is_constant:
        brought += layer.second
    come = moved(constants, brought, 1.0, m.constants_reads)
    read = float(layer.ifm) if crossing & 1 else 0.0
    if crossing & 2 and not layer.is_constant:
        read += layer.second
    way_in = moved(tensors, read, 1.0, tensors.reads * m.load_channels)
    way_out = moved(tensors, elements, 1.0, tensors.writes) if crossing & 4 else 0.0
    crossed = way_in + way_out
    traffic = come + crossed if m.is_one_memory else max(come, crossed)
    out[REQUANTIZED] += elements if layer.kind <= _PRODUCT else 0.0
    out[LANES] += lanes
    out[CONSTANT_BYTES] += brought
    out[INSTRUCTIONS] += 8.0
    count_tensors(layer, crossing, 1.0, out)
    return overlapped(compute, vector, traffic, 0.0)


@njit(error_model="numpy")
def _machine(row: F64) -> Machine:
    """Return the fields of a row."""
    return Machine(
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10],
        row[11], row[12], row[13], row[14], row[15], row[16], row[17], row[18], row[19], row[20],
        row[21], row[22], row[23], row[24], row[25], row[26], row[27], row[28], row[29], row[30],
        row[31], row[32], row[33], row[34],
    )  # fmt: skip


@njit(error_model="numpy")
def _layer(row: I64) -> Layer:
    """Return the fields of a row."""
    return Layer(
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10],
        row[11], row[12], row[13], row[14], row[15], row[16], row[17], row[18],
    )  # fmt: skip


@njit(error_model="numpy")
def evaluate_points(
    machines: F64, layers: I64, shares: F64, rooms: F64, counts: I64, which: I64, out: F64
) -> None:
    """Fill `out [n, COUNT.ALL]` with cycles and counts of a network on n chips.

    Args:
        machines: `[n, len(Machine._fields)]`.
        layers: `[layers, len(LAYER)]`.
        shares: `[decoders, layers, 2]` stored bytes over weights, cycles of packed passes over all.
        rooms: `[sizes]` share of the scratchpad for tiles.
        counts: `[sizes, layers, CROSSINGS]` how often each layer occurs with what crossing.
        which: `[n, 2]` size of the scratchpad, and decoder, of each chip.
        out: zeros.
    """
    one = np.zeros(_COUNTS)
    for n in range(len(machines)):
        m = _machine(machines[n])
        p = costs(m)
        size, decoder = which[n]
        room = m.scratchpad * float(rooms[size])
        # the first request of a layer, and what fills and empties the units behind it
        start = m.setup_cycles + m.constants_latency + m.rows + m.columns + m.latency_cycles
        for number in range(len(layers)):
            layer = _layer(layers[number])
            stored, packed = shares[decoder, number]
            for crossing in range(_CROSSINGS):
                times = counts[size, number, crossing]
                if times == 0:
                    continue
                one[:] = 0.0
                if layer.kind == _DENSE:
                    cycles = dense_layer(m, p, layer, (stored, packed, crossing), room, one)
                else:
                    cycles = _simple(m, p, layer, stored, crossing, one)
                one[CYCLES] = cycles + start
                for k in range(_COUNTS):
                    out[n, k] += times * one[k]
