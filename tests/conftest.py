"""What all tests share: the profiles of hypothesis and the way to the real models and data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Timing is no test's business: kernels compile on their first call.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=_SLOW)
settings.register_profile(
    "ci", deadline=None, max_examples=60, derandomize=True, suppress_health_check=_SLOW
)
settings.register_profile(
    "campaign", deadline=None, max_examples=20_000, suppress_health_check=_SLOW
)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


@pytest.fixture(scope="session")
def is_campaign(request: pytest.FixtureRequest) -> bool:
    """Whether this is `make campaign`: more seeds where a test counts them itself."""
    return request.config.getoption("--hypothesis-profile", None) == "campaign"


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
    if os.environ.get("CI") == "true":
        pytest.fail(f"needs {relative}: {reason}", pytrace=False)
    pytest.skip(f"needs {relative}: {reason}", allow_module_level=True)
