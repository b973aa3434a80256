"""MLflow's pages as a reader's browser shows them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest

# Milliseconds; a busy machine is slow to draw.
PATIENCE = 90_000


@contextmanager
def browser_page() -> Iterator[Any]:
    """A page of Debian's Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: install simgap[dev]")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: install Debian's chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium)
        page = browser.new_page(viewport={"width": 1400, "height": 900}, device_scale_factor=1)
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


def listed_runs(page: Any, address: str) -> list[str]:
    """Give the names of the runs that an experiment's page lists."""
    page.goto(address)
    links = page.locator("a[href*='/runs/']")
    links.first.wait_for()
    return list(links.all_inner_texts())


def _choose(page: Any, label: str, names: list[str]) -> None:
    box = page.locator(f"//div[text()='{label}:']/following-sibling::div[1]//input")
    for name in names:
        # The list is drawn in part only: what is typed narrows it.
        box.click(force=True)
        box.fill(name)
        page.locator(f".du-bois-light-select-item-option[title='{name}']").first.click()
    page.keyboard.press("Escape")


def compare_runs(page: Any, address: str, experiment: str, runs: list[str], parameters: list[str], metric: str) -> None:
    """Open the comparison of runs, by id, and have parameters drawn against a metric."""
    ids, experiments = quote(json.dumps(runs)), quote(json.dumps([experiment]))
    page.goto(f"{address}/#/compare-runs?runs={ids}&experiments={experiments}")
    page.get_by_text(f"Comparing {len(runs)} Runs from 1 Experiment").wait_for()
    close = page.get_by_role("button", name="Close")
    if close.count():
        close.first.click()
    page.get_by_text("Clear All").click()
    _choose(page, "Parameters", parameters)
    _choose(page, "Metrics", [metric])
    page.locator(".js-plotly-plot .parcoords").first.wait_for()
