"""From graphs to a program: memory map, what stays in the scratchpad, emission, semaphores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lepton.chip import Chip
from lepton.compiler.allocate import Lifetime, NoRoom, Ring, place_lifetimes, shortage
from lepton.compiler.choices import Choices
from lepton.compiler.copies import PIECE_BYTES, Lanes, Staging, with_copies
from lepton.compiler.emit import Emitter, Location
from lepton.compiler.graph import Graph, Node, Reshape
from lepton.compiler.lowering import lower
from lepton.compiler.lowering.cascade import lower_cascade
from lepton.compiler.lowering.grouping import Groups, find_cascades, inner_tensors, replanned
from lepton.compiler.synchronize import synchronize
from lepton.errors import CompileError
from lepton.isa import encode_all, pack
from lepton.isa.declaration import Instruction
from lepton.isa.instructions import Halt

__all__ = ["Emission", "RegionMemory", "RegionWork", "emit_regions"]

_ALIGN = 64
_WORKING_SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class RegionWork:
    """An NPU region to emit: its graph and the number of its first operator."""

    graph: Graph
    first_operator: int


@dataclass(frozen=True)
class RegionMemory:
    """How a region divides the scratchpad: tiles at its start, behind them what stays inside."""

    tile_bytes: int
    residents: tuple[tuple[Lifetime, int], ...]
    """Tensors that stay inside, alive from node to node of the region, and their addresses."""
    spills: tuple[tuple[Lifetime, Location], ...]
    """Tensors of the region that live in a memory while it runs."""


@dataclass(frozen=True)
class Emission:
    """The emitted instructions and where everything lies."""

    instructions: bytes
    operator_of: np.ndarray
    constants: np.ndarray
    program_address: int
    constants_address: int
    locations: dict[str, Location]
    spans: tuple[tuple[int, int], ...]
    """[start, stop) of each region's instructions."""
    stored_bytes: dict[int, int]
    unordered: list[Instruction]
    """The instructions before semaphores were put in."""
    memories: tuple[RegionMemory, ...]
    """What lies where in the scratchpad, by region."""
    reasons: dict[int, str]
    """What was decided about operators, by their number."""


def emit_regions(
    regions: Sequence[RegionWork],
    chip: Chip,
    crossing: dict[str, int],
    choices: Choices | None = None,
    staging: Staging | None = None,
) -> Emission:
    """Emit all NPU regions of a model.

    Args:
        regions: the NPU regions in order.
        chip: the chip to emit for.
        crossing: size in bytes of every tensor that crosses the edge of a region, by name.
        choices: those of earlier emissions of the same regions for this chip.
        staging: leaves a channel each way and part of the scratchpad to copies of weights.

    Raises:
        CompileError: the chip cannot hold a step of the work.
    """
    locations, ends = _place_crossing(chip, crossing)
    constants_memory = chip.memory_index(chip.placement.constants)
    chosen = choices or Choices(chip)

    def emitter_of() -> Emitter:
        emitter = Emitter(chip, dict(locations), chosen)
        if staging is not None:
            emitter.kept_channels = 1
            emitter.raw_weights = frozenset(use for copy in staging.copies for use in copy.uses)
        return emitter

    best = [_best_region(work, emitter_of, ends) for work in regions]
    # all regions share one constant segment: emit again, in order, with the chosen shares
    emitter = emitter_of()
    program_memory = chip.memory_index(chip.placement.program)
    spans: list[tuple[int, int]] = []
    stream: list[Instruction] = []
    numbers: dict[tuple[int, int], int] = {}
    emitter.constants_base = _constants_base(chip, locations, crossing, regions, best)
    memories: list[RegionMemory] = []
    for work, share in zip(regions, best, strict=True):
        begin = len(emitter.instructions)
        memory = _emit_region(work, emitter, share, ends)
        memories.append(memory)
        emitter.emit(Halt())
        if staging is not None and staging.dispatch is not None:
            _stage(work, emitter, memory.spills, ends, staging)
        stream += synchronize(emitter.instructions[begin:], chip, numbers)
        spans.append((begin, len(emitter.instructions)))
    constants_end = emitter.constants_base + len(emitter.constants)
    program_address = _program_base(chip, program_memory, constants_memory, constants_end, ends)
    words = encode_all(stream)
    stored = pack(words)[0] if chip.control.packed else words
    _check_room(chip, program_memory, program_address + len(stored))
    _check_room(chip, constants_memory, constants_end)
    return Emission(
        instructions=words,
        operator_of=np.array(emitter.operator_of, np.uint32),
        constants=np.frombuffer(bytes(emitter.constants), np.uint8),
        program_address=program_address,
        constants_address=emitter.constants_base,
        locations=emitter.locations,
        spans=tuple(spans),
        stored_bytes=emitter.stored_bytes,
        unordered=emitter.instructions,
        memories=tuple(memories),
        reasons=emitter.reasons,
    )


