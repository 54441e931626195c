"""The chip as nested frozen dataclasses: what the TOML files say, with units in the names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from math import gcd, lcm
from typing import TypeVar, cast

__all__ = [
    "Accumulators",
    "Array",
    "Chip",
    "Control",
    "Dataflow",
    "Dma",
    "Dram",
    "Flat",
    "Memory",
    "Placement",
    "Scratchpad",
    "Sparsity",
    "Technology",
    "Vector",
    "WeightBuffer",
]

T = TypeVar("T")


class Dataflow(StrEnum):
    """Which operand of a matmul stays in the array while the others stream."""

    WEIGHT_STATIONARY = "weight-stationary"
    OUTPUT_STATIONARY = "output-stationary"
    INPUT_STATIONARY = "input-stationary"


@dataclass(frozen=True)
class Array:
    """The matrix unit: `count` systolic arrays of rows x columns int8 MACs."""

    rows: int
    columns: int
    count: int
    clock_mhz: Fraction
    feed_words: int
    """Words of `rows` bytes that the line buffer takes from the scratchpad in a cycle."""
    issue_cycles: int
    """Cycles from the start of an instruction to its first step, address generator set-up."""
    dataflow: Dataflow = Dataflow.WEIGHT_STATIONARY
    """Of `matmul`; `depthwise` has a mode of its own."""
    overlap: bool = True
    """Whether the passes of a `matmul` overlap: each element has a second register, and the next
    pass can begin before the results of this one have left."""
    deals_pixels: bool = False
    """Whether arrays that the columns of a `matmul` leave idle compute other pixels of the row."""

    @property
    def is_pipelined(self) -> bool:
        """Whether weights stay in the array and are loaded while another pass streams."""
        return self.dataflow == Dataflow.WEIGHT_STATIONARY and self.overlap


@dataclass(frozen=True)
class Accumulators:
    """int32 accumulators."""

    size_kib: int
    banks: int

    @property
    def elements(self) -> int:
        return self.size_kib * 256

    @property
    def bank_elements(self) -> int:
        return self.elements // self.banks


@dataclass(frozen=True)
class Vector:
    """The element-wise unit."""

    lanes: int
    latency_cycles: int
    """Cycles from the start of an instruction to its first result, the pipeline's depth."""
    softmax_cycles_per_element: int
    """Lane cycles of one element of a softmax: maximum, exponential and sum, division."""


@dataclass(frozen=True)
class WeightBuffer:
    """Expanded weights waiting for the array, and the decoder in front of them."""

    size_kib: int
    decoder_bytes_per_cycle: int
    entropy_lanes: int = 0
    """Elements of an entropy-coded stream that the decoder expands per cycle; 0 if it cannot."""

    @property
    def elements(self) -> int:
        return self.size_kib * 1024


@dataclass(frozen=True)
class Sparsity:
    """How the array packs the passes of a `matmul` whose weights are constants."""

    lanes: int
    """Rows of the array whose elements choose among each other's operands."""
    window: int
    """Blocks of the reduction that a pass can take; 1 to leave blocks out only."""
    zero_blocks: bool
    """Whether blocks of zeros are not issued."""
    feed_words: int
    """Words that the line buffer takes in a cycle for such passes, in place of the array's."""


@dataclass(frozen=True)
class Scratchpad:
    """On-chip memory of activations; bank b holds the b-th equal share of the addresses."""

    size_kib: int
    banks: int
    port_bytes: int

    @property
    def size_bytes(self) -> int:
        return self.size_kib * 1024

    @property
    def bank_bytes(self) -> int:
        return self.size_bytes // self.banks


@dataclass(frozen=True)
class Dma:
    """Copy engines between the memories and the scratchpad."""

    load_channels: int
    store_channels: int
    burst_bytes: int
    """Longest request; requests never cross a multiple of it."""
    outstanding: int
    """Requests that a channel may have in flight."""
    setup_cycles: int
    """Cycles between taking an instruction and its first request."""


@dataclass(frozen=True)
class Control:
    """Fetch, decode and dispatch."""

    queue_depth: int
    """Instructions that a unit's queue holds."""
    fetch_bytes: int
    """Bytes of one fetch request."""
    fetch_outstanding: int
    packed: bool = False
    """Whether the instruction stream is packed (`lepton.isa.pack`), or words as they are."""


@dataclass(frozen=True)
class Dram:
    """A bank-level DRAM; timings are in DRAM clock cycles and named as in the JEDEC standards."""

    name: str
    size_mib: int
    clock_mhz: Fraction
    channels: int
    ranks: int
    bank_groups: int
    banks_per_group: int
    row_bytes: int
    """Bytes of a row of one bank, over all devices of a channel."""
    access_bytes: int
    """Bytes of one column access on one channel."""
    burst_cycles: int
    """DRAM cycles that one access keeps the data bus."""
    commands_per_cycle: int
    """1, or 2 where row and column commands have a bus each."""
    queue: int
    """Reads, and as many writes, that a channel's controller holds before the banks' queues."""
    bank_queue: int
    """Requests that the queue of a bank holds."""
    mapping: str
    """Address fields, most significant first: ro row, ch channel, ra rank, ba bank, bg bank group,
    co column."""
    tCL: int
    tCWL: int
    tRCD: int
    tRP: int
    tRAS: int
    tWR: int
    tRTP: int
    tCCD_S: int
    tCCD_L: int
    tRRD_S: int
    tRRD_L: int
    tFAW: int
    tWTR_S: int
    tWTR_L: int
    tRFC: int
    tREFI: int
    tRTRS: int
    """Bubble on the data bus where it changes between ranks or from reading to writing."""
    tPPD: int

    @property
    def size_bytes(self) -> int:
        return self.size_mib << 20

    @property
    def bytes_per_second(self) -> Fraction:
        """Peak of all channels."""
        per_cycle = Fraction(self.access_bytes * self.channels, self.burst_cycles)
        return per_cycle * self.clock_mhz * 1_000_000


