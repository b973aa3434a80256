"""Run a miniature study, change one thing at a time, and check which stages run again."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from code_walk import STAGES, used_by
from conftest import REPOSITORY
from mlflow.tracking import MlflowClient
from studies import ENVIRONMENT, check_against_naive, commit, miniature, repository, run, stages_run

from simgap.tracking.records import MODELS, STUDIES

pytestmark = pytest.mark.slow

TRAINED = ("full", "reference-only", "sketch-pruned", "sketch-pruned-control")
BENCHMARKS = ("val", "sketch")
# These stages show results, so they run after every change of a result.
SHOWN = {"compare", "report"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = repository(tmp_path_factory.mktemp("study"), "toy", miniature)
    ran = stages_run(run(folder, "dvc", "repro"))
    commit(folder)
    return folder, ran


@pytest.fixture
def study(finished: tuple[Path, list[str]]) -> Iterator[Path]:
    folder, _ = finished
    yield folder
    run(folder, "git", "reset", "--quiet", "--hard")
    run(folder, "git", "clean", "--quiet", "-fd")
    run(folder, "dvc", "checkout", "--force")


def mlflow_runs(folder: Path, experiment: str = MODELS) -> list:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=1000)


def prune_and_profile(*splits: str) -> set[str]:
    """Return the stages that prune and profile splits. Each split is given as rule@split."""
    return {f"{stage}-{split}" for split in splits for stage in ("prune", "profile")}


def train_and_evaluate(*splits: str) -> set[str]:
    return {f"{stage}@{split}" for split in splits for stage in ("train", "evaluate")}


def without_seed(stages: list[str]) -> set[str]:
    return {stage.removesuffix("-0") if stage.startswith(("train@", "evaluate@")) else stage for stage in stages}


def test_every_stage_runs_once_and_every_run_is_in_mlflow(finished) -> None:
    folder, ran = finished
    expected = {
        "code",
        "draw@toy",
        "embedder",
        "embed@pool",
        "embed@reference",
        "deduplicate",
        "ground-truth@toy",
        "leaks",
    }
    expected |= (
        SHOWN
        | {"galleries"}
        | {f"{stage}@{name}" for stage in ("embed-benchmark", "similarity") for name in BENCHMARKS}
    )
    expected |= {"profile-full@full"} | prune_and_profile("imagenet-like@val-pruned", "imagenet-like@sketch-pruned")
    expected |= prune_and_profile("dissimilar@nearest-quarter", "similar@similar-quarter")
    expected |= prune_and_profile(
        "random@sketch-pruned-control", "random@reference-only", "matched@sketch-pruned-matched"
    ) | train_and_evaluate(*TRAINED)
    assert len(ran) == len(set(ran))
    assert without_seed(ran) == expected
    names = [run.info.run_name for run in mlflow_runs(folder)]
    assert sorted(names) == [
        "full seed=0",
        "reference-only seed=0",
        "sketch-pruned threshold=0.0 seed=0",
        "sketch-pruned-control threshold=0.0 seed=0",
    ]
    assert [run.info.run_name for run in mlflow_runs(folder, STUDIES)] == ["study threshold=0.0 seeds=0"]
    runs = {run.data.tags["split"]: run for run in mlflow_runs(folder)}
    for split, run_ in runs.items():
        locked = yaml.safe_load((folder / "dvc.lock").read_text())["stages"][f"train@{split}-0"]
        assert run_.data.tags["model.md5"] in {out["md5"] for out in locked["outs"]}
    assert runs["sketch-pruned-control"].data.tags["controls.run"] == runs["sketch-pruned"].info.run_id


def hashes(folder: Path) -> list[tuple[str, str]]:
    """Return the split and the hash of every model that MLflow has."""
    return sorted((run.data.tags["split"], run.data.tags["model.md5"]) for run in mlflow_runs(folder))


def test_a_stage_finishes_and_warns_if_the_server_never_answers(study: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        output = run(
            study, "env", f"MLFLOW_TRACKING_URI={address}", "dvc", "repro", "--single-item", "--force", "compare"
        )
        seconds = time.monotonic() - began
    assert stages_run(output) == ["compare"]
    (line,) = [line for line in output.splitlines() if line.startswith("tracking:")]
    assert address in line
    assert line.endswith("; `simgap track` logs the rest later")
    assert seconds < 90
    assert run(study, "git", "status", "--porcelain") == ""


def test_the_default_graph_parses_and_has_every_stage() -> None:
    names = {
        line.split("@")[0].split()[0] for line in run(REPOSITORY, "dvc", "stage", "list", "--name-only").splitlines()
    }
    assert {
        "embedder",
        "similarity",
        "prune-imagenet-like",
        "prune-dissimilar",
        "profile-imagenet-like",
        "train",
        "evaluate",
        "leaks",
        "compare",
        "galleries",
        "report",
    } <= names


def test_columns_and_splits_equal_a_naive_recomputation(study: Path) -> None:
    check_against_naive(study)


def test_a_second_repro_runs_nothing(study: Path) -> None:
    assert stages_run(run(study, "dvc", "repro")) == []
    assert run(study, "git", "status", "--porcelain") == ""


def test_dvc_plots_shows_the_report_s_figures(study: Path, tmp_path: Path) -> None:
    figures = sorted((study / "report" / "figures").iterdir())
    run(study, "dvc", "plots", "show", "--out", str(tmp_path / "plots"))
    html = (tmp_path / "plots" / "index.html").read_text()
    assert {"claim-a-gap.png", "thresholds.png", "profile-val.png", "training.png"} <= {file.name for file in figures}
    for file in figures:
        assert html.count(file.name) >= 1
    shown = [file.read_bytes() for file in (tmp_path / "plots" / "static").iterdir()]
    assert all(file.read_bytes() in shown for file in figures)


def test_a_new_threshold_reruns_the_imagenet_like_splits_and_the_stages_that_use_their_rows(study: Path) -> None:
    ran = without_seed(stages_run(run(study, "dvc", "exp", "run", "-S", "threshold=0.05")))
    certain = (
        prune_and_profile("imagenet-like@val-pruned", "imagenet-like@sketch-pruned")
        | train_and_evaluate("sketch-pruned")
        | SHOWN
    )
    sized_by_it = prune_and_profile(
        "random@sketch-pruned-control", "matched@sketch-pruned-matched"
    ) | train_and_evaluate("sketch-pruned-control")
    assert certain <= ran
    assert ran - certain <= sized_by_it | {"ground-truth@toy", "galleries"}


def test_a_threshold_that_keeps_the_same_rows_retrains_nothing(study: Path) -> None:
    ran = stages_run(run(study, "dvc", "exp", "run", "-S", "threshold=1e-12"))
    assert prune_and_profile("imagenet-like@val-pruned", "imagenet-like@sketch-pruned") <= set(ran)
    assert not [stage for stage in ran if stage.startswith(("train", "evaluate", "embed", "similarity"))]


def test_a_parameter_of_a_split_reruns_the_split_and_its_controls(study: Path) -> None:
    change = "prune.imagenet-like.sketch-pruned.benchmarks=[sketch,val]"
    ran = without_seed(stages_run(run(study, "dvc", "exp", "run", "-S", change)))
    expected = prune_and_profile(
        "imagenet-like@sketch-pruned", "random@sketch-pruned-control", "matched@sketch-pruned-matched"
    )
    expected |= {"ground-truth@toy", "galleries"} | SHOWN
    assert ran == expected | train_and_evaluate("sketch-pruned", "sketch-pruned-control")


def test_a_new_trained_split_runs_its_own_stages_and_the_report(study: Path) -> None:
    ran = without_seed(stages_run(run(study, "dvc", "exp", "run", "-S", "+runs.val-pruned={}")))
    assert ran == train_and_evaluate("val-pruned") | SHOWN | {"galleries"}


def add_metric(folder: Path, name: str) -> None:
    file = folder / "src" / "simgap" / "evaluate" / "evaluate.py"
    anchor = 'f"{zero_shot}/top1": float(columns["correct"].mean()),'
    text = file.read_text()
    assert anchor in text
    file.write_text(text.replace(anchor, f'{anchor} f"{{zero_shot}}/{name}": 1,'))


def put_pool(folder: Path, **changes: object) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["pool"].update(changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def test_imported_embeddings_replace_embedding(study: Path) -> None:
    """Import the pool's own vectors in the format of clip-retrieval.

    Once the shards are known too, the splits and the model are the same as without an import.
    """
    own, foreign = study / "data" / "embeddings" / "pool", study / "data" / "foreign"
    kept = (study / "data" / "splits" / "full" / "keep.npy").read_bytes()
    locked = yaml.safe_load((study / "dvc.lock").read_text())["stages"]
    (foreign / "metadata").mkdir(parents=True)
    shutil.copytree(own / "img_emb", foreign / "img_emb")
    for path in (own / "metadata").iterdir():
        table = pq.read_table(path)
        renamed = pa.table({"image_path": table.column("key"), "caption": table.column("caption")})
        pq.write_table(renamed, foreign / "metadata" / path.name)
    try:
        put_pool(study, embed="data/foreign")
        targets = ["deduplicate", "similarity@val", "similarity@sketch"]
        assert set(stages_run(run(study, "dvc", "repro", *targets))) == {"embed@pool", *targets}
        assert (study / "data" / "splits" / "full" / "keep.npy").read_bytes() == kept
        refused = subprocess.run(
            ["dvc", "repro", "train@full-0"], cwd=study, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert refused.returncode != 0
        assert (
            "error: data/embeddings/pool: the metadata name no shards, and training and export need the shards"
            in refused.stderr
        )
        put_pool(study, embed="data/foreign", shard_digits=5)
        ran = stages_run(run(study, "dvc", "repro", "train@full-0"))
        assert ran == ["embed@pool", "deduplicate", "train@full-0"]
        again = yaml.safe_load((study / "dvc.lock").read_text())["stages"]
        assert again["train@full-0"]["outs"] == locked["train@full-0"]["outs"]
    finally:
        shutil.rmtree(foreign)


def test_an_edited_evaluation_reruns_evaluate_and_the_report(study: Path) -> None:
    add_metric(study, "edited")
    ran = without_seed(stages_run(run(study, "dvc", "repro")))
    assert ran == {f"evaluate@{split}" for split in TRAINED} | SHOWN | {"code"}


def edit(folder: Path, name: str) -> None:
    """Add a comment to a module and run the stage `code`."""
    with (folder / "src" / "simgap" / name).open("a") as stream:
        stream.write("# edited\n")
    assert stages_run(run(folder, "dvc", "repro", "code")) == ["code"]


def test_an_edited_parameter_block_reruns_only_the_fingerprints(study: Path) -> None:
    edit(study, "params/train.py")
    assert stages_run(run(study, "dvc", "repro")) == []


def test_an_edited_report_reruns_the_report(study: Path) -> None:
    edit(study, "report/page.py")
    assert stages_run(run(study, "dvc", "repro")) == ["report"]


@pytest.mark.parametrize("name", ["clip/encode.py", "core/files.py", "store/split.py"])
def test_an_edited_module_changes_the_stages_that_import_it(study: Path, name: str) -> None:
    """The expected stages come from a walk over the imports that does not use the fingerprints."""
    edit(study, name)
    module = f"simgap.{name.removesuffix('.py').replace('/', '.')}"
    users = {stage.stem for stage in STAGES if module in used_by(stage)}
    changed = json.loads(run(study, "dvc", "status", "--json"))
    deps = {
        stage: {path for change in changes if isinstance(change, dict) for path in change.get("changed deps", {})}
        for stage, changes in changed.items()
    }
    edited = [stage for stage, paths in deps.items() if any(path.startswith("code/") for path in paths)]
    found = {re.search(r"-m stages\.(\w+)", command_of(study, stage))[1] for stage in edited}
    # The miniature study has no instance of these stages.
    assert found == users - {"code", "copy", "manifest"}


def command_of(folder: Path, stage: str) -> str:
    return yaml.safe_load((folder / "dvc.lock").read_text())["stages"][stage]["cmd"]


def test_queued_and_temporary_experiments_run_their_own_code_and_lose_no_run(study: Path) -> None:
    known = len(mlflow_runs(study))
    for name, threshold in (("first", "0.03"), ("second", "0.06")):
        add_metric(study, f"metric_{name}")
        run(study, "dvc", "exp", "run", "--queue", "--name", name, "-S", f"threshold={threshold}")
        run(study, "git", "checkout", "--", "src", "params.yaml")
    add_metric(study, "metric_third")
    run(study, "dvc", "exp", "run", "--temp", "--name", "third", "-S", "threshold=0.09")
    run(study, "git", "checkout", "--", "src", "params.yaml")
    run(study, "dvc", "exp", "run", "--run-all", "--jobs", "2")
    runs = mlflow_runs(study)
    # Two splits depend on the threshold. The models of the other two stay the same, so their runs exist already.
    assert len(runs) == known + 3 * 2
    head = run(study, "git", "rev-parse", "HEAD").strip()
    for name, threshold in (("first", "0.03"), ("second", "0.06"), ("third", "0.09")):
        with_metric = [run for run in runs if f"zero_shot/val/metric_{name}" in run.data.metrics]
        assert sorted(run.data.tags["split"] for run in with_metric) == sorted(TRAINED)
        own = [run for run in with_metric if run.data.params.get("threshold") == threshold]
        assert sorted(run.data.tags["split"] for run in own) == ["sketch-pruned", "sketch-pruned-control"]
        assert {run.data.tags["dvc.experiment"] for run in own} == {name}
        assert {run.data.tags["dvc.baseline"] for run in own} == {head}
    thresholds = {run.data.tags["threshold"] for run in mlflow_runs(study, STUDIES)}
    assert {"0.03", "0.06", "0.09"} <= thresholds


def test_simgap_track_logs_an_experiment_from_a_colleague(study: Path, tmp_path: Path) -> None:
    run(study, "dvc", "exp", "run", "--temp", "--name", "shared", "-S", "threshold=0.04")
    run(tmp_path, "git", "clone", "--quiet", str(study), "clone")
    clone = tmp_path / "clone"
    run(clone, "dvc", "cache", "dir", "--local", str(study / ".dvc" / "cache"))
    run(clone, "dvc", "exp", "pull", "--no-cache", "origin", "shared")
    run(clone, "dvc", "exp", "apply", "shared")
    assert "MLflow: 5 runs logged, 0 runs were logged before" in run(clone, "simgap", "track")
    assert "MLflow: 0 runs logged, 5 runs were logged before" in run(clone, "simgap", "track")
    assert set(hashes(clone)) <= set(hashes(study))
    assert "sketch-pruned threshold=0.04 seed=0" in {run.info.run_name for run in mlflow_runs(clone)}


def test_a_run_from_an_empty_cache_gives_the_same_bytes(study: Path, tmp_path: Path) -> None:
    run(tmp_path, "git", "clone", "--quiet", str(study), "clone")
    clone = tmp_path / "clone"
    ran = stages_run(run(clone, "dvc", "repro", "--force"))
    assert "embedder" in ran
    assert run(clone, "git", "status", "--porcelain") == ""
    locked = yaml.safe_load((clone / "dvc.lock").read_text())["stages"]
    assert len(locked) == len(ran)
    assert "MLflow: 0 runs logged, 5 runs were logged before" in run(clone, "simgap", "track")


def test_mlflow_is_complete_after_a_fresh_clone_that_skipped_evaluation(study: Path, tmp_path: Path) -> None:
    run(tmp_path, "git", "clone", "--quiet", str(study), "clone")
    clone = tmp_path / "clone"
    run(clone, "git", "config", "user.name", "a")
    ran = stages_run(run(clone, "dvc", "repro"))
    assert not (clone / "mlflow.db").exists() or "compare" in ran
    run(clone, "simgap", "track")
    assert len(mlflow_runs(clone)) == len(TRAINED)
