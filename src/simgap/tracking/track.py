"""Log every result that MLflow does not have yet.

A stage waits for MLflow for at most one minute. A problem with MLflow never makes a stage fail.
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

# Each run has two tags: the identity of its record and the hash of its artifacts. With these tags, a later call finds
# the run and sees whether the artifacts are complete.
IDENTITY = "simgap.identity"
ARTIFACTS = "simgap.artifacts"
# MLflow accepts at most this many metrics, and at most this many parameters, in one request.
METRICS_BATCH = 1000
PARAMETERS_BATCH = 100
# `try_track` starts a process, which imports simgap from this folder.
SOURCE = Path(__file__).parents[2]


class Tracked(NamedTuple):
    """The result of tracking a study.

    Attributes:
        logged: Number of new runs.
        known: Number of runs that already existed.
        completed: Number of existing runs that were incomplete and were completed.
        unfinished: The reason for each result that could not be logged.
    """

    logged: int
    known: int
    completed: int
    unfinished: list[str]


def _find_or_create_run(
    client: MlflowClient, experiment: str, record: Record, provenance: dict[str, str]
) -> tuple[Run, bool]:
    """Return the run of a record, and create the run if it does not exist.

    Clones of a repository share no lock. So two clones may each create a run for one record on a server. A process
    therefore searches again after it has created a run. It keeps the run with the lowest id, and deletes all other runs
    with this identity.

    Args:
        client: MLflow client of the store.
        experiment: Id of the MLflow experiment.
        record: The record.
        provenance: Tags for a new run. An existing run does not get these tags.

    Returns:
        The run, and whether this call created the run.
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
    """Return the metrics of a record that must be written to a run.

    The result has each value that is missing from the run, and each value that differs. If the run is not finished, it
    also has all curves.
    """
    from mlflow.entities import Metric

    known, started, now = run.data.metrics, run.info.start_time, int(time.time() * 1000)
    rates = {key: value for key, value in record.rates.items() if key not in known}
    # New values get the start time of the run. If two processes write a value with equal times, MLflow stores only one
    # point.
    values = [
        Metric(key, value, now if key in known else started, 0)
        for key, value in {**rates, **record.metrics}.items()
        if known.get(key) != value
    ]
    curves = {} if run.info.status == "FINISHED" else record.curves
    return values + [Metric(key, value, started, step) for key, curve in curves.items() for step, value in curve]


def _missing_tags(run: Run, tags: dict[str, str]) -> list[RunTag]:
    """Return the tags that are missing from a run or differ from its tags.

    The result never replaces the colour of a run, because a user may have changed the colour.
    """
    from mlflow.entities import RunTag

    known = run.data.tags
    missing = {key: value for key, value in tags.items() if known.get(key) != value}
    return [RunTag(key, value) for key, value in missing.items() if key != COLOUR_TAG or key not in known]


def _write(client: MlflowClient, run: Run, record: Record, tags: dict[str, str]) -> bool:
    """Write the missing parameters, metrics and tags of a run, and return whether the run was incomplete."""
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
    """Write the artifacts of a record to a run, and return whether the function wrote them.

    The function writes nothing if the run already has these artifacts.
    """
    # One hash covers all artifacts. Many hashes would not fit into a tag, which has at most 8,000 characters.
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
    """Log records to an open store, and count the runs.

    Attributes:
        new: Ids of the runs that this object created.
        written: Ids of the runs to which this object wrote something.
    """

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
            # Another process wrote these values at the same time, or deleted this run as a duplicate. One more try is
            # enough.
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
                # Another process may have written these artifacts at the same time. The run is loaded again to see
                # them.
                wrote = _write_artifacts(self._client, self._client.get_run(run.info.run_id), record)
            self.written |= {run.info.run_id} if wrote else set()


def track(params: Params, metrics: Path, report: Path, lock_file: Path) -> Tracked:
    """Log every result of a study that MLflow does not have yet.

    Each result is logged once, even if several processes call this function several times.

    Args:
        params: The params file.
        metrics: Folder of the metrics of the study.
        report: Folder of the report of the study. It may not exist.
        lock_file: The file dvc.lock, which contains the hashes of models and inputs.

    Returns:
        The numbers of new, known and completed runs, and the reason for each result that could not be logged.

    Raises:
        SimgapError: The store cannot be used. Runs that were logged before the error stay.
    """
    wanted, unfinished = read_records(params, metrics, report, lock_file)
    with open_store() as (client, experiments):
        save_view(client, experiments[MODELS], params)
        log = _Log(client, experiments, provenance_tags(lock_file))
        for record in wanted:
            log.run(record)
        # Artifacts are written last, because their store may fail while the store of runs works. Then at least all runs
        # are complete.
        log.artifacts()
    return Tracked(len(log.new), len(wanted) - len(log.new), len(log.written - log.new), unfinished)


def try_track() -> None:
    """Run `simgap track` at the end of a stage.

    The command runs in its own process for at most one minute. If the command fails, the function prints the reason in
    one line and returns normally. The stage then continues.
    """
    command = [sys.executable, "-m", "simgap.cli", "track"]
    # The new process must import the same code as this process. A DVC experiment may have its own copy of the code, see
    # stages/__init__.py.
    paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    later = "`simgap track` logs the rest later"
    try:
        finished = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=STAGE_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        address = without_password(store_address())
        click.echo(f"tracking: stopped after {STAGE_LIMIT} s, because {address} is too slow; {later}", err=True)
        return
    lines = finished.stderr.strip().splitlines()
    if finished.returncode:
        click.echo(f"tracking: {lines[-1] if lines else f'failed with {finished.returncode}'}; {later}", err=True)
        return
    for line in [*finished.stdout.splitlines(), *(line for line in lines if line.startswith("not logged:"))]:
        click.echo(f"tracking: {line}", err=True)
