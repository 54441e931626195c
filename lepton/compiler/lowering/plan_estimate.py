"""What plans of a dense convolution are estimated to cost: arithmetic, traffic, and their chain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.compiler.emit import Emitter
from lepton.compiler.graph import Convolution, Tensor
from lepton.compiler.lowering.addition import operands_of
from lepton.compiler.lowering.dense_plan import Counts, Plan, counts_of
from lepton.compiler.lowering.kept import streamed_bytes
from lepton.compiler.lowering.plan_cost import Products, Work, plan_cost
from lepton.compiler.lowering.rows import rows_of
from lepton.compiler.lowering.traffic import Traffic
from lepton.compiler.stored import stored_part
from lepton.cost import cost_scalars
from lepton.cost.dataflows import matmul_cycles
from lepton.cost.elementwise import Number, by_rows, choose, least, most, side_by_side
from lepton.isa.footprints import REQUANTIZE_BYTES

__all__ = ["count_input", "count_tile", "estimated_costs", "overlapped"]


def count_tile(
    tensor: Tensor,
    size: tuple[Number, Number, Number],
    times: Number,
    traffic: Traffic,
    *,
    is_write: bool,
) -> None:
    """Count the transfers of `times` boxes `[h, w, c]` of a tensor that lives in a memory."""
    _, _, w, c = tensor.shape
    memory = traffic.chip.memory_index(traffic.chip.placement.activations[0])
    rows, cols, channels = size
    has_rows = channels == c
    is_whole = has_rows & (cols == w)
    run = choose(is_whole, rows * w * c, choose(has_rows, cols * c, channels))
    runs = choose(is_whole, 1, choose(has_rows, rows, rows * cols))
    stride = choose(is_whole, 0, choose(has_rows, w * c, c))
    count = traffic.write if is_write else traffic.read
    count(memory, run, runs * times, stride)


def count_input(
    node: Convolution,
    size: tuple[Number, Number],
    channels: Number,
    times: Number,
    buffer: tuple[Number, Traffic],
) -> None:
    """Count the transfers of the input of all tiles of `size` output pixels.

    So many `channels` are loaded at a time, and each tile is visited `times`. `buffer` is the bytes
    of the buffer for rows or 0, and where to count; what it holds whole is loaded once.
    """
    ifm, (_, oh, ow, _) = node.inputs[0], node.output.shape
    rows = rows_of(node.window, size, ifm.shape[1:3], channels)
    down, across = -(-oh // size[0]), -(-ow // size[1])
    brought = choose(buffer[0] > 0, rows.brought(buffer[0], down), down * rows.window)
    has_all = channels == ifm.shape[3]
    once = (across == 1) & has_all & (buffer[0] >= rows.whole)
    stripes = ifm.shape[0] * across * choose(once, 1, times)
    columns = rows.pitch // channels
    in_rows = (columns == ifm.shape[2]) & has_all
    height = choose(in_rows, brought // down, brought)
    count = choose(in_rows, stripes * down, stripes)
    count_tile(ifm, (height, columns, channels), count, buffer[1], is_write=False)


def estimated_costs(
    node: Convolution, emitter: Emitter, plans: Sequence[Plan], extents: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the estimated costs of plans, `[plans]`.

    The cycles of one are the longest of arithmetic, traffic and their chain.
    """
    chip, plan = emitter.chip, side_by_side(plans)
    n = counts_of(node, plan, extents)
    compute, vector = _unit_cycles(node, emitter, plan, n)
    constants, ifm, ofm = (Traffic(chip, emitter.choices.objective) for _ in range(3))
    weights = math.prod(node.window.kernel) * extents[0] * extents[1]
    share = emitter.choices.streams.share(node.weights)
    decode = _count_constants(node, plan, constants, n, (weights, share))
    _count_activations(node, emitter, plan, (ifm, ofm), n)
    constants.fetch(n.units * (n.steps + 2 + n.loads + 2 * len(operands_of(node))))
    block = weights // n.blocks
    late = _exposed_weights(chip, (block, share), compute * n.tiles, n.tiles)
    exposed = choose(plan.pixels_first, 0.0, late)
    way_in, way_out = ifm.cycles / n.units, ofm.cycles / n.units
    # what is in flight at a time: sums of so many tiles, and two tiles of input and of output
    sums_held = emitter.sums.size // (plan.height * plan.width * plan.columns)
    inputs_held, brings_once = _inputs(node, plan)
    chain = most(
        (compute + vector + chip.array.rows + chip.array.columns) / sums_held,
        (way_in + compute + ifm.latency) / inputs_held,
        (vector + way_out + ofm.latency) / 2,
    )
    arithmetic = n.units * most(compute, chain)
    # all of the input comes with the first block of columns, none with the others
    first = most(ifm.cycles / n.blocks - arithmetic / n.blocks**2, 0.0)
    exposed = exposed + choose(brings_once & ~plan.pixels_first, first, 0.0)
    traffic = constants.with_others(ifm, ofm)
    together = (
        arithmetic + exposed * (n.blocks - 1),
        n.units * vector,
        traffic.cycles,
        decode,
    )
    cycles = overlapped(*together) + way_in + vector + way_out

    def work() -> Work:
        streamed = decode * chip.weight_buffer.decoder_bytes_per_cycle
        return _work(node, plan, n, streamed)

    return plan_cost(emitter.choices.objective, cycles, traffic, work)


