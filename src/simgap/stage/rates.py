"""Write and read the rates of a stage, for example samples per second.

Rates differ between equal runs, so the metrics do not contain them. They go to a log file that neither git nor DVC tracks.
"""

from __future__ import annotations

import os
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import read_json, sha256_of, write_json


def _log(metrics: Path) -> Path:
    # Experiments that run at the same time have metrics files of the same name. The hash gives each run a log of its own.
    return Path(os.environ.get("DVC_ROOT", ".")) / "logs" / f"{metrics.stem}-{sha256_of(metrics)[:16]}.json"


def write_rates(metrics: Path, rates: dict[str, float]) -> None:
    """Log the rates of the run that wrote a metrics file. The log lies in the folder `logs` of the main repository."""
    write_json(_log(metrics), rates)


def read_rates(metrics: Path) -> dict[str, float]:
    """Return the rates of the run that wrote a metrics file, by name. The result is {} if the run was on another machine.

    Raises:
        SimgapError: The metrics file does not exist, or the log of the run is damaged.
    """
    path = _log(metrics)
    if not path.exists():
        return {}
    rates = read_json(path)
    if not isinstance(rates, dict):
        raise SimgapError(f"{path}: is not a log of rates; delete the file")
    return rates
