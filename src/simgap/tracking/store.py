"""Determine the address of the MLflow store of a repository, and open the store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from simgap.core.errors import SimgapError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# MLflow calls a list of runs an experiment. The runs of models and of studies have different metrics, so each has a
# list.
MODELS = "simgap"
STUDIES = "simgap studies"
# A stage stops tracking after this many seconds, so that a slow server cannot delay a study.
STAGE_LIMIT = 60
# A request to a server fails after this many seconds. Each request is tried twice.
REQUEST_LIMIT = 10
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def root() -> Path:
    """Return the root of the main repository.

    A DVC experiment runs in a copy of the repository. The environment variable DVC_ROOT then names the original.
    """
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def store_address() -> str:
    """Return the address of the store.

    The environment variable MLFLOW_TRACKING_URI has priority. Otherwise the store is an SQLite file in the root of the
    main repository.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


def _scheme(address: str) -> str:
    return urlsplit(address).scheme.split("+")[0]


def _credentials(address: str) -> str:
    """Return the user name and password in an address, with the @ after them.

    The result is empty for paths and SQLite addresses. A password that is not percent-encoded may contain any
    character, so some addresses can be split in several ways. The function then returns the longest candidate, because
    a shorter candidate could reveal a part of the password. The path of an HTTP server may contain an @ too, so this
    path is not searched.
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
        # The text before the ? is a host, so the ? starts the query. Without a host, the ? may belong to the password.
        rest = rest.partition("?")[0]
    return rest[: rest.rfind("@") + 1]


def without_password(address: str) -> str:
    """Return an address without the user name, the password and the query.

    The query is removed because it may contain a password too.
    """
    return address.replace(_credentials(address), "", 1).partition("?")[0]


def _refusal(address: str, error: Exception) -> SimgapError:
    """Return the error for a store that cannot be used. The message does not contain the password."""
    # The message of an SQLAlchemy error ends with a link to a manual. The original error has no such link.
    reason = " ".join(str(getattr(error, "orig", None) or error).split())
    credentials, query = _credentials(address), address.partition("?")[2]
    if re.search(r"[/@?#\s]", credentials[:-1]) or "@" in query:
        # Libraries split such an address at another character, so their messages would show a part of the password.
        reason = "a password and a query must be percent-encoded: write / as %2F and @ as %40"
    elif isinstance(error, ImportError):
        reason += "; install this driver or name another driver"
    reason = reason.replace(address, without_password(address))
    for secret in (credentials, query):
        reason = reason.replace(secret, "")
    where = "MLFLOW_TRACKING_URI: " if os.environ.get("MLFLOW_TRACKING_URI") else ""
    return SimgapError(
        f"{where}MLflow's store {without_password(address)}: {reason}; it must be a running server, for example "
        "http://HOST:PORT, or a database, for example postgresql+psycopg2://USER@HOST/NAME. Unset the variable "
        "MLFLOW_TRACKING_URI to use SQLite"
    )


def _check_connection(address: str) -> None:
    """Connect to a database once, so that a wrong address fails early.

    MLflow itself retries a connection ten times, which takes more than a minute.

    Raises:
        ValueError: The address is not valid.
        sqlalchemy.exc.SQLAlchemyError: The address is not valid, or no database is available there.
        ImportError: The driver is not installed.
        OSError: The folder of an SQLite file cannot be created.
    """
    import sqlalchemy

    if _scheme(address) in DATABASES:
        url = sqlalchemy.make_url(address)
        if _scheme(address) == "sqlite" and url.database and not url.database.startswith("file:"):
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).connect().close()
    elif _credentials(address) and "@" not in urlsplit(address).netloc:
        raise ValueError("the password contains a /, ? or #, which must be percent-encoded")


def _limit_requests() -> None:
    """Limit how long MLflow and PostgreSQL wait for a server.

    Environment variables that are already set have priority.
    """
    limits = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_LIMIT),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # By default, PostgreSQL's library waits for a connection as long as the operating system allows.
        "PGCONNECT_TIMEOUT": str(REQUEST_LIMIT),
    }
    for name, value in limits.items():
        os.environ.setdefault(name, value)


@contextmanager
def open_store() -> Iterator[tuple[MlflowClient, dict[str, str]]]:
    """Open the store, and create it if it does not exist.

    If two processes create a database at the same time, both fail. So a file lock admits one process of this repository
    at a time.

    Yields:
        The client, and the id of each experiment by name.

    Raises:
        SimgapError: The store cannot be used, or another process has locked it for too long.
    """
    # MLflow reads some of the limits when it is imported, so they must be set before.
    _limit_requests()
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    address, lock = store_address(), root() / "mlflow.db.lock"
    try:
        with FileLock(lock, timeout=STAGE_LIMIT):
            try:
                _check_connection(address)
                client = MlflowClient(tracking_uri=address)
            except (SQLAlchemyError, ImportError, OSError, ValueError) as error:
                raise _refusal(address, error) from None
            yield client, {name: _experiment(client, name, address) for name in (MODELS, STUDIES)}
    except Timeout:
        raise SimgapError(
            f"{lock}: another process has locked the store for {STAGE_LIMIT} s; try again later"
        ) from None
    # Alembic raises CommandError if another version of MLflow created the database.
    except (MlflowException, SQLAlchemyError, CommandError) as error:
        raise _refusal(address, error) from None


def _experiment(client: MlflowClient, name: str, address: str) -> str:
    """Return the id of an experiment, and create the experiment if it does not exist."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # A server stores artifacts itself. A database cannot, so its artifacts go to a folder of the main repository.
        artifacts = (root() / "mlartifacts").as_uri() if _scheme(address) in DATABASES else None
        try:
            return str(client.create_experiment(name, artifacts))
        except MlflowException:
            # A process of another repository may have created the experiment after the search above.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)
