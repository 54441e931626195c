"""Prune networks."""
