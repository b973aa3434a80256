"""What a reader sees: `simgap ui` in a browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import browser_page, compare_runs, listed_runs
from stores import answers, begin_study, free_port, running, runs_in, track_here, write_study

from simgap.tracking.track import store

pytestmark = pytest.mark.slow

SIMGAP = [sys.executable, "-m", "simgap.cli"]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return begin_study(tmp_path, monkeypatch)


def test_two_thresholds_are_listed_and_drawn_against_accuracy(study: Path) -> None:
    track_here()
    write_study(study, accuracy=0.4, threshold=0.1)
    track_here()
    port, said = free_port(), study / "said"
    command = ["sh", "-c", 'exec "$0" "$@" > said', *SIMGAP, "ui", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with browser_page() as page, running(command, lambda: answers(f"{address}/health"), env={**os.environ}):
        (shown,) = re.findall(rf"{address}/#\S+", said.read_text())
        found = {run.info.run_name: run.info for run in runs_in(store())}
        assert sorted(listed_runs(page, shown)) == sorted(found)
        assert "combined threshold=0.1 seed=0" in found
        ids = [info.run_id for info in found.values()]
        compare_runs(page, address, "1", ids, ["split", "threshold"], "zero_shot/val/top1")
        axes = page.locator(".parcoords .axis-title").all_text_contents()
        assert [axis for axis in axes if axis] == ["split", "threshold", "zero_shot/val/top1"]
        # The lines themselves, one a run, are on a canvas; that they are there shows in its picture.
        lines = page.locator(".js-plotly-plot .parcoords").first
        drawn = lines.screenshot()
        assert page.locator(".js-plotly-plot canvas").count() > 0
        page.locator(".js-plotly-plot canvas").evaluate_all("all => all.forEach(canvas => canvas.remove())")
        assert lines.screenshot() != drawn


def test_a_server_s_runs_are_not_opened_here(study: Path) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://user:secret@127.0.0.1:9"}
    finished = subprocess.run([*SIMGAP, "ui"], env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    expected = "error: MLFLOW_TRACKING_URI: the runs are on a server; open http://127.0.0.1:9 in a browser\n"
    assert finished.stderr == expected
