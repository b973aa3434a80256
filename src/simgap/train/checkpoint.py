"""Save and restore the state of a training run, so that a killed run can resume."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output

CHECKPOINT = "checkpoint.pt"


def _read(path: Path) -> dict[str, Any]:
    try:
        # zipfile verifies the checksums, because torch.load does not. torch.load would accept weights that a damaged disk has
        # changed.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        # Every exception means that the file is damaged. zipfile and torch raise many kinds of exceptions for damaged
        # archives.
        damaged = path.name
    if damaged is not None:
        raise SimgapError(f"{path}: the checkpoint is damaged; remove it to train from the start")
    return stored


@dataclass
class TrainingState:
    """The state of a training run that changes in every step: the model, the optimizer and the losses.

    The state does not contain the position in the data or the learning rate, because the number of losses determines both.

    Attributes:
        clip: The model itself, not a DistributedDataParallel wrapper.
        optimizer: The optimizer of the model's parameters.
        losses: The loss of every step so far.
    """

    clip: torch.nn.Module
    optimizer: torch.optim.Optimizer
    losses: list[float]

    def save(self, folder: Path) -> None:
        """Write a checkpoint to the folder. The new checkpoint replaces the previous one.

        Raises:
            SimgapError: A weight is not finite, or the checkpoint cannot be written.
        """
        self.check()
        stored = {
            "clip": self.clip.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }
        try:
            with atomic_output(folder / CHECKPOINT) as partial:
                torch.save(stored, partial)
        except (RuntimeError, OSError) as error:
            # torch.save raises RuntimeError, not OSError, if the disk is full.
            raise SimgapError(
                f"{folder / CHECKPOINT}: cannot be written ({str(error).splitlines()[0]}); check permissions and free space"
            ) from None

    def check(self) -> None:
        """Check that all weights and batch norm statistics are finite.

        Raises:
            SimgapError: A value is not finite.
        """
        for name, tensor in self.clip.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise SimgapError(
                    f"the model's {name} is not finite after step {len(self.losses) - 1}; lower train.learning_rate"
                )

    def restore(self, folder: Path) -> None:
        """Load the checkpoint of a folder. Without a checkpoint, the state does not change.

        Raises:
            SimgapError: The checkpoint is damaged.
        """
        path = folder / CHECKPOINT
        if not path.is_file():
            return
        stored = _read(path)
        self.clip.load_state_dict(stored["clip"])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.losses = stored["losses"]
        torch.set_rng_state(stored["random"])
        if stored["random_cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(stored["random_cuda"])
