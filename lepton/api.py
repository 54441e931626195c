"""The Python interface: compile, check, simulate, predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, load_chip
from lepton.errors import InputError
from lepton.jit_ahead import helpers
from lepton.models import model_path
from lepton.program import Program, as_array, as_batch, load_program, only_input
from lepton.trace import Trace

__all__ = ["Model", "RunResult", "check", "compile", "estimate", "load_model", "load_program"]
__all__ += ["place", "simulate"]

if TYPE_CHECKING:
    from lepton.cost.estimate import Estimate
    from lepton.report.energy import Energy
    from lepton.runtime.placed import PlacedModel
    from lepton.runtime.plan import Plan

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class RunResult:
    """What `simulate` returns.

    Attributes:
        program: what ran.
        outputs: by name, in the model's shapes and types; empty without inputs.
        trace: where every cycle went; None without timing.
    """

    program: Program
    outputs: Arrays
    trace: Trace | None

    @property
    def energy(self) -> Energy | None:
        """What the run cost, per layer and component; None without timing."""
        from lepton.report.energy import energy_of

        return None if self.trace is None else energy_of(self.program, self.trace)

    def report(self) -> str:
        """Return the per-layer table."""
        from lepton.report.summary import summarize
        from lepton.report.table import layer_table

        return layer_table(summarize(self.program, self.trace))


def _chip(chip: object) -> Chip:
    """Return a chip that was given itself or by its name."""
    if isinstance(chip, Chip):
        return chip
    if not isinstance(chip, str | Path):
        raise InputError(
            f"chip must be a preset's name, the path of a chip file or a Chip, not {chip!r}"
        )
    return load_chip(chip)


def _program(program: object) -> Program:
    """Return what must be a program."""
    if isinstance(program, Program):
        return program
    found = repr(program) if isinstance(program, str | Path) else type(program).__name__
    raise InputError(
        f"program must come from lepton.compile or lepton.load_program(path), not {found}"
    )


def _named(program: Program, inputs: object) -> Mapping[str, NDArray[Any]] | None:
    """Return inputs by name; one array is the only input."""
    if inputs is None or isinstance(inputs, Mapping):
        return cast(Mapping[str, NDArray[Any]] | None, inputs)
    if isinstance(inputs, np.ndarray) and len(program.inputs) == 1:
        return {program.inputs[0]: cast(NDArray[Any], inputs)}
    names = ", ".join(program.inputs) or "none"
    raise InputError(f"inputs must be arrays by input name ({names}), not {type(inputs).__name__}")


def compile(
    model: str | Path | object,
    chip: str | Path | Chip = "edge",
    *,
    calibration: Mapping[str, NDArray[Any]] | NDArray[Any] | None = None,
    activations: str = "int8",
    sqnr_db: float | None = None,
    agreement: float | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    optimize: str = "latency",
    effort: int = 1,
    float_on_host: bool = False,
    evaluate: Callable[[Program], float] | None = None,
) -> Program:
    """Compile a model into a program.

    Args:
        model: path of a quantized `.onnx` or `.tflite` file, name of a trained network
            (`lepton.models.trained_networks()`), a `torch.export` program, an `onnx.ModelProto` or
            a Relax `IRModule`.
        chip: preset, path of a chip file, or `Chip`.
        calibration: inputs of a float model (not `.tflite`), `[samples, ...]` by name, to quantize
            it with ONNX Runtime's quantizer; an object is written as ONNX first.
        activations: their bits in a calibrated model: `int8`, `int16`, or `auto`, which raises to
            16 bits those that lose most, until a target is reached. The layers that read or write
            16 bits run on the host.
        sqnr_db: target of `auto`: power of the float outputs over that of the differences, in dB.
        agreement: target of `auto`: share of samples with the float model's first class, 0 to 1.
        shapes: input name -> shape, for models with dynamic dimensions.
        optimize: what to minimize: `latency` (cycles), `energy` (joules), or `size` (bytes of the
            instructions and the stored constants).
        effort: 0 to 3, how long to search for better tiles (about 0, 0.3, 3 and 30 seconds).
        float_on_host: take the file of a float model, all of whose MACs run on the host.
        evaluate: measures the programs that are about as good as the best: returns cycles, or
            joules where energy is minimized. Without it the estimate decides.

    Raises:
        InputError: the model, the chip or an option is at fault.
        CompileError: the chip cannot hold the model.
    """
    from lepton.compiler.activations import Activations
    from lepton.compiler.compile import compile_model
    from lepton.compiler.options import CompileOptions

    options = CompileOptions(
        shapes=shapes, calibration=calibration, effort=effort, float_on_host=float_on_host,
        optimize=optimize, evaluate=evaluate,
        activations=Activations(activations, sqnr_db, agreement),
    )  # fmt: skip
    if isinstance(model, str | Path):
        from lepton.compiler.isolate import compile_file

        return compile_file(model_path(model), _chip(chip), options)
    if calibration is None:
        with helpers("compile"):
            return compile_model(model, _chip(chip), options)
    from lepton.compiler.isolate import compile_calibrated

    return compile_calibrated(model, _chip(chip), options)


def check(program: Program) -> None:
    """Raise CheckError if a program has undefined behaviour: a race, a bad read, a deadlock."""
    from lepton.simulator import check as check_program

    check_program(_program(program))


def estimate(program: Program, chip: str | Path | Chip | None = None) -> Estimate:
    """Return the cycles of a program without simulating it; docs/estimate.md says how close.

    Args:
        program: from `lepton.compile` or `lepton.load_program`.
        chip: another one, that differs from the program's in timing only.

    Raises:
        CheckError: the program deadlocks.
        InputError: the chip differs in more.
    """
    from lepton.cost.estimate import estimate_program
    from lepton.runtime.retarget import retarget

    chosen = _program(program)
    return estimate_program(chosen if chip is None else retarget(chosen, _chip(chip)))


def simulate(
    program: Program,
    inputs: Mapping[str, NDArray[Any]] | NDArray[Any] | None = None,
    *,
    timing: bool = True,
    checked: bool = False,
) -> RunResult:
    """Run a program on the simulated NPU; without `inputs` the cycles only.

    Args:
        program: from `lepton.compile` or `lepton.load_program`.
        inputs: arrays by input name, or the only input's, exactly the model's shapes and types.
        timing: False returns values only.
        checked: True if `lepton.check` has already accepted this program.

    Raises:
        CheckError: undefined behaviour.
        InputError: an input is missing, unknown, or of the wrong shape or type.
    """
    from lepton.runtime.execute import simulate as run

    named = _named(_program(program), inputs)
    result = run(program, named, timing=timing, checked=checked)
    return RunResult(program, result.outputs, result.trace)


@dataclass(frozen=True)
class Model:
    """A compiled model, ready to predict."""

    program: Program

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the first output for one input or a batch of them.

        Args:
            x: the model's input shape, or that with a leading batch, or with a batch in place of
                its leading 1.

        Raises:
            InputError: the model has not one input, or `x` does not fit it.
        """
        from lepton.runtime.execute import predict

        name, shape = only_input(self.program)
        array = as_array(x, f"input '{name}'")
        batch = as_batch(array, shape, f"input '{name}'")
        made = [next(iter(outputs.values())) for outputs in predict(self.program, batch)]
        if array.shape == shape:
            return made[0]
        return np.concatenate([np.atleast_1d(output) for output in made])


