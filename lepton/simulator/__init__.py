"""The simulator: Program and inputs in, outputs and Trace out."""

from lepton.simulator.check import check
from lepton.simulator.run import Result, run_values, simulate_program
from lepton.simulator.timing import simulate_timing

__all__ = ["Result", "check", "run_values", "simulate_program", "simulate_timing"]
