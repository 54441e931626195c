"""The property tests that `make campaign` runs whole, and the sources that each of them covers.

A part's case is a function of a seed. It returns what it counted and raises if something is wrong;
the part's verdict then judges the sum of the counts.
"""

from __future__ import annotations

import ast
import configparser
import functools
import hashlib
import io
import tempfile
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PARTS", "SAMPLE", "Part", "hostile_verdict", "onnx_verdict", "sources_hash"]

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = 300
"""Cases that CI runs of `onnx` and of `hostile`: the first seeds of the campaign."""

UNCOVERED = ("cli", "explore", "models", "report")
"""Sub-packages that no case runs: they print, draw, sweep and train."""

DIGITS = "lepton/models/pretrained/digits.onnx"
MOST_DIFFERENT = 0.01
"""Share of damaged models that run, but not as the golden library has it: those whose damage broke
the format's own rules for quantization (a bias with a zero point), where libraries disagree."""

Counts = Counter[str]


@dataclass(frozen=True)
class Part:
    """One property over many seeds.

    Attributes:
        title: what is compared with what.
        count: cases of the whole campaign; their seeds start at 0.
        module: whose imports from `tests` the part covers, itself included.
        start: returns the function that runs the case of a seed.
        verdict: returns what is wrong with the summed counts, "" if nothing is.
        data: further files that cases read.
    """

    title: str
    count: int
    module: str
    start: Callable[[], Callable[[int], Counts]]
    verdict: Callable[[Counts], str]
    data: tuple[str, ...] = ()


# --- the parts -------------------------------------------------------------------------


def _start_onnx() -> Callable[[int], Counts]:
    from tests.test_onnx_random import run_seed

    return run_seed


