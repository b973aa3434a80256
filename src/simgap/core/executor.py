"""Run the parts of a stage, either one after another in this process or as the tasks of a Ray cluster.

Ray is an optional dependency. The functions that use Ray import it themselves.
"""

from __future__ import annotations

import functools
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from simgap.core.errors import SimgapError
from simgap.core.files import remove
from simgap.core.progress import progress

RAY_ADDRESS = re.compile(r"auto|(?P<host>[^\s:/]+):(?P<port>[0-9]{1,5})")
SOURCE = Path(__file__).resolve().parents[2]
# If the head of the cluster does not answer within this many seconds, the stage stops with an error.
CONNECTION_TIMEOUT = 10
# `_connected` sends these bytes to test whether a server speaks HTTP/2. Every HTTP/2 client sends them first (RFC 9113,
# section 3.4). The bytes end with an empty settings frame.
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
# If the machine or process of a part dies, Ray repeats the part at most this many times.
RETRIES = 3


@dataclass(frozen=True)
class Executor:
    """Settings that say where the parts of a stage run. The results do not depend on these settings.

    Attributes:
        kind: `local` runs one part after another in this process. `ray` runs each part as a task of a Ray cluster.
        address: HOST:PORT of the Ray cluster's head, or `auto`. `auto` means the cluster that the environment variable
            RAY_ADDRESS names. If the variable is not set, `auto` means the cluster that this machine belongs to.
    """

    kind: str
    address: str


LOCAL = Executor(kind="local", address="auto")


class Parts(Protocol):
    """Work that consists of independent parts.

    The output of a part depends neither on the process that writes the output nor on the other parts. Ray pickles this
    object and sends it once to each process. The process keeps the object, so lazy loading happens once in each process.
    """

    @property
    def sizes(self) -> Sequence[int]:
        """The amount of work in each part, counted in the unit of the progress bar."""

    def path(self, number: int) -> Path:
        """Return the path of the output of a part.

        The output is either complete or absent. The outputs of all parts lie in one scratch folder.
        """

    def write(self, number: int, out: Path, advance: Callable[[int], object]) -> None:
        """Write the output of a part to `out`.

        The method calls `advance` after each step with the amount of work in that step.
        """


def run_parts(executor: Executor, parts: Parts, description: str, unit: str) -> list[int]:
    """Write all parts that do not exist yet.

    With Ray, each part is a task. If machines have GPUs, each task gets one GPU and an equal share of the processors of the
    machine. Without GPUs, each task gets as many processors as the smallest machine has. The smallest machine then works on
    one part at a time. If a machine dies, another machine repeats the part. Finished parts are kept.

    Args:
        executor: Settings that say where the parts run.
        parts: The work.
        description: Text before the progress bar.
        unit: Unit of the progress bar.

    Returns:
        The numbers of the parts that this call wrote.

    Raises:
        SimgapError: A part raised this error. Or Ray is not installed, or the cluster cannot be reached. Or a machine of the
            cluster does not see the current folder or the scratch folder. Or the machines that worked on one part died too
            often.
    """
    sizes = parts.sizes
    waiting = [number for number in range(len(sizes)) if not parts.path(number).exists()]
    done = sum(sizes) - sum(sizes[number] for number in waiting)
    bar: Any = progress(None, sum(sizes), description, unit, initial=done)
    with bar:
        if executor.kind == "ray" and waiting:
            _run_on_ray(executor, parts, waiting, bar)
        else:
            for number in waiting:
                parts.write(number, parts.path(number), bar.update)
    return waiting


def _check_seen(folder: Path, marker: Path) -> None:
    """Change to a folder after checking that this machine sees the folder and the marker file.

    Raises:
        SimgapError: This machine does not see the folder or the marker file.
    """
    try:
        os.chdir(folder)
        seen = marker.exists()
    except OSError:
        seen = False
    if not seen:
        raise SimgapError(
            f"{folder}: the machine {socket.gethostname()} does not see this folder; put the study, the data and the scratch "
            "folder on a file system that all machines of the Ray cluster share"
        )


@functools.cache
def _fetched(reference: Any) -> Any:
    """Fetch the work that a Ray reference points to. The cache makes each process fetch the work only once."""
    import ray

    return ray.get(reference)


