"""What a single stream takes, and that no program is faster than its bound."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil, prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.ideal_array import ideal_chip, table_program
from lepton.chip import Chip, Dataflow, Dram, Flat, load_chip
from lepton.compiler.importers.layer_table import TableLayer
from lepton.isa import Instruction
from lepton.isa import instructions as isa
from lepton.program import Program
from lepton.report.summary import summarize
from lepton.simulator import simulate_timing
from tests.simulator.timing_cases import program_of


def flat_chip(memory: dict[str, Any] | None = None, **dma: int) -> Chip:
    """Return `nano` with instructions in memory 0 and one flat memory more for data."""
    chip = load_chip("nano")
    plain: dict[str, Any] = {
        "name": "data", "size_mib": Fraction(1), "clock_mhz": chip.array.clock_mhz,
        "bytes_per_cycle": Fraction(4), "ports": 1, "burst_bytes": 64, "read_latency_cycles": 9,
        "write_latency_cycles": 5, "reads_in_flight": 64, "writes_in_flight": 64,
    }  # fmt: skip
    wide = {"outstanding": 64, "burst_bytes": 64} | dma
    return replace(
        chip,
        memories=(chip.memories[0], Flat(**(plain | (memory or {})))),
        placement=replace(chip.placement, program=chip.memories[0].name, constants="data"),
        dma=replace(chip.dma, **wide),
        scratchpad=replace(chip.scratchpad, port_bytes=64),
    )


def transfer(kind: str, size: int, **fields: int) -> Instruction:
    if kind == "weights":
        return isa.Weights(stream_bytes=size, reduction=size, columns=1, **fields)
    cls = isa.Load if kind == "load" else isa.Store
    return cls(row_bytes=size, rows=1, planes=1, **fields)


def taken(item: Instruction, chip: Chip) -> int:
    """Return the cycles from an instruction's start to its retirement."""
    record = simulate_timing(program_of(chip, [[item]])).records[0]
    return int(record["retire"] - record["start"])


@given(
    st.sampled_from(["load", "store", "weights"]),
    st.integers(1, 20_000),
    st.sampled_from([1, 2, 4, 8, Fraction(16, 3)]),
)
def test_a_stream_takes_bytes_over_bandwidth(kind: str, size: int, bandwidth: Fraction) -> None:
    chip = flat_chip({"bytes_per_cycle": Fraction(bandwidth)})
    decoder = replace(chip.weight_buffer, decoder_bytes_per_cycle=64)
    chip = replace(chip, weight_buffer=decoder)
    latency = 5 if kind == "store" else 9
    # requests of a burst each begin at a clock edge
    whole, rest = divmod(size, 64)
    port = whole * ceil(64 / Fraction(bandwidth)) + ceil(rest / Fraction(bandwidth))
    assert taken(transfer(kind, size, memory=1), chip) == chip.dma.setup_cycles + port + latency
    assert port >= size / bandwidth


