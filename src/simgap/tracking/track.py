"""Log every result that MLflow does not have yet, each once.

A stage waits for MLflow for one minute at most, and never fails because of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from simgap.tracking.provenance import provenance_tags
from simgap.tracking.records import Record, read_records
from simgap.tracking.store import MODELS, STAGE_LIMIT, open_store, store_address, without_password
from simgap.tracking.view import COLOUR_TAG, save_view

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, Run, RunTag
    from mlflow.tracking import MlflowClient

    from simgap.params.schema import Params

# Tags: the identity of a run's record, and a hash of the artifacts that the run has.
IDENTITY = "simgap.identity"
ARTIFACTS = "simgap.artifacts"
# Metrics and parameters in one request: the most that MLflow accepts.
METRICS_BATCH = 1000
PARAMETERS_BATCH = 100
# The folder that contains the package simgap, for the process that `try_track` starts.
SOURCE = Path(__file__).parents[2]


class Tracked(NamedTuple):
    """What tracking did.

    Attributes:
        logged: Number of new runs.
        known: Number of runs that existed.
        completed: Number of known runs that lacked something.
        unfinished: The reason for each result that could not be logged.
    """

    logged: int
    known: int
    completed: int
    unfinished: list[str]


def _find_or_create_run(
    client: MlflowClient, experiment: str, record: Record, provenance: dict[str, str]
) -> tuple[Run, bool]:
    """Return the run of a record, and whether it was created.

    Clones of a repository that log to one server share no lock, so two of them may create the same run. Every process
    searches again after creating, and deletes all runs of the identity except the one with the lowest id. So one run stays.
    """
    from mlflow.entities import ViewType

    def find() -> list[Run]:
        runs = client.search_runs([experiment], f"tags.`{IDENTITY}` = '{record.identity}'", ViewType.ACTIVE_ONLY)
        return sorted(runs, key=lambda run: str(run.info.run_id))

    runs, own = find(), None
    if not runs:
        tags = {**record.tags, **provenance, IDENTITY: record.identity}
        own = client.create_run(experiment, run_name=record.name, tags=tags).info.run_id
        runs = find()
    for duplicate in runs[1:]:
        client.delete_run(duplicate.info.run_id)
    return runs[0], runs[0].info.run_id == own


def _missing_parameters(run: Run, record: Record) -> list[Param]:
    from mlflow.entities import Param

    return [Param(key, value) for key, value in record.parameters.items() if key not in run.data.params]


def _missing_metrics(run: Run, record: Record) -> list[Metric]:
    """Return the values that a run lacks or has otherwise, and the curves if the run is not finished."""
    from mlflow.entities import Metric

    known, started, now = run.data.metrics, run.info.start_time, int(time.time() * 1000)
    rates = {key: value for key, value in record.rates.items() if key not in known}
    # New values have the time at which the run started. If two processes write them, they are the same point.
    values = [
        Metric(key, value, now if key in known else started, 0)
        for key, value in {**rates, **record.metrics}.items()
        if known.get(key) != value
    ]
    curves = {} if run.info.status == "FINISHED" else record.curves
    return values + [Metric(key, value, started, step) for key, curve in curves.items() for step, value in curve]


def _missing_tags(run: Run, tags: dict[str, str]) -> list[RunTag]:
    """Return the tags that a run lacks or has otherwise. A colour stays, since a reader may have changed it."""
    from mlflow.entities import RunTag

    known = run.data.tags
    missing = {key: value for key, value in tags.items() if known.get(key) != value}
    return [RunTag(key, value) for key, value in missing.items() if key != COLOUR_TAG or key not in known]


def _write(client: MlflowClient, run: Run, record: Record, tags: dict[str, str]) -> bool:
    """Write the missing or changed entries of a run, and return whether there were any."""
    run_id, finished = run.info.run_id, run.info.status == "FINISHED"
    parameters, metrics = _missing_parameters(run, record), _missing_metrics(run, record)
    missing_tags = _missing_tags(run, tags)
    for start in range(0, len(parameters), PARAMETERS_BATCH):
        client.log_batch(run_id, params=parameters[start : start + PARAMETERS_BATCH])
    for start in range(0, len(metrics), METRICS_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_BATCH])
    if missing_tags:
        client.log_batch(run_id, tags=missing_tags)
    if not finished:
        client.set_terminated(run_id)
    return bool(parameters or metrics or missing_tags or not finished)


def _write_artifacts(client: MlflowClient, run: Run, record: Record) -> bool:
    """Write the artifacts of a run if it has others, and return whether it had."""
    # One hash of all artifacts, since a tag holds 8,000 characters.
    content = hashlib.sha256()
    for name, data in sorted(record.artifacts.items()):
        content.update(json.dumps([name, hashlib.sha256(data).hexdigest()]).encode())
    digest = content.hexdigest()[:16]
    if not record.artifacts or run.data.tags.get(ARTIFACTS) == digest:
        return False
    with tempfile.TemporaryDirectory() as folder:
        for name, data in record.artifacts.items():
            file = Path(folder) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        client.log_artifacts(run.info.run_id, folder)
    client.set_tag(run.info.run_id, ARTIFACTS, digest)
    return True


class _Log:
    """Logs records to an open store, and counts what it does."""

    def __init__(self, client: MlflowClient, experiments: dict[str, str], provenance: dict[str, str]) -> None:
        self._client, self._experiments, self._provenance = client, experiments, provenance
        self._runs: list[tuple[Run, Record]] = []
        self.new: set[str] = set()
        self.written: set[str] = set()

    def run(self, record: Record) -> None:
        """Log a record without its artifacts."""
        from mlflow.exceptions import MlflowException

        client, experiment = self._client, self._experiments[record.experiment]
        controlled = [run.info.run_id for run, other in self._runs if other.key and other.key == record.controls]
        tags = {**record.tags, **({"controls.run": controlled[0]} if controlled else {})}
        run, created = _find_or_create_run(client, experiment, record, self._provenance)
        try:
            wrote = _write(client, run, record, tags)
        except MlflowException:
            # Another process wrote the same at the same time, or deleted this run as a duplicate.
            run, _ = _find_or_create_run(client, experiment, record, self._provenance)
            wrote = _write(client, run, record, tags)
        self._runs.append((run, record))
        self.new |= {run.info.run_id} if created else set()
        self.written |= {run.info.run_id} if wrote else set()

    def artifacts(self) -> None:
        """Log the artifacts of all records."""
        from mlflow.exceptions import MlflowException

        for run, record in self._runs:
            try:
                wrote = _write_artifacts(self._client, run, record)
            except MlflowException:
                # Another process may have written the same at the same time; then the run has them now.
                wrote = _write_artifacts(self._client, self._client.get_run(run.info.run_id), record)
            self.written |= {run.info.run_id} if wrote else set()


def track(params: Params, metrics: Path, report: Path, lock_file: Path) -> Tracked:
    """Log every result of a study that MLflow does not have yet.

    Each result is logged once, also if several processes call this several times.

    Args:
        params: The params file.
        metrics: Folder of the study's metrics.
        report: Folder of the study's report. It may not exist.
        lock_file: dvc.lock, which holds the hashes of models and inputs.

    Raises:
        SimgapError: The store cannot be used. What was logged before stays.
    """
    wanted, unfinished = read_records(params, metrics, report, lock_file)
    with open_store() as (client, experiments):
        save_view(client, experiments[MODELS], params)
        log = _Log(client, experiments, provenance_tags(lock_file))
        for record in wanted:
            log.run(record)
        # Artifacts come last: they may be in another store than the runs, which may fail alone.
        log.artifacts()
    return Tracked(len(log.new), len(wanted) - len(log.new), len(log.written - log.new), unfinished)


def try_track() -> None:
    """Run `simgap track` for a stage, in its own process for one minute at most. The stage goes on if it fails."""
    command = [sys.executable, "-m", "simgap.cli", "track"]
    # A DVC experiment must use its own code, see stages/__init__.py.
    paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    later = "`simgap track` logs the rest later"
    try:
        finished = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=STAGE_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        address = without_password(store_address())
        click.echo(f"tracking: stopped after {STAGE_LIMIT} s, {address} is too slow; {later}", err=True)
        return
    lines = finished.stderr.strip().splitlines()
    if finished.returncode:
        click.echo(f"tracking: {lines[-1] if lines else f'failed with {finished.returncode}'}; {later}", err=True)
        return
    for line in [*finished.stdout.splitlines(), *(line for line in lines if line.startswith("not logged:"))]:
        click.echo(f"tracking: {line}", err=True)
