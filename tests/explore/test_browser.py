"""The interactive page in a real browser: it draws, it answers, it fetches nothing."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lepton.explore import parse_space
from lepton.explore.engine import Sweep, SweepOptions, run_sweep
from lepton.explore.page import sweep_page
from tests.explore.spaces import GRID

SPACE = GRID.replace("[parameters]", "[constraints]\narea_mm2 = { at_most = 2.4 }\n[parameters]")
COLOURS = {"front": (0xD5, 0x5E, 0x00), "dominated": (0x56, 0xB4, 0xE9),
           "breaks a constraint": (0xBB, 0xBB, 0xBB)}  # fmt: skip

# Whatever the page would fetch violates this policy, and is told.
WATCH = """
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
 script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:">
<script>
const seen = {errors: [], blocked: []};
addEventListener("error", event => seen.errors.push(String(event.message)));
addEventListener("unhandledrejection", event => seen.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", event => seen.blocked.push(event.blockedURI));
const spoken = console.error;
console.error = (...parts) => { seen.errors.push(parts.join(" ")); spoken(...parts); };
</script>
"""
PROBE = """
<script>
const pause = () => new Promise(done => setTimeout(done, 300));
const click = item => item.dispatchEvent(new MouseEvent("click", {bubbles: true}));
const plot = number => document.getElementById("figure" + number);
async function look() {
  await pause();
  seen.fetched = performance.getEntriesByType("resource").map(entry => entry.name);
  seen.traces = plot(0).data.map(trace => [trace.name, trace.x.length]);
  seen.bars = plot(2).querySelectorAll(".barlayer .point").length;
  seen.axes = [...plot(1).querySelectorAll(".parcoords .axis-title")].map(t => t.textContent);
  seen.buttons = [...document.querySelectorAll(".modebar-btn")].map(b => b.dataset.title);
  seen.title = plot(0).querySelector(".xtitle").textContent;
  click(plot(0).querySelector(".updatemenu-header"));
  await pause();
  const choices = [...plot(0).querySelectorAll(".updatemenu-dropdown-button")];
  seen.choices = choices.map(choice => choice.textContent);
  click(choices.find(choice => choice.textContent.includes("SRAM")));
  await pause();
  seen.chosen = plot(0).querySelector(".xtitle").textContent;
  seen.shown = plot(0).data.map(trace => Array.from(trace.x));
}
addEventListener("load", () => look().catch(problem => seen.errors.push(String(problem)))
  .finally(() => {
    const told = document.createElement("pre");
    told.id = "told";
    told.textContent = JSON.stringify(seen);
    document.body.append(told);
  }));
</script>
"""


def chromium() -> str:
    """Return the command; without it the test skips, or fails where the environment is CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "Chromium is not installed (Debian package 'chromium')"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


def browsed(page: str, folder: Path, *options: str) -> str:
    """Open a page without a window; return what the browser prints."""
    (folder / "page.html").write_text(page)
    command = [
        chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader",
        "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder / 'profile'}",
        "--force-device-scale-factor=1", "--virtual-time-budget=20000", *options,
        (folder / "page.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=180)
    return done.stdout


@pytest.fixture(scope="module")
def found() -> Sweep:
    return run_sweep(parse_space(SPACE, "grid.toml"), SweepOptions("grid", "analytic"))


@pytest.fixture(scope="module")
def page(found: Sweep) -> str:
    shares = {
        name: {p.path: 1 / 5 for p in found.space.parameters} for name in found.space.objectives
    }
    return sweep_page(found, shares)


@pytest.fixture(scope="module")
def told(page: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a script in the page has seen, after it has chosen another axis."""
    watched = page.replace("<head>", f"<head>{WATCH}", 1).replace("</body>", f"{PROBE}</body>")
    dom = browsed(watched, tmp_path_factory.mktemp("dom"), "--dump-dom")
    (text,) = re.findall(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    return json.loads(html.unescape(text))


def test_no_errors_and_nothing_fetched(told: dict[str, Any]) -> None:
    assert told["errors"] == []
    assert told["blocked"] == []
    assert [name for name in told["fetched"] if not name.startswith(("data:", "blob:"))] == []


def test_nothing_can_be_sent(told: dict[str, Any], page: str) -> None:
    assert "Download plot as a PNG" in told["buttons"]
    assert not [
        title for title in told["buttons"] if re.search("share|cloud|edit|send", title, re.I)
    ]
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "plotly.com" not in outside and "plot.ly" not in outside


def test_figures_hold_the_sweep(told: dict[str, Any], found: Sweep) -> None:
    groups = dict(told["traces"])
    front = len(found.front)
    feasible = int((found.metrics["area_mm2"] <= 2.4).sum())
    assert 0 < front < feasible < 144
    assert groups == {
        "front": front, "dominated": feasible - front, "breaks a constraint": 144 - feasible,
    }  # fmt: skip
    assert told["bars"] == 2 * len(found.space.parameters)
    paths = [parameter.path for parameter in found.space.parameters]
    assert told["axes"] == [*paths, "latency [ms]", "area [mm2]"]


def test_axes_can_be_chosen(told: dict[str, Any], found: Sweep) -> None:
    assert told["title"] == "latency [ms]"
    assert "x: energy [mJ]" in told["choices"]
    assert told["chosen"] == "SRAM [KiB]"
    shown = sorted(value for trace in told["shown"] for value in trace)
    assert shown == sorted(found.metrics["sram_kib"].tolist())


def test_the_browser_paints_every_group(page: str, tmp_path: Path) -> None:
    """A dot of each colour is on the screen where the first figure is."""
    shot = tmp_path / "page.png"
    browsed(page, tmp_path, f"--screenshot={shot}", "--window-size=1200,900")
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"), np.int16)
    for name, colour in COLOURS.items():
        near = (np.abs(pixels - np.array(colour)).max(axis=2) <= 12).sum()
        assert near > 100, name


def test_a_broken_page_is_noticed(page: str, tmp_path: Path) -> None:
    """The watch sees an error of a script, and an image that would be fetched."""
    bad = '<script>nothing()</script><img src="http://127.0.0.1:9/a.png">'
    watched = page.replace("<head>", f"<head>{WATCH}", 1)
    dom = browsed(watched.replace("</body>", f"{bad}{PROBE}</body>"), tmp_path, "--dump-dom")
    (text,) = re.findall(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    told = json.loads(html.unescape(text))
    assert any("nothing is not defined" in error for error in told["errors"])
    assert any("127.0.0.1:9" in address for address in told["blocked"])
