"""`lepton doctor`: versions, compiled kernels, cache, golden libraries, GPU."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Finding", "diagnose"]

_PACKAGES = (
    "numpy",
    "numba",
    "apache-tvm",
    "networkx",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "tflite",
    "safetensors",
    "tqdm",
)


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis."""

    subject: str
    good: bool
    text: str


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    good = sys.version_info >= (3, 11)
    return Finding("python", good, version if good else f"{version}: Lepton needs 3.11 or newer")


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, f"not installed: pip install {name}")


def _cache() -> Finding:
    from lepton.jit import cache_folder

    folder = cache_folder()
    kernels = len(list(folder.rglob("*.nbi")))
    free = shutil.disk_usage(folder).free >> 20
    text = f"{folder}, {kernels} kernels compiled, {free} MiB free"
    return Finding("kernel cache", free > 100, text)


def _kernels() -> Finding:
    from lepton.arith.fixed_point import multiply_by_quantized_multiplier

    began = time.perf_counter()
    result = multiply_by_quantized_multiplier(1000, 1 << 30, 0)
    seconds = time.perf_counter() - began
    good = result == 500
    return Finding("compiled kernels", good, f"{seconds:.2f} s for the first" if good else "wrong")


def _products() -> Finding:
    import numpy as np

    from lepton.simulator import matrix_kernels as matrix
    from lepton.simulator.dot_tile import has_dot

    generator = np.random.default_rng(0)
    x, w = (generator.integers(0, 256, size, dtype=np.uint8) for size in ((64, 512), (512, 64)))
    wanted = (x.astype(np.int64) - 3) @ w.view(np.int8).astype(np.int64)
    sums = np.zeros((64, 64), np.int32)
    window = matrix.Window(0, 0, 512, 1, 64, 512, 1, 1, 1, 1, 1, 1, 0, 0, 1, 64)
    target = matrix.Accumulators(sums.ravel(), 0, 64, 0)
    matrix.multiply(
        x.ravel(), matrix.Operand(0, 3), window, matrix.pack(w, 0), (64, 0), target
    )  # fmt: skip
    good = bool((sums == wanted).all())
    by = "by the CPU's int8 dot product" if has_dot() else "by products of 16 bits"
    return Finding("exact products", good, by if good else "differ from integers")


def _goldens() -> Finding:
    try:
        import onnxruntime

        version = onnxruntime.__version__
        from ai_edge_litert.interpreter import Interpreter

        del Interpreter
    except ImportError as error:
        return Finding("golden libraries", False, f"{error}: install lepton again")
    return Finding("golden libraries", True, f"ONNX Runtime {version}, LiteRT")


def _gpu() -> Finding:
    found = shutil.which("nvidia-smi") is not None and os.path.exists("/dev/nvidia0")
    return Finding("gpu", True, "found" if found else "none; nothing here needs one")


def diagnose() -> list[Finding]:
    """Return all findings."""
    checks: list[Callable[[], Finding]] = [_cache, _kernels, _products, _goldens, _gpu]
    return [_python(), *(_package(name) for name in _PACKAGES), *(check() for check in checks)]
