"""Estimated costs of a cascade, by its plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.compiler.emit import Emitter
from lepton.compiler.graph import Convolution
from lepton.compiler.lowering.cascade_plan import (
    Cascade,
    CascadePlan,
    Extents,
    output_channels,
    parameters_of,
    step_extents,
    step_sums,
    weights_of,
)
from lepton.compiler.lowering.kept import streamed_bytes
from lepton.compiler.lowering.plan_cost import Products, Work, plan_cost
from lepton.compiler.lowering.plan_estimate import count_input, count_tile, overlapped
from lepton.compiler.lowering.traffic import Traffic
from lepton.cost import cost_scalars
from lepton.cost.closed_forms import Walk, depthwise_cycles
from lepton.cost.dataflows import Product, matmul_cost, matmul_cycles
from lepton.cost.elementwise import Number, by_rows, choose, most, side_by_side
from lepton.isa.instructions import Stationary

__all__ = ["cascade_costs"]


def cascade_costs(
    cascade: Cascade, emitter: Emitter, plans: Sequence[CascadePlan]
) -> NDArray[np.float64]:
    """Return the estimated costs of plans, `[plans]`.

    The cycles of one are the longest of arithmetic, traffic and their chain.
    """
    plan = side_by_side(plans)
    extents = step_extents(cascade, (plan.height, plan.width))
    return _Cases(cascade, emitter, plan, extents).costs()


@dataclass(frozen=True)
class _Work:
    """Cycles of the matrix and of the vector unit for one chunk of one step."""

    matrix: Number
    vector: Number


@dataclass(frozen=True)
class _Cases:
    """A cascade with each of many plans on a chip; what is counted are arrays."""

    cascade: Cascade
    emitter: Emitter
    plan: CascadePlan
    extents: Extents

    @property
    def chip(self) -> Chip:
        return self.emitter.chip

    @property
    def pixels(self) -> Number:
        """Output pixels of a step."""
        return self.plan.height * self.plan.width

    @property
    def chunks(self) -> Number:
        return -(-self.cascade.channels // self.plan.channels)

    @property
    def down(self) -> Number:
        """Steps of a stripe."""
        return -(-self.cascade.depthwise.output.shape[1] // self.plan.height)

    @property
    def stripes(self) -> Number:
        """Of all images."""
        images, _, ow, _ = self.cascade.depthwise.output.shape
        return images * -(-ow // self.plan.width)

    @property
    def steps(self) -> Number:
        return self.stripes * self.down

    @property
    def sweeps(self) -> Number:
        """How often all weights are needed."""
        return choose(self.plan.chunks_first, self.cascade.source.shape[0], self.steps)

    @property
    def expansions(self) -> Number:
        """Parts that are expanded per step: the first of a stripe needs its whole window."""
        return 1 + (self.extents.window[0] / self.extents.advance - 1) / self.down

    def costs(self) -> NDArray[np.float64]:
        """Return the estimates."""
        expand, depthwise, project = self._expand(), self._depthwise(), self._project()
        move = self._move()
        matrix = self.expansions * expand.matrix + depthwise.matrix + project.matrix
        vector = self.expansions * expand.vector + depthwise.vector + project.vector + move
        chain = self._chain(expand, depthwise, move)
        constants, ifm, ofm = (self._traffic() for _ in range(3))
        decode = self._count_constants(constants)
        self._count_activations(ifm, ofm)
        traffic = constants.with_others(ifm, ofm)
        chunks = self.steps * self.chunks
        together = (
            chunks * most(matrix + self._exposed(expand, project, matrix), chain),
            chunks * vector,
            traffic.cycles,
            decode,
        )
        chunks_first = self.plan.chunks_first
        # the first step of all lasts until it has seen every weight
        late = most(self._weights_cycles() - self.chunks * matrix, 0.0)
        begin = most(expand.matrix, expand.vector) * choose(chunks_first, self.down, self.chunks)
        begin = begin + choose(chunks_first, 0.0, late)
        moves = choose(chunks_first, chunks, self.steps)
        cycles = overlapped(*together) + begin + (ifm.cycles + ofm.cycles) / moves
        streamed = decode * self.chip.weight_buffer.decoder_bytes_per_cycle
        objective = self.emitter.choices.objective
        return plan_cost(objective, cycles, traffic, lambda: self._work(streamed))

    def _work(self, streamed: Number) -> Work:
        """Return the work of the array and of requantization; so many weights are streamed."""
        cascade, plan = self.cascade, self.plan
        chunks, channels = self.steps * self.chunks, plan.channels
        taps = math.prod(cascade.depthwise.window.kernel)
        products = [Products(chunks, self.pixels, taps, channels)]
        if cascade.expand is not None:
            node = cascade.expand
            reduction = node.weights.size // node.output.shape[3]
            pixels = self.extents.advance * self.extents.window[1]
            products.append(Products(chunks * self.expansions, pixels, reduction, channels))
        elements = sum(item.times * item.pixels * item.columns for item in products)
        if cascade.project is not None:
            columns = cascade.project.output.shape[3]
            products.append(Products(chunks, self.pixels, channels, columns))
            elements += self.steps * self.pixels * columns
        return Work(products, elements, streamed, 2 * len(products) * self.chunks)

    def _traffic(self) -> Traffic:
        return Traffic(self.chip, self.emitter.choices.objective)

    @property
    def _skew(self) -> int:
        """Cycles from the last pixel's operands to its last sum."""
        return self.chip.array.rows + self.chip.array.columns

    def _requantize(self, node: Convolution, pixels: Number, channels: Number) -> Number:
        parameters = parameters_of(node, channels) / self.chip.scratchpad.port_bytes
        return self._stream(pixels * channels) + parameters

    def _stream(self, elements: Number) -> Number:
        """Return the vector unit's cycles for so many packed elements."""
        return self.chip.vector.latency_cycles + elements / self.chip.vector.lanes

    def _expand(self) -> _Work:
        node, channels = self.cascade.expand, self.plan.channels
        if node is None:
            return _Work(0.0, 0.0)
        size = self.extents.advance, self.extents.window[1]
        ic, (_, width) = node.inputs[0].shape[3], node.window.kernel
        down, across = node.window.dilation
        pitch = down * self.extents.source[1] * ic
        reduction = math.prod(node.window.kernel) * ic
        distance = node.window.stride[1] * ic
        scalars = self.chip.derived(cost_scalars)

        def cycles(rows: int, columns: int, pitch: int, channels: int) -> int:
            near = Walk(ic * width, 1, 0, pitch)
            walk = near if across == 1 else Walk(ic, width, ic * across, pitch)
            second = int(Stationary.BUFFER)
            product = Product(reduction, channels, rows, columns, walk, distance, channels, second)
            return matmul_cost(scalars, product)[1]

        stream = by_rows(cycles, *size, pitch, channels)
        stream *= self.emitter.choices.packed.share(node)
        return _Work(stream, self._requantize(node, math.prod(size), channels))

    def _depthwise(self) -> _Work:
        node, plan = self.cascade.depthwise, self.plan
        window, size = node.window, (plan.height, plan.width)
        scalars = self.chip.derived(cost_scalars)

        def cycles(rows: int, columns: int, channels: int) -> int:
            strides = window.stride[1], window.dilation[1]
            return depthwise_cycles(scalars, window.kernel, *strides, (rows, columns), channels)[0]

        stream = by_rows(cycles, *size, plan.channels)
        vector = self._requantize(node, self.pixels, plan.channels)
        return _Work(stream + self.chip.array.issue_cycles, vector)

    def _project(self) -> _Work:
        """Return the work of a projection; what its step ends with is shared by the chunks."""
        node, channels = self.cascade.project, self.plan.channels
        if node is None:
            return _Work(0.0, 0.0)
        oc = node.output.shape[3]
        scalars = self.chip.derived(cost_scalars)
        size = self.plan.height, self.plan.width

        def cycles(rows: int, columns: int, channels: int) -> int:
            return matmul_cycles(scalars, (rows, columns), channels, oc, channels, channels)

        matrix = by_rows(cycles, *size, channels)
        matrix *= self.emitter.choices.packed.share(node)
        vector = self._requantize(node, self.pixels, oc)
        if self.cascade.combine is not None:
            vector += self._stream(self.pixels * oc)
        return _Work(matrix, vector / self.chunks)

    def _move(self) -> Number:
        """Return the vector unit's cycles for rows that go to a plane's start."""
        extents, rows = self.extents, self.plan.rows
        kept = (extents.window[0] - extents.advance) * extents.window[1] * self.plan.channels
        height = self.cascade.depthwise.inputs[0].shape[1]
        turn = 1 + (rows - extents.window[0]) // extents.advance
        stays = (kept <= 0) | (rows == 0) | (rows == height)
        return choose(stays, 0.0, self._stream(kept) / choose(stays, 1, turn))

    def _chain(self, expand: _Work, depthwise: _Work, move: Number) -> Number:
        """Return the least cycles of a chunk by what must wait for what."""
        projected, *sums = step_sums(self.cascade, self.extents, self.plan)
        # sums are taken from the first cycle of their matmul to the last of their requantization
        taken = sums[0] * (depthwise.matrix + depthwise.vector + self._skew)
        taken += self.expansions * sums[1] * (expand.matrix + expand.vector + self._skew)
        chain = taken / (self.emitter.sums.size - self.plan.projections * projected)
        if self.cascade.expand is None:
            return chain
        # a plane's rows are expanded when the step before has read it, and then read
        turn = expand.matrix + expand.vector + move + depthwise.matrix + 2 * self._skew
        return choose(self.plan.chunks_first, chain, most(chain, turn / self.chunks))

    def _exposed(self, expand: _Work, project: _Work, matrix: Number) -> Number:
        """Return for how long a chunk's share of a step waits for the sums of the step before."""
        queued = expand.vector + self.chunks * project.vector
        late = most(queued + self._skew - matrix, 0.0) / self.chunks
        return choose(self.plan.projections == 1, late, 0.0)

    def _count_constants(self, traffic: Traffic) -> Number:
        """Count weights, parameters and instructions; return decoder cycles."""
        cascade, chip, streams = self.cascade, self.chip, self.emitter.choices.streams
        memory = chip.memory_index(chip.placement.constants)
        total = sum(node.weights.size for node in cascade.convolutions)
        block = sum(weights_of(cascade, self.plan.channels))
        streamed = streamed_bytes(total, block, chip.weight_buffer.elements, self.sweeps)
        again = choose(self.plan.chunks_first, self.sweeps, 1)
        for node in cascade.convolutions:
            size = streams.part(node.weights, node.weights.size)
            traffic.read(memory, size, streamed / total)
            traffic.read(memory, parameters_of(node, node.output.shape[3]), again)
        each = (4 if cascade.expand else 2) + (1 if cascade.project else 0)
        traffic.fetch(self.steps * (self.chunks * each + 3) + streamed / block)
        return streamed / chip.weight_buffer.decoder_bytes_per_cycle

    def _weights_cycles(self) -> float:
        """Return the cycles of the constants' memory for all weights once."""
        traffic = self._traffic()
        memory = self.chip.memory_index(self.chip.placement.constants)
        for node in self.cascade.convolutions:
            streams = self.emitter.choices.streams
            traffic.read(memory, streams.part(node.weights, node.weights.size))
        return traffic.cycles

    def _count_activations(self, ifm: Traffic, ofm: Traffic) -> None:
        """Count the tensors that cross to a memory."""
        cascade, plan, residents = self.cascade, self.plan, self.emitter.residents
        source, other, output = cascade.source, cascade.other, cascade.output
        if source.name not in residents:
            self._count_source(ifm)
        size = plan.height, plan.width
        if other is not None and other.name not in residents:
            count_tile(other, (*size, other.shape[3]), self.steps, ifm, is_write=False)
        if output.name not in residents:
            together = output_channels(cascade, plan)
            times = self.steps * output.shape[3] / together
            count_tile(output, (*size, together), times, ofm, is_write=True)

    def _count_source(self, traffic: Traffic) -> None:
        """Count the input of all steps."""
        cascade, plan, source = self.cascade, self.plan, self.cascade.source
        images = choose(plan.chunks_first, source.shape[0], 0)
        count_tile(source, source.shape[1:], images, traffic, is_write=False)
        if cascade.expand is None:
            size = plan.height, plan.width
            count_input(cascade.depthwise, size, source.shape[3], 1, (plan.input_bytes, traffic))
        else:
            box = (*self.extents.source, source.shape[3])
            times = choose(plan.chunks_first, 0, self.steps * self.expansions)
            count_tile(source, box, times, traffic, is_write=False)
