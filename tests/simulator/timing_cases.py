"""Random chips with flat memories, and random programs for them, as timing sees them.

The instructions are in bounds and their fields legal, but what they read may never have been
written: the timing of a program does not depend on its values.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from lepton.chip import Chip, Dataflow, Dram, Flat, load_chip
from lepton.chip.description import Array
from lepton.isa import Instruction, encode_all
from lepton.isa import instructions as isa
from lepton.isa.declaration import SEMAPHORES, Unit
from lepton.program import Operator, Program, Region

__all__ = [
    "Placed",
    "join_program",
    "program_of",
    "random_chip",
    "random_instruction",
    "random_pitches",
    "random_program",
    "random_window",
    "streams",
]

CLOCKS_MHZ = (500, 500, 400, 300, 333, 700, 1000, Fraction(500, 3), Fraction(133, 2))
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 12, 16, 24, 32)
Queue = tuple[int, Unit, int]
"""Core, unit and channel."""

Semaphore = tuple[int, int]
"""Number and core, -1 if it is common to all cores."""

FIRST_COMMON = 40
"""The first semaphore that is common, where there are several cores."""

Placed = tuple[int, Instruction]
"""A core and an instruction of its stream."""

REACH = 2048
"""No operand reaches further than so many bytes or accumulators."""


def _memory(r: random.Random, name: str) -> Flat:
    bandwidth = r.choice((1, 2, 4, 8, 16, Fraction(7, 3), Fraction(32, 5), Fraction(3, 4)))
    return Flat(
        name=name,
        size_mib=Fraction(1),
        clock_mhz=Fraction(r.choice(CLOCKS_MHZ)),
        bytes_per_cycle=Fraction(bandwidth),
        ports=r.choice((1, 1, 2, 3, 6)),
        burst_bytes=r.choice((8, 16, 24, 32, 64, 100, 128)),
        read_latency_cycles=r.choice((0, 1, 3, 7, 20)),
        write_latency_cycles=r.choice((0, 1, 4, 9, 30)),
        reads_in_flight=r.choice((1, 2, 3, 5, 16)),
        writes_in_flight=r.choice((1, 2, 3, 5, 16)),
    )


ORDERS = ("rorabacobgch", "rochrababgco", "rorachcobabg", "corobarabgch")


def _dram(r: random.Random, name: str) -> Dram:
    """Return a DRAM with short timings, so that a short program meets every rule."""
    ranks, groups = r.choice((1, 1, 2)), r.choice((1, 2, 4))
    rrd, rcd, rp, cl = r.randint(1, 4), r.randint(2, 8), r.randint(2, 8), r.randint(3, 9)
    rfc, ras, ccd, wtr = r.randint(10, 30), rcd + r.randint(2, 10), r.randint(1, 4), r.randint(1, 4)
    return Dram(
        name=name, size_mib=1, clock_mhz=Fraction(r.choice(CLOCKS_MHZ)),
        channels=r.choice((1, 1, 2, 4)), ranks=ranks, bank_groups=groups,
        banks_per_group=r.choice((1, 2)), row_bytes=r.choice((64, 128, 256)),
        access_bytes=r.choice((16, 32, 64)), burst_cycles=r.choice((1, 2, 4)),
        commands_per_cycle=r.choice((1, 1, 2)), queue=r.choice((1, 2, 4, 8)),
        bank_queue=r.choice((1, 2, 4)), mapping=r.choice(ORDERS), tCL=cl, tCWL=r.randint(1, cl),
        tRCD=rcd, tRP=rp, tRAS=ras, tWR=r.randint(1, 8), tRTP=r.randint(1, 6), tCCD_S=ccd,
        tCCD_L=ccd + r.randint(0, 3), tRRD_S=rrd, tRRD_L=rrd + r.randint(0, 3),
        tFAW=4 * rrd + r.randint(0, 10), tWTR_S=wtr, tWTR_L=wtr + r.randint(0, 4), tRFC=rfc,
        tREFI=ranks * (2 * (rfc + ras + rp) + r.randint(0, 99)), tRTRS=r.randint(1, 3),
        tPPD=r.choice((0, 0, 2, 3)),
    )  # fmt: skip


def _array(r: random.Random, plain: Array) -> Array:
    """Return a random array, half of those that can deal pixels doing so."""
    array = dataclasses.replace(
        plain, rows=r.randint(2, 16), columns=r.randint(2, 16), count=r.randint(1, 4),
        clock_mhz=Fraction(r.choice(CLOCKS_MHZ)), feed_words=r.randint(1, 4),
        issue_cycles=r.choice((0, 1, 4)), overlap=r.random() < 0.7,
        dataflow=r.choice((Dataflow.WEIGHT_STATIONARY, *Dataflow)),
    )  # fmt: skip
    return dataclasses.replace(array, deals_pixels=array.is_pipelined and r.random() < 0.5)


def random_chip(r: random.Random, drams: float) -> Chip:
    """Return a legal chip of small units and one to three memories, that share of them DRAMs."""
    chip = load_chip("nano")
    replace = dataclasses.replace
    names = [f"memory{number}" for number in range(r.randint(1, 3))]
    return replace(
        chip,
        array=_array(r, chip.array),
        accumulators=replace(chip.accumulators, size_kib=24, banks=r.choice((1, 2, 3, 4, 8))),
        vector=replace(
            chip.vector, lanes=r.randint(1, 16), latency_cycles=r.choice((0, 1, 5)),
            softmax_cycles_per_element=r.randint(1, 3),
        ),
        weight_buffer=replace(
            chip.weight_buffer, decoder_bytes_per_cycle=r.choice(WIDTHS),
            entropy_lanes=r.choice((1, 2, 8)),
        ),
        scratchpad=replace(
            chip.scratchpad, size_kib=12, banks=r.choice((1, 2, 3, 4, 6, 12, 32)),
            port_bytes=r.choice(WIDTHS),
        ),
        dma=replace(
            chip.dma, load_channels=r.randint(1, 3), store_channels=r.randint(1, 2),
            burst_bytes=r.choice((16, 32, 48, 64, 128)), outstanding=r.choice((1, 2, 3, 4, 9)),
            setup_cycles=r.choice((1, 2, 4)),
        ),
        control=replace(
            chip.control, queue_depth=r.choice((1, 2, 3, 4, 9)),
            fetch_bytes=r.choice((1, 64, 128, 200, 256)), fetch_outstanding=r.randint(1, 4),
            packed=r.random() < 0.5,
        ),
        memories=tuple(
            (_dram if r.random() < drams else _memory)(r, name) for name in names
        ),
        placement=replace(
            chip.placement, program=r.choice(names), constants=r.choice(names),
            activations=tuple(names),
        ),
    )  # fmt: skip


def random_pitches(r: random.Random, name: str, width: int, channels: int) -> dict[str, int]:
    """Return the pitches of a tile, packed more often than not."""
    pixel = channels + r.choice((0, 0, 1, 5))
    row = width * pixel + r.choice((0, 0, 3))
    return {f"{name}_row_pitch": row, f"{name}_pixel_pitch": pixel}


def random_window(r: random.Random) -> dict[str, int]:
    """Return the fields of a kernel's walk over a tile."""
    return {
        "kernel_height": r.randint(1, 3), "kernel_width": r.randint(1, 3),
        "stride_y": r.randint(1, 2), "stride_x": r.randint(1, 2),
        "dilation_y": r.randint(1, 2), "dilation_x": r.randint(1, 2),
        "ifm_height": r.randint(4, 7), "ifm_width": r.randint(4, 7),
        "ofm_height": r.randint(1, 3), "ofm_width": r.randint(1, 4),
    }  # fmt: skip


