"""The analytic tier: networks on thousands of chips per second, without a program of any."""

from lepton.explore.analytic.evaluate import AnalyticTier

__all__ = ["AnalyticTier"]
