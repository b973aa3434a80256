"""Check what is logged, and that it is logged once."""

from __future__ import annotations

import json
import multiprocessing
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from stores import REPOSITORY, SPLITS, begin_study, runs_in, track_at_once, track_here, write_report, write_study

from simgap.core.errors import SimgapError
from simgap.core.files import sha256_of
from simgap.params.load import load_params
from simgap.stage.rates import write_rates
from simgap.tracking.records import Record, flatten, threshold_of
from simgap.tracking.store import MODELS, REQUEST_LIMIT, STUDIES, open_store, store_address, without_password
from simgap.tracking.track import ARTIFACTS, IDENTITY, _find_or_create_run, _write_artifacts
from simgap.tracking.view import colours


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return begin_study(tmp_path, monkeypatch)


def by_name(experiment: str = MODELS) -> dict:
    found = {run.info.run_name: run for run in runs_in(store_address(), experiment)}
    assert len(found) == len(runs_in(store_address(), experiment))
    return found


def test_each_model_of_each_threshold_has_one_run(study: Path) -> None:
    assert track_here() == (4, 0, 0, [])
    assert track_here() == (0, 4, 0, [])
    write_study(study, threshold=0.1)
    # The model of full does not depend on the threshold, so its run is the same.
    assert track_here() == (3, 1, 0, [])
    assert set(by_name()) == {
        "full seed=0", "combined threshold=0.0 seed=0", "combined threshold=0.1 seed=0",
        "combined-control threshold=0.0 seed=0", "combined-control threshold=0.1 seed=0",
    }  # fmt: skip
    full = by_name()["full seed=0"].data
    assert "threshold" not in full.tags
    assert full.params["threshold"] == "0.0"
    assert set(by_name(STUDIES)) == {"study threshold=0.0 seeds=0", "study threshold=0.1 seeds=0"}
    write_study(study)
    assert track_here() == (0, 4, 0, [])


def test_a_threshold_that_keeps_the_same_rows_has_its_own_run(study: Path) -> None:
    track_here()
    locked = (study / "dvc.lock").read_text()
    write_study(study, threshold=0.1)
    models = {f"{split}0.1.dir": f"{split}0.0.dir" for split in SPLITS}
    lock = (study / "dvc.lock").read_text()
    for ours, same in models.items():
        lock = lock.replace(ours, same)
        assert same in locked or same.startswith("full")
    (study / "dvc.lock").write_text(lock)
    track_here()
    runs = by_name()
    assert len(runs) == 5
    pair = [runs[f"combined threshold={threshold} seed=0"] for threshold in (0.0, 0.1)]
    assert pair[0].data.tags["model.md5"] == pair[1].data.tags["model.md5"]


def test_profiles_by_another_embedder_belong_to_other_runs(study: Path) -> None:
    assert track_here() == (4, 0, 0, [])
    write_study(study, embedder=1)
    # The run of the study does not depend on the embedder's hash.
    assert track_here() == (3, 1, 0, [])
    runs = runs_in(store_address())
    found = sorted((run.info.run_name, run.data.metrics["profile/val/similarity/mean"]) for run in runs)
    names = ("combined threshold=0.0 seed=0", "combined-control threshold=0.0 seed=0", "full seed=0")
    assert found == sorted((name, mean) for name in names for mean in (0.3, 1.3))
    assert {run.data.tags["embedder.md5"] for run in runs} == {"embedder0.dir", "embedder1.dir"}
    write_study(study)
    assert track_here() == (0, 4, 0, [])


