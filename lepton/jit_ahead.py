"""Compile the kernels of a command on all processors, the first time that they are needed.

The kernels' argument types stand in `jit_ahead.json`, so that each compiles independently: every
process goes through the list and takes what no other is at (`lepton.jit_cache`). The others are
`python -m lepton.jit_ahead GROUP ...`; they end with the process that started them at the latest.
`python -m benchmarks.kernels` writes the list, and a test compares it with what a run calls.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

__all__ = ["Kernel", "compile_ahead", "helpers", "kernels_of", "package_environment"]

_LIST = Path(__file__).with_suffix(".json")
_MOST_HELPERS = 3
_ENOUGH_S = 2
"""Seconds of compilation that are worth another process, which takes one to start."""
_PLAIN = re.compile(r"(const )?(\w+)(?:\[(\d)\])?")


class Kernel(NamedTuple):
    """A kernel and the types of its arguments.

    Attributes:
        seconds: that it took to compile where the list was written.
        arguments: one for each: a scalar's type; `int64[2]` for an array of two dimensions, with
            `const` if it is read only; a list for a tuple; `{"module:class": [...]}` for a named
            one.
    """

    module: str
    name: str
    seconds: float
    arguments: list[object]

    @property
    def is_missing(self) -> bool:
        """Whether the disk has no machine code of it, for whatever types."""
        from lepton.jit import folder_of, module_file
        from lepton.jit_cache import has_machine_code

        file = module_file(self.module)
        return file is None or not has_machine_code(folder_of(str(file)), file.stem, self.name)

    @property
    def signature(self) -> tuple[Any, ...]:
        """The arguments' types as Numba has them."""
        return tuple(_type_of(plain) for plain in self.arguments)

    def compile(self, *, waits: bool) -> None:
        """Compile it; what another process is compiling is waited for or left to it."""
        from numba.core.errors import NumbaError

        from lepton.jit_cache import compile_unless_taken

        dispatcher = getattr(import_module(self.module), self.name)
        # a list that does not fit costs time only: the call itself compiles what it needs
        with contextlib.suppress(NumbaError):
            if waits:
                dispatcher.compile(self.signature)
            else:
                compile_unless_taken(dispatcher, self.signature)


def _type_of(plain: object) -> Any:
    """Return Numba's type of an argument."""
    import numpy as np
    from numba import from_dtype, types

    if isinstance(plain, dict):
        ((place, fields),) = cast(dict[str, list[object]], plain).items()
        module, name = place.split(":")
        found = [_type_of(field) for field in fields]
        return types.BaseTuple.from_types(found, getattr(import_module(module), name))
    if isinstance(plain, list):
        return types.BaseTuple.from_types([_type_of(item) for item in cast(list[object], plain)])
    match = _PLAIN.fullmatch(str(plain))
    assert match is not None, plain
    const, name, dimensions = match.groups()
    scalar = from_dtype(np.dtype(name))
    if dimensions is None:
        return scalar
    return types.Array(scalar, int(dimensions), "C", readonly=bool(const))


def kernels_of(groups: Iterable[str]) -> list[Kernel]:
    """Return the kernels of groups of the list, each once, those that take longest first."""
    listed = json.loads(_LIST.read_text(encoding="utf-8"))
    found = {
        json.dumps([kernel["module"], kernel["name"], kernel["arguments"]]): Kernel(**kernel)
        for group in groups
        for kernel in listed[group]
    }
    return sorted(found.values(), key=lambda kernel: -kernel.seconds)


@cache
def compile_ahead(*groups: str) -> None:
    """Compile what is missing of groups of kernels, together with other processes.

    Without a second processor nothing happens, nor if little is missing: kernels compile when they
    are called.
    """
    with helpers(*groups) as missing:
        for waits in (False, True):
            for kernel in missing:
                kernel.compile(waits=waits)


@contextlib.contextmanager
def helpers(*groups: str) -> Generator[list[Kernel]]:
    """Let other processes compile what is missing of groups of kernels, until the block ends.

    Yields:
        What is missing; nothing if there are no other processes.
    """
    missing = _missing(groups)
    count = min(_MOST_HELPERS, _processors() - 1, int(sum(k.seconds for k in missing) / _ENOUGH_S))
    with contextlib.ExitStack() as started:
        for _ in range(count):
            started.enter_context(_helper(groups))
        yield missing if count > 0 else []


def _missing(groups: Iterable[str]) -> list[Kernel]:
    """Return the kernels that the disk does not have; none if processes cannot share them."""
    if _processors() == 1:
        return []
    from lepton.jit import shares_cache

    if not shares_cache():
        return []
    return [kernel for kernel in kernels_of(groups) if kernel.is_missing]


def _processors() -> int:
    """Return the processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _helper(groups: Iterable[str]) -> Generator[None]:
    """Run a process that compiles until the block ends; without it the others have more to do."""
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "lepton.jit_ahead", *groups],
            # standard input stays open: the child ends itself when this process is gone
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            # Ctrl-C is for this process, which ends the child
            env=package_environment(), start_new_session=True,
        )  # fmt: skip
    except OSError:
        yield
        return
    with child:
        try:
            yield
        finally:
            child.kill()


def package_environment() -> dict[str, str]:
    """Return an environment in which a child imports the package that this process runs."""
    root = str(Path(__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([root, known] if known else [root])}


def _watch_parent() -> None:
    """End this process when standard input closes, which is when the parent is gone."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


def main() -> None:
    """Compile the groups of the command line."""
    threading.Thread(target=_watch_parent, daemon=True).start()
    # it takes a seventh of the time, and what a compilation leaves behind is small
    gc.disable()
    for kernel in kernels_of(sys.argv[1:]):
        kernel.compile(waits=False)


if __name__ == "__main__":
    main()