@dataclass(frozen=True)
class Flat:
    """A memory of plain latency and bandwidth: SRAM or flash."""

    name: str
    size_mib: Fraction
    clock_mhz: Fraction
    bytes_per_cycle: Fraction
    """Bandwidth of one port."""
    ports: int
    burst_bytes: int
    read_latency_cycles: int
    write_latency_cycles: int
    reads_in_flight: int
    writes_in_flight: int

    @property
    def size_bytes(self) -> int:
        return int(self.size_mib * (1 << 20))

    @property
    def bytes_per_second(self) -> Fraction:
        """Peak of all ports."""
        return self.bytes_per_cycle * self.ports * self.clock_mhz * 1_000_000


Memory = Dram | Flat


@dataclass(frozen=True)
class Placement:
    """Which memory holds what, by name."""

    program: str
    constants: str
    activations: tuple[str, ...]
    """Memories for activations, the preferred one first."""


@dataclass(frozen=True)
class Technology:
    """What energy and area are reckoned with; time and values do not depend on it."""

    node: str
    """"7nm" to "45nm"."""
    memories: tuple[str, ...]
    """Kind of each `[[memory]]`, in their order, in the energy tables."""


@dataclass(frozen=True)
class Chip:
    """A whole chip with the memories it is wired to.

    Attributes:
        cores: NPUs that share the memories; everything but those each has to itself.
        sources: where each constant comes from, by dotted prefix of its key.
    """

    name: str
    description: str
    array: Array
    accumulators: Accumulators
    vector: Vector
    weight_buffer: WeightBuffer
    scratchpad: Scratchpad
    dma: Dma
    control: Control
    memories: tuple[Memory, ...]
    placement: Placement
    technology: Technology
    sources: dict[str, str] = field(default_factory=dict[str, str])
    cores: int = 1
    sparsity: Sparsity | None = None
    """None for an array that issues every weight."""

    @property
    def peak_macs_per_cycle(self) -> int:
        """Every multiplier that can do a MAC of the model, of all cores."""
        return self.array.rows * self.array.columns * self.array.count * self.cores

    @property
    def columns(self) -> int:
        """Columns of all arrays side by side."""
        return self.array.columns * self.array.count

    def memory_index(self, name: str) -> int:
        """Return the index that instructions use for the memory called `name`."""
        return [memory.name for memory in self.memories].index(name)

    @cached_property
    def ticks_per_second(self) -> Fraction:
        """The base tick's frequency: the least of which every clock edge is a whole number."""
        clocks = [self.array.clock_mhz, *(memory.clock_mhz for memory in self.memories)]
        hertz = [clock * 1_000_000 for clock in clocks]
        return Fraction(
            lcm(*(clock.numerator for clock in hertz)), gcd(*(c.denominator for c in hertz))
        )

    def ticks(self, clock_mhz: Fraction) -> int:
        """Return the base ticks of one cycle of a clock, exactly."""
        return int(self.ticks_per_second / (clock_mhz * 1_000_000))

    @cached_property
    def cycle_ticks(self) -> int:
        """The base ticks of an NPU cycle."""
        return self.ticks(self.array.clock_mhz)

    @cached_property
    def memory_ticks(self) -> tuple[int, ...]:
        """The base ticks of a cycle of each memory."""
        return tuple(self.ticks(memory.clock_mhz) for memory in self.memories)

    @cached_property
    def memory_bytes_per_cycle(self) -> tuple[float, ...]:
        """The peak bandwidth of each memory in bytes per NPU cycle."""
        return tuple(float(self.bytes_per_cycle(memory)) for memory in self.memories)

    @cached_property
    def cycles_per_memory_cycle(self) -> tuple[float, ...]:
        """The NPU cycles of a cycle of each memory."""
        clock = self.array.clock_mhz
        return tuple(float(clock / memory.clock_mhz) for memory in self.memories)

    @cached_property
    def cycles_per_second(self) -> int:
        """NPU clock in whole hertz, for reports; exact times go through `ticks`."""
        return round(self.array.clock_mhz * 1_000_000)

    @cached_property
    def _derived(self) -> dict[object, object]:
        return {}

    def derived(self, function: Callable[[Chip], T]) -> T:
        """Return what a function of the package makes of this chip, reckoned once."""
        if function not in self._derived:
            self._derived[function] = function(self)
        return cast(T, self._derived[function])

    def bytes_per_cycle(self, memory: Memory) -> Fraction:
        """Return a memory's peak bandwidth in bytes per NPU cycle."""
        return memory.bytes_per_second / (self.array.clock_mhz * 1_000_000)
