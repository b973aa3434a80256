"""Compare simgap's evaluation with CLIP_benchmark, in seconds and in metrics.

Both programs evaluate the same model on the same benchmarks, in turn.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import yaml

from perf import clip_benchmark
from perf.machine import report
from perf.timing import clocked, interleaved
from simgap.clip.config import read_model_config
from simgap.clip.model import save
from simgap.core.files import read_json
from simgap.params.draw import DrawParameters
from simgap.stage.command import PATH, reports_errors
from simgap.toy.world import draw_world
from simgap.train.train import build

REPOSITORY = Path(__file__).resolve().parents[1]
# This batch size is the default of CLIP_benchmark. simgap uses the same value, so that the comparison is fair.
BATCH_SIZE = 64
# The keys are CLIP_benchmark's names of the metrics, and the values are simgap's names.
NAMES = {"acc1": "top1", "acc5": "top5", "mean_per_class_recall": "mean_per_class_recall"}
MODEL = str(REPOSITORY / "presets" / "models" / "pacs.json")
DRAWN = ("val", "sketch", "r", "a")
Metrics = dict[str, dict[str, float]]


def make_model(name: str, folder: Path) -> Path:
    """Write a model with random initial weights, and return its folder, an open_clip local directory.

    `name` is the name of the model as in params.yaml.
    """
    config = read_model_config(name)
    clip, _ = build(config, 0, folder, name)
    save(clip, config, folder / "model")
    return folder / "model"


def draw_benchmarks(folder: Path, images: int) -> list[Path]:
    """Write four synthetic benchmarks, and return their folders.

    The images are 256 pixels wide and high, because photographs on the web are at least this large.
    """
    size = DrawParameters(seed=0, pool=1, reference=1, queries=images, image_size=256, planted=0, broken=0)
    draw_world(size, folder / "world")
    return [folder / "world" / "benchmarks" / name for name in DRAWN]


def write_params(folder: Path, benchmarks: list[Path]) -> None:
    """Write the params file of a study that evaluates these benchmarks zero-shot, as CLIP_benchmark does."""
    content = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    names = [path.name for path in benchmarks]
    content["benchmarks"]["names"] = names
    content["compare"]["in_distribution_benchmark"] = names[0]
    content["reference"]["classnames"] = str(benchmarks[0].resolve() / "classnames.txt")
    content["prune"] = {rule: {} for rule in content["prune"]}
    content["runs"] = {"full": {}}
    for training in (content["train"], content["embedder"]["train"]):
        training["model"] = str(REPOSITORY / training["model"])
    content["resources"]["decoders"] = len(os.sched_getaffinity(0))
    content["evaluate"]["batch_size"] = BATCH_SIZE
    content["evaluate"]["few_shot"]["shots"] = []
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(content))


def evaluate_by_stage(model: Path, benchmarks: list[Path], folder: Path) -> Metrics:
    """Run the evaluate stage as DVC does.

    Returns:
        The metrics of each benchmark. The inner keys are CLIP_benchmark's names of the metrics.
    """
    write_params(folder, benchmarks)
    parent = benchmarks[0].parent.resolve()
    command = [sys.executable, "-m", "stages.evaluate", "--model", str(model.resolve()), "--benchmarks", str(parent)]
    # The stage reads the reference and the embeddings only for few-shot classification, so these folders need not exist.
    command += ["--reference", "reference", "--embeddings", "embeddings", "--out", "out", "--metrics", "metrics.json"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    found = read_json(folder / "metrics.json")
    return {
        path.name: {
            name: found[f"zero_shot/{path.name}/{ours}"]
            for name, ours in NAMES.items()
            if f"zero_shot/{path.name}/{ours}" in found
        }
        for path in benchmarks
    }


def largest_difference(ours: Metrics, theirs: Metrics) -> float:
    """Return the largest absolute difference between the values of a metric in both programs, over all metrics."""
    return max(abs(ours[name][metric] - theirs[name][metric]) for name in ours for metric in ours[name])


@click.command()
@click.option("--model", type=PATH, help="An open_clip local directory.  [default: random initial weights]")
@click.option("--benchmarks", type=PATH, help="Folder of the benchmarks.  [default: four synthetic benchmarks]")
@click.option("--images", default=500, show_default=True, help="Number of images of each synthetic benchmark.")
@click.option("--repeats", default=3, show_default=True, help="Number of repeats. The medians are reported.")
@click.option(
    "--environment", type=PATH, default="scratch/clip_benchmark", show_default=True,
    help="Folder of CLIP_benchmark's virtual environment. A missing environment is created.",
)  # fmt: skip
@click.option("--json", "out", type=PATH, help="JSON file to write the results to.")
@reports_errors
def main(
    model: Path | None, benchmarks: Path | None, images: int, repeats: int, environment: Path, out: Path | None
) -> None:
    """Compare the run times of simgap and CLIP_benchmark, from the start of the process until the metrics are written."""
    command = clip_benchmark.install(environment)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        chosen = (
            sorted(path for path in benchmarks.iterdir() if path.is_dir())
            if benchmarks
            else draw_benchmarks(folder, images)
        )
        used = model or make_model(MODEL, folder)
        metrics: dict[str, Metrics] = {}

        def new_folder() -> Path:
            return Path(tempfile.mkdtemp(dir=folder)) / "results"

        def simgap() -> None:
            metrics["simgap"] = evaluate_by_stage(used, chosen, new_folder())

        def by_clip_benchmark() -> None:
            metrics["CLIP_benchmark"] = clip_benchmark.evaluate(command, used, chosen, new_folder())

        programs = {"simgap": clocked(simgap), "CLIP_benchmark": clocked(by_clip_benchmark)}
        seconds = interleaved(programs, repeats)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    difference = largest_difference(metrics["simgap"], metrics["CLIP_benchmark"])
    ratio = medians["CLIP_benchmark"] / medians["simgap"]
    print(
        f"benchmarks: {', '.join(path.name for path in chosen)}; largest difference between metrics: {difference:.1e}"
    )
    table: list[tuple[str, ...]] = [("program", "seconds", "speedup over CLIP_benchmark")]
    table += [
        (name, f"{median:.1f}", f"{medians['CLIP_benchmark'] / median:.2f} x") for name, median in medians.items()
    ]
    content: dict[str, Any] = {"seconds": seconds, "medians": medians, "ratio": ratio, "metrics": metrics}
    report(table, {**content, "largest_difference": difference}, out)


if __name__ == "__main__":
    main()
