"""Mirror a study's metrics to MLflow, each result once."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from filelock import FileLock

from simgap.errors import SimgapError
from simgap.files import read_json
from simgap.tracking.rates import read_rates

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from simgap.params import Params

EXPERIMENT = "simgap"
IDENTITY = "simgap.identity"
BATCH = 900


@dataclass(frozen=True)
class Record:
    """One MLflow run: its name, parameters, tags, metrics, curves as [step, value] pairs, and rates."""

    name: str
    parameters: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]
    rates: dict[str, float]

    @property
    def identity(self) -> str:
        """A hash of the result, which rates are no part of: the same result is the same run, wherever it was made."""
        result = {key: value for key, value in asdict(self).items() if key != "rates"}
        return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


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
        rates=_numbers(read_rates(metrics / "train" / f"{name}.json"), "train"),
    )


def _study_record(params: Params, metrics: Path) -> Record:
    parts = _numbers(read_json(metrics / "compare" / "compare.json"), "compare")
    names = params.benchmarks.names
    instances = {"draw": list(params.draw), "embed": ["pool", "reference", *names], "similarity": names}
    instances["ground-truth"] = list(params.ground_truth)
    rates: dict[str, float] = {}
    for stage, of_stage in instances.items():
        for name in of_stage:
            path = metrics / stage / f"{name}.json"
            parts |= _numbers(read_json(path), f"{stage}/{name}")
            rates |= _numbers(read_rates(path), f"{stage}/{name}")
    parameters = {
        "threshold": str(params.threshold),
        "runs": ", ".join(params.runs),
        "seeds": ", ".join(map(str, params.repeats.seeds)),
        "benchmarks": ", ".join(params.benchmarks.names),
        "pool": params.pool.path,
    }
    return Record("study", parameters, {"kind": "study", "threshold": str(params.threshold)}, parts, {}, rates)


def records(params: Params, metrics: Path) -> tuple[list[Record], list[str]]:
    """Give what a study has to say, one record a model and one of the study, and why what is unfinished says nothing."""
    found: list[Record] = []
    unfinished: list[str] = []
    makers = [functools.partial(_study_record, params, metrics)]
    for split in params.runs:
        makers += [functools.partial(_model_record, params, metrics, split, seed) for seed in params.repeats.seeds]
    for maker in makers:
        try:
            found.append(maker())
        except SimgapError as error:
            unfinished.append(str(error))
        except (KeyError, TypeError, AttributeError) as error:
            unfinished.append(f"{metrics}: incomplete ({error!r})")
    return found, unfinished


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
    points = [Metric(key, value, now, 0) for key, value in {**record.metrics, **record.rates}.items()]
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


def track(params: Params, metrics: Path) -> tuple[int, int, list[str]]:
    """Log what MLflow lacks of a study: give how many runs were logged, how many were there, and what is unfinished."""
    from mlflow.entities import ViewType
    from mlflow.tracking import MlflowClient

    path = database()
    wanted, unfinished = records(params, metrics)
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
    return len(missing), len(wanted) - len(missing), unfinished


def try_track(params: Params, metrics: Path) -> None:
    """Track, or say in one line that it failed: no stage ends on account of tracking."""
    try:
        _, _, unfinished = track(params, metrics)
        for reason in unfinished:
            click.echo(f"tracking: not logged: {reason}", err=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        click.echo(f"tracking: nothing logged ({reason}); `simgap track` logs it later", err=True)
