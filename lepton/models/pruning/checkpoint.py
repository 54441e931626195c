"""Save how far a gradual pruning has come, and go on from there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton.errors import InputError

if TYPE_CHECKING:
    import torch

# torch is typed in part only, and an extra:
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["Checkpoint", "fingerprint"]


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds the tensors after the last finished step.

    Attributes:
        path: of the file; a new one replaces it as a whole.
        settings: what the steps follow from; another run's file is refused.
    """

    path: Path
    settings: str

    def save(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write the tensors after `step` finished steps, and torch's random state.

        Raises:
            InputError: The file cannot be written.
        """
        import torch

        state = {"random": torch.get_rng_state(), "settings": self.settings, "step": step}
        part = self.path.with_name(f"{self.path.name}.part")
        try:
            torch.save({**state, "tensors": dict(tensors)}, part)
            os.replace(part, self.path)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{self.path}: cannot be written: {error}") from error

    def load(self) -> tuple[int, dict[str, torch.Tensor]]:
        """Return the finished steps and their tensors, and set torch's random state; 0 if none.

        Raises:
            InputError: The file is damaged or another run's.
        """
        import torch

        if not self.path.exists():
            return 0, {}
        try:
            state: Any = torch.load(self.path, weights_only=True)
            step, tensors = int(state["step"]), dict(state["tensors"])
            settings, random = state["settings"], state["random"]
        except Exception as error:  # torch raises whatever the pickle or the zip file raises
            raise InputError(f"{self.path} is no pruning checkpoint, or it is damaged") from error
        if settings != self.settings:
            raise InputError(f"{self.path} is the checkpoint of another pruning: remove it")
        torch.set_rng_state(random)
        return step, tensors


def fingerprint(tensors: Mapping[str, torch.Tensor], *settings: object) -> str:
    """Return a digest of tensors and settings."""
    import torch

    digest = hashlib.sha256(repr(settings).encode())
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
