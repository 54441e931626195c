"""What became of requests under load, as a text and as plain types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lepton.program import one_line
from lepton.report.names import shorten
from lepton.runtime.serving import Request, Served, Tenant

__all__ = ["TenantSummary", "serving_json", "serving_text", "summaries"]


@dataclass(frozen=True)
class TenantSummary:
    """One network's requests.

    Attributes:
        requests: how many came.
        unserved: how many of them never got a result.
        late: how many missed their deadline, the unserved ones too if there is one.
        moved: how often a device failed under one.
        mean_ms: of the latencies of those that got a result, as the percentiles; None without any.
    """

    name: str
    requests: int
    unserved: int
    late: int
    moved: int
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


def summaries(
    tenants: Sequence[Tenant], requests: Sequence[Request], served: Served
) -> list[TenantSummary]:
    """Return a summary per tenant."""
    made: list[TenantSummary] = []
    for number, tenant in enumerate(tenants):
        mine = [item for item in served.completed if item.request.tenant == number]
        count = sum(request.tenant == number for request in requests)
        unserved = count - len(mine)
        limit = tenant.deadline_ns
        late = 0
        if limit is not None:
            late = unserved + sum(item.latency_ns > limit for item in mine)
        times = np.array([item.latency_ns for item in mine]) / 1e6
        marks = np.percentile(times, [50, 95, 99]).tolist() if len(times) else [None] * 3
        mean = float(times.mean()) if len(times) else None
        moved = sum(item.moved for item in mine)
        made.append(TenantSummary(tenant.name, count, unserved, late, moved, mean, *marks))
    return made


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def serving_text(
    tenants: Sequence[Tenant],
    devices: Sequence[str],
    requests: Sequence[Request],
    runs: Mapping[str, Served],
) -> str:
    """Return a table: a line per tenant and policy, and how busy the devices were."""
    head = (
        f"{'policy':8} {'model':24} {'requests':>8} {'unserved':>8} {'late':>6} {'moved':>5} "
        f"{'mean ms':>9} {'p50':>9} {'p95':>9} {'p99':>9}"
    )
    lines = [head, "-" * len(head)]
    for policy, served in runs.items():
        for row in summaries(tenants, requests, served):
            late = str(row.late) if _has_deadline(tenants, row.name) else "-"
            times = " ".join(
                f"{_number(value):>9}"
                for value in (row.mean_ms, row.p50_ms, row.p95_ms, row.p99_ms)
            )
            lines.append(
                f"{policy:8} {shorten(one_line(row.name), 24):24} {row.requests:8} "
                f"{row.unserved:8} {late:>6} {row.moved:5} {times}"
            )
    lines.append("")
    for policy, served in runs.items():
        shares = ", ".join(
            f"{name} {busy / max(served.end_ns, 1):.0%}"
            for name, busy in zip(devices, served.busy_ns, strict=True)
        )
        lines.append(
            f"{policy}: {served.end_ns / 1e6:,.3f} ms until the last event; busy: {shares}"
        )
    return "\n".join(lines)


def _has_deadline(tenants: Sequence[Tenant], name: str) -> bool:
    return any(tenant.name == name and tenant.deadline_ns is not None for tenant in tenants)


def serving_json(
    tenants: Sequence[Tenant],
    devices: Sequence[str],
    requests: Sequence[Request],
    runs: Mapping[str, Served],
) -> dict[str, object]:
    """Return JSON types."""
    return {
        "models": [
            {"name": t.name, "rate_hz": t.rate_hz, "priority": t.priority,
             "deadline_milliseconds": None if t.deadline_ns is None else t.deadline_ns / 1e6,
             "ways": [
                 {"devices": list(dict.fromkeys(devices[s.device] for s in way.stages)),
                  "stages": len(way.stages), "latency_milliseconds": way.latency_ns / 1e6}
                 for way in t.ways
             ]}
            for t in tenants
        ],
        "policies": {
            policy: {
                "models": [asdict(row) for row in summaries(tenants, requests, served)],
                "milliseconds": served.end_ns / 1e6,
                "busy": {
                    name: busy / max(served.end_ns, 1)
                    for name, busy in zip(devices, served.busy_ns, strict=True)
                },
            }
            for policy, served in runs.items()
        },
    }  # fmt: skip
