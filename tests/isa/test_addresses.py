"""The fields that point into the scratchpad are those that footprints begin at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lepton.isa import COLUMNS, REGISTRY, Instruction, Unit, encode_all, encode_table, records
from lepton.isa import instructions as isa
from lepton.isa.addresses import PARAMETER_COLUMNS, scratchpad_fields
from lepton.isa.footprints import Space, footprints
from tests.isa.strategies import instructions


@given(st.lists(instructions(), min_size=1, max_size=4))
def test_every_footprint_begins_at_a_field(stream: list[Instruction]) -> None:
    table = records(stream)
    fields = scratchpad_fields(table)
    pointed = {(int(number), int(table[number, column])) for number, column in fields}
    boxes = footprints(table)
    begun = boxes[boxes[:, 1] == Space.SCRATCHPAD][:, [0, 3]]
    assert {(int(number), int(base)) for number, base in begun} <= pointed


def test_moving_every_field_moves_every_footprint() -> None:
    makers = [cls for cls in REGISTRY.values() if cls.unit != Unit.CONTROL]
    extents = ("height", "width", "channels", "rows", "planes", "row_bytes", "columns")
    extents += ("ifm_height", "ifm_width", "ofm_height", "ofm_width", "kernel_height")
    for cls in makers:
        names = {field.name for field in cls.fields}
        sized = dict.fromkeys([name for name in (*extents, "kernel_width") if name in names], 1)
        table = records([cls(**sized)])
        before = footprints(table)
        number, column = scratchpad_fields(table).T
        table[number, column] += 4096
        after = footprints(table)
        inside = before[:, 1] == Space.SCRATCHPAD
        assert ((after - before)[inside, 3] == 4096).all(), cls.mnemonic
        assert ((after - before)[~inside] == 0).all(), cls.mnemonic


def test_fields_that_nothing_reads_are_left_out() -> None:
    stream = [
        isa.Binary(mode=isa.BinaryMode.MAXIMUM, parameters=64),
        isa.Pool(mode=isa.PoolMode.MAXIMUM, parameters=64),
        isa.Halt(),
        *(isa.Matmul(stationary=source, stationary_address=64) for source in isa.Stationary),
    ]
    fields = scratchpad_fields(records(stream))
    assert not {int(column) for column in fields[:, 1]} & {*PARAMETER_COLUMNS}
    assert not (fields[:, 0] == 2).any()
    read = fields[fields[:, 1] == COLUMNS["stationary_address"], 0] - 3
    sources = list(isa.Stationary)
    assert [sources[index].name for index in read] == ["SCRATCHPAD", "SCRATCHPAD_TRANSPOSED"]


@given(st.lists(instructions(), max_size=6))
def test_tables_become_the_stream_that_they_are_from(stream: list[Instruction]) -> None:
    assert encode_table(records(stream)) == encode_all(stream)
