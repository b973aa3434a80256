"""The MLflow store of a repository: its address, and how it is opened."""

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

# Experiments are MLflow's name for lists of runs.
MODELS = "simgap"
STUDIES = "simgap studies"
# Seconds that a stage spends on tracking at most.
STAGE_LIMIT = 60
# Seconds for one request to a server. Each request is tried twice.
REQUEST_LIMIT = 10
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def root() -> Path:
    """Return the root of the main repository. A DVC experiment runs in a copy of it, and DVC_ROOT names the original."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def store_address() -> str:
    """Return the address of the store: MLFLOW_TRACKING_URI, or SQLite in the root of the main repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


def _scheme(address: str) -> str:
    return urlsplit(address).scheme.split("+")[0]


def _credentials(address: str) -> str:
    """Return the user name and password of an address, with the @ behind them. Paths and SQLite's addresses have none.

    A password that is not percent-encoded may contain any character. If an address can be split in several ways, the result
    is rather too long than too short. Only the path of an HTTP server may contain an @ too.
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
        # Without a host before it, a ? may belong to the password.
        rest = rest.partition("?")[0]
    return rest[: rest.rfind("@") + 1]


def without_password(address: str) -> str:
    """Return an address without user name, password and query. A query may hold a password too."""
    return address.replace(_credentials(address), "", 1).partition("?")[0]


def _refusal(address: str, error: Exception) -> SimgapError:
    """Return the error for a store that cannot be used, without its password."""
    # The text of an SQLAlchemy error ends with a link to its manual, that of the original error does not.
    reason = " ".join(str(getattr(error, "orig", None) or error).split())
    credentials, query = _credentials(address), address.partition("?")[2]
    if re.search(r"[/@?#\s]", credentials[:-1]) or "@" in query:
        # Libraries split such an address elsewhere, and their messages show pieces of the password.
        reason = "a password and a query must be percent-encoded: write / as %2F and @ as %40"
    elif isinstance(error, ImportError):
        reason += "; install this driver or name another"
    reason = reason.replace(address, without_password(address))
    for secret in (credentials, query):
        reason = reason.replace(secret, "")
    where = "MLFLOW_TRACKING_URI: " if os.environ.get("MLFLOW_TRACKING_URI") else ""
    return SimgapError(
        f"{where}MLflow's store {without_password(address)}: {reason}; it must be a server that answers, for example "
        "http://HOST:PORT, or a database, for example postgresql+psycopg2://USER@HOST/NAME; unset the variable to use SQLite"
    )


def _check_connection(address: str) -> None:
    """Connect to a database once. MLflow itself asks a database ten times, for more than a minute.

    Raises:
        ValueError, sqlalchemy.exc.SQLAlchemyError: The address is not valid, or nothing answers there.
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
        raise ValueError("its password holds a /, ? or #")


def _limit_requests() -> None:
    """Set how long MLflow and PostgreSQL wait for a server, unless the environment says otherwise."""
    limits = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_LIMIT),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # PostgreSQL's library waits as long as the operating system does by default.
        "PGCONNECT_TIMEOUT": str(REQUEST_LIMIT),
    }
    for name, value in limits.items():
        os.environ.setdefault(name, value)


@contextmanager
def open_store() -> Iterator[tuple[MlflowClient, dict[str, str]]]:
    """Open the store, and create it if there is none.

    A lock keeps out other processes of this repository: two processes that create a database at once both fail.

    Yields:
        The client, and the id of each experiment by name.

    Raises:
        SimgapError: The store cannot be used, or other processes held it for too long.
    """
    # MLflow reads some of the limits when it is imported.
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
        raise SimgapError(f"{lock}: another process that logs held it for {STAGE_LIMIT} s; try again later") from None
    # CommandError: the database belongs to another version of MLflow.
    except (MlflowException, SQLAlchemyError, CommandError) as error:
        raise _refusal(address, error) from None


def _experiment(client: MlflowClient, name: str, address: str) -> str:
    """Return the id of an experiment, and create it if there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # A server stores artifacts itself. Those of a database are in the main repository.
        artifacts = (root() / "mlartifacts").as_uri() if _scheme(address) in DATABASES else None
        try:
            return str(client.create_experiment(name, artifacts))
        except MlflowException:
            # Another repository's process may have created it in the meantime.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)