def test_the_contents_of_a_model_s_run(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "s"]):
        subprocess.run(["git", *command], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setenv("DVC_EXP_NAME", "slack")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "b" * 40)
    track_here()
    run = by_name()["combined threshold=0.0 seed=0"]
    assert run.info.status == "FINISHED"
    assert run.data.params["split"] == "combined"
    assert run.data.params["seed"] == "0"
    assert run.data.params["threshold"] == "0.0"
    assert run.data.params["train.batch_size"] == "32"
    assert run.data.params["evaluate.few_shot.shots"] == "1, 2, 4, 8, 16"
    assert run.data.params["prune.imagenet-like.combined.benchmarks"] == "val"
    assert run.data.metrics["zero_shot/val/top1"] == 0.5
    assert run.data.metrics["few_shot/val/top1_1_shot"] == 0.25
    assert run.data.metrics["prune/kept"] == 10
    assert run.data.metrics["profile/val/similarity/mean"] == 0.3
    history = MlflowClient(tracking_uri=store_address()).get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(0, 4.0), (1, 3.0)]
    expected = {
        "split": "combined", "seed": "0", "threshold": "0.0", "rule": "imagenet-like", "benchmarks": "val",
        "dvc.experiment": "slack", "dvc.baseline": "b" * 40, "git.commit": commit, "mlflow.source.git.commit": commit,
        "model.path": "models/combined-0", "model.md5": "combined0.0.dir", "input/data/worlds/toy/pool": "of-the-pool.dir",
    }  # fmt: skip
    assert expected.items() <= run.data.tags.items()
    assert not [tag for tag in run.data.tags if "src/" in tag]
    client = MlflowClient(tracking_uri=store_address())
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"split.json", "model.json"}
    model = Path(client.download_artifacts(run.info.run_id, "model.json", str(study)))
    assert json.loads(model.read_text()) == {"path": "models/combined-0", "md5": "combined0.0.dir", "nfiles": 2}
    split = Path(client.download_artifacts(run.info.run_id, "split.json", str(study)))
    assert json.loads(split.read_text())["rule"] == "imagenet-like"


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_runs_of_an_applied_experiment_name_it(study: Path) -> None:
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "baseline")
    baseline = git("rev-parse", "HEAD")
    # DVC stores experiments like this, also those that were pulled.
    for name, threshold in (("slack", 0.1), ("more-slack", 0.2)):
        write_study(study, threshold=threshold)
        git("commit", "-qam", name)
        git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", "HEAD")
        git("update-ref", "refs/exps/exec/EXEC_APPLY", "HEAD")
        git("reset", "-q", "--hard", baseline)

    def provenance(run: str) -> tuple[str | None, str | None, str]:
        tags = by_name()[run].data.tags
        return tags.get("dvc.experiment"), tags.get("dvc.baseline"), tags["git.commit"]

    # The baseline belongs to no experiment.
    track_here()
    assert provenance("combined threshold=0.0 seed=0") == (None, None, baseline)
    write_study(study, threshold=0.1)
    track_here()
    assert provenance("combined threshold=0.1 seed=0") == ("slack", baseline, baseline)
    # No experiment has this dvc.lock.
    write_study(study, threshold=0.3)
    track_here()
    assert provenance("combined threshold=0.3 seed=0") == (None, None, baseline)
    # Two experiments have this dvc.lock, so it is unknown which one is applied.
    write_study(study, threshold=0.2)
    git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/again", git("rev-parse", "refs/exps/exec/EXEC_APPLY"))
    track_here()
    assert provenance("combined threshold=0.2 seed=0") == (None, None, baseline)


def test_a_split_has_one_colour_and_its_control_a_paler_one_and_a_reader_s_choice_stays(study: Path) -> None:
    track_here()
    write_study(study, threshold=0.1)
    track_here()
    found = {name: run.data.tags["mlflow.runColor"] for name, run in by_name().items()}
    assert found == {
        "full seed=0": "#000000",
        "combined threshold=0.0 seed=0": "#8c8c8c", "combined threshold=0.1 seed=0": "#8c8c8c",
        "combined-control threshold=0.0 seed=0": "#c6c6c6", "combined-control threshold=0.1 seed=0": "#c6c6c6",
    }  # fmt: skip
    MlflowClient(tracking_uri=store_address()).set_tag(
        by_name()["full seed=0"].info.run_id, "mlflow.runColor", "#ff0000"
    )
    assert track_here() == (0, 4, 0, [])
    assert by_name()["full seed=0"].data.tags["mlflow.runColor"] == "#ff0000"


