"""Commands that take a program: check, disasm, asm, report."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from lepton.cli.arguments import add_chip, file_path
from lepton.cli.loading import chosen_chip
from lepton.cli.writing import refuse_overwrite, write_file
from lepton.errors import EncodingError, InputError
from lepton.program import load_program, read_file, refuse_special, starts_like_program
from lepton.program.files import made_folder

__all__ = ["add_commands"]

_MAXIMUM_TEXT_BYTES = 1 << 30


def add_commands(commands: Any) -> None:
    """Add the parsers of this module's commands."""
    check = commands.add_parser(
        "check", help="races, bad reads, bounds and deadlock, once",
        epilog="example: lepton check model.lepton",
    )  # fmt: skip
    check.add_argument("program", metavar="FILE.lepton", type=file_path)
    check.set_defaults(run=_check)
    disasm = commands.add_parser(
        "disasm", help="program file -> assembly text",
        epilog="example: lepton disasm model.lepton -o model.s",
    )  # fmt: skip
    disasm.add_argument("program", metavar="FILE.lepton", type=file_path)
    disasm.add_argument("-o", "--output", type=file_path, metavar="FILE.s")
    disasm.add_argument(
        "--code-only", action="store_true",
        help="instructions alone, to read: without the constants, tensors and chip from which "
        "asm makes the program again",
    )  # fmt: skip
    disasm.set_defaults(run=_disasm)
    asm = commands.add_parser(
        "asm", help="assembly text -> program file",
        epilog="example: lepton asm model.s -o model.lepton",
    )  # fmt: skip
    asm.add_argument("source", metavar="FILE.s", type=file_path)
    asm.add_argument("-o", "--output", type=file_path, required=True, metavar="FILE.lepton")
    add_chip(asm, None)
    asm.set_defaults(run=_asm)
    report = commands.add_parser(
        "report", help="pictures and one HTML page of a run",
        epilog="example: lepton report model.lepton -o report.html --png pictures",
    )  # fmt: skip
    report.add_argument("source", metavar="TRACE|FILE.lepton", type=file_path)
    report.add_argument("-o", "--output", type=file_path, metavar="R.html")
    report.add_argument("--png", type=file_path, metavar="DIR", help="write the pictures there")
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

    refuse_overwrite([options.program], [options.output])
    text = listing(load_program(options.program), options.code_only)
    if options.output is None:
        sys.stdout.write(text)
    else:
        write_file(options.output, text.encode())


def _asm(options: argparse.Namespace) -> None:
    """Run `lepton asm`."""
    from lepton.listing import parse_listing

    refuse_overwrite([options.source], [options.output])
    try:
        text = read_file(options.source, _MAXIMUM_TEXT_BYTES, "an assembly text").decode()
    except UnicodeDecodeError:
        raise InputError(f"{options.source}: not a text file") from None
    chip = None if options.chip is None else chosen_chip(options.chip)
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
    refuse_special(options.source)
    refuse_overwrite([options.source], [options.output])
    if options.png is not None:
        made_folder(options.png)
    if options.source.suffix == ".lepton" or starts_like_program(options.source):
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
