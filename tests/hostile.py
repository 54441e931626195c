"""Damaged files by seed, and a fork server that tries each of them in a process of its own.

`python -m tests.hostile` reads `SEED [KIND]` from standard input, a line each, and answers with a
line of JSON: what kind of file it was, how it was damaged, and what became of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lepton.chip import PRESETS, chip_to_table, load_chip
from lepton.errors import LeptonError
from lepton.program import Program, load_program, program_from_parts, program_manifest

__all__ = ["KINDS", "Outcome", "Server"]

KINDS = ("model", "program", "sealed", "assembly", "chip")
"""`sealed` is a program whose checksums were made again after the damage."""

CPU_SECONDS = 20
WALL_SECONDS = 90
ADDRESS_BYTES = 8 << 30


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        result: `refused` (a LeptonError of one sentence), `legal`, `contained` (the importer's
            process died, which `compile_file` reports), or a fault: `hang`, `crash`, `raw`,
            `newline`, `differs`.
    """

    seed: int
    kind: str
    damage: str
    result: str
    message: str

    @property
    def is_fault(self) -> bool:
        return self.result not in ("refused", "legal", "contained")


# --- damage -----------------------------------------------------------------------------


def _flip_bit(r: random.Random, data: bytearray, other: bytes) -> None:
    for _ in range(r.choice((1, 1, 1, 4))):
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def _flip_byte(r: random.Random, data: bytearray, other: bytes) -> None:
    for _ in range(r.choice((1, 1, 2, 8))):
        data[r.randrange(len(data))] = r.choice((0, 1, 127, 128, 255, r.randrange(256)))


def _truncate(r: random.Random, data: bytearray, other: bytes) -> None:
    del data[r.randrange(len(data)) :]


def _remove(r: random.Random, data: bytearray, other: bytes) -> None:
    at = r.randrange(len(data))
    del data[at : at + r.choice((1, 4, 16, 200))]


def _duplicate(r: random.Random, data: bytearray, other: bytes) -> None:
    at = r.randrange(len(data))
    data[at:at] = data[at : at + r.choice((1, 4, 16, 64, 1000))]


def _splice(r: random.Random, data: bytearray, other: bytes) -> None:
    at, start, size = r.randrange(len(data)), r.randrange(len(other)), r.choice((4, 32, 500))
    data[at : at + size] = other[start : start + size]


def _claim(r: random.Random, data: bytearray, other: bytes) -> None:
    huge = r.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xf0\xff\xff\xff"))
    huge = r.choice((huge, b"\xff\xff\xff\xff\x0f", b"\0\0\0\0\1\0\0\0", b"\xff" * 9 + b"\x01"))
    at = r.randrange(len(data)) // 4 * 4
    data[at : at + len(huge)] = huge


def _empty(r: random.Random, data: bytearray, other: bytes) -> None:
    data.clear()


def _text(r: random.Random, data: bytearray, other: bytes) -> None:
    data[:] = b"Lorem ipsum\n\0dolor = [sit] 1 \xff\n" * r.randrange(1, 50)


def _noise(r: random.Random, data: bytearray, other: bytes) -> None:
    data[8:] = r.randbytes(len(data))


DAMAGES: tuple[Callable[[random.Random, bytearray, bytes], None], ...] = (
    _flip_bit, _flip_bit, _flip_bit, _flip_byte, _flip_byte, _truncate, _remove, _duplicate,
    _splice, _claim, _claim, _empty, _text, _noise,
)  # fmt: skip


def damaged(r: random.Random, base: bytes, other: bytes) -> tuple[bytes, str]:
    """Return a damaged copy, and the name of the damage."""
    data, damage = bytearray(base), r.choice(DAMAGES)
    if data and other:
        damage(r, data, other)
    return bytes(data), damage.__name__.strip("_").replace("_", " ")


# --- what is damaged --------------------------------------------------------------------


class Bases:
    """The files before the damage."""

    def __init__(self) -> None:
        from tests.compiler.importer_cases import ONNX_CASES, TFLITE_CASES, qlinear

        digits = Path(load_chip.__code__.co_filename).parents[1] / "models/pretrained/digits.onnx"
        self.models: list[tuple[str, bytes]] = [("digits.onnx", digits.read_bytes())]
        for name in ("conv", "gemm", "average pool", "softmax", "resize linear", "concat"):
            self.models.append((f"{name}.onnx", ONNX_CASES[name]().SerializeToString()))
        for kind in ("QLinearAdd", "QLinearConcat"):
            self.models.append((f"{kind}.onnx", qlinear(kind).SerializeToString()))
        for name in ("conv", "depthwise", "dense", "add", "softmax", "resize bilinear", "reshape"):
            self.models.append((f"{name}.tflite", TFLITE_CASES[name]()))
        self.programs = [self.compiled(index) for index in (0, 3, 5, 7, 9, 13, 14)]
        self.program_files = [program.to_bytes() for program in self.programs]
        presets = Path(load_chip.__code__.co_filename).parent / "presets"
        self.chips = [(presets / f"{name}.toml").read_bytes() for name in PRESETS]

    def compiled(self, index: int) -> Program:
        """Return the program of a model that is still whole."""
        from lepton.compiler.compile import compile_model

        name, content = self.models[index]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name.replace(" ", "_")
            path.write_bytes(content)
            return load_program(compile_model(path, load_chip("nano")).to_bytes())


