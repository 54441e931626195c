"""The emitter: instructions in program order, tiles in the scratchpad, constants, memory map.

Lowering functions see tensors through `fetch` and `place`, which give a tile whether the tensor
stays in the scratchpad or streams from its memory; semaphores are put in afterwards from what the
instructions read and write.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.compiler.allocate import TILE_ALIGN, Ring
from lepton.compiler.choices import Choices
from lepton.compiler.graph import Tensor
from lepton.compiler.views import View, packed_view
from lepton.errors import CompileError
from lepton.isa.declaration import Instruction
from lepton.isa.instructions import Load, Store, Weights

__all__ = ["Box", "Emitter", "Location", "Mark", "Tile"]

_CONSTANT_ALIGN = 64
"""Bytes at whose multiples constants begin, and weight streams where bytes are minimized."""


@dataclass(frozen=True)
class Location:
    """Where a tensor lives: a memory and a byte address."""

    memory: int
    address: int


@dataclass(frozen=True)
class Box:
    """Part of one image: rows [y0, y1), columns [x0, x1), channels [c0, c1)."""

    y0: int
    y1: int
    x0: int
    x1: int
    c0: int
    c1: int

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def channels(self) -> int:
        return self.c1 - self.c0

    @property
    def size(self) -> int:
        return self.height * self.width * self.channels


@dataclass(frozen=True)
class Tile:
    """A box in the scratchpad."""

    address: int
    row_pitch: int
    pixel_pitch: int
    box: Box
    owned: bool
    """Whether it has a buffer of its own to release."""


class Mark(NamedTuple):
    """How far an emission has come."""

    instructions: int
    constants: int
    contents: int
    turn: int
    locations: dict[str, Location]
    stored_bytes: dict[int, int]
    reasons: dict[int, str]


@dataclass
class Emitter:
    """State of emission of one program."""

    chip: Chip
    locations: dict[str, Location]
    """Where tensors live in the memories, by name."""
    choices: Choices
    residents: dict[str, int] = field(default_factory=dict[str, int])
    """Scratchpad addresses of the tensors that stay there."""
    instructions: list[Instruction] = field(default_factory=list[Instruction])
    operator_of: list[int] = field(default_factory=list[int])
    operator: int = 0
    stored_bytes: dict[int, int] = field(default_factory=dict[int, int])
    """Constant bytes of each operator."""
    constants: bytearray = field(default_factory=bytearray)
    constants_base: int = 0
    reasons: dict[int, str] = field(default_factory=dict[int, str])
    """What was decided about operators, for the user."""
    views: dict[str, View] = field(default_factory=dict[str, View])
    """Where the tensors lie that are parts of others, by name."""
    kept_channels: int = 0
    """DMA channels each way that are not for tensors."""
    exchanged: frozenset[str] = frozenset()
    """Tensors that go from core to core, on channel 0 each way: a pair of queues for two cores."""

    def __post_init__(self) -> None:
        chip = self.chip
        self.tiles = Ring(0, chip.scratchpad.size_bytes, "scratchpad", align=TILE_ALIGN)
        self.sums = Ring(0, chip.accumulators.elements, "accumulators")
        self.weights = Ring(0, chip.weight_buffer.elements, "weight buffer")
        self._constant_at: dict[bytes, int] = {}
        self._turn = 0

    def on(self, chip: Chip) -> Emitter:
        """Return what plans see of this emitter on a chip equal to its own."""
        seen = copy(self)
        seen.chip = chip
        return seen

    def mark(self) -> Mark:
        """Return where `rewind` can go back to before the next operator."""
        return Mark(
            len(self.instructions), len(self.constants), len(self._constant_at), self._turn,
            dict(self.locations), dict(self.stored_bytes), dict(self.reasons),
        )  # fmt: skip

    def rewind(self, mark: Mark) -> None:
        """Forget what was emitted from a mark on."""
        del self.instructions[mark.instructions :]
        del self.operator_of[mark.instructions :]
        del self.constants[mark.constants :]
        while len(self._constant_at) > mark.contents:
            self._constant_at.popitem()
        self._turn, self.locations = mark.turn, dict(mark.locations)
        self.stored_bytes, self.reasons = dict(mark.stored_bytes), dict(mark.reasons)

    def emit(self, instruction: Instruction) -> None:
        """Append an instruction of the current operator."""
        self.instructions.append(instruction)
        self.operator_of.append(self.operator)

    def constant(self, content: NDArray[np.uint8], align: int = _CONSTANT_ALIGN) -> int:
        """Return the address of `content` in the constant segment, one copy of equal contents."""
        raw = np.ascontiguousarray(content).tobytes()
        if raw not in self._constant_at:
            self.constants.extend(b"\0" * (-len(self.constants) % align))
            self._constant_at[raw] = len(self.constants)
            self.constants.extend(raw)
            self.stored_bytes[self.operator] = self.stored_bytes.get(self.operator, 0) + len(raw)
        return self.constants_base + self._constant_at[raw]

    @property
    def constants_memory(self) -> int:
        return self.chip.memory_index(self.chip.placement.constants)

    @property
    def activation_memory(self) -> int:
        """The memory that activations prefer."""
        return self.chip.memory_index(self.chip.placement.activations[0])

    def _load_channel(self) -> int:
        """Return the next load channel, each in turn."""
        self._turn += 1
        return self._turn % (self.chip.dma.load_channels - self.kept_channels)

    def load_constant(self, content: NDArray[np.uint8]) -> Tile:
        """Bring constant bytes into the scratchpad."""
        size = content.size
        tile = Tile(self.tiles.allocate(size), size, size, Box(0, 1, 0, 1, 0, size), True)
        self.bring_constant(content, tile.address)
        return tile

    def bring_constant(self, content: NDArray[np.uint8], address: int) -> None:
        """Load constant bytes to an address of the scratchpad."""
        self.emit(
            Load(
                channel=self._load_channel(),
                memory=self.constants_memory,
                address=self.constant(content),
                scratchpad=address,
                row_bytes=content.size,
                rows=1,
                planes=1,
            )
        )

    def load_weights(self, block: NDArray[np.uint8]) -> int:
        """Stream a `[reduction, columns]` block into the weight buffer; return its address.

        Raises:
            NoRoom: there is no room.
        """
        return self.stream_weights(block, self.weights.allocate(block.size))

    def offer_weights(self, block: NDArray[np.uint8]) -> int | None:
        """Stream a block like `load_weights`, or return None if there is no room now."""
        address = self.weights.offer(block.size)
        return None if address is None else self.stream_weights(block, address)

    def stream_weights(self, block: NDArray[np.uint8], address: int) -> int:
        """Stream a `[reduction, columns]` block to an address of the weight buffer; return that."""
        stream = self.choices.streams.stream(block)
        self.emit(
            Weights(
                memory=self.constants_memory,
                address=self.constant(stream.content, self.choices.streams.align),
                stream_bytes=stream.content.size,
                format=stream.format,
                buffer=address,
                reduction=block.shape[0],
                columns=block.shape[1],
            )
        )
        return address

    def fetch(self, tensor: Tensor, n: int, box: Box) -> Tile:
        """Return a tile of image `n` of a tensor, loaded if the tensor does not stay inside."""
        resident = self.residents.get(tensor.name)
        if resident is not None:
            return self._inside(tensor, resident, n, box)
        tile = self._buffer(box)
        self.bring(tensor, n, tile)
        return tile

    def bring(self, tensor: Tensor, n: int, tile: Tile) -> None:
        """Load a tile of image `n` of a tensor from its memory."""
        for part in self._transfers(tensor, n, tile):
            channel = 0 if tensor.name in self.exchanged else self._load_channel()
            self.emit(replace(part, channel=channel))

    def place(self, tensor: Tensor, n: int, box: Box) -> Tile:
        """Return the tile that a result is to be written to; `commit` it afterwards."""
        resident = self.residents.get(tensor.name)
        if resident is not None:
            return self._inside(tensor, resident, n, box)
        return self._buffer(box)

    def commit(self, tensor: Tensor, n: int, tile: Tile) -> None:
        """Store a finished tile if its tensor lives in a memory, and release its buffer."""
        if not tile.owned:
            return
        self.store(tensor, n, tile)
        self.release(tile)

    def store(self, tensor: Tensor, n: int, tile: Tile) -> None:
        """Store a tile into image `n` of a tensor in its memory."""
        for part in self._transfers(tensor, n, tile):
            values = {f.name: getattr(part, f.name) for f in part.fields}
            channel = 0 if tensor.name in self.exchanged else self._store_channel()
            self.emit(Store(**(values | {"channel": channel})))

    def release(self, tile: Tile) -> None:
        """Give a tile's buffer back."""
        if tile.owned:
            self.tiles.release(tile.address)

    @contextmanager
    def fetched(self, tensor: Tensor, n: int, box: Box) -> Generator[Tile]:
        """Fetch a tile for the length of a block."""
        tile = self.fetch(tensor, n, box)
        yield tile
        self.release(tile)

    @contextmanager
    def produced(self, tensor: Tensor, n: int, box: Box) -> Generator[Tile]:
        """Place a tile for the length of a block and commit it behind."""
        tile = self.place(tensor, n, box)
        yield tile
        self.commit(tensor, n, tile)

    @contextmanager
    def constant_tile(self, content: NDArray[np.uint8]) -> Generator[int]:
        """Keep constant bytes in the scratchpad for the length of a block; gives their address."""
        tile = self.load_constant(content)
        yield tile.address
        self.release(tile)

    def _store_channel(self) -> int:
        self._turn += 1
        return self._turn % (self.chip.dma.store_channels - self.kept_channels)

    def _inside(self, tensor: Tensor, address: int, n: int, box: Box) -> Tile:
        """Return the tile of a tensor that stays in the scratchpad."""
        view = self.view(tensor)
        return Tile(address + _offset(view, n, box), view.row, view.pixel, box, False)

    def view(self, tensor: Tensor) -> View:
        """Return where a tensor lies in the one that holds its bytes."""
        return self.views.get(tensor.name) or packed_view(tensor)

    def _buffer(self, box: Box) -> Tile:
        """Return a packed tile in a new buffer."""
        address = self.tiles.allocate(box.size)
        return Tile(address, box.width * box.channels, box.channels, box, True)

    def location(self, tensor: Tensor) -> Location:
        """Return where a tensor lives in the memories; constants enter the constant segment."""
        if tensor.constant is not None:
            return Location(self.constants_memory, self.constant(tensor.constant.reshape(-1)))
        found = self.locations.get(tensor.name)
        if found is None:
            raise CompileError(f"tensor '{tensor.name}' has no place in any memory")
        return found

    def _transfers(self, tensor: Tensor, n: int, tile: Tile) -> list[Load]:
        """Return the transfers of a tile of image `n`, as loads without a channel."""
        c = tensor.shape[3]
        place, view, box = self.location(tensor), self.view(tensor), tile.box
        base = place.address + _offset(view, n, box)
        row_stride, row_pitch = view.row, tile.row_pitch
        if box.channels == view.pixel and box.width * c == view.row:
            run, rows, planes = box.size, 1, 1
        elif box.channels == view.pixel:
            run, rows, planes = box.width * c, box.height, 1
        else:
            run, rows, planes = box.channels, box.width, box.height
            row_stride, row_pitch = view.pixel, tile.pixel_pitch
        whole = Load(
            memory=place.memory,
            address=base,
            scratchpad=tile.address,
            row_bytes=min(run, _LONGEST_RUN),
            rows=rows,
            planes=planes,
            row_stride=row_stride if rows > 1 else 0,
            plane_stride=view.row if planes > 1 else 0,
            scratchpad_row_pitch=row_pitch if rows > 1 else 0,
            scratchpad_plane_pitch=tile.row_pitch if planes > 1 else 0,
        )
        if run <= _LONGEST_RUN:
            return [whole]
        return [
            replace(
                whole,
                address=base + at,
                scratchpad=tile.address + at,
                row_bytes=min(_LONGEST_RUN, run - at),
            )
            for at in range(0, run, _LONGEST_RUN)
        ]


_LONGEST_RUN = 1 << 23
"""Bytes of a row that the fields of a transfer hold."""


def _offset(view: View, n: int, box: Box) -> int:
    """Return the first byte of a box of image `n`."""
    return view.offset + n * view.image + box.y0 * view.row + box.x0 * view.pixel + box.c0
