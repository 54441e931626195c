"""Cycles of each instruction in closed form, shared by scheduler, estimate and simulator."""

from lepton.cost.instructions import InstructionCosts, instruction_costs
from lepton.cost.scalars import CostScalars, cost_scalars

__all__ = ["CostScalars", "InstructionCosts", "cost_scalars", "instruction_costs"]
