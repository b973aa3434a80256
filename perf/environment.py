"""Other tools, each in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import remove


def install(folder: Path, requirements: tuple[str, ...]) -> Path:
    """Install packages into the virtual environment `folder`, unless that was done, and give the folder of its commands.

    The environment sees the packages of this one: what the requirements leave open, torch first of all, is the same.

    Raises:
        SimgapError: they do not install.
    """
    commands, done = folder / "bin", folder / "installed"
    if not done.exists():
        remove(folder)
        call(sys.executable, "-m", "venv", str(folder))
        python = str(commands / "python")
        packages = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        (Path(packages) / "simgap.pth").write_text(sysconfig.get_path("purelib") + "\n")
        call(python, "-m", "pip", "install", "--quiet", *requirements)
        done.touch()
    return commands


def call(*command: str) -> str:
    """Run a command and give what it prints.

    Raises:
        SimgapError: it fails; the last line of its errors is named.
    """
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        last = next(reversed(finished.stderr.strip().splitlines()), f"exit code {finished.returncode}")
        raise SimgapError(f"{' '.join(command[:4])}: {last}")
    return finished.stdout
