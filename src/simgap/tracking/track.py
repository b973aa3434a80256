"""Mirror a study to MLflow, each result once; a stage never waits for it longer than a minute, and never fails by it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import click
from filelock import FileLock, Timeout

from simgap.core.errors import SimgapError
from simgap.tracking.records import MODELS, STUDIES, Record, records
from simgap.tracking.view import COLOUR_TAG, VIEW_TAG, accuracy_view

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

    from simgap.params.schema import Params

IDENTITY = "simgap.identity"
ARTIFACTS = "simgap.artifacts"
# Seconds: of a stage for all of tracking, and of one request to a server, which is tried twice.
STAGE_LIMIT = 60
REQUEST_LIMIT = 10
# Metrics and parameters of one request; MLflow takes 1000 and 100.
METRICS_BATCH = 1000
PARAMETERS_BATCH = 100
# Where DVC keeps an experiment: by its baseline, whose first two digits are a folder, and its name.
EXPERIMENT_REF = re.compile(r"refs/exps/([0-9a-f]{2}/[0-9a-f]{38})/(.+)")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SOURCE = Path(__file__).parents[2]


class Tracked(NamedTuple):
    """What tracking did: runs logged, runs that were there, those of them that it completed; and what is unfinished."""

    logged: int
    known: int
    completed: int
    unfinished: list[str]


def root() -> Path:
    """Give the main repository's root, in experiments too, which run in copies."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def store() -> str:
    """Give the address of the MLflow store: MLFLOW_TRACKING_URI, or SQLite at the main repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


def _secret(address: str) -> str:
    """Give the name and password that an address has before an @, with the @; paths, and what SQLite's addresses are, have none.

    A password that is not percent-encoded may hold anything: where an address could be parted in several ways, what is given is
    rather too long, but that of an HTTP server, whose path may hold an @, too.
    """
    found = re.fullmatch(r"([A-Za-z][\w+.-]*):/*(.*)", address, re.DOTALL)
    if found is None or found[1].split("+")[0] in ("sqlite", "file"):
        return ""
    rest: str = found[2]
    server = re.split(r"[/?#]", rest, maxsplit=1)[0]
    is_host = re.fullmatch(r"([^:@]*|\[.*\])(:[0-9]*)?", server) is not None
    if found[1] in ("http", "https") and (is_host or "@" in server):
        rest = server
    elif is_host:
        # Else a ? may be of the password.
        rest = rest.partition("?")[0]
    return rest[: rest.rfind("@") + 1]


def without_password(address: str) -> str:
    """Give an address without what stands before its @, nor its query: both may hold a password."""
    return address.replace(_secret(address), "", 1).partition("?")[0]


def _refused(address: str, error: Exception) -> SimgapError:
    # SQLAlchemy's own texts end with a link to its manual.
    reason = " ".join(str(getattr(error, "orig", None) or error).split())
    query = address.partition("?")[2]
    if re.search(r"[/@?#\s]", _secret(address)[:-1]) or "@" in query:
        # Libraries part such an address elsewhere, and show pieces of the password.
        reason = "a password and what follows a ? should be percent-encoded, as / by %2F and @ by %40"
    elif isinstance(error, ImportError):
        reason += "; install this driver or name another"
    reason = reason.replace(address, without_password(address))
    for secret in (_secret(address), query):
        reason = reason.replace(secret, "")
    where = "MLFLOW_TRACKING_URI: " if os.environ.get("MLFLOW_TRACKING_URI") else ""
    return SimgapError(
        f"{where}MLflow's store {without_password(address)}: {reason}; it should be a server that answers, as http://HOST:PORT, "
        "or a database, as postgresql+psycopg2://USER@HOST/NAME; without the variable it is SQLite"
    )


def _check_store(address: str) -> None:
    """Connect to a database once: MLflow asks one that does not answer ten times, for longer than a minute.

    Raises:
        ValueError, sqlalchemy.exc.SQLAlchemyError: the address is none, or nothing answers there.
        ImportError: there is no driver for it.
        OSError: the folder of an SQLite file cannot be made.
    """
    import sqlalchemy

    scheme = urlsplit(address).scheme.split("+")[0]
    if scheme in DATABASES:
        url = sqlalchemy.make_url(address)
        if scheme == "sqlite" and url.database and not url.database.startswith("file:"):
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).connect().close()
    elif _secret(address) and "@" not in urlsplit(address).netloc:
        raise ValueError("its password holds a /, ? or #")


@contextmanager
def opened() -> Iterator[tuple[MlflowClient, dict[str, str]]]:
    """Open the store, made where there is none, and give the ids of simgap's experiments in it by name.

    Others of this repository wait: two processes that create a database at once fail.

    Raises:
        SimgapError: the store cannot be reached or does not do as it should, or others take too long.
    """
    for name, value in (
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_LIMIT)),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        # Of PostgreSQL's own library, which else waits as long as the system does.
        ("PGCONNECT_TIMEOUT", str(REQUEST_LIMIT)),
    ):
        os.environ.setdefault(name, value)
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    address = store()
    try:
        with FileLock(root() / "mlflow.db.lock", timeout=STAGE_LIMIT):
            try:
                _check_store(address)
                client = MlflowClient(tracking_uri=address)
            except (SQLAlchemyError, ImportError, OSError, ValueError) as error:
                raise _refused(address, error) from None
            yield client, {name: _experiment(client, name, address) for name in (MODELS, STUDIES)}
    except Timeout:
        raise SimgapError(
            f"{root() / 'mlflow.db.lock'}: held for {STAGE_LIMIT} s by another process that logs; try again later"
        ) from None
    # The last is of a database of another version of MLflow.
    except (MlflowException, SQLAlchemyError, CommandError) as error:
        raise _refused(address, error) from None


def _experiment(client: MlflowClient, name: str, address: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # A server keeps artifacts itself; beside a database they lie in the main repository.
        local = urlsplit(address).scheme.split("+")[0] in DATABASES
        try:
            return str(client.create_experiment(name, (root() / "mlartifacts").as_uri() if local else None))
        except MlflowException:
            # Another repository's process was faster, or there is a reason that asking again gives.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def save_view(client: MlflowClient, experiment: str, params: Params) -> str:
    """Save the study's view of the runs where there is none, and give its key; what a reader made of it stays."""
    found = client.get_experiment(experiment)
    view = accuracy_view(params, found.creation_time)
    if f"{VIEW_TAG}{view.key}" not in found.tags:
        client.set_experiment_tag(experiment, f"{VIEW_TAG}{view.key}", view.value)
    return view.key


