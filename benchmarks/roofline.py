"""Compare the cycles of whole networks with the sum of their layers' rooflines.

    python -m benchmarks.roofline [--write] [--only NAME ...]

Needs the environment variable LEPTON_DATA, which names the folder of the models. A layer's roofline
is the larger of its MACs at peak rate and its stored weights, with the network's own input and
output, at peak bandwidth; tensors between layers are free. Prints a table; with `--write` it also
replaces the figures of docs/roofline.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import ROOT, run_python
from benchmarks.page import (
    Limit,
    limits_table,
    markdown_table,
    models_folder,
    origin,
    page_parser,
    replace_part,
)

if TYPE_CHECKING:
    import onnx

__all__ = ["CASES", "Case", "Measured", "measure", "table"]

PAGE = ROOT / "docs" / "roofline.md"
HEADING = "## Figures"


@dataclass(frozen=True)
class Case:
    """A network on a chip, and what its cycles over its roofline must not exceed."""

    network: str
    chip: str
    limit: float
    batch: int = 1

    @property
    def name(self) -> str:
        return f"{self.network} on {self.chip}, batch {self.batch}"


CASES = (
    Case("resnet50", "edge", 1.25),
    Case("vgg19", "edge", 1.15),
    Case("mobilenet_v2", "edge", 1.6),
    Case("encoder", "edge", 1.3),
    Case("resnet50", "server", 1.5, batch=8),
)


@dataclass(frozen=True)
class Measured:
    """What a network takes."""

    cycles: int
    roofline: int
    behind: dict[str, int]
    """Cycles beyond the rooflines, by kind of operator."""

    @property
    def ratio(self) -> float:
        return self.cycles / self.roofline


def measure(case: Case) -> Measured:
    """Compile and simulate a case in this process."""
    import lepton
    from lepton.report.summary import summarize
    from lepton.simulator.timing import simulate_timing

    with tempfile.TemporaryDirectory() as folder:
        model, samples = _model(case, Path(folder))
        program = lepton.compile(model, chip=case.chip, calibration=samples)
    trace = simulate_timing(program)
    summary = summarize(program, trace)
    behind: Counter[str] = Counter()
    for layer in summary.layers:
        behind[layer.op] += (layer.cycles or 0) - layer.roofline_cycles
    return Measured(trace.cycles, summary.roofline_cycles, dict(behind))


def _model(case: Case, folder: Path) -> tuple[Path, NDArray[np.float32] | None]:
    """Return the path of a case's model, and samples to calibrate it by or None."""
    if case.network == "mobilenet_v2":
        name = "mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite"
        return Path(os.environ["LEPTON_DATA"]) / name, None
    if case.network == "encoder":
        from lepton.models.encoder import encoder_samples, transformer_encoder

        model, samples = transformer_encoder(), encoder_samples(count=2)
    else:
        from lepton.models.light import light_network, light_samples

        model = with_batch(light_network(case.network), case.batch)
        samples = light_samples(2 * case.batch).reshape(2, case.batch, 3, 224, 224)
    path = folder / f"{case.network}.onnx"
    path.write_bytes(model.SerializeToString())
    return path, samples


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """Return a model of one image for `batch` of them; reshapes to `[1, ...]` follow."""
    from onnx import numpy_helper

    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for index, item in enumerate(model.graph.initializer):
        if item.name in shapes:
            extents = numpy_helper.to_array(item).copy()
            extents[0] = batch if extents[0] == 1 else extents[0]
            model.graph.initializer[index].CopyFrom(numpy_helper.from_array(extents, item.name))
    constants = {item.name for item in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in constants:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    return model


def table(results: Sequence[tuple[Case, Measured]]) -> str:
    """Return the limits and the figures."""
    limits = [Limit(f"{c.name}: cycles / roofline", c.limit, m.ratio) for c, m in results]
    rows = [
        (
            case.name,
            f"{found.cycles:,}",
            f"{found.roofline:,}",
            f"{found.ratio:.3f}",
            _most(found.behind),
        )
        for case, found in results
    ]
    head = ("cycles", "sum of rooflines", "ratio", "cycles beyond the rooflines, by operator")
    figures = markdown_table(("network", *head), rows, 1)
    return f"{limits_table(limits)}\n\n{figures}"


def _most(behind: dict[str, int]) -> str:
    """Return the operators that lose most."""
    first = sorted(behind.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{operator} {cycles:,}" for operator, cycles in first if cycles > 0)


def main() -> None:
    parser = page_parser(__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="networks, all by default")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    models_folder(parser)
    if args.case is not None:
        print(json.dumps(asdict(measure(CASES[args.case]))))
        return
    results: list[tuple[Case, Measured]] = []
    for index, case in enumerate(CASES):
        if args.only is None or case.network in args.only:
            ended = run_python(["-m", "benchmarks.roofline", "--case", str(index)])
            results.append((case, Measured(**json.loads(ended.output))))
    text = table(results)
    print(text)
    if args.write:
        replace_part(PAGE, HEADING, f"Measured {origin()}.\n\n{text}")


if __name__ == "__main__":
    main()
