"""A technology node's unit energies and areas; those between the published nodes interpolate."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import exp, log
from typing import Any

from lepton.errors import ChipError

__all__ = ["NODE_RANGE", "Node", "is_node", "node"]

_PUBLISHED = ("45nm", "7nm")
NODE_RANGE = "7nm to 45nm"
_NAME = re.compile(r"([1-9]\d?)nm", re.ASCII)


@dataclass(frozen=True)
class Node:
    """What an operation, a bit of storage and a square millimetre cost.

    Attributes:
        sources: where each constant is from.
    """

    nanometres: int
    multiply_int8_pj: float
    add_int8_pj: float
    add_int32_pj: float
    multiply_int32_pj: float
    multiply_float32_pj: float
    add_float32_pj: float
    register_bit_pj: float
    """Clocking a new value into a flip-flop."""
    wire_bit_mm_pj: float
    """A bit over a millimetre, half of the bits changing."""
    sram_kib: tuple[float, ...]
    sram_read_64_pj: tuple[float, ...]
    """Reading 64 bits of an SRAM of each size of `sram_kib`."""
    sram_read_fixed: float
    """Share of reading 64 bits that does not grow with the width."""
    sram_write_fixed: float
    sram_write_to_read: float
    """Writing 64 bits relative to reading them."""
    sram_leakage_uw_per_kib: float
    sram_mm2_per_kib: float
    """A macro with one read and one write port."""
    logic_leakage_mw_per_mm2: float
    multiply_int8_um2: float
    add_int8_um2: float
    add_int32_um2: float
    multiply_int32_um2: float
    multiply_float32_um2: float
    add_float32_um2: float
    register_bit_um2: float
    logic_density: float
    """Share of a block that its cells fill."""
    sources: dict[str, str]

    def _read_64_pj(self, kib: float) -> float:
        """Return the energy of reading 64 bits.

        Log-log linear in the size between and above the stated sizes, falling with the square root
        of the size below them.
        """
        sizes, energies = self.sram_kib, self.sram_read_64_pj
        if kib < sizes[0]:
            return energies[0] * (kib / sizes[0]) ** 0.5
        upper = next((i for i in range(1, len(sizes) - 1) if kib <= sizes[i]), len(sizes) - 1)
        slope = log(energies[upper] / energies[upper - 1]) / log(sizes[upper] / sizes[upper - 1])
        return energies[upper] * (kib / sizes[upper]) ** slope

    def sram_read_pj(self, kib: float, bits: float) -> float:
        """Return the energy of reading a word of `bits` from an SRAM of `kib`."""
        return self._read_64_pj(kib) * _widened(self.sram_read_fixed, bits)

    def sram_write_pj(self, kib: float, bits: float) -> float:
        """Return the energy of writing a word of `bits` into an SRAM of `kib`."""
        energy = self._read_64_pj(kib) * self.sram_write_to_read
        return energy * _widened(self.sram_write_fixed, bits)


def _widened(fixed: float, bits: float) -> float:
    """Return the cost of a word of `bits` relative to one of 64."""
    return fixed + (1 - fixed) * bits / 64


@cache
def _published(name: str) -> Node:
    """Return a node of the package."""
    file = resources.files("lepton.chip.technology") / f"{name}.toml"
    table: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    for key in ("sram_kib", "sram_read_64_pj"):
        table[key] = tuple(table[key])
    return Node(**table)


def is_node(name: str) -> bool:
    """Return whether `name` is a node of the published range."""
    found = _NAME.fullmatch(name)
    return found is not None and 7 <= int(found[1]) <= 45


@cache
def node(name: str) -> Node:
    """Return a node by name, "7nm" to "45nm".

    Between the published nodes every constant is linear in the logarithms of itself and of the
    nanometres: an estimate.

    Raises:
        ChipError: no such node.
    """
    if name in _PUBLISHED:
        return _published(name)
    if not is_node(name):
        raise ChipError(f"technology.node must be one of {NODE_RANGE}, not '{name}'")
    nanometres = int(name.removesuffix("nm"))
    large, small = (_published(published) for published in _PUBLISHED)
    share = log(large.nanometres / nanometres) / log(large.nanometres / small.nanometres)
    values: dict[str, Any] = {}
    for item in dataclasses.fields(Node):
        a, b = getattr(large, item.name), getattr(small, item.name)
        if item.name.startswith("sram_") and isinstance(a, tuple):
            values[item.name] = tuple(_between(x, y, share) for x, y in zip(a, b, strict=True))
        elif item.name != "sources":
            values[item.name] = _between(a, b, share)
    text = f"estimate: interpolated between {large.nanometres} and {small.nanometres} nm"
    values["sources"] = dict.fromkeys(large.sources, text)
    values["nanometres"] = nanometres
    return Node(**values)


def _between(large: float, small: float, share: float) -> float:
    """Return the value at a share of the way between two, on a logarithmic scale."""
    return large if large == small else exp((1 - share) * log(large) + share * log(small))
