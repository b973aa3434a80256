"""Run the study of a preset without changing the study in the workspace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.params.load import PARAMS_FILE, load_params

PRESETS = Path("presets")
# `dvc exp run --temp` copies the workspace into this folder and runs the experiment in the copy.
COPIES = Path(".dvc", "tmp", "exps", "standalone")


def run_beside(preset: Path, command: list[str]) -> int:
    """Run a `dvc exp run --temp` command with the parameters of a preset.

    DVC copies the workspace when the command starts. Before that, this function replaces `params.yaml` in the
    workspace with the preset. It restores `params.yaml` as soon as DVC has made the copy.

    Args:
        preset: The params file of the preset.
        command: The command and its arguments.

    Returns:
        The exit code of the command.
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
    """Return the options of `dvc exp run` that make a preset copy its data from the folder `data`."""
    if not data.is_dir():
        raise SimgapError(f"DATA: {data} is not a folder; give the folder that holds the data")
    if not copied:
        raise SimgapError(f"DATA: the preset {preset} copies no data; leave DATA out")
    source = data.resolve()
    if "'" in str(source):
        raise SimgapError(f"DATA: the path {source} contains a quote; use a path without quotes")
    return [part for name in copied for part in ("--set-param", f"copy.{name}.source='{source}'")]


def run_study(preset: str, data: Path | None) -> str:
    """Run the study of a preset as a DVC experiment. The experiment gets the name of the preset.

    Args:
        preset: The name of a file in `presets/`, without the suffix.
        data: The folder of the data that the preset copies. If it is None, the data are copied from the source that the preset
            names.

    Returns:
        The table of accuracies as text.

    Raises:
        SimgapError: The preset is unknown, the data are missing, an experiment with this name exists, or DVC fails.
    """
    file = PRESETS / f"{preset}.yaml"
    if not file.is_file():
        choices = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
        raise SimgapError(f"PRESET: there is no preset {preset!r}; choose from {choices}")
    params = load_params(file)
    options = [] if data is None else _data_options(preset, list(params.copy), data)
    known = subprocess.run(["dvc", "exp", "list", "--name-only"], check=False, capture_output=True, text=True)
    if preset in known.stdout.split():
        # The name is checked before the study runs. DVC would report this error only after the whole study has run.
        raise SimgapError(
            f"PRESET: an experiment {preset!r} exists; remove it with `dvc exp remove {preset}` (the results stay cached)"
        )
    command = ["dvc", "exp", "run", "--temp", "--name", preset, *options]
    code = run_beside(file, command)
    if code:
        raise SimgapError(
            f"{' '.join(command)}: DVC failed with exit code {code}; fix the error that DVC reports above"
        )
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    import dvc.api

    return str(dvc.api.read("report/tables/table.txt", rev=preset))
