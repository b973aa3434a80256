"""The training parameters of a run."""

from __future__ import annotations

from dataclasses import replace

from simgap.params.schema import Params
from simgap.params.train import TrainParameters


def train_parameters(params: Params, run: str) -> TrainParameters:
    """Return the training parameters of a run: the block `train` with the keys that `runs.<run>` overrides."""
    return replace(params.train, **params.runs[run])
