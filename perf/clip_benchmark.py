"""CLIP_benchmark, the field's evaluator, in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

from simgap.errors import SimgapError
from simgap.files import remove

# With numpy 2.3 it fails; pandas, requests and scikit-learn it imports without asking for them.
REQUIREMENTS = ("clip-benchmark==1.6.2", "numpy<2.3", "pandas", "requests", "scikit-learn")


def install(folder: Path) -> Path:
    """Install CLIP_benchmark into the virtual environment `folder`, unless it is there, and give its command.

    The environment sees the packages of this one: both evaluate with the same torch and the same open_clip.

    Raises:
        SimgapError: it does not install.
    """
    command = folder / "bin" / "clip_benchmark"
    done = folder / "installed"
    if not done.exists():
        remove(folder)
        _call(sys.executable, "-m", "venv", str(folder))
        python = str(folder / "bin" / "python")
        packages = _call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        (Path(packages) / "simgap.pth").write_text(sysconfig.get_path("purelib") + "\n")
        _call(python, "-m", "pip", "install", "--quiet", *REQUIREMENTS)
        done.touch()
    return command


def evaluate(command: Path, model: Path, benchmarks: list[Path], out: Path) -> dict[str, dict[str, float]]:
    """Evaluate a model directory on benchmark folders of one parent: CLIP_benchmark's metrics by benchmark.

    Args:
        out: where its result files are written.

    Raises:
        SimgapError: it fails.
    """
    out.mkdir()
    root = benchmarks[0].parent.resolve()
    _call(
        str(command), "eval", "--quiet", "--model", f"local-dir:{model.resolve()}", "--pretrained", "",
        "--dataset", *(f"wds/{benchmark.name}" for benchmark in benchmarks), "--dataset_root", f"{root}/{{dataset}}",
        "--task", "zeroshot_classification", "--no_amp", "--num_workers", "0", "--output", f"{out.resolve()}/{{dataset}}.json",
    )  # fmt: skip
    return {path.name: json.loads((out / f"{path.name}.json").read_text())["metrics"] for path in benchmarks}


def _call(*command: str) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        last = next(reversed(finished.stderr.strip().splitlines()), f"exit code {finished.returncode}")
        raise SimgapError(f"{' '.join(command[:4])}: {last}")
    return finished.stdout
