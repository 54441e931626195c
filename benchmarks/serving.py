"""Compare a static and a dynamic scheduler on three networks that share devices.

    python -m benchmarks.serving [--write] [--requests N]

Needs the environment variable LEPTON_DATA, which names the folder of the models. Arrivals are
drawn with a seed; times are the estimate's of two NPUs and this CPU's measured profile. Prints
tables; with `--write` it also replaces the figures of docs/serving.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT
from benchmarks.page import (
    Limit,
    limits_table,
    markdown_table,
    models_folder,
    origin,
    page_parser,
    replace_part,
)
from lepton.runtime.devices import DeviceOptions, choose_devices
from lepton.runtime.serving import (
    Dynamic,
    Fault,
    Policy,
    Served,
    Static,
    Tenant,
    arrivals,
    plans_of,
    serve,
    ways_of,
)
from lepton.runtime.split import read_network

__all__ = ["SCENARIOS", "Row", "Scenario", "compared", "limits"]

PAGE = ROOT / "docs" / "serving.md"
HEADING = "## Figures"
DEVICES = ("npu", "npu2=nano", "cpu")
STORED = ("resnet", "mobilenet_v1", "kws_ref_model")
SEED = 1
DEADLINES = 10
"""Of a network, in latencies of its fastest way."""


@dataclass(frozen=True)
class Scenario:
    """What happens.

    Attributes:
        load: of the busiest device under the static assignment.
        variation: of the times between requests.
        slowdown: of the first device in the second quarter; None fails, 1 is well.
        urgent: whether the first network goes before the others.
    """

    name: str
    load: float
    variation: float = 1.0
    slowdown: float | None = 1.0
    urgent: bool = False


SCENARIOS = (
    Scenario("half load", 0.5),
    Scenario("high load", 0.9),
    Scenario("in bursts", 0.6, 4.0),
    Scenario("more than one way each can do", 1.2),
    Scenario("a device slows 5 times", 0.6, slowdown=5.0),
    Scenario("a device fails", 0.6, slowdown=None),
    Scenario("the same, the first network urgent", 0.6, slowdown=None, urgent=True),
)


@dataclass(frozen=True)
class Row:
    """A scenario under a policy.

    Attributes:
        late: share of the requests that missed their deadlines.
        unserved: requests without a result.
        urgent_ms: 95th percentile of the first network.
    """

    scenario: str
    policy: str
    mean_ms: float
    p95_ms: float
    late: float
    moved: int
    unserved: int
    urgent_ms: float


def compared(scenario: Scenario, tenants: Sequence[Tenant], count: int) -> list[Row]:
    """Run a scenario under both policies."""
    devices = len(DEVICES)
    scale = scenario.load / Static(tenants, devices).load
    asked = [
        replace(
            tenant, rate_hz=tenant.rate_hz * scale, variation=scenario.variation,
            priority=int(scenario.urgent and not number),
        )
        for number, tenant in enumerate(tenants)
    ]  # fmt: skip
    requests = arrivals(asked, count, SEED)
    end = requests[-1].arrival_ns
    faults = [Fault(0, end // 4, end // 2, scenario.slowdown)] * (scenario.slowdown != 1)
    policies: dict[str, Policy] = {"static": Static(asked, devices), "dynamic": Dynamic(asked)}
    return [
        _row(scenario, name, asked, serve(asked, devices, policy, requests, faults=faults), count)
        for name, policy in policies.items()
    ]


def _row(
    scenario: Scenario, policy: str, tenants: Sequence[Tenant], served: Served, count: int
) -> Row:
    times = np.array([item.latency_ns for item in served.completed]) / 1e6
    first = [i.latency_ns / 1e6 for i in served.completed if not i.request.tenant]
    late = count - len(times)
    for item in served.completed:
        late += item.latency_ns > (tenants[item.request.tenant].deadline_ns or math.inf)
    return Row(
        scenario.name, policy, float(times.mean()), float(np.percentile(times, 95)), late / count,
        sum(item.moved for item in served.completed), count - len(times),
        float(np.percentile(first, 95)),
    )  # fmt: skip


def limits(rows: Sequence[Row]) -> list[Limit]:
    """Return what was measured beside its limits."""
    gains = [
        static.mean_ms / dynamic.mean_ms
        for static, dynamic in zip(rows[::2], rows[1::2], strict=True)
    ]
    return [
        Limit("requests without a result", 0, sum(row.unserved for row in rows)),
        Limit("static / dynamic mean latency, least", 1.0, min(gains), is_least=True),
    ]


def _text(rows: Sequence[Row], tenants: Sequence[Tenant], count: int) -> str:
    """Return the tables."""
    cells = [
        (row.scenario, row.policy, row.mean_ms, row.p95_ms, f"{row.late:.1%}", row.moved,
         row.urgent_ms)
        for row in rows
    ]  # fmt: skip
    heads = ("scenario", "policy", "mean ms", "p95 ms", "late", "moved", "first network's p95 ms")
    ways = [
        (tenant.name, str(number), " ".join(DEVICES[s.device] for s in way.stages),
         way.latency_ns / 1e6)
        for tenant in tenants for number, way in enumerate(tenant.ways)
    ]  # fmt: skip
    return "\n\n".join(
        [
            f"Measured by `python -m benchmarks.serving --write`\n{origin()}.",
            limits_table(limits(rows)),
            f"{count} requests of {', '.join(STORED)} (ONNX, int8), equally often, on two `nano`\n"
            f"chips and one thread of the CPU. A request is late after {DEADLINES} times its\n"
            "fastest way. What slows or fails is the first chip, in the second quarter.",
            markdown_table(heads, cells, 2),
            "The ways that the schedulers choose from, with the devices of their stages:",
            markdown_table(("network", "way", "stages", "ms"), ways, 3),
        ]
    )


def tenants_of(paths: Sequence[Path]) -> list[Tenant]:
    """Return networks with all their ways."""
    devices, _ = choose_devices(DEVICES, DeviceOptions(chip="nano"))
    made: list[Tenant] = []
    for path in paths:
        network = read_network(path)
        ways = ways_of(plans_of(network, devices), devices)
        fastest = min(way.latency_ns for way in ways)
        made.append(Tenant(path.stem, ways, 1.0, deadline_ns=DEADLINES * fastest))
    return made


def main() -> None:
    parser = page_parser(__doc__)
    parser.add_argument("--requests", type=int, default=3000, help="per scenario; default 3000")
    options = parser.parse_args()
    folder = models_folder(parser) / "mlperf_tiny_onnx"
    tenants = tenants_of([folder / f"{name}.onnx" for name in STORED])
    rows = [row for scenario in SCENARIOS for row in compared(scenario, tenants, options.requests)]
    text = _text(rows, tenants, options.requests)
    print(text)
    if options.write:
        replace_part(PAGE, HEADING, text)


if __name__ == "__main__":
    main()
