"""The figures of a run as frozen values: what `--json` prints and every report shows.

Definitions that a figure's name does not say:

* `bound_cycles`: the larger of all effective MACs at peak and, for each external memory, all
  compulsory bytes at its peak bandwidth. Compulsory is what one inference from a cold chip cannot
  avoid: what enters and leaves the NPU's part of the network, the stored constants and the program
  itself, each once; what the program never reads of them does not count. Memories work side by
  side, so the slowest one bounds.
* `effective_macs`: MACs that the array issues; zero weights that it skips are none. Only
  `mac_utilization` counts those too: of sparse weights it may exceed 1.
* `roofline_cycles`: per layer the larger of its effective MACs at peak and its bytes at peak
  bandwidth, summed. Its bytes are its stored constants; the first layer also has the network's
  input, the last one its output. A yardstick that prefetching may beat.
* `weight_bytes_stored`: the weight streams as the program file holds them, each byte once, without
  biases, requantization parameters and tables, which are constants too.
* `scratchpad_peak_bytes`: the different bytes of the scratchpad that the program ever touches
  (highest address reached + 1, minus the gaps), so it does not depend on timing.
  `scratchpad_live_bytes` is the most that held live data at once in this run, byte by byte;
  `scratchpad_bound_bytes` what no placement of the compiler's blocks could do without, as blocks
  live by the compiler's estimate (docs/design.md); None where the compiler did not reckon it, as
  for several cores. Peak and live bytes are those of the core that needs most.
* `arenas`: what activations take of the scratchpad and of each memory, and that lower bound.
* A layer's `cycles`: see `lepton.report.attribution`; they add up to the total. `busy` and `stalls`
  of a layer add up to its cycles. `bound` is what took most of them: `compute` (the array worked),
  `vector`, `memory`, `fetch` or `latency` (pipelines filled or drained); `host`, or `none` for a
  layer that cost nothing.
* `energy_joules`, `energy`: see `lepton.report.energy` and docs/energy.md; those of the layers add
  up to the total, external memories included. `tops_per_watt` is two operations per MAC of the
  NPU's layers and joule; `area_mm2` is the NPU without memories, their controllers and pins.
* A layer's `critical_path`: see `lepton.report.critical_path`; those of all layers add up to the
  total.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from lepton.cost.area import part_areas
from lepton.cost.estimate import Estimate
from lepton.cost.packed_work import issued_macs
from lepton.program import SCRATCHPAD
from lepton.report.attribution import BUSY, Attribution, attribute, cause_group
from lepton.report.critical_path import path_cycles
from lepton.report.energy import Energy, energy_of
from lepton.report.estimated import estimated_layers
from lepton.report.occupancy import occupancy, touched_bytes
from lepton.report.traffic import (
    boundary_tensors,
    operator_traffic,
    read_within,
    weight_stream_bytes,
)
from lepton.trace import Trace

if TYPE_CHECKING:
    from lepton.program import Arena, Operator, Program

__all__ = ["Layer", "Summary", "bound_of", "occupied_cycles", "summarize"]


@dataclass(frozen=True)
class Layer:
    """One operator of the network; cycles and what follows from them are None without a trace."""

    index: int
    """Number of the operator in the program: the `L` of every table and picture."""
    name: str
    op: str
    device: str
    cycles: int | None
    estimated_cycles: int | None
    """Without a simulation (`lepton.cost.estimate`); None where nobody asked for an estimate."""
    macs: int
    effective_macs: int
    """Those that are issued."""
    mac_utilization: float | None
    bound: str | None
    stalls: dict[str, int]
    busy: dict[str, int]
    weight_bytes: int
    stored_bytes: int
    """Of its weight streams, as `weight_bytes_stored`, which is the sum over the layers."""
    dram_bytes: tuple[int, ...]
    """Bytes moved to and from each external memory."""
    roofline_cycles: int
    critical_path: dict[str, int]
    """Cycles of the run's critical path that are this layer's, by what they were spent on."""
    next_bound: str | None
    """The unit that bounds the layer once what its critical path spends most on costs nothing."""
    next_bound_cycles: int | None
    """How long that unit is occupied by the layer."""
    energy_joules: float | None
    energy: dict[str, float]
    """Joules by component, of those that spent any."""
    reason: str
    """Why it runs on the host."""

    @property
    def main_stall(self) -> str:
        """The stall that cost most, empty if there is none."""
        return max(self.stalls, key=lambda cause: self.stalls[cause], default="")


@dataclass(frozen=True)
class Summary:
    """A program and, with a trace, its run."""

    model: str
    chip: str
    objective: str
    """What the compiler minimized: latency, energy or size."""
    clock_hz: int
    peak_macs_per_cycle: int
    cycles: int | None
    estimated_cycles: int | None
    milliseconds: float | None
    host_milliseconds: float | None
    macs: int
    effective_macs: int
    mac_utilization: float | None
    macs_on_npu: float
    dram_read_bytes: int | None
    dram_write_bytes: int | None
    weight_bytes_raw: int
    weight_bytes_stored: int
    scratchpad_peak_bytes: int
    scratchpad_live_bytes: int | None
    scratchpad_bound_bytes: int | None
    arenas: tuple[Arena, ...]
    energy_joules: float | None
    energy: dict[str, float]
    """Joules by component."""
    tops_per_watt: float | None
    area_mm2: float
    instructions: int
    program_bytes: int
    bound_cycles: int
    roofline_cycles: int
    compile_seconds: float | None
    simulate_seconds: float | None
    layers: tuple[Layer, ...]

    def to_json(self) -> dict[str, object]:
        """Return plain types: numbers, texts, None, lists and dicts."""
        made: dict[str, object] = dataclasses.asdict(self)
        made["layers"] = [
            dataclasses.asdict(layer) | {"dram_bytes": list(layer.dram_bytes)}
            for layer in self.layers
        ]
        return made


def _cycles_at(program: Program, memory: int, size: int) -> Fraction:
    """Return the cycles of `size` bytes at a memory's peak bandwidth."""
    chip = program.chip
    return Fraction(size) / chip.bytes_per_cycle(chip.memories[memory])


