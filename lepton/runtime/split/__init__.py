"""A model file as units that can run on different devices, and files of some of its units."""

from lepton.runtime.split.network import Network, Unit, UnitTensor
from lepton.runtime.split.read import read_network

__all__ = ["Network", "Unit", "UnitTensor", "read_network"]
