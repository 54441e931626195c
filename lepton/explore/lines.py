"""Where the keys of a TOML text stand, which the standard library's reader does not say."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import cast

__all__ = ["key_lines"]

Path = tuple[str, ...]


def key_lines(text: str) -> dict[Path, int]:
    """Return the line, from 1, of every table and key of a sound TOML text, by its path.

    Of a `[[table]]` the paths go on with its number, from 0. A key inside of an inline table stands
    where the statement begins.
    """
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for line, statement in _statements(text):
        head = statement.strip()
        parsed = tomllib.loads(statement)
        if not head.startswith("["):
            _note(found, parsed, table, line)
            continue
        table = next(_deepest(parsed), ())
        if head.startswith("[["):
            number = counts.get(table, 0)
            counts[table] = number + 1
            found.setdefault(table, line)
            table = (*table, str(number))
        found.setdefault(table, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield the statements of a TOML text, each with its first line: the shortest that parse."""
    begin, held = 1, ""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        held += line
        try:
            tomllib.loads(held)
        except tomllib.TOMLDecodeError:
            continue
        if held.strip():
            yield begin, held
        begin, held = number + 1, ""


def _deepest(parsed: Mapping[str, object]) -> Iterator[Path]:
    """Yield the path of the only table that a header makes."""
    for key, value in parsed.items():
        inner = cast(list[object], value)[0] if isinstance(value, list) else value
        below = list(_deepest(cast(dict[str, object], inner)))
        yield from ((key, *path) for path in below or [()])


def _note(found: dict[Path, int], parsed: Mapping[str, object], table: Path, line: int) -> None:
    """Note the keys of a statement, inner ones too."""
    for key, value in parsed.items():
        path = (*table, key)
        found.setdefault(path, line)
        if isinstance(value, dict):
            _note(found, cast(dict[str, object], value), path, line)