@pytest.mark.parametrize(("stored", "bound"), [(40, "decoder"), (100, "decoder"), (3999, "memory")])
def test_an_encoded_stream_takes_the_longer_of_memory_and_decoder(stored: int, bound: str) -> None:
    chip = flat_chip({"bytes_per_cycle": Fraction(4)})
    rate = chip.weight_buffer.decoder_bytes_per_cycle
    item = isa.Weights(
        memory=1, stream_bytes=stored, reduction=400, columns=10, format=isa.WeightFormat.GROUPED
    )
    arrives = chip.dma.setup_cycles + ceil(stored / 4) + 9
    assert taken(item, chip) == max(arrives, 4000 // rate)
    assert (bound == "decoder") == (4000 // rate > arrives)


@pytest.mark.parametrize("kib", [1, 24, 64, 200, 512, 960])
def test_a_stream_from_a_dram_takes_bytes_over_bandwidth_and_refreshes(kib: int) -> None:
    chip = load_chip("edge")
    (dram,) = chip.memories
    assert isinstance(dram, Dram)
    # bank 3, which the instructions do not open
    program = program_of(chip, [[transfer("load", kib << 10, address=3 * dram.row_bytes)]])
    trace = simulate_timing(program)
    cycle = dram.clock_mhz / chip.array.clock_mhz
    found = int(trace.records["retire"][0] - trace.records["start"][0]) * cycle
    first = chip.dma.setup_cycles * cycle + dram.tRCD + dram.tCL
    least = first + (kib << 10) / chip.bytes_per_cycle(dram) * cycle
    # a refresh waits for the open banks, closes them, and the bank is opened again
    refresh = dram.tRP + dram.tRFC + dram.tRCD
    wait = dram.tRAS + dram.tRTP
    refreshes = trace.memories[0].refreshes
    # acceptance, a move to the bank's queue and the way back, and both ends at an edge of the NPU
    most = least + refreshes * (refresh + wait) + 3 + 2 * cycle
    assert least + max(refreshes - 1, 0) * (refresh - dram.burst_cycles) <= found <= most
    assert refreshes >= found // dram.tREFI


SLOWER: dict[str, dict[str, list[Any]]] = {
    "memory": {
        "bytes_per_cycle": [Fraction(2, 3), Fraction(1), Fraction(7, 2), Fraction(64)],
        "ports": [1, 2, 3, 7],
        "reads_in_flight": [1, 2, 3, 16],
        "writes_in_flight": [1, 2, 3, 16],
    },
    "dma": {"outstanding": [1, 2, 3, 16]},
    "scratchpad": {"port_bytes": [1, 3, 16, 64]},
}
"""Values from the slowest to the quickest."""


@given(
    st.sampled_from([(part, key) for part, keys in SLOWER.items() for key in keys]),
    st.sampled_from(["load", "store", "weights"]),
    st.integers(1, 3000),
    st.fixed_dictionaries(
        {
            "bytes_per_cycle": st.sampled_from([Fraction(1), Fraction(7, 3), Fraction(32)]),
            "ports": st.integers(1, 3),
            "clock_mhz": st.sampled_from([Fraction(500), Fraction(333), Fraction(700)]),
            "reads_in_flight": st.integers(1, 4),
            "writes_in_flight": st.integers(1, 4),
            "burst_bytes": st.sampled_from([8, 24, 64]),
        }
    ),
)
def test_one_stream_is_never_slower_with_more(
    what: tuple[str, str], kind: str, size: int, memory: dict[str, Any]
) -> None:
    part, key = what
    found: list[int] = []
    for value in SLOWER[part][key]:
        chip = flat_chip(memory, outstanding=4)
        if part == "memory":
            chip = flat_chip(memory | {key: value}, outstanding=4)
        else:
            chip = replace(chip, **{part: replace(getattr(chip, part), **{key: value})})
        found.append(taken(transfer(kind, size, memory=1), chip))
    assert found == sorted(found, reverse=True)
    chip = flat_chip(memory, outstanding=4)
    more = taken(transfer(kind, size + 1, memory=1), chip)
    assert more >= taken(transfer(kind, size, memory=1), chip)


LAYERS = st.builds(
    TableLayer,
    name=st.just("layer"),
    ifm=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    channels=st.integers(1, 40),
    filters=st.integers(1, 40),
    stride=st.integers(1, 2),
    is_product=st.just(False),
)


def _is_bounded(program: Program) -> bool:
    summary = summarize(program, simulate_timing(program))
    assert summary.cycles is not None
    return 0 < summary.bound_cycles <= summary.cycles


@given(
    st.lists(LAYERS, min_size=1, max_size=4),
    st.sampled_from(Dataflow),
    st.booleans(),
    st.tuples(st.integers(1, 32), st.integers(1, 32)),
)
def test_nothing_on_an_ideal_chip_beats_the_bound(
    layers: list[TableLayer], dataflow: Dataflow, overlap: bool, extents: tuple[int, int]
) -> None:
    chip = ideal_chip(*extents, dataflow)
    chip = replace(chip, array=replace(chip.array, overlap=overlap))
    assert _is_bounded(table_program(layers, chip))


@settings(max_examples=5)
@given(
    st.lists(LAYERS, min_size=1, max_size=3),
    st.sampled_from(["nano", "edge", "like-u85-1024"]),
    st.sampled_from(Dataflow),
    st.booleans(),
)
def test_no_compiled_network_beats_the_bound(
    tmp_path_factory: pytest.TempPathFactory, layers: list[TableLayer], name: str,
    dataflow: Dataflow, overlap: bool,
) -> None:  # fmt: skip
    from lepton.compiler.compile import compile_model

    chip = load_chip(name)
    chip = replace(chip, array=replace(chip.array, dataflow=dataflow, overlap=overlap))
    table = tmp_path_factory.mktemp("table") / "t.csv"
    rows = ["Layer name, IFMAP Height, IFMAP Width, Filter Height, ..."]
    for layer in layers:
        sizes = [*layer.ifm, *layer.kernel, layer.channels, layer.filters, layer.stride]
        rows.append(", ".join(["layer", *map(str, sizes)]))
    Path(table).write_text("\n".join(rows))
    program = compile_model(table, chip)
    assert _is_bounded(program)
    macs = sum(prod(y.ofm) * y.filters * y.channels * prod(y.kernel) for y in layers)
    assert sum(operator.macs for operator in program.operators) == macs


def test_every_run_starts_from_a_cold_chip() -> None:
    chip = load_chip("edge")
    item = isa.Load(planes=1, rows=4, row_bytes=256, row_stride=4096, scratchpad_row_pitch=256)
    program, other = (program_of(chip, [[item] * count]) for count in (3, 2))
    first, between, again = (simulate_timing(p) for p in (program, other, program))
    assert again.records.tobytes() == first.records.tobytes() != between.records.tobytes()
    assert again.cycles == first.cycles
    for once, twice in zip(first.memories, again.memories, strict=True):
        assert once.profile.tolist() == twice.profile.tolist()
        assert replace(once, profile=twice.profile) == twice


def test_the_same_memories_beside_another_clock_are_not_mistaken() -> None:
    chip = load_chip("edge")
    fast = replace(chip, array=replace(chip.array, clock_mhz=2 * chip.array.clock_mhz))
    item = isa.Load(planes=1, rows=1, row_bytes=1 << 14)
    slow, quick = (simulate_timing(program_of(c, [[item]])).cycles for c in (chip, fast))
    assert quick > 1.5 * slow
