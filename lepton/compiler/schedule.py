"""From graphs to a program: memory map, what stays in the scratchpad, emission, semaphores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from lepton.chip import Chip
from lepton.compiler.allocate import (
    TILE_ALIGN,
    Block,
    Lifetime,
    Ring,
    place_lifetimes,
    room_for,
)
from lepton.compiler.blocks import resident_blocks, with_copies_between
from lepton.compiler.choices import Choices, Division, DivisionKey
from lepton.compiler.copies import PIECE_BYTES, Lanes, Staging, with_copies
from lepton.compiler.emit import Emitter, Location
from lepton.compiler.graph import Graph
from lepton.compiler.lifetimes import (
    bytes_crossing,
    is_free,
    lifetimes_of,
    root_of,
    storage_of,
    with_replaced,
)
from lepton.compiler.lowering import lower
from lepton.compiler.lowering.addition import Addition
from lepton.compiler.lowering.grouping import Groups, find_groups, lower_group, replanned
from lepton.compiler.memory_map import (
    ALIGN,
    arenas_of,
    check_room,
    constants_base,
    place_crossing,
    place_spills,
    program_base,
)
from lepton.compiler.shard import EXCHANGED, Stretch, core_of
from lepton.compiler.synchronize import synchronize
from lepton.compiler.views import View, views_of
from lepton.errors import CompileError
from lepton.isa import pack
from lepton.isa.declaration import Instruction
from lepton.isa.instructions import Halt
from lepton.program import Arena

__all__ = ["Emission", "RegionMemory", "RegionWork", "emit_regions"]

_WORKING_SHARES = (0.25, 0.5, 0.75, 1.0)
_RARE_SHARES = (0.125, 0.375)
"""Tried in a search only."""
_LAST = 1 << 60
"""The turn of a halt."""


@dataclass(frozen=True)
class RegionWork:
    """What a core does in an NPU region: its graph, and of each node operator and turn.

    Nodes of all cores in the order of their turns are in topological order.
    """

    graph: Graph
    operators: Sequence[int]
    turns: Sequence[int] = ()

    @classmethod
    def of_all(cls, graph: Graph, first_operator: int) -> RegionWork:
        """Return the work of a chip's only core, whose operators are numbered in order."""
        return cls(graph, range(first_operator, first_operator + len(graph.nodes)))


@dataclass(frozen=True)
class RegionMemory:
    """How a region divides the scratchpad: tiles at its start, behind them what stays inside."""

    tile_bytes: int
    residents: tuple[tuple[Lifetime, int], ...]
    """Tensors that stay inside, alive from node to node of the region, and their addresses."""
    spills: tuple[tuple[Lifetime, Location], ...]
    """Tensors of the region that live in a memory while it runs."""
    blocks: tuple[Block, ...]
    """What had its place in the scratchpad while which instructions were emitted."""
    groups: Groups
    """Layers that are computed together, by the number of their first node."""


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
    arenas: tuple[Arena, ...]
    """What activations take of the memories, and what they need."""


def emit_regions(
    regions: Sequence[RegionWork],
    chip: Chip,
    crossing: dict[str, int],
    choices: Choices | None = None,
    staging: Staging | None = None,
    views: Mapping[str, Stretch] | None = None,
) -> Emission:
    """Emit all NPU regions of a model.

    Args:
        regions: the NPU regions in order, of each the work of every core.
        chip: the chip to emit for.
        crossing: size in bytes of every tensor that crosses the edge of a region, by name, and of
            those that go from core to core.
        choices: those of earlier emissions of the same regions for this chip.
        staging: leaves a channel each way and part of the scratchpad to copies of weights.
        views: tensors that are part of a crossing one, by name.

    Raises:
        CompileError: the chip cannot hold a step of the work.
    """
    locations, ends = place_crossing(chip, crossing)
    for name, view in (views or {}).items():
        base = locations[view.of]
        locations[name] = Location(base.memory, base.address + view.offset)
    core = core_of(chip)
    chosen = choices or Choices(core)

    # what one core stores and another loads: the names that no model's tensor has
    exchanged = frozenset(name for name in crossing if name.endswith(EXCHANGED))
    emitter = _emitter(core, locations, chosen, staging, exchanged)
    emitter.constants_base = constants_base(chip, crossing, (work.graph for work in regions))
    ends_after = dict(ends)
    memories: list[RegionMemory] = []
    spans: list[tuple[int, int]] = []
    stream: list[bytes] = []
    numbers: dict[tuple[int, int], int] = {}
    for first in range(0, len(regions), chip.cores):
        begin, turns, free = len(emitter.instructions), list[int](), dict(ends)
        for work in regions[first : first + chip.cores]:
            memories.append(_emit_core(work, emitter, free, turns))
        if staging is not None and staging.dispatch is not None:
            memories[-1] = _stage(regions[first], emitter, memories[-1], ends, staging)
        order = np.argsort(turns, kind="stable") if chip.cores > 1 else None
        stream.append(synchronize(emitter.instructions[begin:], chip, numbers, order))
        spans.append((begin, len(emitter.instructions)))
        ends_after = {memory: max(end, free[memory]) for memory, end in ends_after.items()}
    words = b"".join(stream)
    address = _program_address(emitter, words, ends_after)
    return Emission(
        instructions=words,
        operator_of=np.array(emitter.operator_of, np.uint32),
        constants=np.frombuffer(bytes(emitter.constants), np.uint8),
        program_address=address,
        constants_address=emitter.constants_base,
        locations=emitter.locations,
        spans=tuple(spans),
        stored_bytes=emitter.stored_bytes,
        unordered=emitter.instructions,
        memories=tuple(memories),
        reasons=emitter.reasons,
        arenas=arenas_of(chip, locations, crossing, [held.spills for held in memories])
        if chip.cores == 1
        else (),
    )


