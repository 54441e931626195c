"""What all tests share: the profiles of hypothesis and the way to the real models and data."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

# Timing is no test's business: kernels compile on their first call.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=_SLOW)
settings.register_profile(
    "ci", deadline=None, max_examples=60, derandomize=True, suppress_health_check=_SLOW
)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


# A shell that runs the tests in its background has them, and what they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_ci() -> bool:
    return os.environ.get("CI") == "true"


ReportT = TypeVar("ReportT", pytest.TestReport, pytest.CollectReport)


def _without_skip(report: ReportT) -> ReportT:
    """Return a report in which a skip is a failure, if this is CI."""
    if _is_ci() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"nothing may skip in CI: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let no test skip in CI."""
    return _without_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Let no module skip in CI."""
    return _without_skip((yield))


def data_path(relative: str) -> Path:
    """Return a file or folder below `LEPTON_DATA`.

    Without it the test (or, called at the top of a module, the module) skips; where the
    environment says `CI=true` it fails, so that nothing goes untested unnoticed.
    """
    root = os.environ.get("LEPTON_DATA")
    path = Path(root or "LEPTON_DATA") / relative
    if root and path.exists():
        return path
    reason = f"{path} does not exist" if root else "LEPTON_DATA is not set"
    if _is_ci():
        pytest.fail(f"needs {relative}: {reason}", pytrace=False)
    pytest.skip(f"needs {relative}: {reason}", allow_module_level=True)