def _bound_cycles(program: Program, macs: int) -> int:
    """Return the cycles that nothing can beat."""
    sizes = [0] * len(program.chip.memories)
    reads, writes = boundary_tensors(program)
    for tensor in reads:
        place = (tensor.memory, tensor.address, tensor.size_bytes)
        sizes[tensor.memory] += read_within(program, *place)
    for tensor in writes:
        sizes[tensor.memory] += tensor.size_bytes
    place = (program.constants_memory, program.constants_address, len(program.constants))
    stored = sum(o.stored_bytes for o in program.operators if o.device == "npu")
    sizes[program.constants_memory] += min(stored, read_within(program, *place))
    sizes[program.program_memory] += len(program.stream)
    times = [_cycles_at(program, memory, size) for memory, size in enumerate(sizes)]
    return ceil(max([Fraction(macs, program.chip.peak_macs_per_cycle), *times]))


def _effective_macs(program: Program) -> list[int]:
    """Return the MACs of each operator that are issued, by the share of its matmuls' that are."""
    every, issued = issued_macs(program)
    return [
        operator.macs * mine // of if of else operator.macs
        for operator, mine, of in zip(program.operators, issued, every, strict=True)
    ]


def _layer_sizes(program: Program) -> list[list[int]]:
    """Return per operator and memory the bytes that the roofline counts."""
    sizes = [[0] * len(program.chip.memories) for _ in program.operators]
    for row, operator in zip(sizes, program.operators, strict=True):
        if operator.device == "npu":
            row[program.constants_memory] += operator.stored_bytes
    npu = [
        index
        for index, operator in enumerate(program.operators)
        if operator.device == "npu" and operator.kind != "halt"
    ]
    if npu:
        reads, writes = boundary_tensors(program)
        for tensor in reads:
            sizes[npu[0]][tensor.memory] += tensor.size_bytes
        for tensor in writes:
            sizes[npu[-1]][tensor.memory] += tensor.size_bytes
    return sizes


