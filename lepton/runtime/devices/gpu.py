"""The GPU: each region of an ONNX file in ONNX Runtime's CUDA kernels, or in TVM's.

ONNX Runtime is taken where it was installed with CUDA (`pip install onnxruntime-gpu`): its kernels
are cuDNN's and cuBLAS's, TVM's are the default schedules of its code generator. TVM is taken if
only it can launch kernels (see `tvm_cuda`). Products are computed in full float32, not in TF32.

8-bit layers run in float between their dequantized and quantized tensors, which rounds otherwise
than the golden's integer kernels; they are left to other devices, so that no placement changes a
byte. `benchmarks.gpu` measures by how much.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lepton.errors import CompileError, InputError
from lepton.runtime.devices.library import Engine, Run, session_runner
from lepton.runtime.devices.profile import Profile
from lepton.runtime.devices.protocol import Arrays, Clock, Port, Progress, Ran, silent
from lepton.runtime.devices.rates import Rates, one_node
from lepton.runtime.golden import onnx_session
from lepton.runtime.split import Network

__all__ = ["GpuDevice", "cuda_engine", "gpu_engine", "gpu_model"]

_PROVIDER = "CUDAExecutionProvider"
_INTEGER = "the GPU rounds 8-bit layers otherwise than the golden library"
_FORMAT = "the GPU runs ONNX files only"


def gpu_model() -> str:
    """Return what NVIDIA's driver calls the first GPU, "" if there is none."""
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                return value.strip()
    return ""


def cuda_engine(piece: bytes) -> Run:
    """Return what runs a piece in ONNX Runtime's CUDA kernels.

    Raises:
        CompileError: ONNX Runtime refuses it, or falls back to the CPU.
    """
    try:
        session: Any = onnx_session(piece, 1, (_PROVIDER, {"use_tf32": "0"}))
    except InputError as error:
        raise CompileError(str(error)) from None
    if _PROVIDER not in session.get_providers():
        raise CompileError("ONNX Runtime cannot use the GPU, and fell back to the CPU")
    return session_runner(session, "the GPU")


def gpu_engine() -> Engine | None:
    """Return what runs pieces on the GPU of this machine, None if nothing does."""
    import onnxruntime

    library: Any = onnxruntime
    if _PROVIDER in library.get_available_providers() and _works(cuda_engine):
        return cuda_engine
    if gpu_model():
        from lepton.runtime.devices.tvm_cuda import has_cuda, tvm_runner

        if has_cuda():
            return tvm_runner
    return None


def _works(engine: Engine) -> bool:
    """Return whether an engine runs the least of networks: a driver may be missing."""
    arrays: Arrays = {"x0": np.ones(1, np.float32)}
    try:
        return bool(engine(one_node("Relu", arrays))(arrays)["y"][0] == 1)
    except (CompileError, InputError):
        return False


@dataclass(frozen=True)
class GpuDevice:
    """A GPU beside the host.

    Attributes:
        profile: what is known of it; its `engine` runs pieces, arrays going there and back.
        is_measuring: whether units that the profile lacks are measured.
        watts: what it draws while it works, if known.
    """

    profile: Profile
    name: str = "gpu"
    is_measuring: bool = True
    watts: float | None = None
    clock: Clock = field(default=Clock.MEASURED, init=False)
    memory_bytes: int | None = field(default=None, init=False)

    @property
    def port(self) -> Port:
        """The way of arrays there and back, by the measured rate of a sum of arrays."""
        return Port(0, self._rates.bytes_per_ns)

    @property
    def _rates(self) -> Rates:
        return self.profile.rates_for("onnx")

    def launch_ns(self, network: Network) -> int:
        """Return what a call takes beside its kernels and arrays."""
        del network
        return self._rates.launch_ns

    def power_mw(self, network: Network) -> int | None:
        """Return what the user said."""
        del network
        return None if self.watts is None else round(self.watts * 1000)

    def supports(self, network: Network) -> tuple[str, ...]:
        """Return that it runs the float units of ONNX files."""
        if network.format != "onnx":
            return (_FORMAT,) * len(network.units)
        return tuple(_INTEGER if unit.is_integer else "" for unit in network.units)

    def cost(self, network: Network, progress: Progress = silent) -> tuple[int, ...]:
        """Return the times without the way of arrays, which is the links'."""
        if network.format != "onnx":
            return (0,) * len(network.units)
        if self.is_measuring:
            able = [n for n, reason in enumerate(self.supports(network)) if not reason]
            self.profile.measure_missing(network, able, progress, "measuring the GPU")
        costs: list[int] = []
        for unit in network.units:
            moved = self._moving_ns(network, (*unit.inputs, *unit.outputs))
            costs.append(max(self.profile.cost_ns(network, unit) - moved, 0))
        return tuple(costs)

    def _moving_ns(self, network: Network, names: Sequence[str]) -> int:
        """Return what the way of some tensors takes."""
        size = sum(network.tensors[name].size_bytes for name in names)
        return round(size / self._rates.bytes_per_ns)

    def prepare(self, network: Network, units: Sequence[int]) -> _Region:
        """Return the region, ready to run.

        Raises:
            CompileError: the GPU's library refuses it.
        """
        inputs, outputs = network.edges(units)
        moving_ns = self._moving_ns(network, (*inputs, *outputs))
        return _Region(self.profile.runner(network.format, network.piece(units)), moving_ns)


@dataclass(frozen=True)
class _Region:
    """A region on the GPU."""

    call: Run
    moving_ns: int

    def run(self, inputs: Arrays) -> Ran:
        """Run and measure, the way of arrays apart."""
        began = time.perf_counter_ns()
        outputs = self.call(inputs)
        return Ran(outputs, max(time.perf_counter_ns() - began - self.moving_ns, 0))
