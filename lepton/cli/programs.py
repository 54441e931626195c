"""Commands that take a program: check, disasm, asm, report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from lepton.chip import load_chip
from lepton.cli.loading import add_chip, write_file
from lepton.errors import EncodingError, InputError
from lepton.program import load_program

__all__ = ["add_commands"]

_MAXIMUM_TEXT_BYTES = 1 << 30


def add_commands(commands: Any) -> None:
    """Add the parsers of this module's commands."""
    check = commands.add_parser("check", help="races, bad reads, bounds and deadlock, once")
    check.add_argument("program", metavar="FILE.lepton", type=Path)
    check.set_defaults(run=_check)
    disasm = commands.add_parser("disasm", help="program file -> assembly text")
    disasm.add_argument("program", metavar="FILE.lepton", type=Path)
    disasm.add_argument("-o", "--output", type=Path, metavar="FILE.s")
    disasm.add_argument(
        "--code-only", action="store_true", help="without what only the assembler needs"
    )
    disasm.set_defaults(run=_disasm)
    asm = commands.add_parser("asm", help="assembly text -> program file")
    asm.add_argument("source", metavar="FILE.s", type=Path)
    asm.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.lepton")
    add_chip(asm, None)
    asm.set_defaults(run=_asm)
    report = commands.add_parser("report", help="pictures and one HTML page of a run")
    report.add_argument("source", metavar="TRACE|FILE.lepton", type=Path)
    report.add_argument("-o", "--output", type=Path, metavar="R.html")
    report.add_argument("--png", type=Path, metavar="DIR", help="write the pictures there")
    report.set_defaults(run=_report)


def _check(options: argparse.Namespace) -> None:
    """Run `lepton check`."""
    from lepton.simulator import check

    program = load_program(options.program)
    check(program)
    print(f"{options.program}: {len(program.decoded)} instructions, no undefined behaviour")


def _disasm(options: argparse.Namespace) -> None:
    """Run `lepton disasm`."""
    from lepton.listing import listing

    text = listing(load_program(options.program), options.code_only)
    if options.output is None:
        sys.stdout.write(text)
    else:
        write_file(options.output, text.encode())


def _asm(options: argparse.Namespace) -> None:
    """Run `lepton asm`."""
    from lepton.listing import parse_listing

    try:
        if options.source.stat().st_size > _MAXIMUM_TEXT_BYTES:
            raise InputError(f"{options.source}: an assembly text must not exceed 1 GiB")
        text = options.source.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{options.source}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{options.source}: not a text file") from None
    chip = None if options.chip is None else load_chip(options.chip)
    try:
        program = parse_listing(text, chip)
    except EncodingError as error:
        raise EncodingError(f"{options.source}: {error}") from None
    program.save(options.output)
    print(f"{options.output}: {len(program.decoded)} instructions")


def _report(options: argparse.Namespace) -> None:
    """Run `lepton report`."""
    from lepton.report.html import html_page
    from lepton.report.plots import save_all
    from lepton.report.trace_file import load_trace

    if options.output is None and options.png is None:
        raise InputError("report needs -o R.html or --png DIR")
    if options.source.suffix == ".lepton":
        from lepton.simulator import check, simulate_timing

        program = load_program(options.source)
        check(program)
        trace = simulate_timing(program)
    else:
        program, trace = load_trace(options.source)
    if options.output is not None:
        write_file(options.output, html_page(program, trace).encode())
        print(options.output)
    if options.png is not None:
        for path in save_all(program, trace, options.png):
            print(path)
