"""A study of another preset, beside the one in the workspace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.params.load import PARAMS_FILE, load_params

PRESETS = Path("presets")
# Where DVC keeps the copies in which experiments beside the workspace run.
COPIES = Path(".dvc", "tmp", "exps", "standalone")


def run_beside(preset: Path, command: list[str]) -> int:
    """Run a `dvc exp run --temp` whose params file is `preset`, and give its exit code.

    DVC copies the workspace as it begins; the preset stands in the workspace only until that copy is there.
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


def run_study(preset: str, data: Path | None) -> str:
    """Run a preset's study as a DVC experiment of its name, and give its table of accuracies.

    Raises:
        SimgapError: the preset is unknown, the data are not where they should be, an experiment has its name, or DVC reports
            a failure.
    """
    file = PRESETS / f"{preset}.yaml"
    if not file.is_file():
        choices = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
        raise SimgapError(f"PRESET: {preset!r} is unknown; choose from {choices}")
    params = load_params(file)
    if data is not None and not data.is_dir():
        raise SimgapError(f"DATA: {data} is no folder")
    if data is not None and not params.copy:
        raise SimgapError(f"DATA: {preset} copies no data; leave DATA out")
    if data is not None and "'" in str(data.resolve()):
        raise SimgapError(f"DATA: {data.resolve()} has a quote in its path; name a path without")
    sources = [f"copy.{name}.source='{data.resolve()}'" for name in params.copy] if data is not None else []
    known = subprocess.run(["dvc", "exp", "list", "--name-only"], check=False, capture_output=True, text=True)
    if preset in known.stdout.split():
        # DVC would say so too, but only once everything has run.
        raise SimgapError(
            f"PRESET: an experiment {preset!r} exists; `dvc exp remove {preset}` makes room, results stay cached"
        )
    command = ["dvc", "exp", "run", "--temp", "--name", preset]
    command += [part for source in sources for part in ("--set-param", source)]
    code = run_beside(file, command)
    if code:
        raise SimgapError(f"{' '.join(command)}: ended with {code}; its messages are above")
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    import dvc.api

    return str(dvc.api.read("report/tables/table.txt", rev=preset))
