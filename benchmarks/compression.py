"""Compressed networks: trained, measured and run on the simulator, beside the float ones.

    python -m benchmarks.compression [NAME ...] [--work DIR] [--output DIR] [--write]

Needs the environment variable LEPTON_DATA, which names the folder of the models and data sets, and
PyTorch. Makes each network (all, without names) with every seed of its recipe; `--work` keeps the
steps, from which a run that was cut off goes on. `--write` replaces the figures of
docs/compression.md by those of the recipe files that ship.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import lepton
from benchmarks.codec import measured
from benchmarks.measure import ROOT
from benchmarks.page import (
    Limit,
    limits_table,
    markdown_table,
    models_folder,
    page_parser,
    replace_part,
)
from lepton.chip import load_chip
from lepton.models import model_path, trained_networks
from lepton.models.compression.make import make_compressed
from lepton.models.compression.recipes import COMPRESSED
from lepton.runtime.evaluate import evaluate

__all__ = ["cost", "limits", "main", "table"]

PAGE = ROOT / "docs" / "compression.md"
HEADING = "## Figures"
CHIP = "edge"
POINTS_LOST = {
    "mnist_compressed": 0.05,
    "lenet_compressed": 0.1,
    "resnet8_compressed": 0.5,
    "resnet8_student": 2.0,
}
TIMES_SMALLER = {"lenet_compressed": 40, "resnet8_compressed": 15}
PART_OF_WEIGHTS = {"resnet8_student": 0.5}


def cost(path: Path) -> dict[str, int]:
    """Return what the program of a network stores: weights, by objective, and all constants."""
    program = lepton.compile(path, CHIP)
    return {
        "stored_bytes": measured(path, CHIP, "latency").every,
        "smallest_stored_bytes": measured(path, CHIP, "size").every,
        "constant_bytes": len(program.constants),
    }


def on_the_npu(name: str, data: Path, path: Path) -> dict[str, Any]:
    """Run a network on the simulator over all test images, beside ONNX Runtime."""
    test = COMPRESSED[name].load(data).test
    (images,) = test.batch(slice(None))
    report = evaluate(path, load_chip(CHIP), images, test.labels)
    return {
        "chip": CHIP,
        "samples": report.samples,
        "right": report.right,
        "equal_bytes": report.same_bytes,
    }


def make(name: str, data: Path, work: Path, output: Path) -> dict[str, Any]:
    """Make a network and both its files; return what the recipe file says."""
    made = make_compressed(name, COMPRESSED[name], (data, work, output), cost)
    made["npu"] = on_the_npu(name, data, output / f"{name}.onnx")
    text = json.dumps(made, indent=2) + "\n"
    (output / f"{name}_recipe.json").write_text(text, encoding="utf-8")
    return made


def shipped() -> dict[str, dict[str, Any]]:
    """Return the recipe files that ship, by network."""
    names = [name for name in COMPRESSED if name in trained_networks()]
    files = {name: model_path(name).with_name(f"{name}_recipe.json") for name in names}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()}


def limits(name: str, made: dict[str, Any]) -> list[Limit]:
    """Return a network's acceptance figures beside what its recipe reaches, means of its seeds."""
    means, npu = made["means"], made["npu"]
    lost = round(100 * (means["float_test"] - means["test"]), 6)
    found = [Limit(f"{name}: points lost", POINTS_LOST[name], lost)]
    if name in TIMES_SMALLER:
        smaller = 4 * means["float_weights"] / means["stored_bytes"]
        found.append(Limit(f"{name}: times smaller", TIMES_SMALLER[name], smaller, True))
    if name in PART_OF_WEIGHTS:
        part = means["weights"] / means["float_weights"]
        found.append(Limit(f"{name}: part of the weights", PART_OF_WEIGHTS[name], part))
    equal = f"{name}: images with equal bytes on the simulator"
    return [*found, Limit(equal, npu["samples"], npu["equal_bytes"], True)]


def table(made: dict[str, dict[str, Any]]) -> str:
    """Return each seed's figures and the means as Markdown."""
    head = ("network", "seed", "float, %", "compressed, %", "points lost", "not zero")
    head += ("stored bytes", "times smaller", "size", "all constants")
    rows: list[tuple[str, ...]] = []
    for name, recipe in made.items():
        for row in [*recipe["results"], recipe["means"]]:
            rows.append(_row(name, row))
    return markdown_table(head, rows, 2)


def _row(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    whole = 4 * row["float_weights"]
    return (
        name,
        str(row.get("seed", "mean")),
        f"{100 * row['float_test']:.2f}",
        f"{100 * row['test']:.2f}",
        f"{100 * (row['float_test'] - row['test']):.2f}",
        f"{row['nonzero_weights'] / row['float_weights']:.1%}",
        f"{row['stored_bytes']:,.0f}",
        f"{whole / row['stored_bytes']:.1f}",
        f"{row['smallest_stored_bytes']:,.0f}",
        f"{row['constant_bytes']:,.0f}",
    )


def main() -> None:
    """Make networks; write the page's figures if asked to."""
    parser = page_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMPRESSED))
    parser.add_argument("--work", type=Path, help="folder of all steps and seeds, to go on from")
    parser.add_argument("--output", type=Path, default=model_path("digits").parent)
    options = parser.parse_args()
    unknown = next((name for name in options.names if name not in COMPRESSED), None)
    if unknown is not None:
        parser.error(f"'{unknown}': the networks are {', '.join(COMPRESSED)}")
    data = models_folder(parser)
    names: list[str] = options.names or ([] if options.write else list(COMPRESSED))
    with tempfile.TemporaryDirectory() as temporary:
        for name in names:
            made = make(name, data, options.work or Path(temporary), options.output)
            print(json.dumps({name: made["means"]}, indent=2), flush=True)
    if options.write:
        made = shipped()
        met = [limit for name, recipe in made.items() for limit in limits(name, recipe)]
        replace_part(PAGE, HEADING, f"{limits_table(met)}\n\n{table(made)}")


if __name__ == "__main__":
    main()
