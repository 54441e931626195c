"""Unit energies and areas per technology node, and energies per kind of external memory."""

from lepton.chip.technology.memories import MEMORY_KINDS, MemoryEnergy, Rail, memory_energy
from lepton.chip.technology.node import NODE_RANGE, Node, is_node, node

__all__ = ["MEMORY_KINDS", "NODE_RANGE", "MemoryEnergy", "Node", "Rail"]
__all__ += ["is_node", "memory_energy", "node"]