def _write_part(held: Sequence[Any], folder: Path, marker: Path, number: int) -> None:
    """Write one part as a task of Ray. Do nothing if the output of the part exists already."""
    _check_seen(folder, marker)
    parts: Parts = _fetched(held[0])
    out = parts.path(number)
    if out.exists():
        return
    # Each attempt writes to a path of its own. Ray may start a new attempt while an old process is still writing this part.
    attempt = out.with_name(f"{out.name}.{uuid.uuid4().hex}")
    parts.write(number, attempt, lambda size: None)
    try:
        attempt.rename(out)
    except OSError:
        if not out.exists():
            raise
        remove(attempt)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to a Ray cluster, and yield the module `ray`.

    The processes of the cluster import simgap from the folder that this process uses.
    """
    try:
        import ray
    except ImportError:
        raise SimgapError(
            "resources.executor is 'ray', but Ray is not installed; run pip install 'simgap[ray]', or choose local"
        ) from None
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    where = f"resources.ray_address is {address!r}; it cannot be reached"
    # If the server at the address is not Ray, Ray tries to connect forever. This check stops with an error instead. Ray's
    # head speaks HTTP/2, and an HTTP/2 server sends a settings frame first. The check looks for this frame.
    if (match := RAY_ADDRESS.fullmatch(address)) and match["host"]:
        try:
            with socket.create_connection((match["host"], int(match["port"])), CONNECTION_TIMEOUT) as connection:
                connection.sendall(HTTP2_GREETING)
                if "RAY_USE_TLS" not in os.environ and connection.recv(4)[3:] != b"\x04":
                    raise OSError("the server there is not Ray")
        except (OSError, OverflowError) as error:
            raise SimgapError(f"{where} ({error}); it must be the head of a Ray cluster") from None
    source = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    try:
        ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": source}}, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        raise SimgapError(
            f"{where} ({_first_line(error)}); this machine must be part of a Ray cluster, see `ray start`"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _share(machines: Sequence[dict[str, float]]) -> dict[str, float]:
    """Compute the resources of one task from the resources of each machine. `run_parts` describes the rule.

    Raises:
        SimgapError: The machines have neither GPUs nor processors for Ray.
    """
    with_gpus = [machine for machine in machines if machine.get("GPU")]
    if with_gpus:
        return {"num_gpus": 1, "num_cpus": min(machine.get("CPU", 0) // machine["GPU"] for machine in with_gpus)}
    processors = [machine["CPU"] for machine in machines if machine.get("CPU")]
    if not processors:
        raise SimgapError(
            "resources.ray_address: no machine of the Ray cluster has processors; start one with `ray start --num-cpus`"
        )
    return {"num_cpus": min(processors)}


def _check_machines(ray: Any, folder: Path, marker: Path, machines: Sequence[dict[str, Any]]) -> None:
    """Check that every machine sees the folder and the marker file. Machines that died are skipped."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_check_seen)
    looks = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(machine["NodeID"], soft=False)).remote(
            folder, marker
        )
        for machine in machines
    ]
    for looked in looks:
        try:
            ray.get(looked)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError:
            # Ray gives no task to a machine that died. The check of such a machine is therefore skipped.
            continue


def _run_on_ray(executor: Executor, parts: Parts, waiting: Sequence[int], bar: Any) -> None:
    folder = Path.cwd()
    marker = parts.path(0).absolute().with_name(f"seen-by-all-{uuid.uuid4().hex}")
    with _connected(executor.address) as ray:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        number = None
        try:
            machines = [machine for machine in ray.nodes() if machine["Alive"]]
            _check_machines(ray, folder, marker, machines)
            share = _share([machine["Resources"] for machine in machines])
            task = ray.remote(max_retries=RETRIES, **share)(_write_part)
            # The list hides the reference from Ray. Ray would replace a direct reference by its content, and fetch the
            # content for each task.
            held = [ray.put(parts)]
            running = {task.remote(held, folder, marker, number): number for number in waiting}
            while running:
                finished, _ = ray.wait(list(running))
                number = running.pop(finished[0])
                ray.get(finished[0])
                bar.update(parts.sizes[number])
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, SimgapError):
                raise SimgapError(str(error.cause)) from None
            raise
        except ray.exceptions.RayError as error:
            raise SimgapError(
                f"Ray: part {number} failed {RETRIES + 1} times ({_first_line(error)}); read the logs of the cluster's machines"
            ) from None
        finally:
            marker.unlink(missing_ok=True)
