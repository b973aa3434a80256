"""CLIP_benchmark gives the same metrics for the same model and the same benchmarks."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import MODEL_CONFIG, REPOSITORY

from perf import clip_benchmark
from simgap.clip.model import load
from simgap.core.errors import SimgapError
from simgap.data.benchmarks import load_benchmark
from simgap.evaluate.evaluate import evaluate
from simgap.params.draw import DrawParameters
from simgap.params.evaluate import EvaluateParameters, FewShotParameters
from simgap.params.load import load_params
from simgap.params.resources import TrainResources
from simgap.toy.world import draw_world
from simgap.train.data import readable_shards
from simgap.train.train import train

pytestmark = pytest.mark.slow

NAMES = {"acc1": "top1", "acc5": "top5", "mean_per_class_recall": "mean_per_class_recall"}
PARAMETERS = EvaluateParameters(batch_size=64, few_shot=FewShotParameters([], 1, 1.0, 0))


@pytest.fixture(scope="module")
def command() -> Path:
    try:
        return clip_benchmark.install(REPOSITORY / "scratch" / "clip_benchmark")
    except SimgapError as error:
        pytest.skip(f"CLIP_benchmark does not install: {error}")


def train_briefly(folder: Path, images: Path) -> Path:
    """Train a tiny model until it predicts several classes; an untrained one predicts the same class for all images."""
    (folder / "scratch").mkdir()
    (folder / "model.json").write_text(json.dumps(MODEL_CONFIG))
    toy = load_params(REPOSITORY / "presets" / "toy.yaml").train
    parameters = replace(toy, model=str(folder / "model.json"), samples_seen=6400, learning_rate=2e-3)
    shards = readable_shards(images)
    samples, resources = sum(len(shard.keys) for shard in shards), TrainResources(workers=0, checkpoint_steps=500)
    train(parameters, resources, 0, shards, samples, folder / "model", folder / "scratch")
    return folder / "model"


def check(command: Path, model: Path, benchmarks: list[Path], folder: Path) -> None:
    ours = evaluate(
        PARAMETERS, load(model), [load_benchmark(path) for path in benchmarks], None, (), 2, 0.01, folder / "ours"
    )
    theirs = clip_benchmark.evaluate(command, model, benchmarks, folder / "theirs")
    for benchmark, metrics in theirs.items():
        predictions = pq.read_table(folder / "ours" / f"{benchmark}.parquet").column("prediction").to_numpy()
        assert len(np.unique(predictions)) > 2
        for name, our_name in NAMES.items():
            our_metric = ours.get(f"zero_shot/{benchmark}/{our_name}", math.nan)
            assert metrics[name] == pytest.approx(our_metric, abs=1e-4, nan_ok=True), (benchmark, name)


def test_on_a_toy_world(command: Path, tmp_path: Path) -> None:
    size = DrawParameters(0, pool=600, reference=60, queries=150, image_size=24, planted=3, broken=0)
    draw_world(size, tmp_path / "toy")
    model = train_briefly(tmp_path, tmp_path / "toy" / "pool")
    names = ("val", "sketch", "r", "a", "v2", "objectnet")
    check(command, model, [tmp_path / "toy" / "benchmarks" / name for name in names], tmp_path)


def test_on_photographs(command: Path, pacs: Path, tmp_path: Path) -> None:
    model = train_briefly(tmp_path, pacs / "imagenet_like")
    check(command, model, [pacs / "benchmarks" / name for name in ("val", "sketch", "art", "cartoon")], tmp_path)
