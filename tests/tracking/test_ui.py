"""Open `simgap ui` in a browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Chart, browser_page, compared_runs, listed_runs, saved_view
from stores import answers, begin_study, free_port, running, runs_in, track_here, write_study

from simgap.tracking.store import store_address

pytestmark = pytest.mark.slow

SIMGAP = [sys.executable, "-m", "simgap.cli"]
METRIC = "zero_shot/val/top1"
# Accuracies by threshold and split. All differ, but full does not depend on the threshold.
ACCURACIES = {
    0.0: {"full": 0.61, "combined": 0.25, "combined-control": 0.58, "val-pruned": 0.31, "val-pruned-control": 0.55},
    0.1: {"full": 0.61, "combined": 0.45, "combined-control": 0.59, "val-pruned": 0.49, "val-pruned-control": 0.57},
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return begin_study(tmp_path, monkeypatch)


@pytest.fixture
def addresses(study: Path) -> Iterator[dict[str, str]]:
    """Serve a study at two thresholds with `simgap ui`, and yield the addresses that it prints by their labels."""
    for threshold, accuracies in ACCURACIES.items():
        write_study(study, threshold=threshold, accuracies=accuracies)
        track_here()
    port, output = free_port(), study / "output"
    command = ["sh", "-c", 'exec "$0" "$@" > output', *SIMGAP, "ui", "--port", str(port)]
    with running(command, lambda: answers(f"http://127.0.0.1:{port}/health"), env={**os.environ}):
        yield dict(re.findall(r"^(.+?): (http://127.0.0.1:\S+)$", output.read_text(), re.MULTILINE))


def stored() -> dict[str, Any]:
    found = {run.info.run_name: run for run in runs_in(store_address())}
    assert len(found) == 9
    return found


def assert_points(chart: Chart) -> None:
    """Check that the chart shows the values of the store, and the store holds the values of the study."""
    expected = {(name, float(run.data.params["threshold"]), run.data.metrics[METRIC]) for name, run in stored().items()}
    assert len(chart.points) == len(expected)
    assert set(chart.points) == expected
    measured = {
        (split, threshold, accuracy)
        for threshold, accuracies in ACCURACIES.items()
        for split, accuracy in accuracies.items()
        if (split, threshold) != ("full", 0.1)
    }
    assert {(name.split()[0], x, y) for name, x, y in chart.points} == measured
    assert chart.axes == ("threshold", METRIC)


def test_the_printed_view_shows_threshold_against_accuracy_for_each_split(addresses: dict[str, str]) -> None:
    runs = stored()
    with browser_page() as page:
        assert sorted(listed_runs(page, addresses["Runs"], len(runs))) == sorted(runs)
        chart = saved_view(page, addresses["Accuracy by threshold"], METRIC, len(runs))
        # A list beside the charts names the same runs.
        assert sorted(page.locator("a[href*='/runs/']").all_inner_texts()) == sorted(runs)
    assert_points(chart)
    # The position of a mark, read off the axis, is its value.
    (low, low_at), *_, (high, high_at) = sorted(chart.ticks)
    pixels = (high_at - low_at) / (high - low)
    for (_, x, y), (at_x, at_y, _) in zip(chart.points, chart.marks, strict=True):
        assert at_y == pytest.approx(low_at + (y - low) * pixels, abs=3)
        assert (at_x > sum(at for at, _, _ in chart.marks) / len(chart.marks)) == (x > 0)
    # Each split has one colour, in the chart and in the legend.
    colours_by_split: dict[str, set[str]] = {}
    for (name, _, _), (_, _, colour) in zip(chart.points, chart.marks, strict=True):
        assert chart.legend[name] == colour
        colours_by_split.setdefault(name.split()[0], set()).add(colour)
    assert set(colours_by_split) == set(ACCURACIES[0.0])
    assert {len(colours) for colours in colours_by_split.values()} == {1}
    assert len(set.union(*colours_by_split.values())) == len(colours_by_split)
    assert set(chart.legend) == set(runs)


def test_runs_that_a_reader_chooses_are_compared(addresses: dict[str, str]) -> None:
    runs = stored()
    address, experiment = re.fullmatch(r"(.*)/#/experiments/(\d+)/.*", addresses["Runs"]).groups()
    with browser_page() as page:
        ids = [run.info.run_id for run in runs.values()]
        chart = compared_runs(page, address, experiment, ids, "threshold", METRIC)
    assert_points(chart)


def test_a_server_s_runs_are_not_opened_here(study: Path) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://user:secret@127.0.0.1:9"}
    finished = subprocess.run([*SIMGAP, "ui"], env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    expected = "error: MLFLOW_TRACKING_URI: the runs are on a server; open http://127.0.0.1:9 in a browser\n"
    assert finished.stderr == expected