def place(
    path: str | Path,
    devices: Sequence[str] = ("npu", "cpu"),
    *,
    chip: str | Path | Chip = "edge",
    objective: str = "latency",
    pins: Mapping[str, str] | None = None,
    assume: Mapping[str, str | Path] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    threads: int = 1,
    measure: bool = True,
    watts: Mapping[str, float] | None = None,
) -> Plan:
    """Return which device runs each layer of a model, by predicted cost.

    Args:
        path: `.onnx` or `.tflite` file, or name of a trained network.
        devices: `cpu`, `gpu`, `npu`, or `npu2=nano` for one of several chips, first the one that
            takes what it can in a greedy runtime.
        chip: of NPUs that name none.
        objective: `latency`, `energy` or `throughput`.
        pins: layer -> device.
        assume: device -> file that describes it; it can be planned for, not run on.
        shapes: of inputs that have unknown dimensions.
        threads: of the CPU.
        measure: whether layers that the CPU's profile lacks are measured; else a roofline stands
            in.
        watts: what a device draws, for the objective energy.

    Raises:
        InputError: the model, a device or an option is at fault.
    """
    from lepton.runtime.devices import DeviceOptions
    from lepton.runtime.place import place_file
    from lepton.runtime.placement import Goal

    if objective not in list(Goal):
        raise InputError(f"objective must be one of {', '.join(Goal)}, not {objective!r}")
    options = DeviceOptions(
        chip=_chip(chip), assume=assume or {}, threads=threads, is_measuring=measure,
        watts=watts or {},
    )  # fmt: skip
    return place_file(
        model_path(path), list(devices), options, goal=Goal(objective), pins=pins, shapes=shapes
    )


@overload
def load_model(
    path: str | Path | object, chip: str | Path | Chip = "edge", *, devices: None = None
) -> Model: ...
@overload
def load_model(
    path: str | Path,
    chip: str | Path | Chip = "edge",
    *,
    devices: Sequence[str],
    objective: str = "latency",
) -> PlacedModel: ...
def load_model(
    path: str | Path | object,
    chip: str | Path | Chip = "edge",
    *,
    devices: Sequence[str] | None = None,
    objective: str = "latency",
) -> Model | PlacedModel:
    """Return a model (see `compile`) compiled for a chip, or the one in a `.lepton` file.

    With devices, return the model of a file placed on them for an objective (see `place`).
    """
    if devices is not None:
        from lepton.runtime.placed import prepare_plan

        if not isinstance(path, str | Path):
            raise InputError("only the model of a file can be placed on devices")
        return prepare_plan(place(path, devices, chip=chip, objective=objective))
    if isinstance(path, str | Path) and Path(path).suffix == ".lepton":
        return Model(load_program(path))
    return Model(compile(path, chip))
