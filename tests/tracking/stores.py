"""Write a small finished study, and run MLflow servers to log it to."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from mlflow.tracking import MlflowClient

from simgap.params.load import load_params
from simgap.tracking.store import MODELS
from simgap.tracking.track import Tracked, track

SPLITS = ("full", "combined", "combined-control")


def write_params(folder: Path, threshold: float, splits: Sequence[str] = SPLITS) -> None:
    """Write the params of the toy study with a few trained splits, one benchmark and no drawn world."""
    content = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    content |= {
        "threshold": threshold,
        "draw": {},
        "ground_truth": {},
        "leaks": {"threshold": 0.9, "false_positives": 0.01},
        "runs": {split: {} for split in splits},
    }
    content["benchmarks"] |= {"names": ["val"], "accepted_licences": []}
    content["prune"] = {
        "imagenet-like": {split: {"benchmarks": ["val"]} for split in ("combined", "val-pruned")},
        "dissimilar": {}, "similar": {},
        "random": {
            f"{split}-control": {"size_of": split, "keep": 1.0, "seed": 0} for split in ("combined", "val-pruned")
        },
        "matched": {},
    }  # fmt: skip
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    shutil.copytree(REPOSITORY / "presets" / "models", folder / "presets" / "models", dirs_exist_ok=True)


def write_study(
    folder: Path,
    accuracy: float = 0.5,
    threshold: float = 0.0,
    accuracies: Mapping[str, float] | None = None,
    embedder: int = 0,
) -> Path:
    """Write params, metrics and dvc.lock as stages and DVC do. Every model depends on the threshold, except full's.

    The profiles depend on the embedder's seed, the models do not. The splits are those of `accuracies`; without it they are
    SPLITS, with the same accuracy.
    """
    accuracies = accuracies or dict.fromkeys(SPLITS, accuracy)
    folder.mkdir(exist_ok=True)
    write_params(folder, threshold, tuple(accuracies))

    def write(place: str, content: dict) -> dict:
        file = folder / "metrics" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        return {"path": f"metrics/{place}", "md5": hashlib.md5(file.read_bytes()).hexdigest(), "hash": "md5"}

    locked = {}
    for split, value in accuracies.items():
        controls = split.removesuffix("-control") if split.endswith("-control") else None
        pruned = split != "full" and not controls
        parameters: dict[str, object] = {"benchmarks": ["val"], "threshold": threshold} if pruned else {"eps": None}
        about = {
            "rule": "random" if controls else "imagenet-like" if pruned else "full", "kept": 10,
            "benchmarks": ["val"] if pruned else [], "threshold": threshold if pruned else None,
            "controls": controls, "kept_description": "rows", "reference_rows": True,
            "parameters": {"keep": 1.0, "seed": 0, "size_of": controls} if controls else parameters,
        }  # fmt: skip
        write(f"prune/{split}.json", about)
        write(f"profile/{split}.json", {"val/similarity/mean": 0.3 + embedder})
        model = {"path": f"models/{split}-0", "md5": f"{split}{'' if split == 'full' else threshold}.dir", "nfiles": 2}
        train = write(f"train/{split}-0.json", {"steps": 2, "loss": [[0, 4.0], [1, 3.0]], "kept_rows": len(split)})
        few_shot = {"few_shot/val/refused": False, "few_shot/val/top1_1_shot": value / 2}
        evaluate = write(f"evaluate/{split}-0.json", {"zero_shot/val/top1": value, **few_shot})
        pool = {"path": "data/worlds/toy/pool", "md5": "of-the-pool.dir"}
        code = {"path": "src/simgap/train", "md5": "of-the-code.dir"}
        locked[f"train@{split}-0"] = {"deps": [pool, code], "outs": [train, model]}
        locked[f"evaluate@{split}-0"] = {"deps": [model], "outs": [evaluate]}
    for name in ("pool", "reference", "val", "of-another-study"):
        write(f"embed/{name}.json", {"kept": 7})
    write("similarity/val.json", {"pool_rows": 7})
    embedder_folder = {"path": "models/embedder", "md5": f"embedder{embedder}.dir", "nfiles": 2}
    locked["embedder"] = {"deps": [pool], "outs": [write("embedder/embedder.json", {"steps": 2}), embedder_folder]}
    compared = write("compare/compare.json", {"full/val/accuracy": accuracy, "full/val/marked": "held out"})
    tables = {"path": "report/tables", "md5": f"tables-of-{accuracy}-{threshold}.dir"}
    locked["compare"] = {"outs": [compared, tables]}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": locked}))
    return folder


def write_report(folder: Path) -> None:
    """Write the figures of the study's report, as the last stage does."""
    (folder / "report" / "figures").mkdir(parents=True, exist_ok=True)
    for name in ("claim-a", "profile-val"):
        (folder / "report" / "figures" / f"{name}.png").write_bytes(name.encode())
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    tables = next(out for out in lock["stages"]["compare"]["outs"] if out["path"] == "report/tables")
    figures = {"path": "report/figures", "md5": "figures.dir"}
    lock["stages"]["report"] = {"deps": [tables], "outs": [figures]}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))