def _simulate(program: Program) -> dict[str, Any]:
    """Check and run a program, values and cycles; return its outputs."""
    from lepton.runtime.execute import simulate
    from lepton.runtime.golden import random_inputs

    result = simulate(program, random_inputs(program, 1))
    assert result.trace is not None
    for causes in result.trace.attribution().values():
        assert sum(causes.values()) == result.trace.cycles, "cycles without a cause"
    return result.outputs


def try_model(r: random.Random, bases: Bases, folder: Path, say: Callable[[str], None]) -> str:
    """Compile a damaged model; what still compiles must run, and as the golden library has it."""
    from lepton.compiler import isolate, worker

    name, base = r.choice(bases.models)
    content, damage = damaged(r, base, r.choice(bases.models)[1])
    say(f"damage {name}: {damage}")
    path = folder / name.replace(" ", "_")
    path.write_bytes(content)
    isolate.readable(path)
    output = folder / "program"
    chip = chip_to_table(load_chip("nano"))
    limits = (ADDRESS_BYTES, CPU_SECONDS)
    request = worker.Request(
        str(path), chip, None, False, str(output), str(folder / "reply"), *limits
    )
    reply = worker.answer(request)
    (folder / "reply").write_text(json.dumps(reply))
    fault = isolate.failure(request, path.name, 0)
    if fault is not None:
        if "the compiler failed on it" in str(fault):
            raise AssertionError(f"{fault} {reply['detail']}")
        raise fault
    say("stage compiled")
    program = load_program(output.read_bytes())
    outputs = _simulate(program)
    say("stage simulated")
    return _compare(path, program, outputs)


def _compare(path: Path, program: Program, outputs: dict[str, Any]) -> str:
    """Return `legal` if the golden library gives the same, or refuses the model."""
    from lepton.runtime.golden import GoldenModel, random_inputs

    try:
        golden = GoldenModel(path).run(random_inputs(program, 1))
    except Exception:  # it may see more in the damage than TVM does
        return "legal"
    for mine, theirs in zip(outputs.values(), golden.values(), strict=True):
        theirs = np.asarray(theirs)
        if mine.shape != theirs.shape:
            return f"differs: its shape is {mine.shape}, the golden library's {theirs.shape}"
        at = mine != theirs
        ours, right = (array[at].astype(np.float64) for array in (mine, theirs))
        is_whole = mine.dtype.kind in "iu"
        off = np.abs(ours - right).max(initial=0)
        if is_whole and off > 1:
            return f"differs by {off} in {ours.size} of {mine.size}"
        if not is_whole and not np.allclose(ours, right, rtol=1e-5, atol=1e-6, equal_nan=True):
            return f"differs by {off}"
    return "legal"


def try_program(r: random.Random, bases: Bases, folder: Path, say: Callable[[str], None]) -> str:
    """Load and run a damaged program file."""
    base = r.choice(bases.program_files)
    content, damage = damaged(r, base, r.choice(bases.program_files))
    say(f"damage {damage}")
    path = folder / "p.lepton"
    if r.randrange(20) == 0:
        path.mkdir()
    else:
        path.write_bytes(content)
    _simulate(load_program(path))
    return "legal" if content == base else "differs: the damage went unseen"


def _other_value(r: random.Random, value: object) -> object:
    """Return something else for a JSON value, often of the same type."""
    near = [value + r.choice((-1, 1, 64))] * 6 if isinstance(value, int) else []
    huge = (1 << 31, 1 << 40, 1 << 63, 10**400, -(1 << 70))
    return r.choice(
        [*near, 0, 1, -1, *huge, 0.5, float("nan"), "", "x\ny", "\ud800", None, True, [], {}, [0]]
    )


def _edit_manifest(r: random.Random, manifest: dict[str, Any]) -> None:
    """Replace, remove or repeat one value somewhere inside."""
    place: Any = manifest
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = r.choice(keys)
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or r.randrange(8) == 0:
            break
        place = inner
    action = r.randrange(10)
    if action == 0:
        del place[key]
    elif action == 1 and isinstance(place, list):
        place.append(place[key])
    else:
        place[key] = _other_value(r, place[key])