def test_two_controls_of_one_split_have_two_pale_colours() -> None:
    found = colours(load_params(REPOSITORY / "presets" / "toy.yaml"))
    assert len(set(found.values())) == len(found)
    assert {"sketch-pruned", "sketch-pruned-control", "sketch-pruned-matched"} < set(found)


def test_parameters_have_the_names_and_values_of_the_params_file() -> None:
    content = yaml.safe_load("{a: {b: 1.0e-6, c: [x, 2], d: {}}, e: null, f: true, g: text}")
    assert flatten(content, "p.") == {"p.a.b": "1e-06", "p.a.c": "x, 2", "p.e": "null", "p.f": "true", "p.g": "text"}


def test_a_control_names_the_run_that_it_controls(study: Path) -> None:
    track_here()
    write_study(study, threshold=0.1)
    track_here()
    runs = by_name()
    for threshold in ("0.0", "0.1"):
        control = runs[f"combined-control threshold={threshold} seed=0"]
        assert control.data.tags["controls"] == "combined"
        assert control.data.tags["controls.run"] == runs[f"combined threshold={threshold} seed=0"].info.run_id
    assert not {"controls", "controls.run"} & set(runs["full seed=0"].data.tags)


def test_a_matched_control_names_the_run_that_it_controls(study: Path) -> None:
    own = {"size_of": "combined", "match": "class", "seed": 0}
    params = yaml.safe_load((study / "params.yaml").read_text())
    params["prune"] |= {"random": {}, "matched": {"combined-control": own}}
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    file = study / "metrics" / "prune" / "combined-control.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rule": "matched", "parameters": own}))
    assert track_here() == (4, 0, 0, [])
    runs = by_name()
    control = runs["combined-control threshold=0.0 seed=0"].data
    assert (control.tags["rule"], control.tags["controls"]) == ("matched", "combined")
    assert control.tags["controls.run"] == runs["combined threshold=0.0 seed=0"].info.run_id
    assert control.params["prune.matched.combined-control.match"] == "class"


@pytest.mark.parametrize(("keep", "threshold"), [(1.0, 0.1), (0.5, 0.1), (100, None)])
def test_a_control_of_a_count_does_not_depend_on_the_threshold(keep: float, threshold: float | None) -> None:
    rules = {
        "pruned": {"threshold": 0.1, "parameters": {"benchmarks": ["val"], "threshold": 0.1}},
        "control": {"threshold": None, "parameters": {"size_of": "pruned", "keep": keep, "seed": 0}},
    }
    assert threshold_of("control", rules.__getitem__) == threshold


def test_the_study_s_run_holds_the_study_level_metrics(study: Path) -> None:
    track_here()
    (run,) = by_name(STUDIES).values()
    assert run.data.metrics["compare/full/val/accuracy"] == 0.5
    assert run.data.metrics["embed/val/kept"] == 7
    assert "embed/of-another-study/kept" not in run.data.metrics
    assert run.data.params["repeats.seeds"] == "0"


def test_rates_are_logged_and_create_no_new_run(study: Path) -> None:
    write_rates(Path("metrics/train/full-0.json"), {"samples_per_second": 250.0})
    write_rates(Path("metrics/embed/val.json"), {"images_per_second": 90.0})
    assert track_here() == (4, 0, 0, [])
    write_rates(Path("metrics/train/full-0.json"), {"samples_per_second": 10.0})
    assert track_here() == (0, 4, 0, [])
    runs = by_name()
    assert runs["full seed=0"].data.metrics["train/samples_per_second"] == 250
    assert "train/samples_per_second" not in runs["combined threshold=0.0 seed=0"].data.metrics
    (study_run,) = by_name(STUDIES).values()
    assert study_run.data.metrics["embed/val/images_per_second"] == 90


