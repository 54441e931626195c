"""Cycles of each instruction in closed form, shared by scheduler, estimate and simulator."""

from lepton.cost.scalars import CostScalars, cost_scalars
from lepton.cost.work import InstructionCosts, instruction_costs

__all__ = ["CostScalars", "InstructionCosts", "cost_scalars", "instruction_costs"]
