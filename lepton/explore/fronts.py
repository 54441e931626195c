"""Models as far as no chip has a say, each imported once, in a child process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lepton.chip import Chip
from lepton.compiler.front_folder import FrontFolder, front_key
from lepton.compiler.isolate import compile_file
from lepton.compiler.options import CompileOptions, plain_shapes
from lepton.compiler.steps import FrontModel, NpuStep
from lepton.errors import CompileError, ImportFailure
from lepton.explore.space import Workload
from lepton.jit import cache_folder

__all__ = ["Fronts", "load_front"]


def load_front(workload: Workload, chip: Chip) -> FrontModel:
    """Return the front of a workload's model, as partitioned for a chip.

    A model file is read in a child process, as for any compilation, which leaves the front in the
    user's cache. Where nothing can be kept there it is read in this process.

    Raises:
        ImportFailure: the model cannot be read.
        InputError: it is a float model, of which nothing could run on the NPU.
        CompileError: the chip cannot hold it, or nothing of it runs on the NPU.
    """
    shapes = plain_shapes(workload.shapes)
    folder = FrontFolder(cache_folder() / "fronts")
    key = front_key(workload.model, shapes)
    if key is not None:
        found = folder.read(key)
        # with no MAC on the NPU it may be a float model's, kept by a run that wanted it so
        if found is not None and found.suits(chip) and found.npu_macs:
            return found
    compile_file(workload.model, chip, CompileOptions(shapes=shapes or None, effort=0))
    made = None if key is None else folder.read(key)
    made = _imported(workload.model, shapes, chip) if made is None else made
    if not any(isinstance(step, NpuStep) for step in made.steps):
        raise CompileError(f"{workload.model}: none of it runs on the NPU of this chip")
    return made


def _imported(model: Path, shapes: dict[str, list[int]], chip: Chip) -> FrontModel:
    from lepton.compiler.front import front_model
    from lepton.compiler.importers import import_model

    front = front_model(import_model(model, shapes), chip)
    if not front.steps:
        raise ImportFailure(f"{model}: the model computes nothing")
    return front


class Fronts:
    """The fronts of workloads, for as many kinds of chips as partition them differently."""

    def __init__(self, workloads: Sequence[Workload], made: Sequence[FrontModel]) -> None:
        """Take workloads and the front of each for some chip."""
        self._workloads = workloads
        self._known = [[front] for front in made]

    def of(self, number: int, chip: Chip) -> FrontModel:
        """Return the front of a workload for a chip."""
        for front in self._known[number]:
            if front.suits(chip):
                return front
        front = load_front(self._workloads[number], chip)
        self._known[number].append(front)
        return front
