"""Work that is cut into parts: one after another in this process, or as the tasks of a Ray cluster.

Ray is imported where it is asked for: it is an extra.
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
# Seconds in which the cluster's head answers, or is taken for unreachable.
REACHED_WITHIN = 10
# What an HTTP/2 client says first (RFC 9113, section 3.4), with an empty frame of settings.
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
# How often a part is begun anew whose machine or process died.
RETRIES = 3


@dataclass(frozen=True)
class Executor:
    """What runs the parts of a stage. It changes no result.

    Attributes:
        kind: `local`, this process, one part after another; or `ray`, a Ray cluster, one task for each part.
        address: HOST:PORT of the Ray cluster's head, or `auto`: the cluster that this machine belongs to, or that RAY_ADDRESS
            names.
    """

    kind: str
    address: str


LOCAL = Executor(kind="local", address="auto")


class Parts(Protocol):
    """Work in parts that do not need each other: what a part writes depends neither on who does it nor on what was before.

    With Ray it is pickled, sent once to each process and kept there, so that what it loads lazily is loaded once.
    """

    @property
    def sizes(self) -> Sequence[int]:
        """How much work each part is, in the progress bar's unit."""

    def path(self, number: int) -> Path:
        """Give the file or folder of a part, complete or absent; all of them lie in one scratch folder."""

    def write(self, number: int, out: Path, advance: Callable[[int], object]) -> None:
        """Write a part's file or folder to `out`; `advance` is told of the size that is done, bit by bit."""


def run_parts(executor: Executor, parts: Parts, description: str, unit: str) -> list[int]:
    """Write all parts that are not there yet, and give their numbers.

    With Ray a task has a GPU and its share of a machine's processors where machines have GPUs; elsewhere it has as many
    processors as the smallest machine, so that a machine works on a part with all that it has, as this process would. A
    part whose machine dies is begun anew on another one; those that are finished stay.

    Args:
        description: what the progress bar says, over `unit`.

    Raises:
        SimgapError: a part raised it; or Ray is not installed, the cluster cannot be reached, one of its machines does not
            see this folder or the scratch folder, or a part's machines died again and again.
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
    """Work in a folder, after a look whether this machine sees it and the marker as the one does that began.

    Raises:
        SimgapError: it does not.
    """
    try:
        os.chdir(folder)
        seen = marker.exists()
    except OSError:
        seen = False
    if not seen:
        raise SimgapError(
            f"{folder}: is not seen by {socket.gethostname()}; study, data and scratch folder should lie on a file system "
            "that all machines of the Ray cluster see"
        )


@functools.cache
def _fetched(reference: Any) -> Any:
    """Give this process's own copy of the work."""
    import ray

    return ray.get(reference)


def _write_part(held: Sequence[Any], folder: Path, marker: Path, number: int) -> None:
    """Write one part as a task of Ray; one that is there stays."""
    _check_seen(folder, marker)
    parts: Parts = _fetched(held[0])
    out = parts.path(number)
    if out.exists():
        return
    # One that was taken for dead may still be writing the same part.
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
    """Connect to a Ray cluster whose processes import this very source, and give the module of Ray."""
    try:
        import ray
    except ImportError:
        raise SimgapError(
            "resources.executor: ray, but Ray is not installed; run pip install 'simgap[ray]', or choose local"
        ) from None
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    where = f"resources.ray_address: {address}: cannot be reached"
    # Ray itself tries without end where something else listens. Its head speaks HTTP/2, whose first frame is one of settings.
    if (match := RAY_ADDRESS.fullmatch(address)) and match["host"]:
        try:
            with socket.create_connection((match["host"], int(match["port"])), REACHED_WITHIN) as connection:
                connection.sendall(HTTP2_GREETING)
                if "RAY_USE_TLS" not in os.environ and connection.recv(4)[3:] != b"\x04":
                    raise OSError("what answers there is not Ray")
        except (OSError, OverflowError) as error:
            raise SimgapError(f"{where} ({error}); it should be the head of a Ray cluster") from None
    source = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    try:
        ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": source}}, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        raise SimgapError(
            f"{where} ({_first_line(error)}); this machine should be part of a Ray cluster, see ray start"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _share(machines: Sequence[dict[str, float]]) -> dict[str, float]:
    """Give what a task asks for, from the resources of each machine; see `run_parts`.

    Raises:
        SimgapError: no machine has a processor for Ray.
    """
    with_gpus = [machine for machine in machines if machine.get("GPU")]
    if with_gpus:
        return {"num_gpus": 1, "num_cpus": min(machine.get("CPU", 0) // machine["GPU"] for machine in with_gpus)}
    processors = [machine["CPU"] for machine in machines if machine.get("CPU")]
    if not processors:
        raise SimgapError(
            "resources.ray_address: no machine of the Ray cluster has processors; see ray start --num-cpus"
        )
    return {"num_cpus": min(processors)}


def _check_machines(ray: Any, folder: Path, marker: Path, machines: Sequence[dict[str, Any]]) -> None:
    """Have every machine look for the marker before any of them works."""
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
            # It died meanwhile, and will get no task.
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
            # In a list it is not fetched for each task.
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
                f"part {number} of the Ray cluster's work: failed, at the last of {RETRIES + 1} times ({_first_line(error)})"
            ) from None
        finally:
            marker.unlink(missing_ok=True)
