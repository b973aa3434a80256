"""The state of a training on disk, from which it goes on as if it had not been cut off."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from simgap.files import complete

CHECKPOINT = "checkpoint.pt"


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
        """Write the checkpoint, in place of the one before."""
        with complete(folder / CHECKPOINT) as partial:
            torch.save(
                {
                    "clip": self.clip.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "losses": self.losses,
                    "random": torch.get_rng_state(),
                },
                partial,
            )

    def restore(self, folder: Path) -> None:
        """Go on from the checkpoint, where there is one."""
        if (folder / CHECKPOINT).is_file():
            stored = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
            self.clip.load_state_dict(stored["clip"])
            self.optimizer.load_state_dict(stored["optimizer"])
            self.losses = stored["losses"]
            torch.set_rng_state(stored["random"])
