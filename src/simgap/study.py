"""A study of another preset, beside the one in the workspace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from simgap.errors import SimgapError
from simgap.params import load_params
from simgap.stage import PARAMS_FILE

PRESETS = Path("presets")


def run_study(preset: str, data: Path | None) -> str:
    """Run a preset's study with `dvc exp run --temp -n PRESET`, and give its table of accuracies.

    The experiment takes its params file from the workspace, where the preset stands only until DVC has copied it.

    Raises:
        SimgapError: the preset is unknown, the data are not where they should be, or DVC reports a failure.
    """
    file = PRESETS / f"{preset}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
        raise SimgapError(f"PRESET: {preset!r} is unknown; choose from {known}")
    params = load_params(file)
    if data is not None and not data.is_dir():
        raise SimgapError(f"DATA: {data} is no folder")
    sources = [f"copy.{name}.source={data.resolve()}" for name in params.copy] if data is not None else []
    command = ["dvc", "exp", "run", "--temp", "--name", preset]
    command += [part for source in sources for part in ("--set-param", source)]
    own = PARAMS_FILE.read_bytes()
    try:
        PARAMS_FILE.write_bytes(file.read_bytes())
        finished = subprocess.run(command, check=False)
    finally:
        PARAMS_FILE.write_bytes(own)
    if finished.returncode:
        raise SimgapError(f"{' '.join(command)}: ended with {finished.returncode}; its messages are above")
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    import dvc.api

    return str(dvc.api.read("report/table.txt", rev=preset))
