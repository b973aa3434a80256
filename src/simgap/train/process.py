"""One process of a training, alone or among those that torchrun started."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from simgap.core.errors import SimgapError

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Process:
    """Attributes:
    rank: number of the process, 0 the one that writes.
    world_size: number of processes.
    device: where it computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes checkpoints, model and progress."""
        return self.rank == 0

    def mean(self, value: torch.Tensor) -> float:
        """Give the mean over processes of a scalar that each of them has."""
        total = value.detach().clone()
        if self.world_size > 1:
            distributed.all_reduce(total)
        return float(total) / self.world_size

    def agree(self, value: int) -> bool:
        """Say whether all processes have the same value."""
        bounds = torch.tensor([value, -value], device=self.device)
        if self.world_size > 1:
            distributed.all_reduce(bounds, distributed.ReduceOp.MAX)
        return bool(bounds[0] == -bounds[1])

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            distributed.barrier()


def started_by_torchrun() -> bool:
    """Say whether this process is one of those that torchrun started."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


def _end_with_parent() -> None:
    """Have Linux kill this process when the one that started it ends, which SIGKILL gives no time to do so itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def join() -> Iterator[Process]:
    """Join the process group that torchrun's variables name, NCCL on GPUs and Gloo on processors; without them, be alone.

    Raises:
        SimgapError: another process ended while this one waited for it.
    """
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda and local >= torch.cuda.device_count():
        raise SimgapError(
            f"process {local}: this machine has {torch.cuda.device_count()} GPUs; start no more processes"
        )
    if cuda:
        torch.cuda.set_device(device)
    if not started_by_torchrun():
        yield Process(0, 1, device)
        return
    _end_with_parent()
    rank = os.environ["RANK"]
    try:
        distributed.init_process_group("nccl" if cuda else "gloo")
    except (RuntimeError, ValueError) as error:
        raise SimgapError(f"process {rank}: cannot join the others ({str(error).splitlines()[0]})") from None
    try:
        yield Process(distributed.get_rank(), distributed.get_world_size(), device)
    except RuntimeError as error:
        # Gloo has no exception of its own.
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise SimgapError(f"process {rank}: another process of the training ended or did not answer") from None
        raise
    finally:
        distributed.destroy_process_group()


def launch(processes: int, module: str) -> bool:
    """Run a stage's module with this process's own options in several processes, as torchrun does; exit 1 where one fails.

    Where one process is enough, or torchrun started this one, nothing happens.

    Returns:
        Whether it ran.

    Raises:
        SimgapError: a process was killed.
    """
    if processes == 1 or started_by_torchrun():
        return False
    # A process that fails has said why; what torchrun says of that is a page.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        logs_specs=DefaultLogsSpecs(),
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", module, *sys.argv[1:])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise SimgapError(f"process {rank} of {processes} was killed ({failure.signal_name()})") from None
        sys.exit(1)
    return True