def _roofline(program: Program) -> list[int]:
    """Return each operator's roofline cycles."""
    made: list[int] = []
    effective = _effective_macs(program)
    rows = zip(program.operators, effective, _layer_sizes(program), strict=True)
    for operator, issued, sizes in rows:
        macs = issued if operator.device == "npu" else 0
        times = [_cycles_at(program, memory, size) for memory, size in enumerate(sizes)]
        made.append(ceil(max([Fraction(macs, program.chip.peak_macs_per_cycle), *times])))
    return made


def bound_of(operator: Operator, causes: dict[str, int]) -> str:
    """Return what took most of a layer's cycles."""
    if operator.device == "host":
        return "host"
    groups: dict[str, int] = {}
    for cause, cycles in causes.items():
        group = cause_group(cause)
        groups[group] = groups.get(group, 0) + cycles
    return max(groups, key=lambda group: groups[group], default="none")


def occupied_cycles(trace: Trace, operator: int) -> dict[str, int]:
    """Return the cycles for which an operator occupies each unit."""
    mine = trace.records[(trace.records["operator"] == operator) & (trace.records["queue"] >= 0)]
    cycles = np.zeros(len(trace.queues), np.int64)
    np.add.at(cycles, mine["queue"], mine["end"] - mine["start"])
    return dict(zip(trace.queues, cycles.tolist(), strict=True))


def _without_core(queue: str) -> str:
    """Return the name that a queue has in a chip of one core."""
    return queue.rpartition(".")[2]


def _next_bound(trace: Trace, operator: int, path: dict[str, int]) -> tuple[str, int] | None:
    """Return the unit that is occupied longest, but for what the critical path spends most on.

    That is left out in all cores.
    """
    spent: dict[str, int] = {}
    for cause, cycles in path.items():
        spent[_without_core(cause)] = spent.get(_without_core(cause), 0) + cycles
    first = max(spent, key=lambda cause: spent[cause], default="")
    occupied = occupied_cycles(trace, operator)
    rest = {unit: n for unit, n in occupied.items() if _without_core(unit) != first and n}
    unit = max(rest, key=lambda unit: rest[unit], default="")
    return (unit, rest[unit]) if unit else None


def _layers(
    program: Program,
    trace: Trace | None,
    spent: Attribution | None,
    energy: Energy | None,
    estimate: Estimate | None,
) -> tuple[Layer, ...]:
    """Return the layers; the end of a region is one only if cycles fell to it."""
    paths = {} if trace is None else path_cycles(program, trace)
    moved = operator_traffic(program).sum(axis=2)
    roofline = _roofline(program)
    effective = _effective_macs(program)
    streams = weight_stream_bytes(program)
    peak = program.chip.peak_macs_per_cycle
    estimated = None if estimate is None else estimated_layers(program, estimate)
    made: list[Layer] = []
    for index, operator in enumerate(program.operators):
        row = [] if spent is None else spent.table[index].tolist()
        causes = {} if spent is None else dict(zip(spent.causes, row, strict=True))
        causes = {cause: cycles for cause, cycles in causes.items() if cycles}
        cycles = None if spent is None else sum(causes.values())
        if operator.kind == "halt" and not cycles:
            continue
        share = operator.macs / (cycles * peak) if cycles and operator.device == "npu" else 0.0
        path = paths.get(index, {})
        ahead = None if trace is None else _next_bound(trace, index, path)
        layer = Layer(
            index=index,
            name=operator.name,
            op=operator.kind,
            device=operator.device,
            cycles=cycles,
            estimated_cycles=None if estimated is None else int(estimated[index]),
            macs=operator.macs,
            effective_macs=effective[index],
            mac_utilization=None if cycles is None else share,
            bound=None if cycles is None else bound_of(operator, causes),
            stalls={cause: count for cause, count in causes.items() if cause not in BUSY},
            busy={cause: count for cause, count in causes.items() if cause in BUSY},
            weight_bytes=operator.weight_bytes,
            stored_bytes=int(streams[index]),
            dram_bytes=tuple(int(size) for size in moved[index]),
            roofline_cycles=roofline[index],
            critical_path=path,
            next_bound=None if ahead is None else ahead[0],
            next_bound_cycles=None if ahead is None else ahead[1],
            energy_joules=None if energy is None else sum(energy.layer(index).values()),
            energy={} if energy is None else energy.layer(index),
            reason=operator.reason,
        )
        made.append(layer)
    return tuple(made)


