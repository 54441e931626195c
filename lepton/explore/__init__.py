"""Design-space sweeps: which chip, for these networks, under these limits.

`sweep` runs one, `load` returns its table as a DataFrame. docs/sweeps.md has the space files.
"""

from lepton.explore.engine import Sweep, sweep
from lepton.explore.space import Space
from lepton.explore.space_file import SPACES, load_space, parse_space
from lepton.explore.table import load

__all__ = ["SPACES", "Space", "Sweep", "load", "load_space", "parse_space", "sweep"]
