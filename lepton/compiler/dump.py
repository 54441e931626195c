"""A compilation pass by pass, as numbered text files: each intermediate form, to read and to diff.

The same model, chip and options give the same bytes. Constants stand as digests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lepton.errors import InputError

__all__ = ["Dump", "FolderDump", "dump_module", "dump_of", "no_dump"]


_MARK = "# lepton dump: "


class Dump(Protocol):
    """Takes each form as it comes: what made it, and a function that gives its text."""

    def __call__(self, name: str, text: Callable[[], str]) -> None: ...


def no_dump(name: str, text: Callable[[], str]) -> None:
    """Take a form and do nothing with it."""


class FolderDump:
    """Writes each form to `NN-name.txt` in a folder, in place of an earlier dump's files.

    Of a form like the one before, only that is said.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._last = ("", "")
        for path in folder.glob("[0-9][0-9]-*.txt"):
            with path.open("rb") as file:
                is_ours = file.read(len(_MARK)) == _MARK.encode()
            if is_ours:
                path.unlink()

    def __call__(self, name: str, text: Callable[[], str]) -> None:
        """Write a form.

        Raises:
            InputError: the folder cannot be written.
        """
        content = text()
        file = f"{self._count:02}-{name}.txt"
        last_file, last = self._last
        shown = f"unchanged since {last_file}\n" if self._count and content == last else content
        if content != last:
            self._last = file, content
        self._count += 1
        try:
            (self._folder / file).write_text(f"{_MARK}{name}\n{shown}", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self._folder}: cannot be written: {error.strerror}") from None


def dump_of(folder: Path | None) -> Dump:
    """Return what writes to a folder, or does nothing without one."""
    return no_dump if folder is None else FolderDump(folder)


def dump_module(dump: Dump, name: str, module: object) -> None:
    """Dump a TVM module as its script, large constants as references."""

    def text() -> str:
        script: Callable[..., str] = getattr(module, "script")  # noqa: B009 (no type of TVM's here)
        lines = script(show_meta=False).splitlines()
        # which names of TVM the script needs says nothing about the model
        return "\n".join(line for line in lines if not line.startswith("# from ")).strip() + "\n"

    dump(name, text)
