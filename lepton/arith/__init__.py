"""Exact integer arithmetic of the operators, shared by the compiler and the simulator."""