def _residents(
    graph: Graph, storage: dict[str, str], capacity: int, groups: Groups
) -> dict[str, int]:
    """Return scratchpad offsets of the tensors that stay inside."""
    return place_lifetimes(lifetimes_of(graph, storage, groups), capacity)


def _stay(
    graph: Graph, storage: dict[str, str], working: int, placed: dict[str, int]
) -> dict[str, int]:
    """Return scratchpad addresses of the tensors whose bytes have a place behind the tiles."""
    roots = {node.output.name: root_of(storage, node.output.name) for node in graph.nodes}
    return {name: working + placed[root] for name, root in roots.items() if root in placed}


def _program_address(emitter: Emitter, words: bytes, ends: dict[int, int]) -> int:
    """Return where the instructions begin, having checked that they and the constants have room."""
    chip = emitter.chip
    memory = chip.memory_index(chip.placement.program)
    constants_end = emitter.constants_base + len(emitter.constants)
    address = program_base(chip, memory, emitter.constants_memory, constants_end, ends)
    stored = pack(words)[0] if chip.control.packed else words
    check_room(chip, memory, address + len(stored))
    check_room(chip, emitter.constants_memory, constants_end)
    return address


def _emitter(
    chip: Chip, locations: dict[str, Location], choices: Choices, staging: Staging | None,
    exchanged: frozenset[str],
) -> Emitter:  # fmt: skip
    """Return an emitter that leaves to copies of weights what they need."""
    emitter = Emitter(chip, dict(locations), choices, exchanged=exchanged)
    if staging is not None:
        emitter.kept_channels = 1
    return emitter


