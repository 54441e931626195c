"""Runs that the tests of the reports share."""

from __future__ import annotations

import dataclasses

import pytest

from lepton.chip import load_chip
from lepton.program import Program, load_program
from lepton.simulator import simulate_timing
from lepton.trace import Trace

Run = tuple[Program, Trace]


@pytest.fixture(scope="session")
def digits() -> Run:
    """A network with host regions, on a chip with two memories."""
    from lepton.compiler.compile import compile_model
    from lepton.models import digits_model_path

    program = load_program(compile_model(digits_model_path(), load_chip("nano")).to_bytes())
    return program, simulate_timing(program)


@pytest.fixture(scope="session")
def assembly() -> Run:
    """A hand-written program: two operators, no tensors, one whose only unit is a DMA channel."""
    from lepton.listing import parse_listing

    text = """
    .chip edge
    .operator 0
    load signal=0x1 address=0x1000 row_bytes=256 rows=1 planes=1
    store wait=0x1 address=0x2000 row_bytes=256 rows=1 planes=1
    .operator 1
    fill height=4 width=4 channels=64 ofm=0x4000 ofm_row_pitch=256 ofm_pixel_pitch=64
    halt
    """
    program = parse_listing(text)
    return program, simulate_timing(program)


@pytest.fixture(scope="session")
def cores() -> Run:
    """The network of `digits` for two cores."""
    from lepton.compiler.compile import compile_model
    from lepton.models import digits_model_path

    chip = dataclasses.replace(load_chip("nano"), cores=2)
    program = load_program(compile_model(digits_model_path(), chip).to_bytes())
    return program, simulate_timing(program)


@pytest.fixture(params=["digits", "assembly", "cores"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(request.param)
