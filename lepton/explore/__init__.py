"""Design-space sweeps: which chip, for these networks, under these limits."""

from lepton.explore.space import Space
from lepton.explore.space_file import load_space, parse_space

__all__ = ["Space", "load_space", "parse_space"]