def _git(*arguments: str, text: str | None = None) -> str | None:
    finished = subprocess.run(["git", *arguments], capture_output=True, text=True, input=text, check=False)
    return finished.stdout.strip() if finished.returncode == 0 else None


def _experiment_here(lock_file: Path) -> dict[str, str]:
    """Give the DVC experiment that is checked out: the only one that left this dvc.lock, where the commit has another."""
    here = _git("hash-object", str(lock_file)) if lock_file.exists() else None
    refs = (_git("for-each-ref", "--format=%(refname)", "refs/exps") or "").splitlines()
    experiments = [found for ref in refs if (found := EXPERIMENT_REF.fullmatch(ref))]
    revisions = ["HEAD", *(found.group() for found in experiments)]
    blobs = _git("cat-file", "--batch-check=%(objectname)", text="".join(f"{rev}:./{lock_file}\n" for rev in revisions))
    if here is None or blobs is None:
        return {}
    committed, *left = blobs.splitlines()
    same = [found for found, blob in zip(experiments, left, strict=True) if blob == here]
    if committed == here or len(same) != 1:
        return {}
    return {"dvc.experiment": same[0].group(2), "dvc.baseline": same[0].group(1).replace("/", "")}


def _provenance(lock_file: Path) -> dict[str, str]:
    """Give where a run was logged from: no part of the result, so what the first who logs it says stays."""
    tags = {
        tag: os.environ[variable]
        for tag, variable in (("dvc.experiment", "DVC_EXP_NAME"), ("dvc.baseline", "DVC_EXP_BASELINE_REV"))
        if variable in os.environ
    } or _experiment_here(lock_file)
    head = _git("rev-parse", "HEAD")
    if head is not None:
        # MLflow's own name shows it in the column Version.
        tags |= dict.fromkeys(("git.commit", "mlflow.source.git.commit"), head)
    return tags


def _only_run(client: MlflowClient, experiment: str, record: Record, provenance: dict[str, str]) -> tuple[Run, bool]:
    """Give the run of a record, and whether it was created.

    Clones of a repository that log to one server share no lock. Whoever sees several runs of one identity deletes all but
    the first by id, and everybody looks after creating: so one stays.
    """
    from mlflow.entities import ViewType

    def found() -> list[Run]:
        runs = client.search_runs([experiment], f"tags.`{IDENTITY}` = '{record.identity}'", ViewType.ACTIVE_ONLY)
        return sorted(runs, key=lambda run: str(run.info.run_id))

    runs, own = found(), None
    if not runs:
        tags = {**record.tags, **provenance, IDENTITY: record.identity}
        own = client.create_run(experiment, run_name=record.name, tags=tags).info.run_id
        runs = found()
    for other in runs[1:]:
        client.delete_run(other.info.run_id)
    return runs[0], runs[0].info.run_id == own


