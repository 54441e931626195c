"""Write docs/onnx_nodes.md: which node tests of the ONNX standard pass, and why the others do not.

The tests are the part `nodes` of the campaign; the page is made from what it counted.

    python -m benchmarks.onnx_nodes [--jobs N] [--again]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchmarks.page import markdown_table
from tests.onnx_nodes import FLOAT_SHARE

HEAD = """# ONNX node tests

The ONNX standard comes with tests of each operator (`onnx.backend.test`, kind `node`): a small
model, its inputs, and the outputs that the standard expects. Each is compiled, saved, loaded,
checked and simulated as a user would (`lepton.compile`, `lepton.simulate`, chip `edge`), and its
outputs are compared by the standard's own comparison within the test's own tolerances. Inputs of a
test stay inputs: axes, shapes and scales that most models hold as constants are given when it runs.

Most of these models are float, so the host runs them; what is asked here is that a model imports,
and that what comes out is right. Written by `python -m benchmarks.onnx_nodes`, a part of
`make campaign` ([campaign.md](campaign.md)), which fails if a test does anything else than pass, be
refused in a sentence, or give exactly the values of ONNX Runtime, the golden of ONNX models.
"""

FLOAT = """**Single-operator float inference tests** are those whose model has one node, of the
default domain `ai.onnx`, and at least one input tensor of type float, float16, double or bfloat16,
without the tests of training mode (`training` in their name) and without the copies in which the
operator is replaced by the standard's definition of it (they have several nodes). Nothing else is
left out: casts to 4- and 8-bit floats, bfloat16, sizes that depend on values, control flow and
random numbers count as failed."""


def page(made: Mapping[str, Any]) -> str:
    """Return docs/onnx_nodes.md from the campaign's entry."""
    counts: Counter[str] = Counter(made["counts"])
    total, passed = _by_operator(counts, "total "), _by_operator(counts, "passed ")
    floats, right = counts["float total"], counts["float passed"]
    versions = made["versions"]
    lines = [
        HEAD,
        f"onnx {versions['onnx']}, onnxruntime {versions['onnxruntime']}: "
        f"**{passed.total():,} of {total.total():,}** tests pass. Of the float tests "
        f"**{right:,} of {floats:,} pass, {right / max(floats, 1):.1%}**; at least "
        f"{FLOAT_SHARE:.0%} must.",
        "",
        FLOAT,
        "",
        "## Operators",
        "",
        "`Op, expanded` are the tests of `Op` on the standard's definition of it. A test of other",
        "models with several nodes counts for the last of them.",
        "",
        markdown_table(
            ("operator", "passed", "tests"),
            [(name, str(passed[name]), str(total[name])) for name in sorted(total)],
            1,
        ),
        "",
        "## What does not pass",
        "",
        "A star marks the float tests. *ONNX Runtime's values, x from the standard's*: both give",
        "the same values, which are x from the expected ones at most.",
        "",
        markdown_table(("operator", "reason", "tests"), _failures(counts), 3),
    ]
    return "\n".join(lines) + "\n"


def _by_operator(counts: Counter[str], prefix: str) -> Counter[str]:
    """Return the counts whose name starts with a prefix, without it."""
    return Counter({k.removeprefix(prefix): v for k, v in counts.items() if k.startswith(prefix)})


def _failures(counts: Counter[str]) -> list[tuple[str, str, str]]:
    """Return operator, reason and names of the tests that do not pass."""
    names: dict[tuple[str, str], list[str]] = {}
    for failed in sorted(_by_operator(counts, "failed ")):
        operator, reason, name = failed.split(" | ")
        names.setdefault((operator, reason), []).append(name.removeprefix("test_"))
    return [
        (operator, reason, ", ".join(f"`{name}`".replace("*`", "`*") for name in tests))
        for (operator, reason), tests in sorted(names.items())
    ]


def main() -> int:
    """Run the campaign's part, which writes the page."""
    from benchmarks.campaign import campaign

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--again", action="store_true", help="also if nothing has changed")
    options = parser.parse_args()
    return campaign(argparse.Namespace(part="nodes", count=None, **vars(options)))


if __name__ == "__main__":
    sys.exit(main())
