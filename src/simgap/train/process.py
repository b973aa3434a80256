"""Manage the processes of a training run: a single process, or several processes that torchrun starts."""

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

# With this option of prctl, Linux sends a signal to a process when the parent of the process ends. Python has no name for the
# option, so its number is defined here.
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Process:
    """One process of a training run.

    Attributes:
        rank: Number of the process, from 0.
        world_size: Number of processes.
        device: The device that the process computes on.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Return whether this process writes checkpoints, the model and the progress bar."""
        return self.rank == 0

    def mean(self, value: torch.Tensor) -> float:
        """Return the mean of a scalar over all processes."""
        total = value.detach().clone()
        if self.world_size > 1:
            distributed.all_reduce(total)
        return float(total) / self.world_size

    def agree(self, value: int) -> bool:
        """Return whether all processes called this function with the same value."""
        bounds = torch.tensor([value, -value], device=self.device)
        if self.world_size > 1:
            distributed.all_reduce(bounds, distributed.ReduceOp.MAX)
        return bool(bounds[0] == -bounds[1])

    def wait(self) -> None:
        """Wait until all processes have called this function."""
        if self.world_size > 1:
            distributed.barrier()


def started_by_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


def _end_with_parent() -> None:
    """Ask Linux to kill this process when the parent process ends.

    A parent that receives SIGKILL cannot end its child processes itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def join() -> Iterator[Process]:
    """Join the process group that torchrun's environment variables describe, with NCCL on GPUs and Gloo on CPUs.

    If torchrun did not start this process, the process trains alone.

    Yields:
        This process. The process leaves the group at the end of the `with` block.

    Raises:
        SimgapError: There are more processes than GPUs, the process cannot join the group, or another process ended.
    """
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda and local >= torch.cuda.device_count():
        raise SimgapError(
            f"process {local}: this machine has only {torch.cuda.device_count()} GPUs; start at most one process for each GPU"
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
        raise SimgapError(
            f"process {rank}: cannot join the process group ({str(error).splitlines()[0]}); start all processes with torchrun"
        ) from None
    try:
        yield Process(distributed.get_rank(), distributed.get_world_size(), device)
    except RuntimeError as error:
        # Gloo raises plain RuntimeErrors, so only the text shows that an error comes from Gloo.
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise SimgapError(
                f"process {rank}: another process ended or did not answer; read its message, then run the stage again"
            ) from None
        raise
    finally:
        distributed.destroy_process_group()


def launch(processes: int, module: str) -> bool:
    """Run a module in several processes, as torchrun does.

    Each process gets the command-line options of this process. The function does nothing if `processes` is 1, or if torchrun
    started this process. If a new process prints an error message and fails, this process exits with code 1.

    Args:
        processes: Number of processes to start.
        module: Name of the module of the stage.

    Returns:
        Whether the function ran the module.

    Raises:
        SimgapError: A signal killed one of the processes.
    """
    if processes == 1 or started_by_torchrun():
        return False
    # This line hides torchrun's long log messages. They are not needed, because a process that fails prints its own message.
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
            raise SimgapError(
                f"process {rank} of {processes} was killed ({failure.signal_name()}); run the stage again, with a smaller "
                "train.micro_batch_size if memory ran out"
            ) from None
        sys.exit(1)
    return True
