"""Run CLIP_benchmark, a common evaluator of CLIP models, in a separate virtual environment."""

from __future__ import annotations

import json
from pathlib import Path

from perf import environment

# numpy must be older than 2.3, because CLIP_benchmark fails with numpy 2.3. CLIP_benchmark imports pandas, requests and
# scikit-learn, but does not declare these dependencies.
REQUIREMENTS = ("clip-benchmark==1.6.2", "numpy<2.3", "pandas", "requests", "scikit-learn")


def install(folder: Path) -> Path:
    """Install CLIP_benchmark into the virtual environment `folder`, unless it is already installed there.

    Returns:
        Path of the command `clip_benchmark`.

    Raises:
        SimgapError: The installation fails.
    """
    return environment.install(folder, REQUIREMENTS) / "clip_benchmark"


def evaluate(command: Path, model: Path, benchmarks: list[Path], out: Path) -> dict[str, dict[str, float]]:
    """Evaluate a model zero-shot with CLIP_benchmark.

    Args:
        command: Path of the command `clip_benchmark`, as `install` returns it.
        model: Folder of the model, an open_clip local directory.
        benchmarks: Benchmark folders, all in the same parent folder.
        out: Folder for the result files. It must not exist yet.

    Returns:
        The metrics of each benchmark. The outer keys are the names of the benchmarks. The inner keys are CLIP_benchmark's names
        of the metrics.

    Raises:
        SimgapError: CLIP_benchmark fails.
    """
    out.mkdir()
    root = benchmarks[0].parent.resolve()
    environment.call(
        str(command), "eval", "--quiet", "--model", f"local-dir:{model.resolve()}", "--pretrained", "",
        "--dataset", *(f"wds/{benchmark.name}" for benchmark in benchmarks), "--dataset_root", f"{root}/{{dataset}}",
        "--task", "zeroshot_classification", "--no_amp", "--num_workers", "0", "--output", f"{out.resolve()}/{{dataset}}.json",
    )  # fmt: skip
    return {path.name: json.loads((out / f"{path.name}.json").read_text())["metrics"] for path in benchmarks}