def _emit_core(
    work: RegionWork, emitter: Emitter, free: dict[int, int], turns: list[int]
) -> RegionMemory:
    """Emit a core's stream of a region; what it spills is no longer free in the memories."""
    held = _emit_best(work, emitter, free, turns)
    emitter.emit(Halt())
    turns.append(_LAST)
    for item, place in held.spills:
        top = place.address + -(-item.size // ALIGN) * ALIGN
        free[place.memory] = max(free[place.memory], top)
    return held


def _emit_best(
    work: RegionWork, emitter: Emitter, ends: dict[int, int], turns: list[int]
) -> RegionMemory:
    """Emit one region with the division of the scratchpad of least traffic, then most room.

    Shares at which a node does not fit are passed over, with the plans that nodes take at first.
    """
    key, divisions = DivisionKey(id(work), emitter.kept_channels > 0), emitter.choices.divisions
    if key in divisions:
        return _emit_region(work, emitter, divisions[key], ends, turns)
    ranked = _ranked_divisions(work, _usable(emitter))
    failures: dict[Division, CompileError] = {}
    mark, turn = emitter.mark(), len(turns)
    for division in ranked:
        if division.share in _RARE_SHARES:
            continue
        try:
            memory = _emit_region(work, emitter, division, ends, turns)
        except CompileError as error:
            failures[division] = error
            emitter.rewind(mark)
            del turns[turn:]
        else:
            divisions[key] = division
            best = {each.share: each for each in reversed(ranked)}.values()
            emitter.choices.other_divisions[key] = tuple(
                each for each in ranked if each in best and each.share != division.share
            )
            return memory
    if Addition in emitter.choices.kinds and not emitter.choices.adds_apart:
        # a tile of three tensors may be one too many where one of two fits
        emitter.choices.adds_apart = True
        return _emit_best(work, emitter, ends, turns)
    # where tiles may take most, what is missing is missing for good
    raise failures[max(failures)]


def _ranked_divisions(work: RegionWork, size: int) -> list[Division]:
    """Return the divisions of so many bytes of the scratchpad, the one of least traffic first."""
    ranked: list[tuple[float, Division]] = []
    for division in _divisions(work):
        views, storage = _storage(work.graph, division)
        room = size - int(size * division.share)
        residents = _residents(work.graph, storage, room, {})
        crossing = bytes_crossing(work.graph, storage, residents, views)
        # small tiles cost more passes: a share must win clearly to be preferred
        ranked.append((crossing * (1.0 + 0.1 / division.share), division))
    return [division for _, division in sorted(ranked, key=lambda item: (item[0], item[1].share))]


def _divisions(work: RegionWork) -> Iterator[Division]:
    """Yield the divisions of the scratchpad to choose from, of equally good ones the best first."""
    views = [True, False] if views_of(work.graph) else [False]
    # what other cores read or write of a tensor is not in this graph
    replaces = [False] if work.turns else [False, True]
    for choice in product((*_WORKING_SHARES, *_RARE_SHARES), views, replaces):
        yield Division(*choice)


def _storage(
    graph: Graph, division: Division, groups: Groups | None = None
) -> tuple[dict[str, View], dict[str, str]]:
    """Return the tensors that are parts of others, and which tensor holds whose bytes."""
    views = views_of(graph) if division.views else {}
    storage = storage_of(graph, views)
    if division.replaces:
        grouped = {number for group in (groups or {}).values() for number in group.numbers}
        storage = with_replaced(graph, storage, views, grouped)
    return views, storage


def _usable(emitter: Emitter) -> int:
    """Return the bytes of the scratchpad for tensors; the pieces of copies come behind them."""
    return emitter.chip.scratchpad.size_bytes - 2 * PIECE_BYTES * emitter.kept_channels


def _emit_region(
    work: RegionWork,
    emitter: Emitter,
    division: Division,
    ends: dict[int, int],
    turns: list[int],
) -> RegionMemory:
    """Emit one region with a share of the scratchpad for tiles; append its instructions' turns."""
    graph, chip = work.graph, emitter.chip
    emitter.views, storage = _storage(graph, division)
    size = _usable(emitter)
    working = int(size * division.share) // ALIGN * ALIGN
    placed = _residents(graph, storage, size - working, {})
    begin, earlier = len(emitter.instructions), len(turns)
    emitter.tiles = Ring(
        0, working, "scratchpad", align=TILE_ALIGN, clock=lambda: len(emitter.instructions)
    )
    emitter.sums = Ring(0, chip.accumulators.elements, "accumulators")
    emitter.weights = Ring(0, chip.weight_buffer.elements, "weight buffer")
    emitter.residents = _stay(graph, storage, working, placed)
    groups = find_groups(graph, emitter)
    if groups:
        storage = _storage(graph, division, groups)[1]
        placed = _residents(graph, storage, size - working, groups)
        emitter.residents = _stay(graph, storage, working, placed)
        groups = {number: replanned(group, emitter) for number, group in groups.items()}
    spills = place_spills(graph, storage, emitter, placed, groups, ends)
    number = 0
    while number < len(graph.nodes):
        node, group = graph.nodes[number], groups.get(number)
        emitter.operator = work.operators[number]
        if group is not None:
            with room_for(f"'{node.name}'", chip.name):
                lower_group(group, emitter, [work.operators[at] for at in group.numbers])
            reasons = group.reasons.items()
            emitter.reasons |= {work.operators[member]: text for member, text in reasons}
            number += len(group.chain.members)
        else:
            if not is_free(node, storage):
                with room_for(f"'{node.name}'", chip.name):
                    lower(node, emitter)
            number += 1
        if work.turns:
            emitted = len(emitter.instructions) - begin
            turns += [work.turns[number - 1]] * (earlier + emitted - len(turns))
    stays = [item for item in lifetimes_of(graph, storage, groups) if item.name in placed]
    residents = tuple((item, working + placed[item.name]) for item in stays)
    steps = [operator - work.operators[0] for operator in emitter.operator_of[begin:]]
    blocks = (*emitter.tiles.blocks, *resident_blocks(residents, steps, begin))
    held = () if work.turns else blocks
    return RegionMemory(working, residents, tuple(spills), held, groups)


def _stage(
    work: RegionWork, emitter: Emitter, held: RegionMemory, ends: dict[int, int], staging: Staging
) -> RegionMemory:
    """Put copies that find a place among the only region's instructions; return what lies where."""
    assert staging.dispatch is not None
    operators = np.asarray(emitter.operator_of) - work.operators[0]
    memory = emitter.activation_memory
    base = ends[memory]
    there = [(item, place.address - base) for item, place in held.spills if place.memory == memory]
    wanted: list[Lifetime] = []
    for number, copy in sorted(enumerate(staging.copies), key=lambda item: item[1].rank):
        begin = min(int(np.searchsorted(staging.dispatch, copy.times[0])), copy.uses[0])
        steps = operators[begin : copy.uses[-1] + 1]
        wanted.append(Lifetime(str(number), copy.size, int(steps.min()), int(steps.max())))
    room = emitter.chip.memories[memory].size_bytes - base
    found = place_lifetimes(wanted, room, ALIGN, there)
    copies = [
        (copy, base + found[str(number)])
        for number, copy in enumerate(staging.copies)
        if str(number) in found
    ]
    lanes = Lanes(emitter.chip, _usable(emitter), memory)
    emitter.instructions, emitter.operator_of = with_copies(
        emitter.instructions, emitter.operator_of, staging.dispatch, copies, lanes
    )
    stored = [
        (item, Location(memory, base + found[item.name])) for item in wanted if item.name in found
    ]
    blocks = with_copies_between(held.blocks, emitter.instructions, lanes.scratchpad, emitter.chip)
    return replace(held, spills=(*held.spills, *stored), blocks=tuple(blocks))
