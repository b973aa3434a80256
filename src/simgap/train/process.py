"""One process of a training, alone or among those that torchrun started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


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

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            distributed.barrier()


def started_by_torchrun() -> bool:
    """Say whether this process is one of those that torchrun started."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


@contextmanager
def join() -> Iterator[Process]:
    """Join the process group that torchrun's variables name, NCCL on GPUs and Gloo on processors; without them, be alone."""
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if not started_by_torchrun():
        yield Process(0, 1, device)
        return
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Process(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()


def launch(processes: int, module: str) -> bool:
    """Run a stage's module with this process's own options in several processes, by torchrun; end with its exit code.

    Where one process is enough, or torchrun started this one, nothing happens.

    Returns:
        Whether it ran.
    """
    if processes == 1 or started_by_torchrun():
        return False
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    code = subprocess.run([*torchrun, "-m", module, *sys.argv[1:]], check=False).returncode
    if code:
        sys.exit(code)
    return True
