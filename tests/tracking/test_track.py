from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REPOSITORY
from mlflow.tracking import MlflowClient

from simgap.params import Params, load_params
from simgap.tracking.rates import write_rates
from simgap.tracking.track import EXPERIMENT, track, try_track

SPLITS = ("full", "combined")


def small_params() -> Params:
    params = load_params(REPOSITORY / "presets" / "toy.yaml")
    benchmarks = replace(params.benchmarks, names=["val"])
    return replace(params, runs={split: {} for split in SPLITS}, draw={}, ground_truth={}, benchmarks=benchmarks)


def write_metrics(folder: Path, accuracy: float = 0.5, threshold: float = 0.0) -> Path:
    def write(place: str, content: dict) -> None:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(json.dumps(content))

    for split in SPLITS:
        about = {
            "rule": "full" if split == "full" else "imagenet-like", "benchmarks": ["val"], "threshold": threshold,
            "controls": None, "kept_end": "rows", "reference_rows": True, "kept": 10, "parameters": {"eps": None},
        }  # fmt: skip
        write(f"prune/{split}.json", about)
        write(f"profile/{split}.json", {"val/similarity/mean": 0.3})
        write(f"train/{split}-0.json", {"steps": 2, "loss": [[0, 4.0], [1, 3.0]], "kept_rows": len(split)})
        write(f"evaluate/{split}-0.json", {"zero_shot/val/top1": accuracy, "few_shot/val/refused": False})
    for name in ("pool", "reference", "val", "of-another-study"):
        write(f"embed/{name}.json", {"kept": 7})
    write("similarity/val.json", {"pool_rows": 7})
    write("compare/compare.json", {"full/val/accuracy": accuracy, "full/val/marked": "held out"})
    return folder


@pytest.fixture
def metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return write_metrics(tmp_path / "metrics")


def runs(root: Path) -> list:
    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return client.search_runs([experiment.experiment_id])


def test_every_result_is_logged_once(metrics: Path) -> None:
    params = small_params()
    assert track(params, metrics) == (3, 0, [])
    assert track(params, metrics) == (0, 3, [])
    write_metrics(metrics, threshold=0.1)
    assert track(params, metrics) == (2, 1, [])
    found = runs(metrics.parent)
    assert len(found) == 5
    study = next(run for run in found if run.info.run_name == "study")
    assert study.data.metrics["embed/val/kept"] == 7
    assert "embed/of-another-study/kept" not in study.data.metrics
    run = next(run for run in found if run.info.run_name == "combined-0" and run.data.tags["threshold"] == "0.1")
    assert run.data.params["rule"] == "imagenet-like"
    assert run.data.params["train.batch_size"] == str(params.train.batch_size)
    assert run.data.metrics["evaluate/zero_shot/val/top1"] == 0.5
    assert run.data.metrics["train/loss"] == 3.0
    assert run.info.status == "FINISHED"


def test_rates_are_logged_and_make_no_other_run(metrics: Path) -> None:
    write_rates(metrics / "train" / "full-0.json", {"samples_per_second": 250.0})
    write_rates(metrics / "embed" / "val.json", {"images_per_second": 90.0})
    assert track(small_params(), metrics) == (3, 0, [])
    found = {run.info.run_name: run.data.metrics for run in runs(metrics.parent)}
    assert found["full-0"]["train/samples_per_second"] == 250
    assert found["study"]["embed/val/images_per_second"] == 90
    assert "train/samples_per_second" not in found["combined-0"]
    write_rates(metrics / "train" / "full-0.json", {"samples_per_second": 10.0})
    assert track(small_params(), metrics) == (0, 3, [])


def test_tracking_never_ends_a_stage(metrics: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    params = small_params()

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no database\nsecond line")

    monkeypatch.setattr("mlflow.tracking.MlflowClient", unreachable)
    try_track(params, metrics)
    assert capsys.readouterr().err.splitlines() == [
        "tracking: nothing logged (ConnectionError: no database); `simgap track` logs it later"
    ]


def test_what_is_unfinished_is_named_and_the_rest_is_logged(metrics: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (metrics / "train" / "full-0.json").unlink()
    (metrics / "compare" / "compare.json").write_text("[]")
    logged, known, unfinished = track(small_params(), metrics)
    assert (logged, known) == (1, 0)
    assert len(unfinished) == 2
    try_track(small_params(), metrics)
    assert "full-0.json: no such file" in capsys.readouterr().err


def _track_one(arguments: tuple[str, float]) -> None:
    root, accuracy = arguments
    import os

    os.environ["DVC_ROOT"] = root
    track(small_params(), write_metrics(Path(root) / f"metrics-{accuracy}", accuracy))


@pytest.mark.slow
def test_processes_that_begin_at_once_lose_nothing(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as processes:
        processes.map(_track_one, [(str(tmp_path), accuracy) for accuracy in (0.1, 0.2, 0.3)])
    found = runs(tmp_path)
    assert len(found) == 9
    assert {run.data.metrics["compare/full/val/accuracy"] for run in found if run.data.tags["kind"] == "study"} == {
        0.1,
        0.2,
        0.3,
    }
