"""What a run that was killed goes on from: a file that is replaced as a whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, cast

from lepton.errors import InputError
from lepton.program import refuse_special

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false

__all__ = ["Checkpoint"]


class Checkpoint:
    """A file that holds the state of a run, and which run it is.

    Args:
        path: of the file.
        run: all that the run follows from; another run's file is refused.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self._run = run

    def load(self) -> dict[str, Any] | None:
        """Return the state, None if there is no file.

        Raises:
            InputError: the file is damaged, or of another run. It is read as tensors and plain
                values only; nothing in it is executed.
        """
        import torch

        if not self.path.exists():
            return None
        refuse_special(self.path)
        try:
            loaded: Any = torch.load(self.path, weights_only=True)
            run, state = loaded["run"], dict(loaded["state"])
        except Exception:  # the reader of damaged files raises errors of a dozen kinds
            raise InputError(f"{self.path}: not a checkpoint, or a damaged one") from None
        if run != self._run:
            raise InputError(
                f"{self.path}: it belongs to another run (other options, data or network): delete "
                "it or name another file"
            )
        return cast(dict[str, Any], state)

    def save(self, state: dict[str, Any]) -> None:
        """Write the state beside the file and put it in its place.

        Raises:
            InputError: it cannot be written.
        """
        import torch

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            number, part = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            try:
                with os.fdopen(number, "wb") as stream:
                    torch.save({"run": self._run, "state": state}, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(part, self.path)
            finally:
                Path(part).unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{self.path}: cannot be written: {error}") from error
