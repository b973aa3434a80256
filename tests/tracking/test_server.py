"""Log to servers that work, that are down, and that are slow."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from stores import SPLITS, begin_study, free_port, runs_in, server_before, track_at_once, track_here, write_study

from simgap.tracking import track
from simgap.tracking.store import STUDIES
from simgap.tracking.track import try_track

pytestmark = pytest.mark.slow


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "study").mkdir()
    return begin_study(tmp_path / "study", monkeypatch)


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with server_before(request.param, tmp_path) as address:
        yield address


def test_a_server_gets_every_run_once(server: str, study: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert track_here() == (4, 0, 0, [])
    assert track_here() == (0, 4, 0, [])
    assert not (study / "mlflow.db").exists()
    runs = {run.info.run_name: run for run in runs_in(server)}
    run = runs["combined threshold=0.0 seed=0"]
    assert run.data.metrics["zero_shot/val/top1"] == 0.5
    assert run.data.params["train.batch_size"] == "32"
    assert runs["combined-control threshold=0.0 seed=0"].data.tags["controls.run"] == run.info.run_id
    client = MlflowClient(tracking_uri=server)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(0, 4.0), (1, 3.0)]
    # Artifacts went through the server.
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"split.json", "model.json"}
    assert len(list((tmp_path / "of-the-server").rglob("model.json"))) == 3
    write_study(study, threshold=0.1)
    assert track_here() == (3, 1, 0, [])

    # Clones on two machines share no lock.
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(2) as processes:
        together = manager.Barrier(2)
        arguments = [
            ((str(tmp_path / name), str(tmp_path / name), server, 0.2), together) for name in ("here", "elsewhere")
        ]
        tracked = processes.starmap(track_at_once, arguments, chunksize=1)
    # The comparison is the third new run.
    assert sum(one.logged for one in tracked) >= 3
    runs_of_it = [run for run in runs_in(server) if run.data.params.get("threshold") == "0.2"]
    assert sorted(run.data.tags["split"] for run in runs_of_it) == sorted(SPLITS[1:])
    assert len(runs_in(server)) == 1 + 3 * 2
    assert len(runs_in(server, STUDIES)) == 3
    for run in runs_of_it:
        assert run.info.status == "FINISHED"
        assert run.data.metrics["zero_shot/val/top1"] == 0.5
        assert len(run.data.params) > 60
        assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 2
    write_study(study, threshold=0.2)
    assert track_here() == (0, 4, 0, [])


def test_a_stage_warns_with_one_line_if_there_is_no_server(study: Path, monkeypatch, capfd) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    began = time.monotonic()
    try_track()
    assert time.monotonic() - began < track.STAGE_LIMIT + 15
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"tracking: error: MLFLOW_TRACKING_URI: MLflow's store {address}: ")
    assert line.endswith("; `simgap track` logs the rest later")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert track_here().logged == 4


def test_a_stage_warns_with_one_line_if_the_server_does_not_answer(study: Path, monkeypatch, capfd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        began = time.monotonic()
        try_track()
        assert time.monotonic() - began < track.STAGE_LIMIT + 15
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"tracking: error: MLFLOW_TRACKING_URI: MLflow's store {address}: ")


def test_a_stage_stops_tracking_that_takes_too_long(study: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(track, "STAGE_LIMIT", 3)
    # This is like a server that answers each request just in time.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        try_track()
        assert time.monotonic() - began < 20
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("tracking: stopped after 3 s, because http://127.0.0.1:")
    assert "secret" not in line


def test_a_stage_prints_what_was_logged(study: Path, capfd) -> None:
    (study / "metrics" / "compare" / "compare.json").unlink()
    try_track()
    assert capfd.readouterr().err.splitlines() == [
        "tracking: MLflow: 3 runs logged, 0 runs were logged before",
        "tracking: not logged: metrics/compare/compare.json: no such file; restore it or correct the path",
    ]
    assert (study / "mlflow.db").exists()
