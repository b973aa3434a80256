"""Read MLflow's pages in a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

# Timeout in milliseconds. A busy machine draws slowly.
PATIENCE = 90_000
# Returns the data, labels and marks of a chart. The marks are in the order of the data.
DRAWN = """graph => {
    const [trace] = graph.data
    const text = (place, within) => [...within.querySelectorAll(place)].map(found => found.textContent)
    return {
        names: trace.text, x: trace.x.map(Number), y: trace.y.map(Number),
        axes: [...text('.xtitle', graph), ...text('.ytitle', graph)],
        ticks: text('.ytick text', graph).map(tick => Number(tick.replace('\\u2212', '-'))),
        marks: [...graph.querySelectorAll('.scatterlayer .point')].map(mark => {
            const box = mark.getBoundingClientRect()
            return [box.x + box.width / 2, box.y + box.height / 2, getComputedStyle(mark).fill]
        }),
        tickMarks: [...graph.querySelectorAll('.ytick text')].map(tick => {
            const box = tick.getBoundingClientRect()
            return box.y + box.height / 2
        }),
    }
}"""


class Chart(NamedTuple):
    """A scatter plot on a page.

    Attributes:
        axes: Titles of the horizontal and the vertical axis.
        points: Name and the two drawn values of each run.
        marks: Position in pixels and colour of each run's mark; empty if the marks are on a canvas.
        ticks: Values on the vertical axis, with their positions in pixels.
        legend: Colours by name; empty if there is no legend.
    """

    axes: tuple[str, ...]
    points: list[tuple[str, float, float]]
    marks: list[tuple[float, float, str]]
    ticks: list[tuple[float, float]]
    legend: dict[str, str]


@contextmanager
def browser_page() -> Iterator[Any]:
    """Open a page in Debian's Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: install simgap[dev]")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: install Debian's chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium)
        page = browser.new_page(viewport={"width": 1400, "height": 900}, device_scale_factor=1)
        page.set_default_timeout(PATIENCE)
        playwright.expect.set_options(timeout=PATIENCE)
        yield page
        browser.close()


def listed_runs(page: Any, address: str, number: int) -> list[str]:
    """Return the names of the runs on an experiment's page, once it lists as many as expected."""
    from playwright.sync_api import expect

    page.goto(address)
    links = page.locator("a[href*='/runs/']")
    expect(links).to_have_count(number)
    return list(links.all_inner_texts())


def _chart(within: Any) -> Chart:
    drawn = within.locator(".js-plotly-plot").evaluate(DRAWN)
    entries = within.locator("div:has(> svg > path[d='M0,6h24']):has(> span)")
    legend = {
        entry.locator("span").inner_text(): entry.locator("path").evaluate("path => getComputedStyle(path).stroke")
        for entry in entries.all()
    }
    # If the text of a run holds more than its name, the name comes first, in bold.
    names = [re.sub(r"^<b>(.*?)</b>.*", r"\1", name) for name in drawn["names"]]
    return Chart(
        tuple(drawn["axes"]),
        list(zip(names, drawn["x"], drawn["y"], strict=True)),
        [(x, y, colour) for x, y, colour in drawn["marks"]],
        list(zip(drawn["ticks"], drawn["tickMarks"], strict=True)),
        legend,
    )


def saved_view(page: Any, address: str, metric: str, runs: int) -> Chart:
    """Open a saved view of an experiment, and return its chart of a metric once all runs are drawn."""
    from playwright.sync_api import expect

    page.goto(address)
    card = page.get_by_test_id("experiment-view-compare-runs-card").filter(has_text=f"threshold vs. {metric}")
    expect(card.locator(".scatterlayer .point")).to_have_count(runs)
    return _chart(card)


def compared_runs(page: Any, address: str, experiment: str, runs: list[str], x: str, y: str) -> Chart:
    """Compare runs by id, and return the chart of a parameter and a metric."""
    from playwright.sync_api import expect

    ids, experiments = quote(json.dumps(runs)), quote(json.dumps([experiment]))
    page.goto(f"{address}/#/compare-runs?runs={ids}&experiments={experiments}")
    expect(page.get_by_text(f"Comparing {len(runs)} Runs from 1 Experiment")).to_be_visible()
    page.get_by_role("tab", name="Scatter Plot").click()
    panel = page.get_by_role("tabpanel").filter(has=page.locator("#y-axis-selector")).filter(visible=True)
    for axis, name in (("x", x), ("y", y)):
        panel.locator(f"#{axis}-axis-selector").click()
        page.get_by_role("option", name=name, exact=True).click()
        expect(panel.locator(f".{axis}title")).to_have_text(name)
    return _chart(panel)
