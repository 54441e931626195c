"""Placement: which device runs each operation of a network, and how far from the best that is."""

from lepton.runtime.placement.baselines import best_single, greedy
from lepton.runtime.placement.pipelined import pipelined
from lepton.runtime.placement.problem import Device, Goal, Link, Operation, Problem, Tensor, pinned
from lepton.runtime.placement.schedule import Bar, Schedule, schedule
from lepton.runtime.placement.solve import Solution, solve

__all__ = ["Bar", "Device", "Goal", "Link", "Operation", "Problem", "Schedule", "Solution"]
__all__ += ["Tensor", "best_single", "greedy", "pinned", "pipelined", "schedule", "solve"]
