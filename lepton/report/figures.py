"""The figures by which two runs are compared, from a summary or from its JSON of an earlier day."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lepton.errors import InputError
from lepton.program import read_file
from lepton.report.attribution import computing_unit
from lepton.report.summary import Summary

__all__ = ["Figures", "LayerFigures", "figures_of", "load_figures"]

_MAXIMUM_BYTES = 1 << 30
_LARGEST = 1 << 63


@dataclass(frozen=True)
class LayerFigures:
    """One layer of one run."""

    name: str
    op: str
    device: str
    unit: str
    """The unit that computed it: matrix, vector or transfer, `host`, or "" if none did."""
    bound: str
    cycles: int | None
    dram_bytes: int
    macs: int


@dataclass(frozen=True)
class Figures:
    """One run: of which model on which chip, as a whole and layer by layer."""

    model: str
    chip: str
    cycles: int | None
    milliseconds: float | None
    dram_bytes: int
    macs: int
    layers: tuple[LayerFigures, ...]


class _Reader:
    """Reads the members of a JSON object; what is missing or of another type is an error."""

    def __init__(self, values: object, place: str) -> None:
        if not isinstance(values, Mapping):
            raise InputError(f"{place} must be an object, not {_kind(values)}")
        self._values = cast(Mapping[str, object], values)
        self._place = place

    def member(self, name: str, kind: type | tuple[type, ...], rule: str) -> object:
        if name not in self._values:
            raise InputError(f"{self._place} has no '{name}': it is no result of `lepton run`")
        value = self._values[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{self._place}: '{name}' must be {rule}, not {_kind(value)}")
        return value

    def text(self, name: str) -> str:
        return cast(str, self.member(name, str, "a text"))

    def count(self, name: str) -> int:
        value = cast(int, self.member(name, int, "a whole number"))
        if not 0 <= value < _LARGEST:
            raise InputError(f"{self._place}: '{name}' must lie in 0 to 2^63 - 1, not {value}")
        return value

    def optional_count(self, name: str) -> int | None:
        return None if self.is_null(name) else self.count(name)

    def is_null(self, name: str) -> bool:
        return name in self._values and self._values[name] is None

    def objects(self, name: str) -> list[object]:
        return cast(list[object], self.member(name, list, "a list"))

    def sizes(self, name: str) -> dict[str, int]:
        inner = _Reader(self.member(name, dict, "an object"), f"{self._place}: '{name}'")
        return {key: inner.count(key) for key in inner._values}


def _kind(value: object) -> str:
    """Return what a JSON value is, for an error."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _layer(values: object, place: str) -> LayerFigures:
    """Return the figures of a layer."""
    layer = _Reader(values, place)
    device = layer.text("device")
    sizes = _Reader({str(n): size for n, size in enumerate(layer.objects("dram_bytes"))}, place)
    return LayerFigures(
        name=layer.text("name"),
        op=layer.text("op"),
        device=device,
        unit="host" if device == "host" else computing_unit(layer.sizes("busy")),
        bound="" if layer.is_null("bound") else layer.text("bound"),
        cycles=layer.optional_count("cycles"),
        dram_bytes=sum(sizes.count(str(n)) for n in range(len(layer.objects("dram_bytes")))),
        macs=layer.count("macs"),
    )


def _figures(values: object, place: str) -> Figures:
    """Return the figures in an object that `Summary.to_json` made.

    Raises:
        InputError: it is another object.
    """
    run = _Reader(values, place)
    layers = [_layer(one, f"{place}: layers[{n}]") for n, one in enumerate(run.objects("layers"))]
    milliseconds = (
        None
        if run.is_null("milliseconds")
        else float(cast(float, run.member("milliseconds", (int, float), "a number")))
    )
    return Figures(
        model=run.text("model"),
        chip=run.text("chip"),
        cycles=run.optional_count("cycles"),
        milliseconds=milliseconds,
        dram_bytes=sum(layer.dram_bytes for layer in layers),
        macs=run.count("macs"),
        layers=tuple(layers),
    )


def figures_of(summary: Summary) -> Figures:
    """Return the figures of a run."""
    return _figures(summary.to_json(), "the run")


def load_figures(path: Path) -> Figures:
    """Return the figures in a file that `lepton run --json` or `lepton compile --json` printed.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    content = read_file(path, _MAXIMUM_BYTES, "a result")
    try:
        values: object = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not a JSON file") from None
    return _figures(values, str(path))
