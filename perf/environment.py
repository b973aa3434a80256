"""Install other tools, each in a separate virtual environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import remove


def install(folder: Path, requirements: tuple[str, ...]) -> Path:
    """Install packages into a virtual environment, unless these packages are already installed there.

    The virtual environment can also import the packages of the current environment. Packages that the requirements do not pin,
    such as torch, are therefore the same in both environments.

    Args:
        folder: Folder of the virtual environment.
        requirements: Packages to install, as pip requirements.

    Returns:
        Folder of the virtual environment's commands.

    Raises:
        SimgapError: The installation fails.
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
    """Run a command and return its standard output.

    Raises:
        SimgapError: The command fails. The message contains the last line of the command's standard error.
    """
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        last = next(reversed(finished.stderr.strip().splitlines()), f"exit code {finished.returncode}")
        raise SimgapError(f"{' '.join(command[:4])}: {last}; run the command alone to see its whole output")
    return finished.stdout
