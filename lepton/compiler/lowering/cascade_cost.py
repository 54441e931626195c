"""Estimated cost of a cascade with a plan."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
from lepton.isa.instructions import Stationary

__all__ = ["cascade_cost"]


def cascade_cost(cascade: Cascade, emitter: Emitter, plan: CascadePlan) -> float:
    """Return the estimated cost of a plan.

    Its cycles are the longest of arithmetic, traffic and their chain.
    """
    extents = step_extents(cascade, (plan.height, plan.width))
    return _Case(cascade, emitter, plan, extents).cost()


@dataclass(frozen=True)
class _Work:
    """Cycles of the matrix and of the vector unit for one chunk of one step."""

    matrix: float
    vector: float


@dataclass(frozen=True)
class _Case:
    """A cascade with a plan on a chip."""

    cascade: Cascade
    emitter: Emitter
    plan: CascadePlan
    extents: Extents

    @property
    def chip(self) -> Chip:
        return self.emitter.chip

    @property
    def pixels(self) -> int:
        """Output pixels of a step."""
        return self.plan.height * self.plan.width

    @property
    def chunks(self) -> int:
        return -(-self.cascade.channels // self.plan.channels)

    @property
    def down(self) -> int:
        """Steps of a stripe."""
        return -(-self.cascade.depthwise.output.shape[1] // self.plan.height)

    @property
    def stripes(self) -> int:
        """Of all images."""
        images, _, ow, _ = self.cascade.depthwise.output.shape
        return images * -(-ow // self.plan.width)

    @property
    def steps(self) -> int:
        return self.stripes * self.down

    @property
    def sweeps(self) -> int:
        """How often all weights are needed."""
        return self.cascade.source.shape[0] if self.plan.chunks_first else self.steps

    @property
    def expansions(self) -> float:
        """Parts that are expanded per step: the first of a stripe needs its whole window."""
        return 1 + (self.extents.window[0] / self.extents.advance - 1) / self.down

    def cost(self) -> float:
        """Return the estimate."""
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
            chunks * max(matrix + self._exposed(expand, project, matrix), chain),
            chunks * vector,
            traffic.cycles,
            decode,
        )
        first = self.down if self.plan.chunks_first else self.chunks
        moves = chunks if self.plan.chunks_first else self.steps
        begin = max(expand.matrix, expand.vector) * first
        if not self.plan.chunks_first:
            # the first step of all lasts until it has seen every weight
            begin += max(self._weights_cycles() - self.chunks * matrix, 0.0)
        cycles = overlapped(*together) + begin + (ifm.cycles + ofm.cycles) / moves
        streamed = decode * self.chip.weight_buffer.decoder_bytes_per_cycle
        objective = self.emitter.choices.objective
        return plan_cost(objective, cycles, traffic, lambda: self._work(streamed))

    def _work(self, streamed: float) -> Work:
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

    def _requantize(self, node: Convolution, pixels: int, channels: int) -> float:
        parameters = parameters_of(node, channels) / self.chip.scratchpad.port_bytes
        return self._stream(pixels * channels) + parameters

    def _stream(self, elements: int) -> float:
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
        walk = Walk(ic * width, 1, 0, pitch) if across == 1 else Walk(ic, width, ic * across, pitch)
        reduction = math.prod(node.window.kernel) * ic
        distance = node.window.stride[1] * ic
        product = Product(
            reduction, channels, *size, walk, distance, channels, int(Stationary.BUFFER)
        )
        _, stream, _, _ = matmul_cost(self.chip.derived(cost_scalars), product)
        stream *= self.emitter.choices.packed.share(node)
        return _Work(stream, self._requantize(node, math.prod(size), channels))

    def _depthwise(self) -> _Work:
        node, plan = self.cascade.depthwise, self.plan
        window, size = node.window, (plan.height, plan.width)
        scalars = self.chip.derived(cost_scalars)
        stream, _ = depthwise_cycles(
            scalars, window.kernel, window.stride[1], window.dilation[1], size, plan.channels
        )
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
        matrix = matmul_cycles(scalars, size, channels, oc, channels, channels)
        matrix *= self.emitter.choices.packed.share(node)
        vector = self._requantize(node, self.pixels, oc)
        if self.cascade.combine is not None:
            vector += self._stream(self.pixels * oc)
        return _Work(matrix, vector / self.chunks)

    def _move(self) -> float:
        """Return the vector unit's cycles for rows that go to a plane's start."""
        extents, rows = self.extents, self.plan.rows
        kept = (extents.window[0] - extents.advance) * extents.window[1] * self.plan.channels
        if kept <= 0 or rows in (0, self.cascade.depthwise.inputs[0].shape[1]):
            return 0.0
        return self._stream(kept) / (1 + (rows - extents.window[0]) // extents.advance)

    def _chain(self, expand: _Work, depthwise: _Work, move: float) -> float:
        """Return the least cycles of a chunk by what must wait for what."""
        projected, *sums = step_sums(self.cascade, self.extents, self.plan)
        # sums are taken from the first cycle of their matmul to the last of their requantization
        taken = sums[0] * (depthwise.matrix + depthwise.vector + self._skew)
        taken += self.expansions * sums[1] * (expand.matrix + expand.vector + self._skew)
        chain = taken / (self.emitter.sums.size - self.plan.projections * projected)
        if self.cascade.expand is None or self.plan.chunks_first:
            return chain
        # a plane's rows are expanded when the step before has read it, and then read
        turn = expand.matrix + expand.vector + move + depthwise.matrix + 2 * self._skew
        return max(chain, turn / self.chunks)

    def _exposed(self, expand: _Work, project: _Work, matrix: float) -> float:
        """Return for how long a chunk's share of a step waits for the sums of the step before."""
        if self.plan.projections != 1:
            return 0.0
        queued = expand.vector + self.chunks * project.vector
        return max(queued + self._skew - matrix, 0.0) / self.chunks

    def _count_constants(self, traffic: Traffic) -> float:
        """Count weights, parameters and instructions; return decoder cycles."""
        cascade, chip, streams = self.cascade, self.chip, self.emitter.choices.streams
        memory = chip.memory_index(chip.placement.constants)
        total = sum(node.weights.size for node in cascade.convolutions)
        block = sum(weights_of(cascade, self.plan.channels))
        streamed = streamed_bytes(total, block, chip.weight_buffer.elements, self.sweeps)
        again = self.sweeps if self.plan.chunks_first else 1
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
        if plan.chunks_first:
            count_tile(source, source.shape[1:], source.shape[0], traffic, is_write=False)
        elif cascade.expand is None:
            size = plan.height, plan.width
            count_input(cascade.depthwise, size, source.shape[3], 1, (plan.input_bytes, traffic))
        else:
            box = (*self.extents.source, source.shape[3])
            count_tile(source, box, self.steps * self.expansions, traffic, is_write=False)