def track_here() -> Tracked:
    return track(load_params(Path("params.yaml")), Path("metrics"), Path("report"), Path("dvc.lock"))


def begin_study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a study to a folder, make it the working directory, and use the default store."""
    monkeypatch.setenv("DVC_ROOT", str(folder))
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    return write_study(folder)


def runs_in(store: str, experiment: str = MODELS) -> list[Any]:
    client = MlflowClient(tracking_uri=store)
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], max_results=1000)


def track_at_once(arguments: tuple[str, str, str | None, float], barrier: Any = None) -> Tracked:
    """Write a study to its own folder and log it. Each call runs in its own process."""
    folder, root, store, threshold = arguments
    os.environ |= {"DVC_ROOT": root, **({"MLFLOW_TRACKING_URI": store} if store else {})}
    os.chdir(write_study(Path(folder), threshold=threshold))
    if barrier is not None:
        barrier.wait()
    return track_here()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def running(command: list[str], ready: Callable[[], bool], **options: object) -> Iterator[None]:
    """Run a server, wait until it is ready, and stop it after the block."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **options)
        try:
            for _ in range(1500):
                if ready():
                    break
                try:
                    process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
                log.seek(0)
                raise AssertionError(log.read().decode())
            else:
                raise AssertionError(f"{command[0]} was not ready in five minutes")
            yield
        finally:
            # PostgreSQL stops at once on SIGINT; MLflow stops with all its workers on SIGTERM.
            process.send_signal(2 if "postgres" in command[0] else 15)
            process.wait(60)


@contextmanager
def mlflow_server(folder: Path, database: str) -> Iterator[str]:
    """Run an MLflow server on 127.0.0.1 that uses a database, and yield its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "of-the-server")]
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_DISABLE_TELEMETRY": "true"}
    address = f"http://127.0.0.1:{port}"
    with running(command, lambda: answers(f"{address}/health"), cwd=folder, env=environment):
        yield address


def _postgresql(name: str) -> str:
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *os.environ["PATH"].split(os.pathsep)]
    found = shutil.which(name, path=os.pathsep.join(map(str, folders)))
    if found is None:
        pytest.skip(f"no {name}: install Debian's postgresql")
    return found


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL cluster on 127.0.0.1, and yield the address of its database."""
    pytest.importorskip("psycopg2")
    initdb, postgres = _postgresql("initdb"), _postgresql("postgres")
    # PostgreSQL does not run as root, and other users cannot read pytest's folders.
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory() as folder:
        data, port = Path(folder) / "data", free_port()
        os.chown(folder, user.pw_uid, user.pw_gid)
        other = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        options = ["--auth", "trust", "--username", "simgap", "--encoding", "UTF8", "--no-sync"]
        subprocess.run([initdb, *options, str(data)], check=True, capture_output=True, cwd=folder, **other)
        command = [postgres, "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]

        def ready() -> bool:
            import psycopg2

            try:
                psycopg2.connect(host="127.0.0.1", port=port, user="simgap", dbname="postgres").close()
            except psycopg2.OperationalError:
                return False
            return True

        with running(command, ready, cwd=folder, **other):
            yield f"postgresql+psycopg2://simgap@127.0.0.1:{port}/postgres"


@contextmanager
def server_before(kind: str, folder: Path) -> Iterator[str]:
    """Run an MLflow server that uses SQLite or PostgreSQL, and yield its address."""
    if kind == "sqlite":
        with mlflow_server(folder, f"sqlite:///{folder / 'server.db'}") as address:
            yield address
    else:
        with postgresql() as database, mlflow_server(folder, database) as address:
            yield address
