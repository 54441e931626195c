"""Compare the GPU of this machine with its CPU, and generate the kernels that TVM would launch.

    python -m benchmarks.gpu [--write]

Needs the environment variable LEPTON_DATA, which names the folder of the models. Without a GPU it
says so, and does what can be done: TVM's CUDA code of each network, accepted by nvcc where there is
one. With a GPU that ONNX Runtime (`pip install onnxruntime-gpu`) or TVM can use it also prints
times and differences of whole networks, float and int8. With `--write` it replaces the figures of
docs/gpu.md.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT
from benchmarks.page import (
    markdown_table,
    models_folder,
    origin,
    page_parser,
    replace_part,
)
from lepton.errors import CompileError
from lepton.models.light import light_network
from lepton.runtime.devices.gpu import cuda_engine, gpu_engine, gpu_model
from lepton.runtime.devices.library import Engine, drawn_inputs, piece_runner
from lepton.runtime.devices.profile import best_ns
from lepton.runtime.devices.tvm_cuda import cuda_source, tvm_executable
from lepton.runtime.split import Network, read_network

__all__ = ["Compared", "Generated", "compared", "generated", "text"]

PAGE = ROOT / "docs" / "gpu.md"
HEADING = "## Figures"
STORED = ("pretrainedResnet_float", "resnet", "mobilenet_v1", "kws_ref_model", "deep_autoencoder")
LIGHT = ("squeezenet", "shufflenet")


@dataclass(frozen=True)
class Generated:
    """CUDA code of a network.

    Attributes:
        fault: why TVM or nvcc refused, else "".
        nvcc_seconds: None where there is no nvcc.
    """

    network: str
    kernels: int
    source_bytes: int
    seconds: float
    nvcc_seconds: float | None
    fault: str = ""


@dataclass(frozen=True)
class Compared:
    """A network on the GPU and the CPU.

    Attributes:
        differ: share of the outputs that are not equal, or not within 1e-4 of the largest.
        error: largest difference over the largest output.
    """

    network: str
    kind: str
    cpu_ns: int
    gpu_ns: int
    differ: float
    error: float


def generated(network: Network, folder: Path) -> Generated:
    """Generate a network's kernels, and let nvcc compile them."""
    piece = network.piece(range(len(network.units)))
    began = time.perf_counter()
    try:
        source = cuda_source(tvm_executable(piece))
    except CompileError as error:
        return Generated(network.name, 0, 0, time.perf_counter() - began, None, str(error))
    seconds = time.perf_counter() - began
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return Generated(network.name, _kernels(source), len(source), seconds, None)
    (folder / "kernels.cu").write_text(source)
    began = time.perf_counter()
    command = [nvcc, "-arch=sm_90", "-cubin", "-o", folder / "kernels.cubin", folder / "kernels.cu"]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    errors = [line.split("error: ")[-1] for line in made.stderr.splitlines() if "error: " in line]
    fault = f"nvcc, {len(errors)} errors: {errors[0]}" if made.returncode and errors else ""
    taken = time.perf_counter() - began
    return Generated(network.name, _kernels(source), len(source), seconds, taken, fault)


def _kernels(source: str) -> int:
    """Return how many kernels a source defines; each is declared before."""
    return source.count("__global__") // 2


def compared(network: Network, engine: Engine) -> Compared:
    """Run a network on the GPU and the CPU."""
    piece = network.piece(range(len(network.units)))
    values = drawn_inputs(network, network.inputs)
    cpu, gpu = piece_runner(network.format, piece, 1), engine(piece)
    expected, made = cpu(values), gpu(values)
    scale = max(float(np.abs(item.astype(np.float64)).max()) for item in expected.values()) or 1.0
    gaps = np.concatenate(
        [
            np.abs(expected[name].astype(np.float64) - made[name].astype(np.float64)).reshape(-1)
            for name in expected
        ]
    )
    kind = "int8" if any(unit.is_integer for unit in network.units) else "float"
    return Compared(
        network.name, kind, best_ns(lambda: cpu(values), 1), best_ns(lambda: gpu(values), 0),
        float((gaps > 1e-4 * scale).mean()), float(gaps.max()) / scale,
    )  # fmt: skip


def text(codes: list[Generated], rows: list[Compared], gpu: str, library: str) -> str:
    """Return the tables."""
    heads = ("network", "kernels", "source KiB", "TVM s", "nvcc s", "refused")
    cells = [
        (c.network, str(c.kernels), c.source_bytes / 1024, c.seconds,
         "-" if c.nvcc_seconds is None else c.nvcc_seconds, c.fault or "no")
        for c in codes
    ]  # fmt: skip
    parts = [
        f"Measured by `python -m benchmarks.gpu --write`\n{origin()}.",
        "CUDA code that TVM generates of whole networks for `sm_90`, and nvcc's time for it:",
        markdown_table(heads, cells, 2),
    ]
    if not rows:
        return "\n\n".join([*parts, gpu])
    heads = ("network", "layers", "CPU ms", "GPU ms", "speed-up", "outputs that differ", "error")
    cells = [
        (r.network, r.kind, r.cpu_ns / 1e6, r.gpu_ns / 1e6, f"{r.cpu_ns / r.gpu_ns:.2f}x",
         f"{r.differ:.2%}", f"{r.error:.1e}")
        for r in rows
    ]  # fmt: skip
    parts.append(
        f"{gpu} with {library}, arrays going there and back, beside one thread of the CPU. An\n"
        "output differs by more than 1e-4 of the largest one:"
    )
    return "\n\n".join([*parts, markdown_table(heads, cells, 2)])


def main() -> None:
    parser = page_parser(__doc__)
    options = parser.parse_args()
    folder = models_folder(parser) / "mlperf_tiny_onnx"
    engine, model = gpu_engine(), gpu_model()
    with tempfile.TemporaryDirectory(prefix="lepton-") as name:
        paths = [folder / f"{stored}.onnx" for stored in STORED]
        for light in LIGHT:
            paths.append(Path(name) / f"{light}.onnx")
            paths[-1].write_bytes(light_network(light).SerializeToString())
        networks = [read_network(path) for path in paths]
        codes = [generated(network, Path(name)) for network in networks]
        rows = [] if engine is None else [compared(network, engine) for network in networks]
    library = "ONNX Runtime" if engine is cuda_engine else "TVM"
    found = model or "There is no GPU on this machine: nothing was launched."
    if model and engine is None:
        found = f"{model} is there, but neither ONNX Runtime nor TVM here can use it."
    made = text(codes, rows, found, library)
    print(made)
    if options.write:
        replace_part(PAGE, HEADING, made)


if __name__ == "__main__":
    main()
