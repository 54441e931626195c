"""The folder of fronts in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from lepton.compiler.front_file import read_front, write_front
from lepton.compiler.steps import FrontModel
from lepton.program.files import atomic_write

__all__ = ["FrontFolder", "front_key"]

_MOST_BYTES = 1 << 30
"""Of all files together."""
_LIBRARIES = ("apache-tvm", "onnx", "onnxruntime", "ai-edge-litert", "numpy", "flatbuffers")
"""Those that have a say in a front."""


def front_key(model: Path, shapes: Mapping[str, Sequence[int]]) -> str | None:
    """Return what a front is known by: the file's content and name, and shapes of its inputs.

    None stands for a file that cannot be read.
    """
    try:
        content = hashlib.sha256(model.read_bytes()).hexdigest()
    except OSError:
        return None
    return f"{content} {model.name} {sorted(shapes.items())}"


class FrontFolder:
    """Files of fronts, of these sources and libraries; the oldest go where they grow too many."""

    def __init__(self, folder: Path, most_bytes: int = _MOST_BYTES) -> None:
        self._folder, self._most_bytes = folder, most_bytes

    def read(self, key: str) -> FrontModel | None:
        """Return the front of a key, None if there is none or its file is damaged."""
        path = self._path(key)
        try:
            front = read_front(path.read_bytes())
            path.touch()
        except OSError:
            return None
        return front

    def write(self, key: str, front: FrontModel) -> None:
        """Keep a front, where the folder can be written and the front has a form for files."""
        with contextlib.suppress(OSError, TypeError, KeyError):
            content = write_front(front)
            if len(content) > self._most_bytes:
                return
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(len(content))
            atomic_write(self._path(key), content)

    def _path(self, key: str) -> Path:
        from lepton.jit import sources_hash

        libraries = [version(name) for name in _LIBRARIES]
        name = hashlib.sha256(f"{key} {sources_hash()} {libraries}".encode()).hexdigest()
        return self._folder / f"{name[:32]}.front"

    def _make_room(self, size: int) -> None:
        """Remove the files that were used longest ago until so many bytes can be added."""
        found = [(path.stat(), path) for path in self._folder.glob("*.front")]
        total = size + sum(stat.st_size for stat, _ in found)
        for stat, path in sorted(found, key=lambda item: item[0].st_mtime_ns):
            if total <= self._most_bytes:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size