class _Draw:
    """Draws instructions for a chip."""

    def __init__(self, r: random.Random, chip: Chip) -> None:
        self.r, self.chip = r, chip

    def at(self) -> int:
        """Return an address of the scratchpad."""
        return self._place(self.chip.scratchpad.size_bytes, self.chip.scratchpad.bank_bytes)

    def accumulator(self) -> int:
        sums = self.chip.accumulators
        return self._place(sums.elements, sums.bank_elements)

    def _place(self, size: int, bank: int) -> int:
        """Return an address, now and then near the edge of a bank."""
        at = self.r.randrange(size - REACH)
        edge = self.r.randrange(1 + (size - REACH) // bank) * bank - self.r.choice((0, 1, 9, 60))
        return self.r.choice((at, at, max(edge, 0)))

    def pitches(self, name: str, width: int, channels: int) -> dict[str, int]:
        return random_pitches(self.r, name, width, channels)

    def transfer(self, cls: type[Any], channels: int) -> Instruction:
        r = self.r
        rows, planes = r.randint(1, 4), r.randint(1, 3)
        size = r.choice((r.randint(1, 9), r.randint(1, 100), r.choice((16, 32, 64, 128))))
        stride, pitch = (size + r.choice((0, 0, 0, 7)) for _ in range(2))
        return cls(
            channel=r.randrange(channels), memory=r.randrange(len(self.chip.memories)),
            address=r.randrange(1000), scratchpad=self.at(), row_bytes=size, rows=rows,
            planes=planes, row_stride=stride, scratchpad_row_pitch=pitch,
            plane_stride=r.choice((rows * stride, rows * stride + 5, size)),
            scratchpad_plane_pitch=r.choice((rows * pitch, rows * pitch + 5, size)),
        )  # fmt: skip

    def window(self) -> dict[str, int]:
        return random_window(self.r)

    def tile(self, *names: str) -> dict[str, int]:
        """Return the extents of an element-wise instruction and its operands' pitches."""
        width, channels = self.r.randint(1, 5), self.r.randint(1, 12)
        made = {"height": self.r.randint(1, 4), "width": width, "channels": channels}
        for name in names:
            made |= {name: self.at()} | self.pitches(name, width, channels)
        return made


def _matmul(d: _Draw) -> Instruction:
    window, channels, columns = d.window(), d.r.randint(1, 8), d.r.randint(1, 14)
    stationary = d.r.choice(list(isa.Stationary))
    is_turned = stationary == isa.Stationary.SCRATCHPAD_TRANSPOSED
    run = window["kernel_height"] * window["kernel_width"] * channels if is_turned else columns
    return isa.Matmul(
        ifm=d.at(), channels=channels, columns=columns, accumulator=d.accumulator(),
        accumulator_pitch=columns + d.r.choice((0, 3)), accumulate=d.r.randrange(2),
        stationary=stationary, stationary_address=d.at(),
        stationary_pitch=run + d.r.choice((0, 5)), **window,
        **d.pitches("ifm", window["ifm_width"], channels),
    )  # fmt: skip


def _depthwise(d: _Draw) -> Instruction:
    window, channels, multiplier = d.window(), d.r.randint(1, 12), d.r.randint(1, 2)
    return isa.Depthwise(
        ifm=d.at(), channels=channels, multiplier=multiplier, accumulator=d.accumulator(),
        accumulator_pitch=channels * multiplier, accumulate=d.r.randrange(2),
        stationary=d.r.choice((isa.Stationary.BUFFER, isa.Stationary.ONES)), **window,
        **d.pitches("ifm", window["ifm_width"], channels),
    )  # fmt: skip


def _weights(d: _Draw) -> Instruction:
    reduction, columns = d.r.randint(1, 30), d.r.randint(1, 14)
    size, format = reduction * columns, d.r.choice(list(isa.WeightFormat))
    if size < 4:
        format = isa.WeightFormat.RAW
    stored = size if format == isa.WeightFormat.RAW else d.r.randrange(3, size)
    return isa.Weights(
        memory=d.r.randrange(len(d.chip.memories)), address=d.r.randrange(1000), format=format,
        stream_bytes=stored, reduction=reduction, columns=columns,
    )  # fmt: skip


def _requantize(d: _Draw) -> Instruction:
    return isa.Requantize(
        accumulator=d.accumulator(), accumulator_pitch=12, parameters=d.at(), maximum=127,
        mode=d.r.choice(list(isa.RequantizeMode)), **d.tile("ofm"),
    )  # fmt: skip


def _binary(d: _Draw) -> Instruction:
    tile = d.tile("a", "b", "ofm")
    for key in ("a_row_pitch", "a_pixel_pitch", "b_row_pitch", "b_pixel_pitch"):
        tile[key] *= d.r.choice((0, 1, 1))
    return isa.Binary(
        mode=d.r.choice(list(isa.BinaryMode)), a_channel_pitch=d.r.randrange(2),
        b_channel_pitch=d.r.randrange(2), parameters=d.at(), **tile,
    )  # fmt: skip


def _copy(d: _Draw) -> Instruction:
    tile = d.tile("ifm", "ofm")
    for name in ("ifm", "ofm"):
        tile[f"{name}_channel_pitch"] = d.r.choice((1, 1, 20))
    return isa.Copy(**tile)


def _lut(d: _Draw) -> Instruction:
    tile = d.tile("ifm", "ofm")
    tile["channels"] = min(tile["channels"], 7)
    return isa.Lut(table=d.at(), table_pitch=d.r.choice((0, 256)), **tile)


def _pool(d: _Draw) -> Instruction:
    window, channels = d.window(), d.r.randint(1, 12)
    return isa.Pool(
        mode=d.r.choice(list(isa.PoolMode)), ifm=d.at(), ofm=d.at(), channels=channels,
        parameters=d.at(), maximum=127, **window,
        **d.pitches("ifm", window["ifm_width"], channels),
        **d.pitches("ofm", window["ofm_width"], channels),
    )  # fmt: skip


def _softmax(d: _Draw) -> Instruction:
    return isa.Softmax(
        mode=d.r.choice(list(isa.SoftmaxMode)), rows=d.r.randint(1, 4), ifm=d.at(), ofm=d.at(),
        channels=d.r.randint(1, 24), ifm_row_pitch=24, ofm_row_pitch=30, parameters=d.at(),
    )  # fmt: skip


def _resize(d: _Draw) -> Instruction:
    channels, width, out = d.r.randint(1, 8), d.r.randint(1, 5), d.r.randint(1, 5)
    return isa.Resize(
        mode=d.r.choice(list(isa.ResizeMode)), ifm=d.at(), ofm=d.at(), parameters=d.at(),
        ifm_height=d.r.randint(1, 5), ifm_width=width, channels=channels,
        ofm_height=d.r.randint(1, 4), ofm_width=out,
        **d.pitches("ifm", width, channels), **d.pitches("ofm", out, channels),
    )  # fmt: skip


_INSTRUCTIONS: dict[str, Callable[[_Draw], Instruction]] = {
    "load": lambda d: d.transfer(isa.Load, d.chip.dma.load_channels),
    "store": lambda d: d.transfer(isa.Store, d.chip.dma.store_channels),
    "weights": _weights,
    "matmul": _matmul,
    "depthwise": _depthwise,
    "requantize": _requantize,
    "binary": _binary,
    "lut": _lut,
    "copy": _copy,
    "fill": lambda d: isa.Fill(value=1, **d.tile("ofm")),
    "pool": _pool,
    "softmax": _softmax,
    "resize": _resize,
}


def random_instruction(r: random.Random, chip: Chip, mnemonic: str) -> Instruction:
    """Return a random instruction that waits for nothing."""
    return _INSTRUCTIONS[mnemonic](_Draw(r, chip))


_TRANSFERS = ("load", "load", "store", "weights")
_COMPUTE = tuple(name for name in _INSTRUCTIONS if name not in _TRANSFERS)


def _queue(core: int, item: Instruction) -> Queue:
    """Return what tells an instruction's queue from others."""
    return core, item.unit, getattr(item, "channel", 0)


def _synchronize(
    r: random.Random, items: list[Placed], pairs: dict[Semaphore, tuple[Queue, Queue]]
) -> list[Placed]:
    """Let instructions signal and wait, each wait behind its signal in the order given."""
    rate, fired = r.choice((0.05, 0.2, 0.5)), dict.fromkeys(pairs, 0)
    made: list[Placed] = []
    for core, item in items:
        wait = signal = 0
        for semaphore, (signalling, waiting) in pairs.items():
            bit = 1 << semaphore[0]
            is_here = _queue(core, item) == waiting and fired[semaphore]
            if is_here and r.random() < max(rate, 0.3):
                wait |= bit
                fired[semaphore] -= 1
            if _queue(core, item) == signalling and r.random() < rate:
                signal |= bit
                fired[semaphore] += 1
        made.append((core, dataclasses.replace(item, wait=wait, signal=signal)))
    return made


def program_of(
    chip: Chip, regions: Sequence[Sequence[Instruction]], program_address: int = 0
) -> Program:
    """Return the program of these NPU regions, a halt behind each and the host between.

    A region for several cores holds the halts of all but the last (`streams`).
    """
    stream: list[Instruction] = []
    made: list[Region] = []
    for items in regions:
        begin = len(stream)
        stream += [*items, isa.Halt()]
        if made:
            made.append(Region("host", 0, 0, (), (), 0))
        made.append(Region("npu", begin, len(stream), (), (), -1))
    return Program(
        source="random.onnx", golden="onnx", chip=chip, instructions=encode_all(stream),
        operator_of=np.zeros(len(stream), np.uint32), constants=np.zeros(0, np.uint8),
        program_address=program_address, constants_address=0, tensors=(), inputs=(), outputs=(),
        operators=(Operator("op", "Conv", "npu", 0, 0, 0, ""),), regions=tuple(made),
        host_models=(),
    )  # fmt: skip


def streams(*cores: Sequence[Instruction]) -> list[Instruction]:
    """Return a region of these streams for `program_of`."""
    joined = [[*stream, isa.Halt()] for stream in cores]
    return [item for stream in joined for item in stream][:-1]


def random_program(seed: int, drams: float = 0.0, cores: int = 1) -> Program:
    """Return a random program; some deadlock. A share of its chip's memories is `drams`."""
    r = random.Random(seed)
    chip = dataclasses.replace(random_chip(r, drams), cores=cores)
    d = _Draw(r, chip)
    total, parts = r.choice((5, 12, 25, r.randint(5, 60))), r.choice((1, 1, 1, 2, 3))
    names = r.choice((_TRANSFERS, _COMPUTE, _TRANSFERS + _COMPUTE, _TRANSFERS * 3 + _COMPUTE))
    places = _places(r, total, cores)
    items = [(core, _INSTRUCTIONS[r.choice(names)](d)) for core in places]
    return join_program(r, chip, items, parts)


def join_program(r: random.Random, chip: Chip, items: list[Placed], parts: int) -> Program:
    """Return a program of these instructions, in so many regions, with random semaphores."""
    total, cores = len(items), chip.cores
    pairs = _semaphores(r, [_queue(*item) for item in items], cores)
    regions: list[list[Instruction]] = []
    for part in range(parts):
        mine = _synchronize(r, items[part * total // parts : (part + 1) * total // parts], pairs)
        made = [[item for core, item in mine if core == number] for number in range(cores)]
        if r.random() < 0.25:
            _move_ahead(r, made)
        if r.random() < 0.1:
            _forget_signal(r, made)
        regions.append(streams(*made))
    return program_of(chip, regions, r.choice((0, 64, 4096, 1000)))


def _places(r: random.Random, total: int, cores: int) -> list[int]:
    """Return the core of each instruction; one may have most of them, and some may have none."""
    if cores == 1:
        return [0] * total
    shares = [r.choice((0, 1, 1, 1, 3)) for _ in range(cores)]
    shares[r.randrange(cores)] += 1
    return r.choices(range(cores), shares, k=total)


def _semaphores(
    r: random.Random, used: list[Queue], cores: int
) -> dict[Semaphore, tuple[Queue, Queue]]:
    """Return the signalling and the waiting queue of some semaphores."""
    if cores == 1:
        return _pairs(r, sorted(set(used)), range(SEMAPHORES), 0)
    made = _pairs(r, used, range(FIRST_COMMON, SEMAPHORES), -1)
    for semaphore, (signalling, waiting) in made.items():
        elsewhere = [queue for queue in used if queue[0] != signalling[0]]
        if elsewhere and r.random() < 0.7:
            waiting = r.choice(elsewhere)
        made[semaphore] = signalling, waiting
    for core in {queue[0] for queue in used}:
        mine = [queue for queue in used if queue[0] == core]
        made |= _pairs(r, mine, range(FIRST_COMMON), core)
    return made


def _pairs(
    r: random.Random, used: list[Queue], bits: range, core: int
) -> dict[Semaphore, tuple[Queue, Queue]]:
    """Return the two queues of some of these semaphores, of a core or common."""
    chosen = r.sample(bits, r.randint(0, 12))
    waiting = used if r.randrange(2) else [r.choice(used)]
    return {(bit, core): (r.choice(used), r.choice(waiting)) for bit in chosen}


def _move_ahead(r: random.Random, cores: list[list[Instruction]]) -> None:
    """Swap neighbours of different queues: waits may come ahead of their signals, or deadlock."""
    for items in cores:
        for _ in range(3 * len(items)):
            at = r.randrange(len(items))
            pair = items[at : at + 2]
            if len(pair) == 2 and _queue(0, pair[0]) != _queue(0, pair[1]):
                items[at : at + 2] = pair[::-1]


def _forget_signal(r: random.Random, cores: list[list[Instruction]]) -> None:
    """Take the signals of one instruction away."""
    items = r.choice([items for items in cores if items]) if len(cores) > 1 else cores[0]
    at = r.randrange(len(items))
    items[at] = dataclasses.replace(items[at], signal=0)
