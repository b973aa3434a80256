"""Run the study of another preset beside the one in the workspace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.params.load import PARAMS_FILE, load_params

PRESETS = Path("presets")
# DVC runs experiments beside the workspace in copies of it, in this folder.
COPIES = Path(".dvc", "tmp", "exps", "standalone")


def run_beside(preset: Path, command: list[str]) -> int:
    """Run a `dvc exp run --temp` with `preset` as its params file, and return its exit code.

    DVC copies the workspace when the command starts. The preset stands in the workspace only until that copy exists.
    """
    known = set(COPIES.glob("*"))
    own = PARAMS_FILE.read_bytes()
    try:
        PARAMS_FILE.write_bytes(preset.read_bytes())
        running = subprocess.Popen(command)
        while running.poll() is None:
            if any((copy / PARAMS_FILE).is_file() for copy in set(COPIES.glob("*")) - known):
                break
            try:
                running.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
    finally:
        PARAMS_FILE.write_bytes(own)
    return running.wait()


def _data_options(preset: str, copied: list[str], data: Path) -> list[str]:
    """Return the options of `dvc exp run` that name `data` as the source of a preset's copies."""
    if not data.is_dir():
        raise SimgapError(f"DATA: {data} is not a folder")
    if not copied:
        raise SimgapError(f"DATA: {preset} copies no data; leave DATA out")
    source = data.resolve()
    if "'" in str(source):
        raise SimgapError(f"DATA: {source} has a quote in its path; use a path without quotes")
    return [part for name in copied for part in ("--set-param", f"copy.{name}.source='{source}'")]


def run_study(preset: str, data: Path | None) -> str:
    """Run the study of a preset as a DVC experiment of the same name, and return its table of accuracies.

    Args:
        preset: Name of a file in `presets/`.
        data: Folder of the data that the preset copies.

    Raises:
        SimgapError: The preset is unknown, the data are missing, an experiment of that name exists, or DVC reports an error.
    """
    file = PRESETS / f"{preset}.yaml"
    if not file.is_file():
        choices = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
        raise SimgapError(f"PRESET: {preset!r} is unknown; choose from {choices}")
    params = load_params(file)
    options = [] if data is None else _data_options(preset, list(params.copy), data)
    known = subprocess.run(["dvc", "exp", "list", "--name-only"], check=False, capture_output=True, text=True)
    if preset in known.stdout.split():
        # DVC reports the same, but only after the whole study has run.
        raise SimgapError(
            f"PRESET: an experiment {preset!r} exists; remove it by `dvc exp remove {preset}` (its results stay cached)"
        )
    command = ["dvc", "exp", "run", "--temp", "--name", preset, *options]
    code = run_beside(file, command)
    if code:
        raise SimgapError(f"{' '.join(command)}: failed with exit code {code}; see its messages above")
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    import dvc.api

    return str(dvc.api.read("report/tables/table.txt", rev=preset))
