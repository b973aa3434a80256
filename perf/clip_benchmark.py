"""CLIP_benchmark, the field's evaluator, in an environment of its own."""

from __future__ import annotations

import json
from pathlib import Path

from perf import environment

# With numpy 2.3 it fails; pandas, requests and scikit-learn it imports without asking for them.
REQUIREMENTS = ("clip-benchmark==1.6.2", "numpy<2.3", "pandas", "requests", "scikit-learn")


def install(folder: Path) -> Path:
    """Install CLIP_benchmark into the virtual environment `folder`, unless it is there, and give its command.

    Raises:
        SimgapError: it does not install.
    """
    return environment.install(folder, REQUIREMENTS) / "clip_benchmark"


def evaluate(command: Path, model: Path, benchmarks: list[Path], out: Path) -> dict[str, dict[str, float]]:
    """Evaluate a model directory on benchmark folders of one parent: CLIP_benchmark's metrics by benchmark.

    Args:
        out: where its result files are written.

    Raises:
        SimgapError: it fails.
    """
    out.mkdir()
    root = benchmarks[0].parent.resolve()
    environment.call(
        str(command), "eval", "--quiet", "--model", f"local-dir:{model.resolve()}", "--pretrained", "",
        "--dataset", *(f"wds/{benchmark.name}" for benchmark in benchmarks), "--dataset_root", f"{root}/{{dataset}}",
        "--task", "zeroshot_classification", "--no_amp", "--num_workers", "0", "--output", f"{out.resolve()}/{{dataset}}.json",
    )  # fmt: skip
    return {path.name: json.loads((out / f"{path.name}.json").read_text())["metrics"] for path in benchmarks}