def _live_bytes(program: Program, trace: Trace) -> int:
    """Return the most bytes live at once in the scratchpad of the core that holds most."""
    cores = range(program.chip.cores)
    return max(occupancy(program, trace, core).peak_bytes for core in cores)


def _scratchpad_bound(program: Program) -> int | None:
    """Return the lower bound of the scratchpad's bytes, None if nobody reckoned it."""
    bounds = [arena.bound_bytes for arena in program.arenas if arena.memory == SCRATCHPAD]
    return bounds[0] if bounds else None


def summarize(
    program: Program,
    trace: Trace | None = None,
    estimate: Estimate | None = None,
    *,
    compile_seconds: float | None = None,
    simulate_seconds: float | None = None,
    host_milliseconds: float | None = None,
) -> Summary:
    """Return the figures of a program and of its run.

    Args:
        program: what ran.
        trace: its run; without one everything that needs cycles is None.
        estimate: to show beside the run.
        compile_seconds: wall time of the compiler, if known.
        simulate_seconds: wall time of the simulation; the trace's own if not given.
        host_milliseconds: measured time of the host regions; 0 where there are none.
    """
    macs = sum(o.macs for o in program.operators)
    on_npu = sum(o.macs for o in program.operators if o.device == "npu")
    effective = _effective_macs(program)
    operators = zip(program.operators, effective, strict=True)
    effective_on_npu = sum(issued for o, issued in operators if o.device == "npu")
    spent = None if trace is None else attribute(trace, len(program.operators))
    energy = None if trace is None or spent is None else energy_of(program, trace, spent.cycles)
    joules = None if energy is None else energy.joules
    layers = _layers(program, trace, spent, energy, estimate)
    has_host = any(region.device == "host" for region in program.regions)
    cycles = None if trace is None else trace.cycles
    memories = () if trace is None else trace.memories
    peak = program.chip.peak_macs_per_cycle
    clock = program.chip.cycles_per_second if trace is None else trace.clock_hz
    if simulate_seconds is None and trace is not None:
        simulate_seconds = trace.seconds
    return Summary(
        model=program.source,
        chip=program.chip.name,
        objective=str(program.objective),
        clock_hz=clock,
        peak_macs_per_cycle=peak,
        cycles=cycles,
        estimated_cycles=None if estimate is None else estimate.cycles,
        milliseconds=None if cycles is None else cycles * 1000 / clock,
        host_milliseconds=host_milliseconds if has_host else 0.0,
        macs=macs,
        effective_macs=sum(effective),
        mac_utilization=None if cycles is None else on_npu / (cycles * peak) if cycles else 0.0,
        macs_on_npu=on_npu / macs if macs else 1.0,
        dram_read_bytes=None if trace is None else sum(m.read_bytes for m in memories),
        dram_write_bytes=None if trace is None else sum(m.write_bytes for m in memories),
        weight_bytes_raw=sum(o.weight_bytes for o in program.operators),
        weight_bytes_stored=int(weight_stream_bytes(program).sum()),
        scratchpad_peak_bytes=touched_bytes(program),
        scratchpad_live_bytes=None if trace is None else _live_bytes(program, trace),
        scratchpad_bound_bytes=_scratchpad_bound(program),
        arenas=program.arenas,
        energy_joules=joules,
        energy={} if energy is None else energy.components,
        tops_per_watt=2e-12 * on_npu / joules if joules else None,
        area_mm2=sum(part.mm2 for part in part_areas(program.chip).values()),
        instructions=len(program.operator_of),
        program_bytes=len(program.stream),
        bound_cycles=_bound_cycles(program, effective_on_npu),
        roofline_cycles=sum(layer.roofline_cycles for layer in layers),
        compile_seconds=compile_seconds,
        simulate_seconds=simulate_seconds,
        layers=layers,
    )
