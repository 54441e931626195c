"""Layer tables on an array that never waits: SCALE-Sim's machine, by the event kernel.

    from benchmarks.ideal_array import compute_cycles, ideal_chip, table_program

A layer is one `matmul` of an encoded program. Memories, buffers and feed of the chip are so wide
that only the array takes time, and its passes do not overlap, as docs/timing.md says under
"SCALE-Sim's cycles".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, Dataflow, Flat, load_chip
from lepton.compiler.importers.layer_table import TableLayer
from lepton.isa import encode_all
from lepton.isa.instructions import Fill, Halt, Matmul, Weights
from lepton.program import Operator, Program, Region
from lepton.trace import Trace

__all__ = ["compute_cycles", "ideal_chip", "known_cycles", "product_of", "table_program"]

_WIDEST = 1 << 16
_FILLED, _LOADED = 1, 2
"""Semaphores: the input is there, the weights are there."""


def ideal_chip(rows: int, columns: int, dataflow: Dataflow) -> Chip:
    """Return a chip with one array, in which nothing else takes time worth speaking of."""
    chip = load_chip("nano")
    memory = Flat(
        name="memory", size_mib=Fraction(64), clock_mhz=Fraction(1000),
        bytes_per_cycle=Fraction(_WIDEST), ports=1, burst_bytes=_WIDEST, read_latency_cycles=0,
        write_latency_cycles=0, reads_in_flight=4096, writes_in_flight=4096,
    )  # fmt: skip
    return replace(
        chip,
        name=f"ideal-{rows}x{columns}-{dataflow}",
        description="an array that never waits and whose passes do not overlap, SCALE-Sim's",
        array=replace(
            chip.array, rows=rows, columns=columns, clock_mhz=Fraction(1000), feed_words=4096,
            issue_cycles=0, dataflow=dataflow, overlap=False,
        ),
        accumulators=replace(chip.accumulators, size_kib=16384, banks=1),
        vector=replace(chip.vector, lanes=_WIDEST, latency_cycles=0),
        weight_buffer=replace(
            chip.weight_buffer, size_kib=16384, decoder_bytes_per_cycle=_WIDEST
        ),
        scratchpad=replace(chip.scratchpad, size_kib=16384, banks=1, port_bytes=_WIDEST),
        dma=replace(chip.dma, burst_bytes=_WIDEST, outstanding=64, setup_cycles=1),
        control=replace(
            chip.control, queue_depth=256, fetch_bytes=_WIDEST, fetch_outstanding=4
        ),
        memories=(memory,),
        technology=replace(chip.technology, memories=("sram",)),
        placement=replace(
            chip.placement, program="memory", constants="memory", activations=("memory",)
        ),
        sources={key: "ours: wide enough never to be waited for" for key in _SECTIONS},
    )  # fmt: skip


_SECTIONS = ("array", "accumulators", "vector", "weight_buffer", "scratchpad", "dma", "control")
_SECTIONS += ("placement", "technology", "memory.memory")


def _ofm(layer: TableLayer) -> tuple[int, int]:
    """Return height and width of the output as SCALE-Sim has them, rounded up."""
    height, width = (
        -(-(size - taps) // layer.stride) + 1
        for size, taps in zip(layer.ifm, layer.kernel, strict=True)
    )
    return height, width


def product_of(layer: TableLayer) -> tuple[int, int, int]:
    """Return M, N and K of a layer: output pixels, filters, taps x channels."""
    return prod(_ofm(layer)), layer.filters, prod(layer.kernel) * layer.channels


def known_cycles(layer: TableLayer, array: int, dataflow: Dataflow) -> int:
    """Return the compute cycles of SCALE-Sim for a square array: the number of the last.

    Source: docs/timing.md, "SCALE-Sim's cycles".
    """
    m, n, k = (-(-size // array) for size in product_of(layer))
    pixels, filters, reduction = product_of(layer)
    passes, length = {
        Dataflow.WEIGHT_STATIONARY: (k * n, 3 * array + pixels - 2),
        Dataflow.OUTPUT_STATIONARY: (m * n, 2 * array + reduction - 2),
        Dataflow.INPUT_STATIONARY: (k * m, 3 * array + filters - 2),
    }[dataflow]
    return passes * length - 1


def _matmul(layer: TableLayer, wait: int) -> Matmul:
    height, width = layer.ifm
    ofm_height, ofm_width = _ofm(layer)
    return Matmul(
        ifm_row_pitch=width * layer.channels, ifm_pixel_pitch=layer.channels, ifm_height=height,
        ifm_width=width, channels=layer.channels, kernel_height=layer.kernel[0],
        kernel_width=layer.kernel[1], stride_y=layer.stride, stride_x=layer.stride, dilation_y=1,
        dilation_x=1, ofm_height=ofm_height, ofm_width=ofm_width, columns=layer.filters,
        accumulator_pitch=layer.filters, wait=wait,
    )  # fmt: skip


def table_program(layers: Sequence[TableLayer], chip: Chip) -> Program:
    """Return the program that runs layers one after the other, a `matmul` each.

    All read the same input and the same weights, which are brought in once, for the largest.
    """
    largest = max(layers, key=lambda layer: prod(layer.ifm) * layer.channels)
    size = max(prod(product_of(layer)[1:]) for layer in layers)
    (height, width), channels = largest.ifm, largest.channels
    fill = Fill(
        height=height, width=width, channels=channels, ofm_row_pitch=width * channels,
        ofm_pixel_pitch=channels, signal=_FILLED,
    )  # fmt: skip
    weights = Weights(stream_bytes=size, reduction=size, columns=1, signal=_LOADED)
    waits = [_FILLED | _LOADED] + [0] * (len(layers) - 1)
    matmuls = [_matmul(layer, wait) for layer, wait in zip(layers, waits, strict=True)]
    stream = [fill, weights, *matmuls, Halt()]
    operators = tuple(
        Operator(f"{number:03d}_{layer.name}", "Conv", "npu", prod(product_of(layer)), size, 0, "")
        for number, layer in enumerate(layers)
    )
    return Program(
        source="layers.csv", golden="onnx", chip=chip, instructions=encode_all(stream),
        operator_of=np.array([0, 0, *range(len(layers)), len(layers) - 1], np.uint32),
        constants=np.zeros(size, np.uint8), program_address=-(-size // 4096) * 4096,
        constants_address=0, tensors=(), inputs=(), outputs=(), operators=operators,
        regions=(Region("npu", 0, len(stream), (), (), -1),), host_models=(),
    )  # fmt: skip


def compute_cycles(trace: Trace) -> NDArray[np.int64]:
    """Return the cycles of each layer as SCALE-Sim counts them: the number of the last one."""
    records = trace.records[trace.records["queue"] == trace.queues.index("matrix")]
    busy = records["end"] - records["start"] - records["stall_bank"]
    return busy.astype(np.int64) - 1
