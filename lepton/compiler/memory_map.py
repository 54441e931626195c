"""Where tensors, constants and the program lie in the memories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lepton.chip import Chip
from lepton.compiler.allocate import Lifetime, place_lifetimes, shortage
from lepton.compiler.blocks import most_alive
from lepton.compiler.emit import Emitter, Location
from lepton.compiler.graph import Graph
from lepton.compiler.lifetimes import lifetimes_of, root_of
from lepton.compiler.lowering.grouping import Groups
from lepton.compiler.placement import search_places
from lepton.errors import CompileError
from lepton.program import Arena

__all__ = [
    "ALIGN",
    "Spills",
    "arenas_of",
    "check_room",
    "constants_base",
    "place_crossing",
    "place_spills",
    "program_base",
]

Spills = Sequence[tuple[Lifetime, Location]]
"""Tensors of a region that live in a memory while it runs."""

ALIGN = 64
"""Bytes that tensors begin at multiples of."""

_CLOSE = 1.02
"""Of the bytes alive at once, that tensors may take without a search for other places."""


def _align(value: int) -> int:
    return -(-value // 4096) * 4096


def check_room(chip: Chip, memory: int, end: int) -> None:
    """Raise if a segment ends beyond its memory."""
    device = chip.memories[memory]
    if end > device.size_bytes:
        place = f"memory '{device.name}' of chip '{chip.name}'"
        raise shortage("the program with its tensors and constants", place, end, device.size_bytes)


def arenas_of(
    chip: Chip, crossing: dict[str, Location], sizes: dict[str, int], regions: Sequence[Spills]
) -> tuple[Arena, ...]:
    """Return what activations take and need of each memory that has any.

    What crosses the edge of a region is alive all the time, the rest from step to step of its own
    region.

    Args:
        chip: whose memories they are.
        crossing: places of the tensors that cross.
        sizes: their bytes.
        regions: of each region what lives in memories while it runs.
    """
    found: list[Arena] = []
    for memory in sorted({chip.memory_index(name) for name in chip.placement.activations}):
        always = [(p.address, sizes[name]) for name, p in crossing.items() if p.memory == memory]
        peak = max((address + size for address, size in always), default=0)
        most = 0
        for spills in regions:
            inside = [(item, place) for item, place in spills if place.memory == memory]
            peak = max([peak, *(place.address + item.size for item, place in inside)])
            most = max(most, _most_alive([item for item, _ in inside]))
        if peak:
            bound = sum(size for _, size in always) + most
            found.append(Arena(chip.memories[memory].name, peak, bound))
    return tuple(found)


def _most_alive(items: Sequence[Lifetime]) -> int:
    """Return the most bytes alive at a step."""
    columns = np.array([(item.size, item.first, item.last + 1) for item in items], np.int64)
    return most_alive(*columns.reshape(-1, 3).T)


def place_crossing(
    chip: Chip, crossing: dict[str, int]
) -> tuple[dict[str, Location], dict[int, int]]:
    """Return places for the crossing tensors and the first free address of each memory."""
    ends = dict.fromkeys(range(len(chip.memories)), 0)
    locations: dict[str, Location] = {}
    for name, size in crossing.items():
        locations[name] = _place(chip, ends, size, name)
    return locations, ends


def _place(chip: Chip, ends: dict[int, int], size: int, name: str) -> Location:
    """Return a place for one tensor in the first activation memory that has room."""
    size = -(-size // ALIGN) * ALIGN
    for memory_name in chip.placement.activations:
        memory = chip.memory_index(memory_name)
        if ends[memory] + size <= chip.memories[memory].size_bytes:
            location = Location(memory, ends[memory])
            ends[memory] += size
            return location
    raise _homeless(chip, name, size, ends)


def _homeless(chip: Chip, tensor: str, size: int, ends: dict[int, int]) -> CompileError:
    """Return the error of a tensor that no memory for activations has room for.

    `ends` are the bytes of each memory that are taken.
    """
    free = {
        name: chip.memories[chip.memory_index(name)].size_bytes - ends[chip.memory_index(name)]
        for name in chip.placement.activations
    }
    name = max(free, key=lambda name: free[name])
    return shortage(
        f"tensor '{tensor}'", f"memory '{name}' of chip '{chip.name}'", size, free[name]
    )


def constants_base(chip: Chip, crossing: dict[str, int], graphs: Iterable[Graph]) -> int:
    """Return where the constant segment begins: behind all activations of its memory."""
    memory = chip.memory_index(chip.placement.constants)
    top = 0
    for graph in graphs:
        top += sum(node.output.size_bytes + ALIGN for node in graph.nodes)
    top += sum(size + ALIGN for size in crossing.values())
    uses = any(chip.memory_index(name) == memory for name in chip.placement.activations)
    return _align(top) if uses else 0


def program_base(
    chip: Chip, memory: int, constants_memory: int, constants_end: int, ends: dict[int, int]
) -> int:
    """Return where the instruction stream begins."""
    if memory == constants_memory:
        return _align(constants_end)
    return _align(ends[memory])


def _closer(wanted: Sequence[Lifetime], found: dict[str, int]) -> dict[str, int]:
    """Return other places for the tensors if all have one but they take more than they must."""
    top = max((found[item.name] + item.size for item in wanted if item.name in found), default=0)
    most = int(_CLOSE * _most_alive(wanted)) if len(found) == len(wanted) else top
    if top <= most:
        return found
    sizes = np.array([item.size for item in wanted], np.int64)
    lives = np.array([[item.first, item.last + 1] * 2 for item in wanted], np.float64)
    addresses, taken = search_places(sizes, lives, np.zeros_like(sizes), (most, ALIGN))
    if taken >= top:
        return found
    return {item.name: int(at) for item, at in zip(wanted, addresses, strict=True)}


def _taken(spills: Spills, tensor: Lifetime, ends: dict[int, int]) -> dict[int, int]:
    """Return the bytes of each memory that are taken where most are while a tensor is alive."""
    beside = [(item, place) for item, place in spills if item.first <= tensor.last]
    beside = [(item, place) for item, place in beside if tensor.first <= item.last]
    return {
        memory: end + _most_alive([item for item, place in beside if place.memory == memory])
        for memory, end in ends.items()
    }


def place_spills(
    graph: Graph,
    storage: dict[str, str],
    emitter: Emitter,
    placed: dict[str, int],
    groups: Groups,
    ends: dict[int, int],
) -> Spills:
    """Give every tensor that is neither resident nor crossing a place in a memory.

    Places are shared by tensors that are never alive together.
    """
    chip = emitter.chip
    spills: list[tuple[Lifetime, Location]] = []
    wanted = [item for item in lifetimes_of(graph, storage, groups) if item.name not in placed]
    wanted.sort(key=lambda item: -item.size)
    for name in chip.placement.activations:
        memory = chip.memory_index(name)
        room = chip.memories[memory].size_bytes - ends[memory]
        found = _closer(wanted, place_lifetimes(wanted, room, ALIGN))
        for tensor, offset in found.items():
            emitter.locations[tensor] = Location(memory, ends[memory] + offset)
        spills += [(item, emitter.locations[item.name]) for item in wanted if item.name in found]
        wanted = [item for item in wanted if item.name not in found]
    if wanted:
        first = wanted[0]
        raise _homeless(chip, first.name, first.size, _taken(spills, first, ends))
    for node in graph.nodes:
        for tensor in (*node.inputs, node.output):
            root = root_of(storage, tensor.name)
            if root in emitter.locations:
                emitter.locations[tensor.name] = emitter.locations[root]
    return spills