def onnx_verdict(counts: Counts) -> str:
    """Judge how often tolerant operators differ by 1, and how often a tiny chip was too small."""
    if counts["too large"] > counts["graphs"] // 50:
        return f"{counts['too large']} of {counts['graphs']} graphs do not fit their chip"
    for name, compared in sorted(counts.items()):
        what, _, kind = name.partition(" ")
        different = counts[f"different {kind}"]
        if what == "compared" and different > max(1, compared // 1000):
            return f"{kind}: {different} of {compared} elements differ by 1"
    return ""


def _start_nodes() -> Callable[[int], Counts]:
    from tests.onnx_nodes import run_index

    return run_index


def nodes_verdict(counts: Counts) -> str:
    """Judge whether the standard's float tests pass often enough."""
    from tests.onnx_nodes import nodes_verdict as judged

    return judged(counts)


def _start_tflite() -> Callable[[int], Counts]:
    from tests.test_tflite_random import run_chain

    return _in_folder(run_chain)


def _start_tflite_operators() -> Callable[[int], Counts]:
    from tests.test_tflite_random import OPERATORS, run_operator

    def run(seed: int, folder: Path) -> None:
        run_operator(*OPERATORS[seed % len(OPERATORS)], seed // len(OPERATORS), folder)

    return _in_folder(run)


def _in_folder(run: Callable[[int, Path], None]) -> Callable[[int], Counts]:
    """Return a case that runs in a folder of its own."""

    def case(seed: int) -> Counts:
        with tempfile.TemporaryDirectory() as folder:
            run(seed, Path(folder))
        return Counter(graphs=1)

    return case


def _start_hostile() -> Callable[[int], Counts]:
    from tests.hostile import Server

    server = Server()

    def case(seed: int) -> Counts:
        outcome = server(seed)
        if outcome.is_fault and outcome.result != "differs":
            raise AssertionError(
                f"{outcome.kind} ({outcome.damage}): {outcome.result} {outcome.message[-200:]}"
            )
        return Counter({f"{outcome.kind} {outcome.result}": 1})

    return case


def hostile_verdict(counts: Counts) -> str:
    """Judge how many damaged models differ from the golden, and that every kind was refused."""
    models = sum(number for name, number in counts.items() if name.startswith("model "))
    different = sum(number for name, number in counts.items() if name.endswith(" differs"))
    if different > max(MOST_DIFFERENT * models, 1):
        return f"{different} of {models} damaged models run, but not as the golden library has it"
    wanted = [f"{kind} refused" for kind in ("model", "program", "sealed", "assembly", "chip")]
    missing = [name for name in (*wanted, "sealed legal", "model legal") if not counts[name]]
    return f"no case ended as: {', '.join(missing)}" if missing else ""


def _start_timing() -> Callable[[int], Counts]:
    from tests.simulator.timing_comparison import run_seed

    return run_seed


def timing_verdict(counts: Counts) -> str:
    """Judge whether the programs met everything that can happen often enough."""
    from tests.simulator.timing_comparison import timing_verdict as judged

    return judged(counts)


PARTS = {
    "onnx": Part(
        "random ONNX graphs, each as QDQ and as QOperator, against ONNX Runtime",
        2000,
        "tests.test_onnx_random",
        _start_onnx,
        onnx_verdict,
    ),
    "tflite": Part(
        "random TFLite graphs of 2 to 6 operators against LiteRT's reference kernels",
        2000,
        "tests.test_tflite_random",
        _start_tflite,
        lambda counts: "",
    ),
    "tflite-operators": Part(
        "single TFLite operators with random parameters against LiteRT's reference kernels",
        1000,
        "tests.test_tflite_random",
        _start_tflite_operators,
        lambda counts: "",
    ),
    "nodes": Part(
        "the ONNX standard's node tests: as expected, as ONNX Runtime, or refused ([onnx_nodes.md]"
        "(onnx_nodes.md))",
        1884,
        "tests.onnx_nodes",
        _start_nodes,
        nodes_verdict,
    ),
    "hostile": Part(
        "damaged model, program, assembly and chip files: refused in one sentence, or legal",
        6000,
        "tests.hostile",
        _start_hostile,
        hostile_verdict,
        (DIGITS,),
    ),
    "timing": Part(
        "random programs on random chips: every figure of the kernel's records against the plain "
        "simulator of docs/timing.md",
        5_000,
        "tests.simulator.timing_comparison",
        _start_timing,
        timing_verdict,
    ),
}


# --- the sources -----------------------------------------------------------------------


def _removable(source: str) -> Iterator[tuple[tokenize.TokenInfo, bool]]:
    """Yield tokens that change nothing, and whether only spaces stand before them."""
    before = tokenize.NEWLINE
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    starts = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token, after in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        is_text = token.type == tokenize.STRING and before in starts
        if is_text and after.type == tokenize.NEWLINE:
            yield token, True
            yield after, False
        elif token.type in (tokenize.COMMENT, tokenize.NL):
            yield token, token.type == tokenize.COMMENT
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            before = token.type


def code_of(source: str) -> str:
    """Return Python source without comments, blank lines and strings that are statements."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    kept, at = list[str](), 0
    for token, has_margin in _removable(source):
        (first, column), (last, end) = token.start, token.end
        piece = source[at : starts[first - 1] + column]
        kept.append(piece.rstrip(" ") if has_margin else piece)
        at = starts[last - 1] + end
    return "".join([*kept, source[at:]])


def _imported(module: str, known: dict[str, Path]) -> dict[str, Path]:
    """Add a module of `tests`, and what it imports from there; this one decides no case."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    if module in known or module == __name__ or not path.is_file():
        return known
    known[module] = path
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tests"):
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                _imported(name, known)
    return known


def covered(part: Part) -> list[Path]:
    """Return the files whose content decides a part's result."""
    package = ROOT / "lepton"
    files = [path for path in package.rglob("*") if path.suffix in (".py", ".toml")]
    files = [path for path in files if path.relative_to(package).parts[0] not in UNCOVERED]
    tests = _imported(part.module, {})
    return sorted([*files, *tests.values(), *(ROOT / name for name in part.data)])


def _pins() -> str:
    """Return the requirements that are pinned to one version: the golden libraries."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    return "\n".join(
        line for line in setup["options"]["install_requires"].splitlines() if "==" in line
    )


@functools.cache
def sources_hash(name: str) -> str:
    """Return the hash of a part's sources and golden versions, 16 hexadecimal digits.

    Comments, docstrings and blank lines of Python files do not count.
    """
    sha = hashlib.sha256(_pins().encode())
    for path in covered(PARTS[name]):
        content = path.read_bytes()
        if path.suffix == ".py":
            content = code_of(content.decode()).encode()
        sha.update(str(path.relative_to(ROOT)).encode() + b"\0" + content)
    return sha.hexdigest()[:16]