def _align(value: int) -> int:
    return -(-value // 4096) * 4096


def _check_room(chip: Chip, memory: int, end: int) -> None:
    """Raise if a segment ends beyond its memory."""
    device = chip.memories[memory]
    if end > device.size_bytes:
        place = f"memory '{device.name}' of chip '{chip.name}'"
        raise shortage("the program with its tensors and constants", place, end, device.size_bytes)


def _place_crossing(
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
    size = -(-size // _ALIGN) * _ALIGN
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


def _constants_base(
    chip: Chip,
    locations: dict[str, Location],
    crossing: dict[str, int],
    regions: Sequence[RegionWork],
    shares: Sequence[float],
) -> int:
    """Return where the constant segment begins: behind all activations of its memory."""
    memory = chip.memory_index(chip.placement.constants)
    top = 0
    for work in regions:
        top += sum(node.output.size_bytes + _ALIGN for node in work.graph.nodes)
    top += sum(size + _ALIGN for size in crossing.values())
    del locations, shares
    uses = any(chip.memory_index(name) == memory for name in chip.placement.activations)
    return _align(top) if uses else 0


def _program_base(
    chip: Chip, memory: int, constants_memory: int, constants_end: int, ends: dict[int, int]
) -> int:
    """Return where the instruction stream begins."""
    if memory == constants_memory:
        return _align(constants_end)
    return _align(ends[memory])


# --- one region --------------------------------------------------------------------------------


def _storage(graph: Graph) -> dict[str, str]:
    """Return for each tensor the one whose bytes it is: a reshape shares its input's place.

    before: y = reshape(x)     after: storage[y] = x, and no instruction is emitted
    A reshape of a region input or constant into a region output must copy.
    """
    outputs = {tensor.name for tensor in graph.outputs}
    fixed = {tensor.name for tensor in graph.inputs}
    storage: dict[str, str] = {}
    for node in graph.nodes:
        if not isinstance(node, Reshape):
            continue
        source = node.inputs[0]
        root = storage.get(source.name, source.name)
        if source.constant is not None or (node.output.name in outputs and root in fixed | outputs):
            continue
        if node.output.name in outputs:
            # the bytes live where the output must be
            for name, of in list(storage.items()):
                if of == root:
                    storage[name] = node.output.name
            storage[root] = node.output.name
        else:
            storage[node.output.name] = root
    return storage


def _root(storage: dict[str, str], name: str) -> str:
    """Return the tensor that holds the bytes of `name`."""
    while name in storage:
        name = storage[name]
    return name


def _lifetimes(graph: Graph, storage: dict[str, str], groups: Groups) -> list[Lifetime]:
    """Return the lifetimes of the tensors inside the region, most rewarding first.

    What a cascade reads and makes is alive as long as it lasts; what is between its members needs
    no place.
    """
    crossing = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
    crossing |= inner_tensors(groups)
    spans = {number: group.numbers for group in groups.values() for number in group.numbers}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    sizes: dict[str, int] = {}
    uses: dict[str, int] = {}
    for number, node in enumerate(graph.nodes):
        span = spans.get(number, range(number, number + 1))
        name = _root(storage, node.output.name)
        first.setdefault(name, span[0])
        last[name] = span[-1]
        sizes[name] = node.output.size_bytes
        for tensor in node.inputs:
            source = _root(storage, tensor.name)
            last[source] = span[-1]
            uses[source] = uses.get(source, 0) + 1
    inside = [
        Lifetime(name, sizes[name], first[name], last[name])
        for name in sizes
        if name not in crossing
    ]
    return sorted(inside, key=lambda item: (item.last - item.first) / (1 + uses.get(item.name, 0)))


def _residents(
    graph: Graph, storage: dict[str, str], capacity: int, groups: Groups
) -> dict[str, int]:
    """Return scratchpad offsets of the tensors that stay inside."""
    return place_lifetimes(_lifetimes(graph, storage, groups), capacity)


def _stay(
    graph: Graph, storage: dict[str, str], working: int, placed: dict[str, int]
) -> dict[str, int]:
    """Return scratchpad addresses of the tensors whose bytes have a place behind the tiles."""
    roots = {node.output.name: _root(storage, node.output.name) for node in graph.nodes}
    return {name: working + placed[root] for name, root in roots.items() if root in placed}


def _traffic(graph: Graph, storage: dict[str, str], residents: dict[str, int]) -> int:
    """Return the bytes of the tensors that do not stay inside, each time they cross."""
    total = 0
    for node in graph.nodes:
        for tensor in (*node.inputs, node.output):
            if _root(storage, tensor.name) not in residents and tensor.constant is None:
                total += tensor.size_bytes
    return total


def _best_region(
    work: RegionWork, emitter_of: Callable[[], Emitter], ends: dict[int, int]
) -> float:
    """Return the share of the scratchpad to keep for tiles: least traffic, then most room.

    Shares at which a node does not fit are passed over, with the plans that nodes take at first.
    """
    storage = _storage(work.graph)
    emitter = emitter_of()
    size, shares = _usable(emitter), emitter.choices.shares
    if (id(work), size) in shares:
        return shares[id(work), size]
    ranked: list[tuple[float, float]] = []
    for share in _WORKING_SHARES:
        residents = _residents(work.graph, storage, size - int(size * share), {})
        # small tiles cost more passes: a share must win clearly to be preferred
        ranked.append((_traffic(work.graph, storage, residents) * (1.0 + 0.1 / share), share))
    failures: dict[float, CompileError] = {}
    for _, share in sorted(ranked):
        try:
            _emit_region(work, emitter_of(), share, dict(ends))
            return shares.setdefault((id(work), size), share)
        except CompileError as error:
            failures[share] = error
    # where tiles may take most, what is missing is missing for good
    raise failures[max(failures)]


_Spills = Sequence[tuple[Lifetime, Location]]


def _usable(emitter: Emitter) -> int:
    """Return the bytes of the scratchpad for tensors; the pieces of copies come behind them."""
    return emitter.chip.scratchpad.size_bytes - 2 * PIECE_BYTES * emitter.kept_channels


def _emit_region(
    work: RegionWork, emitter: Emitter, share: float, ends: dict[int, int]
) -> RegionMemory:
    """Emit one region with a share of the scratchpad for tiles and the rest for residents."""
    graph, chip = work.graph, emitter.chip
    storage = _storage(graph)
    size = _usable(emitter)
    working = int(size * share) // _ALIGN * _ALIGN
    placed = _residents(graph, storage, size - working, {})
    emitter.tiles = Ring(0, working, "scratchpad", align=16)
    emitter.sums = Ring(0, chip.accumulators.elements, "accumulators")
    emitter.weights = Ring(0, chip.weight_buffer.elements, "weight buffer")
    emitter.residents = _stay(graph, storage, working, placed)
    groups = find_cascades(graph, emitter)
    if groups:
        placed = _residents(graph, storage, size - working, groups)
        emitter.residents = _stay(graph, storage, working, placed)
        groups = {number: replanned(group, emitter) for number, group in groups.items()}
    spills = _place_spills(graph, storage, emitter, placed, groups, ends)
    number = 0
    while number < len(graph.nodes):
        node, group = graph.nodes[number], groups.get(number)
        emitter.operator = work.first_operator + number
        if group is not None:
            lower_cascade(group.cascade, group.plan, emitter)
            reasons = group.reasons.items()
            emitter.reasons |= {work.first_operator + member: text for member, text in reasons}
            number += len(group.cascade.members)
            continue
        if not _is_free(node, storage):
            _lower(node, emitter)
        number += 1
    stays = [item for item in _lifetimes(graph, storage, groups) if item.name in placed]
    residents = tuple((item, working + placed[item.name]) for item in stays)
    return RegionMemory(working, residents, tuple(spills))


def _lower(node: Node, emitter: Emitter) -> None:
    """Emit a node; what has no room is an error that names the node and the chip."""
    try:
        lower(node, emitter)
    except NoRoom as full:
        place = f"{full.ring} of chip '{emitter.chip.name}'"
        raise shortage(f"'{node.name}'", place, full.needed, full.available) from None


def _stage(
    work: RegionWork, emitter: Emitter, spills: _Spills, ends: dict[int, int], staging: Staging
) -> None:
    """Put the copies that find a place among the instructions of the only region."""
    assert staging.dispatch is not None
    operators = np.asarray(emitter.operator_of) - work.first_operator
    memory = emitter.activation_memory
    base = ends[memory]
    there = [(item, place.address - base) for item, place in spills if place.memory == memory]
    wanted: list[Lifetime] = []
    for number, copy in sorted(enumerate(staging.copies), key=lambda item: item[1].rank):
        begin = min(int(np.searchsorted(staging.dispatch, copy.times[0])), copy.uses[0])
        steps = operators[begin : copy.uses[-1] + 1]
        wanted.append(Lifetime(str(number), copy.size, int(steps.min()), int(steps.max())))
    room = emitter.chip.memories[memory].size_bytes - base
    found = place_lifetimes(wanted, room, _ALIGN, there)
    copies = [
        (copy, base + found[str(number)])
        for number, copy in enumerate(staging.copies)
        if str(number) in found
    ]
    lanes = Lanes(emitter.chip, _usable(emitter), memory)
    emitter.instructions, emitter.operator_of = with_copies(
        emitter.instructions, emitter.operator_of, staging.dispatch, copies, lanes
    )


def _is_free(node: Node, storage: dict[str, str]) -> bool:
    """Return whether a node needs no instruction: a reshape in place."""
    return isinstance(node, Reshape) and _root(storage, node.output.name) == _root(
        storage, node.inputs[0].name
    )


def _place_spills(
    graph: Graph,
    storage: dict[str, str],
    emitter: Emitter,
    placed: dict[str, int],
    groups: Groups,
    ends: dict[int, int],
) -> _Spills:
    """Give every tensor that is neither resident nor crossing a place in a memory.

    Places are shared by tensors that are never alive together.
    """
    chip = emitter.chip
    spills: list[tuple[Lifetime, Location]] = []
    wanted = [item for item in _lifetimes(graph, storage, groups) if item.name not in placed]
    wanted.sort(key=lambda item: -item.size)
    for name in chip.placement.activations:
        memory = chip.memory_index(name)
        room = chip.memories[memory].size_bytes - ends[memory]
        found = place_lifetimes(wanted, room, _ALIGN)
        for tensor, offset in found.items():
            emitter.locations[tensor] = Location(memory, ends[memory] + offset)
        spills += [(item, emitter.locations[item.name]) for item in wanted if item.name in found]
        wanted = [item for item in wanted if item.name not in found]
    if wanted:
        first = wanted[0]
        used = dict(ends)
        for item, place in spills:
            if item.first <= first.last and first.first <= item.last:
                used[place.memory] += item.size
        raise _homeless(chip, first.name, first.size, used)
    for node in graph.nodes:
        for tensor in (*node.inputs, node.output):
            root = _root(storage, tensor.name)
            if root in emitter.locations:
                emitter.locations[tensor.name] = emitter.locations[root]
    return spills