def _edit_instruction(r: random.Random, stream: list[Any]) -> None:
    """Set one field of one instruction, or remove, repeat or swap instructions."""
    at, action = r.randrange(len(stream)), r.randrange(12)
    if action == 0:
        del stream[at]
    elif action == 1:
        stream.insert(r.randrange(len(stream)), stream[at])
    elif action == 2:
        to = r.randrange(len(stream))
        stream[at], stream[to] = stream[to], stream[at]
    else:
        item = stream[at]
        field = r.choice(item.fields)
        value = getattr(item, field.name)
        if field.choices is not None:
            value = int(r.choice(list(field.choices)))
        else:
            near = [value - 1, value + 1, value * 2, value ^ (1 << r.randrange(field.bits))] * 2
            value = r.choice([*near, field.minimum, field.maximum, 0, 1, 1 << r.randrange(20)])
            value = min(max(value, field.minimum), field.maximum)
        stream[at] = dataclasses.replace(item, **{field.name: value})


def try_sealed(r: random.Random, bases: Bases, folder: Path, say: Callable[[str], None]) -> str:
    """Damage a program under its checksums."""
    from lepton.isa import encode_all

    base = r.choice(bases.programs)
    manifest = json.loads(json.dumps(program_manifest(base)))
    stream, constants = list(base.decoded), base.constants
    operators, hosts = base.operator_of, base.host_models
    part = r.choice(("instructions",) * 5 + ("manifest",) * 3 + ("constants", "host", "bytes"))
    say(f"damage {part}")
    code = base.instructions
    for _ in range(r.choice((1, 1, 1, 2, 5))):
        if part == "manifest":
            _edit_manifest(r, manifest)
        elif part == "constants" and len(constants):
            constants = np.frombuffer(damaged(r, constants.tobytes(), code)[0], np.uint8)
        elif part == "host" and hosts:
            hosts = (damaged(r, hosts[0], code)[0], *hosts[1:])
        elif part == "bytes":
            data = bytearray(code)
            _flip_bit(r, data, b"")
            code = bytes(data)
        else:
            _edit_instruction(r, stream)
            code = encode_all(stream)
    if len(code) // 64 != len(operators):
        operators = np.resize(operators, len(code) // 64)
        npu = [region for region in manifest["regions"] if region["device"] == "npu"]
        npu[-1]["stop"] = len(code) // 64
    _simulate(program_from_parts(manifest, code, operators, constants, hosts))
    return "legal"


def _other_word(r: random.Random, word: str) -> str:
    """Return something for a number of a text."""
    numbers = (
        "0",
        "1",
        "-1",
        "0x1",
        "4294967296",
        "9" * 400,
        "9" * 5000,
        "1e9999999",
        "nan",
        "inf",
    )
    near = [str(int(word) + r.choice((-1, 1)))] * 4 + [str(1 << r.randrange(30))] * 4
    return r.choice([*near, *numbers, "'1/3'", '"x"', "[]", "", "0.1", "\u00b2", "\u0663"])


def _edit_text(r: random.Random, text: str) -> tuple[str, str]:
    """Replace numbers or lines of a text."""
    if r.randrange(3):
        words = list(re.finditer(r"(?<![\w.])\d+(?![\w.])", text))
        for _ in range(r.choice((1, 1, 2, 3))):
            word = r.choice(words)
            if text[word.start() : word.end()] == word.group():
                made = _other_word(r, word.group())
                text = text[: word.start()] + made + text[word.end() :]
        return text, "numbers"
    lines = text.splitlines()
    at, to = r.randrange(len(lines)), r.randrange(len(lines))
    action = r.randrange(3)
    if action == 0:
        del lines[at]
    elif action == 1:
        lines.insert(to, lines[at])
    else:
        lines[at], lines[to] = lines[to], lines[at]
    return "\n".join(lines) + "\n", "lines"


def _damaged_text(r: random.Random, text: str, other: str) -> tuple[bytes, str]:
    """Return a damaged text file."""
    if r.randrange(3):
        made, damage = _edit_text(r, text)
        return made.encode(), damage
    return damaged(r, text.encode(), other.encode())


def try_assembly(r: random.Random, bases: Bases, folder: Path, say: Callable[[str], None]) -> str:
    """Assemble and run a damaged listing."""
    from lepton.isa import assemble
    from lepton.listing import listing, parse_listing

    texts = [listing(r.choice(bases.programs), code_only=bool(r.randrange(2))) for _ in range(2)]
    content, damage = _damaged_text(r, texts[0], texts[1])
    say(f"damage {damage}")
    text = content.decode("utf-8", "replace")
    with contextlib.suppress(LeptonError):
        assemble(text)
    _simulate(parse_listing(text, load_chip("nano")))
    return "legal"


def try_chip(r: random.Random, bases: Bases, folder: Path, say: Callable[[str], None]) -> str:
    """Load a damaged chip; what is a chip must compile and run a network, or say why not."""
    from lepton.compiler.compile import compile_model

    content, damage = _damaged_text(r, r.choice(bases.chips).decode(), bases.chips[0].decode())
    say(f"damage {damage}")
    path = folder / "c.toml"
    if r.randrange(20) == 0:
        path.mkdir()
    else:
        path.write_bytes(content)
    chip = load_chip(path)
    name, model = r.choice(bases.models[1:])
    (folder / name.replace(" ", "_")).write_bytes(model)
    program = compile_model(folder / name.replace(" ", "_"), chip)
    _simulate(load_program(program.to_bytes()))
    return "legal"


TRIES = {
    "model": try_model,
    "program": try_program,
    "sealed": try_sealed,
    "assembly": try_assembly,
    "chip": try_chip,
}
SHARES = ("model",) * 6 + ("program",) * 3 + ("sealed",) * 6 + ("assembly",) * 3 + ("chip",) * 3


def attempt(
    seed: int, bases: Bases, folder: Path, say: Callable[[str], None], kind: str = ""
) -> None:
    """Run the case of a seed, of a kind if one is given, and say its result."""
    r = random.Random(seed)
    kind = kind or r.choice(SHARES)
    say(f"kind {kind}")
    try:
        say(f"result {TRIES[kind](r, bases, folder, say)}")
    except LeptonError as error:
        text = str(error)
        bad = "\n" in text or not text.strip() or len(text) > 2000
        say(f"result {'newline' if bad else 'refused'} {text!r}"[:2000])
    except Exception:
        say(f"result raw {traceback.format_exc()[-1500:]!r}")


# --- the server -------------------------------------------------------------------------


def _child(seed: int, kind: str, bases: Bases, folder: str, pipe: int) -> None:
    """Run one case, with limits, and end the process."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    used = time.process_time()
    seconds = int(used) + CPU_SECONDS + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)

    def say(line: str) -> None:
        os.write(pipe, line.replace("\n", "\\n").encode("utf-8", "replace") + b"\n")

    attempt(seed, bases, Path(folder), say, kind)
    os._exit(0)


def _collect(pid: int, pipe: int) -> tuple[list[str], int]:
    """Return the lines of a child and its exit status; kills it after `WALL_SECONDS`."""
    end, data = time.monotonic() + WALL_SECONDS, b""
    while True:
        ready = select.select([pipe], [], [], max(end - time.monotonic(), 0))[0]
        part = os.read(pipe, 1 << 16) if ready else b""
        if not ready:
            os.kill(pid, signal.SIGXCPU)
        if not part:
            break
        data += part
    os.close(pipe)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return data.decode("utf-8", "replace").splitlines(), status


def _judge(seed: int, lines: list[str], status: int) -> Outcome:
    """Return what the lines and the exit status mean."""
    said = {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}
    kind, damage = said.get("kind", "?"), said.get("damage", "?")
    result, _, message = said.get("result", "").partition(" ")
    stage = said.get("stage", "")
    if not result:
        message = f"signal {-status} after stage '{stage}'"
        result = "hang" if status == -signal.SIGXCPU else "crash"
        if kind == "model" and result == "crash" and not stage:
            result = "contained"
        if stage == "simulated":
            result = "legal"  # it is the golden library that died
    return Outcome(seed, kind, damage, result, message)


def serve() -> None:
    """Answer each `SEED [KIND]` on standard input with a line of JSON."""
    import_module("onnxruntime")  # once, before the forks

    bases = Bases()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(-8, 0):
            attempt(seed, bases, Path(tempfile.mkdtemp(dir=folder)), lambda _: None)
    for line in sys.stdin:
        seed, _, kind = line.strip().partition(" ")
        with tempfile.TemporaryDirectory() as folder:
            read, write = os.pipe()
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                os.close(read)
                _child(int(seed), kind, bases, folder, write)
            os.close(write)
            outcome = _judge(int(seed), *_collect(pid, read))
        sys.stdout.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
        sys.stdout.flush()


class Server:
    """A running server."""

    def __init__(self) -> None:
        import subprocess

        root = str(Path(__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
            env=os.environ | {"PYTHONPATH": root},
            text=True,
        )

    def __call__(self, seed: int, kind: str = "") -> Outcome:
        """Return what became of the case of a seed, of one of `KINDS` if given."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seed} {kind}\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


if __name__ == "__main__":
    serve()
