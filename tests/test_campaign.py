"""The committed result of `make campaign` covers the present sources and records no failure."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import campaign
from tests.campaign_parts import PARTS, code_of, covered, hostile_verdict, onnx_verdict

MEND = "run `make campaign` and commit docs/campaign.json and docs/campaign.md"


@pytest.mark.parametrize("name", PARTS)
def test_the_committed_result_is_current(name: str) -> None:
    made = json.loads(campaign.RESULT.read_text()).get(name)
    assert made is not None, f"{name} has no result: {MEND}"
    present = campaign.sources_hash(name)
    assert made["sources"] == present, f"{name} covers other sources than {present}: {MEND}"
    assert made["cases"] >= PARTS[name].count, f"{name} is not complete: {MEND}"
    again = [campaign.reproduce(name, failure["seed"]) for failure in made["failures"]]
    assert not made["failures"], f"{name} has failures, see {again}; then {MEND}"
    assert not PARTS[name].verdict(Counter(made["counts"]))
    assert campaign.is_current(name, made)


def test_the_page_shows_the_committed_result() -> None:
    result = json.loads(campaign.RESULT.read_text())
    assert campaign.PAGE.read_text() == campaign.page(result)
    assert campaign.NODES_PAGE.read_text() == campaign.onnx_nodes.page(result["nodes"])


def test_a_failure_is_shown_with_its_command() -> None:
    cases = [campaign.Case(0, "", 1.5, {"graphs": 1}), campaign.Case(3, "Wrong: [x](y)\nz", 1.0)]
    made = campaign.entry("tflite", "0" * 16, cases)
    assert made["failures"] == [{"seed": 3, "message": "Wrong: [x](y)"}]
    assert (
        "`python -m benchmarks.campaign --part tflite --seed 3`: Wrong: [x] (y)"
        in campaign.page({"tflite": made})
    )
    assert not campaign.is_current("tflite", made)


def test_comments_and_docstrings_do_not_count() -> None:
    bare = "import os\ndef f(x):\n    y = ('a'\n'b')\n    return y\nZ = 1\n"
    full = (
        '"""Module."""\n\nimport os  # why\n\n\ndef f(x):\n    """Do."""\n    # here\n'
        "    y = ('a'  # one\n'b')\n    return y\n\n\nZ = 1\n'''What Z\n\nis.'''\n"
    )
    assert code_of(full) == code_of(bare)
    assert code_of(bare.replace("Z = 1", "Z = 2")) != code_of(bare)
    assert code_of("x = '#1'\n") != code_of("x = '#2'\n")
    assert code_of("x = (\n'''a'''\n)\n") != code_of("x = (\n'''b'''\n)\n")


def test_a_part_covers_the_package_and_its_generators() -> None:
    names = {name: {path.name for path in covered(part)} for name, part in PARTS.items()}
    assert {"jit.py", "functional.py", "nano.toml", "onnx_steps.py"} <= names["onnx"]
    assert {"tflite_graphs.py", "tflite_builder.py"} <= names["tflite"] - names["onnx"]
    assert {"hostile.py", "importer_models.py", "digits.onnx"} <= names["hostile"]
    assert not {"plots.py", "main.py", "conftest.py"} & set.union(*names.values())


def test_a_process_that_dies_is_a_failure_of_its_case() -> None:
    script = (
        "import json, os\n"
        "while True:\n"
        "    seed = int(input())\n"
        "    seed == 5 and os._exit(3)\n"
        "    print(json.dumps(dict(seed=seed, failure='', seconds=0)), flush=True)\n"
    )
    worker = campaign.Worker([sys.executable, "-c", script])
    try:
        cases = [worker.run(seed) for seed in (4, 5, 6)]
    finally:
        worker.close()
    assert [case.seed for case in cases] == [4, 5, 6]
    assert [case.failure for case in cases] == ["", "the process ended: exit status 3", ""]


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "part.jsonl"
    lines = [
        '{"seed": 0, "failure": "", "seconds": 1, "counts": {"graphs": 2}}',
        '{"seed": 1, "failure": "wrong", "seconds": 1, "counts": {}}',
        '{"seed": 2, "failure": "", "seco',
    ]
    state.write_text("\n".join(lines))
    assert campaign.finished_cases(state) == {0: campaign.Case(0, "", 1, {"graphs": 2})}
    assert campaign.finished_cases(tmp_path / "missing") == {}


def test_verdicts() -> None:
    fine = Counter({"graphs": 100, "too large": 2, "compared Exp": 5000, "different Exp": 5})
    assert onnx_verdict(fine) == ""
    assert onnx_verdict(fine + Counter({"different Exp": 1})) == (
        "Exp: 6 of 5000 elements differ by 1"
    )
    assert "do not fit" in onnx_verdict(fine + Counter({"too large": 1}))
    kinds = ("model", "program", "sealed", "assembly", "chip")
    ended = Counter({f"{kind} refused": 40 for kind in kinds})
    assert hostile_verdict(ended) == "no case ended as: sealed legal, model legal"
    ended += Counter({"sealed legal": 1, "model legal": 159, "model differs": 2})
    assert hostile_verdict(ended) == ""
    assert "3 of 202 damaged models" in hostile_verdict(ended + Counter({"model differs": 1}))
