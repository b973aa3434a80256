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

# These are the names of two MLflow experiments. An MLflow experiment is a list of runs. Models and studies have
# separate lists, because they have different metrics.
MODELS = "simgap"
STUDIES = "simgap studies"
# A stage stops tracking after this many seconds, because a slow server must not delay a study.
STAGE_LIMIT = 60
# A request to a server fails after this many seconds. MLflow tries each request twice.
REQUEST_LIMIT = 10
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def root() -> Path:
    """Return the root of the main repository.

    A DVC experiment may run in a copy of the repository. The environment variable DVC_ROOT then contains the path of
    the main repository.
    """
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def store_address() -> str:
    """Return the address of the store.

    If the environment variable MLFLOW_TRACKING_URI is set, its value is the address. Otherwise the store is an SQLite
    file in the root of the main repository.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


def _scheme(address: str) -> str:
    return urlsplit(address).scheme.split("+")[0]


def _credentials(address: str) -> str:
    """Return the user name and the password in an address, with the @ after the password.

    The result is empty for paths and SQLite addresses. A password that is not percent-encoded may contain any
    character, so some addresses can be split in several ways. The function then returns the longest candidate. A caller
    who removed a shorter candidate could reveal a part of the password. The function does not search the path of an
    HTTP address, because this path may contain an @ too.
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
        # The query is not searched for an @. Here the ? follows a host, so it starts the query. In other addresses, the
        # ? may belong to the password.
        rest = rest.partition("?")[0]
    return rest[: rest.rfind("@") + 1]


def without_password(address: str) -> str:
    """Return an address without the user name, the password and the query.

    The query is removed because it may contain a password too.
    """
    return address.replace(_credentials(address), "", 1).partition("?")[0]


def _refusal(address: str, error: Exception) -> SimgapError:
    """Return the error for a store that cannot be used. The message of the error does not contain the password."""
    # The message of an SQLAlchemy error ends with a link to a manual. The original error is used instead, because it
    # has no such link.
    reason = " ".join(str(getattr(error, "orig", None) or error).split())
    credentials, query = _credentials(address), address.partition("?")[2]
    if re.search(r"[/@?#\s]", credentials[:-1]) or "@" in query:
        # The message of the library is replaced. Libraries split such an address at another character, so the message
        # could show a part of the password.
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
    """Connect to a database once, because a wrong address must fail early.

    MLflow itself would try to connect ten times, which takes more than a minute.

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

    The function sets environment variables. It does not change variables that the user has already set.
    """
    limits = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_LIMIT),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # PostgreSQL's library needs its own limit. By default, it waits for a connection as long as the operating
        # system allows.
        "PGCONNECT_TIMEOUT": str(REQUEST_LIMIT),
    }
    for name, value in limits.items():
        os.environ.setdefault(name, value)


@contextmanager
def open_store() -> Iterator[tuple[MlflowClient, dict[str, str]]]:
    """Open the MLflow store, and create it if it does not exist.

    If two processes create a database at the same time, both fail. The function therefore uses a file lock, which only
    one process of this repository can hold at a time.

    Yields:
        The MLflow client, and the id of each MLflow experiment by name.

    Raises:
        SimgapError: The store cannot be used, or another process has locked it for too long.
    """
    # The limits must be set before the import of MLflow, because MLflow reads some of them during the import.
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
    """Return the id of an MLflow experiment, and create the experiment if it does not exist."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # A database cannot store artifacts, so they go to a folder of the main repository. A server stores artifacts
        # itself.
        artifacts = (root() / "mlartifacts").as_uri() if _scheme(address) in DATABASES else None
        try:
            return str(client.create_experiment(name, artifacts))
        except MlflowException:
            # This process searches again, because a process of another repository may have created the experiment after
            # the first search.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)
