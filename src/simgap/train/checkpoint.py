"""The state of a training on disk, from which it goes on as if it had not been cut off."""

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
        # torch.load checks no sum: it finds no fault with numbers that changed on the disk.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        # Of the many kinds that damaged archives raise in either reader.
        damaged = path.name
    if damaged is not None:
        raise SimgapError(f"{path}: is damaged; remove it to train from the start")
    return stored


@dataclass
class State:
    """What a training step changes; the position in the data and the schedule follow from the number of losses.

    Attributes:
        clip: the model, not wrapped.
        losses: of every step so far.
    """

    clip: torch.nn.Module
    optimizer: torch.optim.Optimizer
    losses: list[float]

    def save(self, folder: Path) -> None:
        """Write the checkpoint, in place of the one before.

        Raises:
            SimgapError: a weight is not finite, or the checkpoint cannot be written.
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
            # torch's writer has a RuntimeError for a full disk.
            raise SimgapError(f"{folder / CHECKPOINT}: cannot be written ({str(error).splitlines()[0]})") from None

    def check(self) -> None:
        """Refuse weights that are not finite, those of batch norms' statistics too.

        Raises:
            SimgapError: one is not.
        """
        for name, tensor in self.clip.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise SimgapError(f"{name}: is not finite after step {len(self.losses) - 1}; lower train.learning_rate")

    def restore(self, folder: Path) -> None:
        """Go on from the checkpoint, where there is one.

        Raises:
            SimgapError: the checkpoint is damaged.
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