def _work(node: Convolution, plan: Plan, n: Counts, streamed: Number) -> Work:
    """Return the work of a plan that streams so many weights."""
    size = plan.height * plan.width
    reduction = plan.kernel_rows * node.window.kernel[1] * plan.channels
    products = Products(n.units * n.steps, size, reduction, plan.columns)
    return Work([products], n.units * size * plan.columns, streamed, n.blocks * (n.steps + 1))


def overlapped(*parts: Number) -> Number:
    """Return the cycles of work done side by side: the longest, and more if others are close.

    Units that are all busy most of the time get in each other's way: the 4-norm adds 19 % where
    two take equally long, and 1.5 % where one takes half of the other's. One part is more than 0.
    """
    longest = most(*parts)
    return longest * sum((part / longest) ** 4 for part in parts) ** 0.25


def _inputs(node: Convolution, plan: Plan) -> tuple[Number, Number]:
    """Return how many tiles' inputs the scratchpad holds at a time, and if it holds all of them."""
    size = plan.height, plan.width
    rows = rows_of(node.window, size, node.inputs[0].shape[1:3], plan.loaded)
    held = choose(plan.buffer_bytes > 0, most(rows.windows(plan.buffer_bytes), 2), 2)
    return held, (size[1] == node.output.shape[2]) & (plan.buffer_bytes >= rows.whole)


def _unit_cycles(
    node: Convolution, emitter: Emitter, plan: Plan, n: Counts
) -> tuple[Number, Number]:
    """Return the matrix and the vector unit's cycles for one tile and block of columns."""
    chip = emitter.chip
    dense = (node.window.dilation[1] == 1) & (node.inputs[0].shape[3] == plan.channels)
    run = plan.channels * choose(dense, node.window.kernel[1], 1)
    reduction = plan.kernel_rows * node.window.kernel[1] * plan.channels
    distance = node.window.stride[1] * node.inputs[0].shape[3]
    scalars = chip.derived(cost_scalars)

    def cycles(height: int, width: int, reduction: int, columns: int, run: int) -> int:
        return matmul_cycles(scalars, (height, width), reduction, columns, run, distance)

    stream = by_rows(cycles, plan.height, plan.width, reduction, plan.columns, run)
    stream *= emitter.choices.packed.share(node)
    compute = n.steps * (stream + chip.array.issue_cycles)
    sums = plan.height * plan.width * plan.columns
    vector = -(-sums // chip.vector.lanes) + chip.vector.latency_cycles
    return compute, vector * (1 + len(operands_of(node)))


def _exposed_weights(
    chip: Chip, weights: tuple[Number, float], compute: Number, tiles: Number
) -> Number:
    """Return the cycles for which the array waits for the next block of columns.

    What the buffer holds beside the block in use comes early; the rest, as the last tile of pixels
    is done with the block part by part. The weights are the block's bytes and the share stored.
    """
    block, share = weights
    rate = Traffic(chip)
    rate.read(chip.memory_index(chip.placement.constants), stored_part(block, share))
    late = 1.0 - least(most(chip.weight_buffer.elements - block, 0) / block, 1.0)
    return most(late * rate.cycles - compute / tiles, 0.0)


def _count_constants(
    node: Convolution, plan: Plan, traffic: Traffic, n: Counts, size: tuple[int, float]
) -> Number:
    """Count the weights, bytes and share stored, and the parameters; return decoder cycles."""
    weights, share = size
    chip = traffic.chip
    buffer = chip.weight_buffer.elements
    block = plan.kernel_rows * node.window.kernel[1] * plan.channels * plan.columns
    part = streamed_bytes(weights // n.blocks, block, buffer, n.tiles)
    streamed = choose(
        plan.pixels_first | (weights <= buffer),
        streamed_bytes(weights, block, buffer, n.tiles),
        n.blocks * part,
    )
    memory = chip.memory_index(chip.placement.constants)
    traffic.read(memory, stored_part(block, share), streamed / block)
    traffic.fetch(streamed / block)
    each = plan.columns * REQUANTIZE_BYTES[node.mode]
    every = n.blocks * each
    kept = streamed_bytes(every, each, plan.parameter_bytes, n.tiles)
    parameters = choose(plan.pixels_first, kept, every)
    traffic.read(memory, each, parameters / each)
    traffic.fetch(parameters / each)
    return streamed / chip.weight_buffer.decoder_bytes_per_cycle


def _count_activations(
    node: Convolution, emitter: Emitter, plan: Plan, traffic: tuple[Traffic, Traffic], n: Counts
) -> None:
    """Count the input and the output of a plan."""
    ifm = node.inputs[0]
    if ifm.name not in emitter.residents:
        again = n.loads * choose(plan.pixels_first & (n.loads == 1), 1, n.blocks)
        size = (plan.height, plan.width)
        count_input(node, size, plan.loaded, again, (plan.buffer_bytes, traffic[0]))
    tile = (plan.height, plan.width, plan.columns)
    for tensor in operands_of(node):
        if tensor.name not in emitter.residents:
            count_tile(tensor, tile, n.units, traffic[0], is_write=False)
    if node.output.name not in emitter.residents:
        count_tile(node.output, tile, n.units, traffic[1], is_write=True)
