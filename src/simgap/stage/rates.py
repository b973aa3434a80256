"""Rates of a stage: of no two runs the same, so they stand beside the metrics in a log that is in neither git nor DVC."""

from __future__ import annotations

import os
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import read_json, sha256_of, write_json


def _log(metrics: Path) -> Path:
    # By content: experiments that run at once have metrics of one name.
    return Path(os.environ.get("DVC_ROOT", ".")) / "logs" / f"{metrics.stem}-{sha256_of(metrics)[:16]}.json"


def write_rates(metrics: Path, rates: dict[str, float]) -> None:
    """Log the rates of the run that wrote a metrics file, at the main repository's root."""
    write_json(_log(metrics), rates)


def read_rates(metrics: Path) -> dict[str, float]:
    """Give the rates of the run that wrote a metrics file; none where it ran elsewhere.

    Raises:
        SimgapError: there is no such metrics file, or its log is damaged.
    """
    path = _log(metrics)
    if not path.exists():
        return {}
    rates = read_json(path)
    if not isinstance(rates, dict):
        raise SimgapError(f"{path}: is no log of rates; delete it")
    return rates