def test_changed_results_are_updated_in_the_same_run(study: Path) -> None:
    track_here()
    write_study(study, accuracy=0.25)
    # The comparison is new. The lower value must replace the higher one.
    assert track_here() == (1, 3, 3, [])
    assert {run.data.metrics["zero_shot/val/top1"] for run in by_name().values()} == {0.25}
    assert track_here() == (0, 4, 0, [])


def test_an_interrupted_run_is_completed(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = MlflowClient.log_batch
    calls = []

    def cut_off(self: MlflowClient, *args: object, **options: object) -> None:
        calls.append(options)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", cut_off)
        with pytest.raises(KeyboardInterrupt):
            track_here()
    assert "RUNNING" in {run.info.status for run in by_name().values()} | {
        run.info.status for run in by_name(STUDIES).values()
    }
    tracked = track_here()
    assert tracked.logged + tracked.known == 4
    assert tracked.completed >= 1
    runs = by_name()
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert all(run.data.metrics["zero_shot/val/top1"] == 0.5 for run in runs.values())
    for run in runs.values():
        history = MlflowClient(tracking_uri=store_address()).get_metric_history(run.info.run_id, "train/loss")
        assert len(history) == 2


def test_a_study_s_run_holds_the_figures_of_its_own_report(study: Path) -> None:
    def figures(run: str) -> list[str]:
        files = MlflowClient(tracking_uri=store_address()).list_artifacts(by_name(STUDIES)[run].info.run_id, "figures")
        return [file.path for file in files]

    # The stage compare logs before there is a report.
    track_here()
    assert figures("study threshold=0.0 seeds=0") == []
    write_report(study)
    assert track_here() == (0, 4, 1, [])
    assert figures("study threshold=0.0 seeds=0") == ["figures/claim-a.png", "figures/profile-val.png"]
    # The report of threshold 0 is still there, and dvc.lock names it.
    report = yaml.safe_load((study / "dvc.lock").read_text())["stages"]["report"]
    write_study(study, threshold=0.1)
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    (study / "dvc.lock").write_text(yaml.safe_dump({**lock, "stages": {**lock["stages"], "report": report}}))
    track_here()
    assert figures("study threshold=0.1 seeds=0") == []
    # In the stage compare, dvc.lock is still that of the previous threshold; no figures are logged then either.
    write_study(study, accuracy=0.25, threshold=0.2)
    compare = lock["stages"] | {"report": report}
    (study / "dvc.lock").write_text(yaml.safe_dump({**lock, "stages": compare}))
    track_here()
    assert figures("study threshold=0.2 seeds=0") == []


@pytest.mark.parametrize("first", ["0" * 32, "f" * 32])
def test_two_processes_that_create_a_run_at_once_keep_the_same_one(study: Path, monkeypatch, first: str) -> None:
    """Two clones share no lock: the other creates its run after we searched and before we create ours."""
    track_here()
    known = by_name()["full seed=0"]
    client = MlflowClient(tracking_uri=store_address())
    # Give the existing run an id that sorts before, or after, every random id.
    import sqlite3

    with sqlite3.connect(study / "mlflow.db") as database:
        for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
            database.execute(f"UPDATE {table} SET run_uuid = ? WHERE run_uuid = ?", (first, known.info.run_id))
    real = MlflowClient.search_runs
    looks = []

    def search(self: MlflowClient, experiments: list[str], where: str, *rest: object) -> list:
        looks.append(where)
        blind = known.data.tags[IDENTITY] in where and sum(where == look for look in looks) == 1
        return [] if blind else real(self, experiments, where, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_runs", search)
        tracked = track_here()
    assert tracked.logged == (first == "f" * 32)
    assert len(by_name()) == 3
    stays = by_name()["full seed=0"]
    assert (stays.info.run_id == first) == (first == "0" * 32)
    assert client.get_run(stays.info.run_id).info.status == "FINISHED"
    assert track_here() == (0, 4, 0, [])


def test_any_number_of_artifacts_is_logged_once(study: Path) -> None:
    record = Record(
        STUDIES, "0" * 16, "many", {}, {}, {}, artifacts={f"figures/{n:060d}.png": b"x" for n in range(200)}
    )
    with open_store() as (client, experiments):
        run, _ = _find_or_create_run(client, experiments[STUDIES], record, {})
        assert _write_artifacts(client, run, record)
        assert not _write_artifacts(client, client.get_run(run.info.run_id), record)
        record.artifacts["figures/another.png"] = b"y"
        assert _write_artifacts(client, client.get_run(run.info.run_id), record)
        assert len(client.list_artifacts(run.info.run_id, "figures")) == 201


def test_artifacts_that_another_process_wrote_meanwhile_are_accepted(study: Path, monkeypatch) -> None:
    real = MlflowClient.set_tag

    def beaten(self: MlflowClient, run_id: str, key: str, value: str) -> None:
        if key != ARTIFACTS or ARTIFACTS in self.get_run(run_id).data.tags:
            return real(self, run_id, key, value)
        real(self, run_id, key, value)
        raise MlflowException("UNIQUE constraint failed: tags.key, tags.run_uuid")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_tag", beaten)
        assert track_here() == (4, 0, 0, [])
    assert track_here() == (0, 4, 0, [])


def test_unfinished_models_are_named_and_the_others_are_logged(study: Path) -> None:
    (study / "metrics" / "train" / "full-0.json").unlink()
    (study / "metrics" / "compare" / "compare.json").write_text("[]")
    evaluated = study / "metrics" / "evaluate" / "combined-0.json"
    evaluated.write_text(evaluated.read_text() + "\n")
    logged, known, _, unfinished = track_here()
    assert (logged, known) == (1, 0)
    assert sorted(unfinished)[:2] == [
        "metrics/evaluate/combined-0.json: has changed since dvc.lock was written; run `dvc repro`",
        "metrics/train/full-0.json: no such file; restore it or correct the path",
    ]
    (study / "dvc.lock").unlink()
    assert track_here().unfinished[0] == "dvc.lock: no such file; run `dvc repro` to write it"
    (study / "dvc.lock").write_text("[")
    assert "is not DVC's lock file" in track_here().unfinished[0]


def test_an_evaluation_of_another_model_is_not_logged(study: Path) -> None:
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    lock["stages"]["evaluate@full-0"]["deps"] = [{"path": "models/full-0", "md5": "another.dir"}]
    (study / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert track_here().unfinished == [
        "metrics/evaluate/full-0.json: belongs to another model than models/full-0; run `dvc repro`"
    ]


def refusal(monkeypatch: pytest.MonkeyPatch, address: str) -> str:
    """Return the error line for an address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    began = time.monotonic()
    with pytest.raises(SimgapError) as raised:
        track_here()
    assert time.monotonic() - began < 15
    line = str(raised.value)
    assert line.startswith("MLFLOW_TRACKING_URI: ")
    assert "postgresql+psycopg2://USER@HOST/NAME" in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("address", "named", "reason"),
    [
        ("http://user:secret@127.0.0.1:9", "http://127.0.0.1:9: ", "Connection refused"),
        ("http://user:sec/ret@127.0.0.1:9", "http://127.0.0.1:9: ", "%2F"),
        ("http://user:secret@127.0.0.1:9/a@b", "http://127.0.0.1:9/a@b: ", "Connection refused"),
        ("http://127.0.0.1:9/a@b?token=secret", "http://127.0.0.1:9/a@b: ", "Connection refused"),
        ("http://[::1", "http://[::1: ", "Invalid IPv6 URL"),
        ("postgresql+psycopg2://user:secret@127.0.0.1:9/runs", "postgresql+psycopg2://127.0.0.1:9/runs: ", "refused"),
        ("postgresql+psycopg2://user:sec/ret@127.0.0.1:9/runs", "postgresql+psycopg2://127.0.0.1:9/runs: ", "%2F"),
        ("postgresql+psycopg2://user:sec@ret@127.0.0.1:9/runs", "postgresql+psycopg2://127.0.0.1:9/runs: ", "%40"),
        ("postgresql+psycopg2://user:sec?ret@127.0.0.1:9/runs", "postgresql+psycopg2://127.0.0.1:9/runs: ", "%2F"),
        ("postgresql+psycopg2://127.0.0.1:9/runs?user=user@b&password=secret", "psycopg2://127.0.0.1:9/runs: ", "%40"),
        ("postgresql+psycopg2://127.0.0.1:9/runs?password=secret", "postgresql+psycopg2://127.0.0.1:9/runs: ", "refused"),
        ("postgresql+psycopg2://user:secret@127.0.0.1:port/runs", "127.0.0.1:port/runs: ", "port"),
        ("postgresql:user:secret@127.0.0.1/runs", "postgresql:127.0.0.1/runs: ", "parse"),
        ("postgresql+nosuch://user:secret@127.0.0.1/runs", "postgresql+nosuch://127.0.0.1/runs: ", "nosuch"),
        ("mysql://user:secret@127.0.0.1/runs", "mysql://127.0.0.1/runs: ", "No module named 'MySQLdb'"),
        ("sqlite:runs.db", "sqlite:runs.db: ", "parse"),
        ("sqlite:///no-database.db", "sqlite:///no-database.db: ", "file is not a database"),
        ("sqlite:////proc/me@work/runs.db", "sqlite:////proc/me@work/runs.db: ", "No such file or directory"),
        ("nosuch://user:secret@127.0.0.1", "nosuch://127.0.0.1: ", "unsupported URI"),
    ],
)  # fmt: skip
def test_a_store_that_is_invalid_or_down_gives_a_one_line_error_without_its_password(
    study: Path, monkeypatch: pytest.MonkeyPatch, address: str, named: str, reason: str
) -> None:
    (study / "no-database.db").write_text("something else, and longer than the header that SQLite reads\n" * 20)
    line = refusal(monkeypatch, address)
    assert named in line
    assert reason in line
    assert not [part for part in ("secret", "sec/", "sec@", "ret@", "9/ret", "user") if part in line]
    assert REQUEST_LIMIT <= 10


@pytest.mark.parametrize(
    "address", ["file:///a/u@h/mlruns", "/a/u@h/mlruns", "./u@h/mlruns", "sqlite:///u@h.db", "http://h:9/u@h"]
)
def test_a_path_is_not_taken_for_a_password(address: str) -> None:
    assert without_password(address) == address


def test_a_database_of_another_mlflow_version_gives_a_one_line_error(study: Path, monkeypatch) -> None:
    with sqlite3.connect(study / "newer.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('deadbeef0000')")
    assert "deadbeef0000" in refusal(monkeypatch, "sqlite:///newer.db")


def test_an_impossible_folder_of_runs_gives_a_one_line_error(study: Path, monkeypatch) -> None:
    (study / "file").write_text("")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert "Not a directory" in refusal(monkeypatch, f"file://{study}/file/mlruns")


@pytest.mark.slow
def test_a_database_that_accepts_but_does_not_answer_gives_a_one_line_error(study: Path, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        line = refusal(monkeypatch, f"postgresql+psycopg2://user:secret@127.0.0.1:{silent.getsockname()[1]}/runs")
    assert "timeout expired" in line
    assert "secret" not in line


@pytest.mark.slow
def test_processes_that_start_at_once_create_the_database_safely_and_lose_no_run(tmp_path: Path) -> None:
    thresholds = (0.1, 0.2, 0.3)
    with multiprocessing.get_context("spawn").Pool(3) as processes:
        arguments = [(str(tmp_path / str(value)), str(tmp_path), None, value) for value in thresholds]
        processes.map(track_at_once, arguments, chunksize=1)
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    names = [run.info.run_name for run in runs_in(database)]
    expected = [f"{split} threshold={value} seed=0" for split in SPLITS[1:] for value in thresholds]
    assert sorted(names) == sorted([*expected, "full seed=0"])
    assert len(runs_in(database, STUDIES)) == 3
    assert sha256_of(tmp_path / "mlflow.db")
