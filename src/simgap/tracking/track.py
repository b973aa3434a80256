"""Mirror a study's metrics to MLflow, each result once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from filelock import FileLock

from simgap.errors import SimgapError
from simgap.files import read_json

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from simgap.params import Params

EXPERIMENT = "simgap"
IDENTITY = "simgap.identity"
BATCH = 900


@dataclass(frozen=True)
class Record:
    """One MLflow run: its name, parameters, tags, metrics, and curves as [step, value] pairs."""

    name: str
    parameters: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]

    @property
    def identity(self) -> str:
        """A hash of all that the record says: the same result is the same run, whenever and wherever it was made."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _numbers(content: dict[str, Any], prefix: str) -> dict[str, float]:
    return {
        f"{prefix}/{key}": float(value)
        for key, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _texts(content: dict[str, Any], prefix: str) -> dict[str, str]:
    return {
        f"{prefix}{key}": ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in content.items()
    }


def _model_record(params: Params, metrics: Path, split: str, seed: int) -> Record:
    name = f"{split}-{seed}"
    train = read_json(metrics / "train" / f"{name}.json")
    prune = read_json(metrics / "prune" / f"{split}.json")
    # The row order is a hash of keys, of no use beside other runs.
    about = {key: prune[key] for key in ("rule", "benchmarks", "threshold", "controls", "kept_end", "reference_rows")}
    parameters = {
        "split": split,
        "seed": str(seed),
        "kept": str(prune["kept"]),
        **_texts(about, ""),
        **_texts(asdict(params.train_parameters(params.runs[split], f"runs.{split}")), "train."),
        **_texts(prune["parameters"], "rule."),
    }
    return Record(
        name=name,
        parameters=parameters,
        tags={
            "kind": "model",
            "split": split,
            "seed": str(seed),
            "rule": prune["rule"],
            "threshold": str(prune["threshold"]),
        },
        metrics={
            **_numbers(prune, "prune"),
            **_numbers(read_json(metrics / "profile" / f"{split}.json"), "profile"),
            **_numbers(train, "train"),
            **_numbers(read_json(metrics / "evaluate" / f"{name}.json"), "evaluate"),
        },
        curves={"train/loss": [(int(step), float(loss)) for step, loss in train["loss"]]},
    )


def _study_record(params: Params, metrics: Path) -> Record:
    parts: dict[str, float] = {}
    for stage in ("draw", "embed", "similarity", "compare"):
        for path in sorted((metrics / stage).glob("*.json")):
            parts |= _numbers(read_json(path), f"{stage}/{path.stem}" if stage != "compare" else stage)
    parameters = {
        "threshold": str(params.threshold),
        "runs": ", ".join(params.runs),
        "seeds": ", ".join(map(str, params.repeats.seeds)),
        "benchmarks": ", ".join(params.benchmarks.names),
        "pool": params.pool.path,
    }
    return Record("study", parameters, {"kind": "study", "threshold": str(params.threshold)}, parts, {})


def records(params: Params, metrics: Path) -> Iterator[Record]:
    """Yield what a finished study has to say: one record a model, and one of the study.

    Raises:
        SimgapError: a metrics file is missing.
    """
    for split in params.runs:
        for seed in params.repeats.seeds:
            yield _model_record(params, metrics, split, seed)
    yield _study_record(params, metrics)


def _log(client: MlflowClient, experiment: str, record: Record) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    # Names of an experiment, where DVC runs one; not a part of the identity, since they say nothing of the result.
    names = {
        f"dvc.{key.lower()}": os.environ[f"DVC_EXP_{key}"]
        for key in ("NAME", "BASELINE_REV")
        if f"DVC_EXP_{key}" in os.environ
    }
    run = client.create_run(experiment, run_name=record.name, tags={**record.tags, **names})
    points = [Metric(key, value, now, 0) for key, value in record.metrics.items()]
    points += [Metric(key, value, now, step) for key, curve in record.curves.items() for step, value in curve]
    client.log_batch(run.info.run_id, params=[Param(key, value[:6000]) for key, value in record.parameters.items()])
    for start in range(0, len(points), BATCH):
        client.log_batch(run.info.run_id, metrics=points[start : start + BATCH])
    # Last: a run that was cut off has no identity and is logged again.
    client.log_batch(run.info.run_id, tags=[RunTag(IDENTITY, record.identity)])
    client.set_terminated(run.info.run_id)


def database() -> Path:
    """Give the path of the MLflow database: at the main repository's root, in experiments too."""
    return (Path(os.environ.get("DVC_ROOT", ".")) / "mlflow.db").resolve()


def track(params: Params, metrics: Path) -> tuple[int, int]:
    """Log what MLflow lacks of a finished study; give how many runs were logged and how many were there.

    Raises:
        SimgapError: a metrics file is missing.
    """
    from mlflow.entities import ViewType
    from mlflow.tracking import MlflowClient

    path = database()
    wanted = list(records(params, metrics))
    # Two processes that create the database at once fail; two that log one result would log it twice.
    with FileLock(path.with_suffix(".db.lock")):
        client = MlflowClient(tracking_uri=f"sqlite:///{path}")
        found = client.get_experiment_by_name(EXPERIMENT)
        artifacts = (path.parent / "mlartifacts").as_uri()
        experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        missing = [
            record
            for record in wanted
            if not client.search_runs([experiment], f"tags.`{IDENTITY}` = '{record.identity}'", ViewType.ACTIVE_ONLY, 1)
        ]
        for record in missing:
            _log(client, experiment, record)
    return len(missing), len(wanted) - len(missing)


def try_track(params: Params, metrics: Path) -> None:
    """Track, or say in one line that it failed: no stage ends on account of tracking."""
    try:
        track(params, metrics)
    except Exception as error:
        reason = str(error) if isinstance(error, SimgapError) else f"{type(error).__name__}: {error}".splitlines()[0]
        click.echo(f"tracking: nothing logged ({reason}); `simgap track` logs it later", err=True)
