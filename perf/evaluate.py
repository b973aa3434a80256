"""simgap's evaluation beside CLIP_benchmark's: one model directory, the same benchmark folders, interleaved."""

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
from simgap.stage.command import reports_errors
from simgap.toy.world import draw_world
from simgap.train.train import build

REPOSITORY = Path(__file__).resolve().parents[1]
# CLIP_benchmark's own.
BATCH_SIZE = 64
NAMES = {"acc1": "top1", "acc5": "top5", "mean_per_class_recall": "mean_per_class_recall"}
MODEL = str(REPOSITORY / "presets" / "models" / "pacs.json")
DRAWN = ("val", "sketch", "r", "a")
Figures = dict[str, dict[str, float]]


def make_model(name: str, folder: Path) -> Path:
    """Write a freshly initialised model, named as in the params, as an open_clip directory."""
    config = read_model_config(name)
    clip, _ = build(config, 0, folder, name)
    save(clip, config, folder / "model")
    return folder / "model"


def draw_benchmarks(folder: Path, images: int) -> list[Path]:
    """Draw four benchmarks; photographs on the web are as large as their images, or larger."""
    size = DrawParameters(seed=0, pool=1, reference=1, queries=images, image_size=256, planted=0, broken=0)
    draw_world(size, folder / "world")
    return [folder / "world" / "benchmarks" / name for name in DRAWN]


def write_params(folder: Path, benchmarks: list[Path]) -> None:
    """Write the params file of a study that evaluates zero-shot on these benchmarks, as CLIP_benchmark does."""
    content = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    names = [path.name for path in benchmarks]
    content["benchmarks"]["names"] = names
    content["compare"]["in_distribution_benchmark"] = names[0]
    content["reference"]["classnames"] = str(benchmarks[0].resolve() / "classnames.txt")
    content["prune"] = {rule: {} for rule in content["prune"]}
    content["runs"] = {"full": {}}
    for training in (content["train"], content["embedder"]["train"]):
        training["model"] = str(REPOSITORY / training["model"])
    content["embed"]["decoders"] = len(os.sched_getaffinity(0))
    content["evaluate"]["batch_size"] = BATCH_SIZE
    content["evaluate"]["few_shot"]["shots"] = []
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(content))


def evaluate_by_stage(model: Path, benchmarks: list[Path], folder: Path) -> Figures:
    """Run the stage as DVC does, and give its figures by CLIP_benchmark's names."""
    write_params(folder, benchmarks)
    parent = benchmarks[0].parent.resolve()
    command = [sys.executable, "-m", "stages.evaluate", "--model", str(model.resolve()), "--benchmarks", str(parent)]
    # Without few-shot, reference and embeddings are not read.
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


def largest_difference(ours: Figures, theirs: Figures) -> float:
    """Give the largest difference of a figure that both have."""
    return max(abs(ours[name][figure] - theirs[name][figure]) for name in ours for figure in ours[name])


@click.command()
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="An open_clip directory.  [default: a fresh one]",
)
@click.option("--benchmarks", type=click.Path(path_type=Path), help="Their folder.  [default: four, drawn]")
@click.option("--images", default=500, show_default=True, help="Of each drawn benchmark.")
@click.option("--repeats", default=3, show_default=True)
@click.option(
    "--environment", type=click.Path(path_type=Path), default="scratch/clip_benchmark", show_default=True,
    help="Where CLIP_benchmark is installed, unless it is there.",
)  # fmt: skip
@click.option("--json", "out", type=click.Path(path_type=Path))
@reports_errors
def main(
    model: Path | None, benchmarks: Path | None, images: int, repeats: int, environment: Path, out: Path | None
) -> None:
    """Measure seconds from the start of a process to the figures, as medians over interleaved repeats."""
    command = clip_benchmark.install(environment)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        chosen = (
            sorted(path for path in benchmarks.iterdir() if path.is_dir())
            if benchmarks
            else draw_benchmarks(folder, images)
        )
        used = model or make_model(MODEL, folder)
        figures: dict[str, Figures] = {}

        def new_folder() -> Path:
            return Path(tempfile.mkdtemp(dir=folder)) / "results"

        def simgap() -> None:
            figures["simgap"] = evaluate_by_stage(used, chosen, new_folder())

        def by_clip_benchmark() -> None:
            figures["CLIP_benchmark"] = clip_benchmark.evaluate(command, used, chosen, new_folder())

        ways = {"simgap": clocked(simgap), "CLIP_benchmark": clocked(by_clip_benchmark)}
        seconds = interleaved(ways, repeats)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    difference = largest_difference(figures["simgap"], figures["CLIP_benchmark"])
    ratio = medians["CLIP_benchmark"] / medians["simgap"]
    print(f"benchmarks {', '.join(path.name for path in chosen)}; largest difference of a figure {difference:.1e}")
    table: list[tuple[str, ...]] = [("way", "seconds", "CLIP_benchmark takes")]
    table += [
        (name, f"{median:.1f}", f"{medians['CLIP_benchmark'] / median:.2f} x") for name, median in medians.items()
    ]
    content: dict[str, Any] = {"seconds": seconds, "medians": medians, "ratio": ratio, "figures": figures}
    report(table, {**content, "largest_difference": difference}, out)


if __name__ == "__main__":
    main()