def _write(client: MlflowClient, run: Run, record: Record, tags: dict[str, str]) -> bool:
    """Write what a run lacks of a record, and give whether it lacked anything."""
    from mlflow.entities import Metric, Param, RunTag

    known, begun = run.data, run.info.start_time
    parameters = [Param(key, value) for key, value in record.parameters.items() if key not in known.params]
    # Points have the time at which the run began: written again, by another process too, they are the same points.
    metrics = {**{key: value for key, value in record.rates.items() if key not in known.metrics}, **record.metrics}
    now = int(time.time() * 1000)
    points = [
        Metric(key, value, now if key in known.metrics else begun, 0)
        for key, value in metrics.items()
        if known.metrics.get(key) != value
    ]
    finished = run.info.status == "FINISHED"
    if not finished:
        points += [Metric(key, value, begun, step) for key, curve in record.curves.items() for step, value in curve]
    # Its colour a reader may have changed.
    changed = [
        RunTag(key, value)
        for key, value in tags.items()
        if known.tags.get(key) != value and not (key == COLOUR_TAG and key in known.tags)
    ]
    run_id = run.info.run_id
    for start in range(0, len(parameters), PARAMETERS_BATCH):
        client.log_batch(run_id, params=parameters[start : start + PARAMETERS_BATCH])
    for start in range(0, len(points), METRICS_BATCH):
        client.log_batch(run_id, metrics=points[start : start + METRICS_BATCH])
    if changed:
        client.log_batch(run_id, tags=changed)
    if not finished:
        client.set_terminated(run_id)
    return bool(parameters or points or changed or not finished)


def _write_artifacts(client: MlflowClient, run: Run, record: Record) -> bool:
    # One hash of all, since a tag holds 8,000 characters.
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


def track(params: Params, metrics: Path, report: Path, lock_file: Path) -> Tracked:
    """Log what MLflow lacks of a study, each result once, however often and by how many processes it is called.

    Args:
        params: the params file.
        metrics: folder of the study's metrics.
        report: folder of the study's report; there may be none.
        lock_file: dvc.lock, which has the hashes of models and inputs.

    Raises:
        SimgapError: the store cannot be reached or does not do as it should; what was logged until then stays.
    """
    from mlflow.exceptions import MlflowException

    wanted, unfinished = records(params, metrics, report, lock_file)
    runs: list[Run] = []
    ids: dict[tuple[str, int], str] = {}
    new: set[str] = set()
    lacked: set[str] = set()
    with opened() as (client, experiments):
        save_view(client, experiments[MODELS], params)
        provenance = _provenance(lock_file)
        for record in wanted:
            experiment = experiments[record.experiment]
            tags = dict(record.tags)
            if record.controls and record.controls in ids:
                tags["controls.run"] = ids[record.controls]
            run, created = _only_run(client, experiment, record, provenance)
            try:
                wrote = _write(client, run, record, tags)
            except MlflowException:
                # Another wrote the same at the same time, or deleted this run as the second of its identity.
                run, _ = _only_run(client, experiment, record, provenance)
                wrote = _write(client, run, record, tags)
            if record.key:
                ids[record.key] = run.info.run_id
            new |= {run.info.run_id} if created else set()
            lacked |= {run.info.run_id} if wrote else set()
            runs.append(run)
        # Last, since artifacts may lie in another store than the runs, which may fail by itself.
        for run, record in zip(runs, wanted, strict=True):
            try:
                wrote = _write_artifacts(client, run, record)
            except MlflowException:
                # Another wrote the same at the same time: then the run has them now.
                wrote = _write_artifacts(client, client.get_run(run.info.run_id), record)
            lacked |= {run.info.run_id} if wrote else set()
    return Tracked(len(new), len(wanted) - len(new), len(lacked - new), unfinished)


def try_track() -> None:
    """Do `simgap track` for a stage: in a process of its own, which is stopped after a minute. It never ends the stage."""
    command = [sys.executable, "-m", "simgap.cli.main", "track"]
    # An experiment's own code, as stages/__init__.py has it.
    paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    later = "`simgap track` logs the rest later"
    try:
        finished = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=STAGE_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        click.echo(
            f"tracking: stopped after {STAGE_LIMIT} s, {without_password(store())} is too slow; {later}", err=True
        )
        return
    lines = finished.stderr.strip().splitlines()
    if finished.returncode:
        click.echo(f"tracking: {lines[-1] if lines else f'ended with {finished.returncode}'}; {later}", err=True)
        return
    for line in [*finished.stdout.splitlines(), *(line for line in lines if line.startswith("not logged:"))]:
        click.echo(f"tracking: {line}", err=True)
