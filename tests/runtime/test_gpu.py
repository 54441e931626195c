"""The GPU's code path as far as a machine without one goes: generated kernels, and the device
itself around an engine that computes on the CPU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lepton.errors import CompileError, InputError
from lepton.models.light import light_network
from lepton.runtime.devices import CpuDevice, DeviceOptions, GpuDevice, Port, choose_devices
from lepton.runtime.devices import gpu as module
from lepton.runtime.devices.gpu import cuda_engine, gpu_engine, gpu_model
from lepton.runtime.devices.library import Run, drawn_inputs, piece_runner
from lepton.runtime.devices.profile import Profile
from lepton.runtime.devices.rates import Rates, one_node
from lepton.runtime.devices.tvm_cuda import cuda_source, has_cuda, tvm_executable, tvm_runner
from lepton.runtime.golden import GoldenModel
from lepton.runtime.placed import prepare_plan
from lepton.runtime.plan import place_network
from lepton.runtime.split import Network, read_network
from tests.runtime.mixed_network import mixed_network


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpu") / "mixed.onnx"
    path.write_bytes(mixed_network())
    return path


@pytest.fixture(scope="module")
def network(mixed: Path) -> Network:
    return read_network(mixed)


def engine(piece: bytes) -> Run:
    """Compute on the CPU what a GPU would."""
    return piece_runner("onnx", piece, 1)


RATES = Rates(5000, 100.0, 100.0, 10.0)


def device(is_measuring: bool = False) -> GpuDevice:
    profile = Profile(0, rates={"onnx": RATES}, engine=engine)
    return GpuDevice(profile, is_measuring=is_measuring)


def _float_part(network: Network) -> bytes:
    unit = next(n for n, unit in enumerate(network.units) if unit.name == "n_c2")
    return network.piece([unit])


def test_kernels_are_generated_and_nvcc_takes_them(network: Network, tmp_path: Path) -> None:
    source = cuda_source(tvm_executable(_float_part(network)))
    assert "__global__" in source
    assert "_kernel" in source
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return  # the source is all that this machine can make
    (tmp_path / "k.cu").write_text(source)
    made = subprocess.run(
        [nvcc, "-arch=sm_90", "-cubin", "-o", str(tmp_path / "k.cubin"), str(tmp_path / "k.cu")],
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-500:]
    assert (tmp_path / "k.cubin").read_bytes()[:4] == b"\x7fELF"


def test_what_tvm_compiles_computes_the_same(tmp_path: Path, network: Network) -> None:
    """The same importer and passes, for this CPU."""
    path = tmp_path / "light.onnx"
    path.write_bytes(light_network("squeezenet").SerializeToString())
    light = read_network(path)
    whole = light.piece(range(len(light.units)))
    for piece, values in (
        (whole, drawn_inputs(light, light.inputs)),
        (_float_part(network), drawn_inputs(network, ("a",))),
    ):
        expected = piece_runner("onnx", piece, 1)(values)
        made = tvm_runner(piece, "llvm")(values)
        assert made.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(made[name], expected[name], rtol=1e-4, atol=2e-5)


def test_names_that_are_no_identifiers_stay_out_of_the_source() -> None:
    piece = one_node("Relu", {"gpu_0/data 0": np.ones((4, 4), np.float32)})
    source = cuda_source(tvm_executable(piece))
    assert "__global__" in source and "gpu_0/" not in source
    values = {"gpu_0/data 0": np.array([[-1, 2]] * 8, np.float32).reshape(4, 4)}
    (x,) = values.values()
    assert np.array_equal(tvm_runner(piece, "llvm")(values)["y"], np.maximum(x, 0))


def test_what_tvm_cannot_compile() -> None:
    with pytest.raises(CompileError, match="TVM cannot compile it for cuda"):
        tvm_executable(b"nothing")


def test_a_machine_without_a_gpu_says_so_once() -> None:
    if gpu_model():
        return
    assert not has_cuda()
    assert gpu_engine() is None
    made, notes = choose_devices(["cpu", "gpu"], DeviceOptions())
    assert [each.name for each in made] == ["cpu"]
    assert len(notes) == 1 and notes[0].startswith("gpu: there is no such device here")
    with pytest.raises(CompileError, match=r"cannot use the GPU|refuses"):
        cuda_engine(b"nothing")


def test_an_engine_that_fails_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(piece: bytes) -> Run:
        raise InputError("no driver")

    class Library:
        @staticmethod
        def get_available_providers() -> list[str]:
            return ["CUDAExecutionProvider"]

    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", Library)
    monkeypatch.setattr(module, "gpu_model", lambda: "")
    monkeypatch.setattr(module, "cuda_engine", broken)
    assert gpu_engine() is None
    monkeypatch.setattr(module, "cuda_engine", engine)
    monkeypatch.undo()
    assert module._works(engine)  # pyright: ignore[reportPrivateUsage]


def test_a_gpu_that_is_there_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gpu_engine", lambda: engine)
    monkeypatch.setattr(module, "gpu_model", lambda: "Test GPU")
    made, notes = choose_devices(["cpu", "gpu"], DeviceOptions(watts={"gpu": 70.0}))
    assert not notes
    found = made[1]
    assert isinstance(found, GpuDevice)
    assert found.profile.engine is engine
    assert found.profile.path is not None and found.profile.path.name.startswith("gpu-0-")


def test_it_takes_float_layers_of_onnx_files(network: Network) -> None:
    reasons = device().supports(network)
    able = {unit.name for unit, reason in zip(network.units, reasons, strict=True) if not reason}
    assert "n_c1" not in able
    assert all("8-bit layers" in reason for reason in reasons if reason)
    assert able == {unit.name for unit in network.units if not unit.is_integer}


def test_the_way_of_arrays_is_the_link_s(network: Network) -> None:
    """A unit costs what it takes less its launch and its arrays' way, which links add again."""
    number = next(n for n, unit in enumerate(network.units) if not unit.is_integer)
    unit = network.units[number]
    size = sum(network.tensors[name].size_bytes for name in (*unit.inputs, *unit.outputs))
    profile = Profile(0, rates={"onnx": RATES}, units={unit.signature: 50_000}, engine=engine)
    gpu = GpuDevice(profile, is_measuring=False)
    assert gpu.cost(network)[number] == 50_000 - 5000 - round(size / 10.0)
    assert gpu.port == Port(0, 10.0)
    assert gpu.launch_ns(network) == 5000


def test_only_what_it_takes_is_measured(network: Network) -> None:
    gpu = device(is_measuring=True)
    gpu.cost(network)
    able = {unit.signature for unit in network.units if not unit.is_integer}
    assert set(gpu.profile.units) == able


def test_a_placement_on_cpu_and_gpu_gives_the_golden_bytes(mixed: Path, network: Network) -> None:
    floats = [unit.name for unit in network.units if not unit.is_integer]
    pins = dict.fromkeys(floats, "gpu")
    cpu = CpuDevice(Profile(1, rates={"onnx": RATES}), "cpu", is_measuring=False)
    plan = place_network(network, [device(), cpu], pins=pins)
    values = drawn_inputs(network, network.inputs)
    execution = prepare_plan(plan, pins).run(values)
    assert execution.outputs["y"].tobytes() == GoldenModel(mixed).run(values)["y"].tobytes()
    rows = {bar.row: bar.clock for bar in execution.timeline.bars}
    assert rows["gpu"] == rows["cpu"] == "measured"
    assert rows["cpu->gpu"] == "modelled"
