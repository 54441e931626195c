"""The state of a training in a file, replaced as a whole after each epoch."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lepton.errors import InputError
from lepton.models.training.options import TrainingOptions
from lepton.program import refuse_special

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint"]


class Checkpoint:
    """A file that holds a training's state, and of which training.

    Args:
        path: of the file.
        options: of the training.
        network: whose tensors' names and shapes belong to the state.
    """

    def __init__(self, path: Path, options: TrainingOptions, network: torch.nn.Module) -> None:
        self.path = path
        shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
        self._training = json.dumps({"options": asdict(options), "tensors": shapes})

    def load(self) -> dict[str, Any] | None:
        """Return the state, None if there is no file.

        Raises:
            InputError: the file is damaged, or of another training. It is read as tensors and plain
                values only; nothing in it is executed.
        """
        import torch

        if not self.path.exists():
            return None
        refuse_special(self.path)
        try:
            loaded: Any = torch.load(self.path, weights_only=True)
            training, state = loaded["training"], loaded["state"]
        except Exception:  # the reader of damaged files raises errors of a dozen kinds
            raise InputError(f"{self.path}: not a checkpoint, or a damaged one") from None
        if training != self._training:
            raise InputError(
                f"{self.path}: it belongs to a training with other options or another network; "
                "delete it or name another file"
            )
        return cast(dict[str, Any], state)

    def save(self, state: dict[str, Any]) -> None:
        """Write the state beside the file and put it in its place."""
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                torch.save({"training": self._training, "state": state}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, self.path)
        finally:
            Path(temporary).unlink(missing_ok=True)
