"""Evaluate a model on benchmarks, zero-shot and few-shot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.data.benchmarks import Benchmark
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import Accounting, Sample, read_shard, shard_paths
from simgap.embed.model import Model
from simgap.errors import SimgapError
from simgap.evaluate.accuracy import mean_per_class_recall, ranking
from simgap.evaluate.features import LabelledFeatures, class_features, image_features
from simgap.evaluate.few_shot import benchmark_scores, choose_shots, map_classes, ridge_scores, shot_order
from simgap.evaluate.parameters import EvaluateParameters, FewShotParameters
from simgap.files import complete
from simgap.progress import progress

# Beyond twice the shots: candidates of a class that stand in where others are broken.
SPARE_SHOTS = 5


def _candidates(reference: Path, shots: int, seed: int) -> Iterator[tuple[Sample, int]]:
    """Stream the reference samples that may be shots, with their places: twice as many as are wanted, some may be broken."""
    labels = np.array([sample.label for sample in _samples(reference)], np.int64)
    for sample, place in zip(_samples(reference), shot_order(labels, seed), strict=True):
        if place < 2 * shots + SPARE_SHOTS:
            try:
                decode(sample.image)
            except BrokenImage:
                continue
            yield sample, int(place)


def _samples(reference: Path) -> Iterator[Sample]:
    for path in shard_paths(reference):
        yield from read_shard(path, Accounting(), caption=False, label=True)


class FewShot:
    """The shots, embedded once, for every benchmark."""

    def __init__(
        self, parameters: FewShotParameters, model: Model, reference: Path, classnames: tuple[str, ...], batch_size: int
    ) -> None:
        self.parameters, self.classnames = parameters, classnames
        most = max(parameters.shots)
        candidates = list(_candidates(reference, most, parameters.seed))
        labels = np.array([sample.label for sample, _ in candidates], np.int64)
        places = np.array([place for _, place in candidates], np.int64)
        chosen = choose_shots(labels, classnames, most, places)
        self.places = places[chosen]
        self.shots = image_features(model, (candidates[index][0] for index in chosen), batch_size, Accounting())

    def predict(self, benchmark: Benchmark, features: NDArray[np.float32]) -> dict[int, NDArray[np.int64]]:
        """Give the predicted class of each image, int64 [images], by number of shots; empty where few-shot is refused."""
        mapped = map_classes(benchmark.classnames, self.classnames, benchmark.reference_classes)
        if mapped is None:
            return {}
        predictions = {}
        for shots in self.parameters.shots:
            chosen = choose_shots(self.shots.labels, self.classnames, shots, self.places)
            scores = ridge_scores(
                self.shots.features[chosen],
                self.shots.labels[chosen],
                len(self.classnames),
                self.parameters.ridge,
                features,
            )
            predictions[shots] = ranking(benchmark_scores(scores, mapped), 1)[:, 0]
        return predictions


def _load(model: Model, benchmark: Benchmark, batch_size: int, accounting: Accounting) -> LabelledFeatures:
    samples = (
        sample for path in benchmark.shards for sample in read_shard(path, accounting, caption=False, label=True)
    )
    found = image_features(model, samples, batch_size, accounting)
    if accounting.damaged_shards:
        raise SimgapError(
            f"{benchmark.folder}: {accounting.damaged_shards} shards end too soon or are corrupt; a benchmark should be whole"
        )
    if not len(found.labels):
        raise SimgapError(f"{benchmark.folder}: none of its images could be read ({dict(accounting.dropped)})")
    if found.labels.max() >= len(benchmark.classnames):
        raise SimgapError(
            f"{benchmark.folder}: label {found.labels.max()} is outside the class list of {len(benchmark.classnames)} names"
        )
    return found


def _evaluate_benchmark(
    model: Model, benchmark: Benchmark, few_shot: FewShot | None, batch_size: int, out: Path
) -> dict[str, Any]:
    accounting = Accounting()
    images = _load(model, benchmark, batch_size, accounting)
    labels = images.labels
    classes = class_features(model, benchmark.classnames, benchmark.templates)
    best = ranking(images.features.astype(np.float64) @ classes.astype(np.float64).T, min(5, len(classes)))
    columns: dict[str, Any] = {
        "row": np.arange(len(labels), dtype=np.int32),
        "label": labels.astype(np.int32),
        "prediction": best[:, 0].astype(np.int32),
        "correct": best[:, 0] == labels,
        "correct_top5": (best == labels[:, None]).any(axis=1),
    }
    zero_shot = f"zero_shot/{benchmark.name}"
    metrics: dict[str, Any] = {
        f"{zero_shot}/top1": float(columns["correct"].mean()),
        f"{zero_shot}/top5": float(columns["correct_top5"].mean()),
        f"{zero_shot}/mean_per_class_recall": mean_per_class_recall(labels, best[:, 0]),
        **{f"{zero_shot}/{name}": count for name, count in accounting.metrics(len(labels)).items()},
    }
    if few_shot is not None:
        predictions = few_shot.predict(benchmark, images.features)
        metrics[f"few_shot/{benchmark.name}/refused"] = not predictions
        for shots, predicted in predictions.items():
            columns[f"correct_{shots}_shot"] = predicted == labels
            metrics[f"few_shot/{benchmark.name}/top1_{shots}_shot"] = float((predicted == labels).mean())
    pq.write_table(pa.table(columns), out / f"{benchmark.name}.parquet")
    return metrics


def evaluate(
    parameters: EvaluateParameters,
    model: Model,
    benchmarks: list[Benchmark],
    reference: Path,
    classnames: tuple[str, ...],
    out: Path,
) -> dict[str, Any]:
    """Write a table for each benchmark, one row an image, and give accuracies in [0, 1].

    Columns: row, label, prediction, correct (top-1), correct_top5, and correct_<k>_shot for each number of shots. The
    argmax runs over the benchmark's own classes. Rows are the readable images in shard order, as in its embeddings.

    Args:
        reference: folder of the reference's shards, from which the shots are drawn.
        classnames: the reference's classes.

    Raises:
        SimgapError: a benchmark has no readable image or a label outside its class list, or a class has too few shots.
    """
    few_shot = None
    if parameters.few_shot.shots:
        few_shot = FewShot(parameters.few_shot, model, reference, classnames, parameters.batch_size)
    metrics: dict[str, Any] = {}
    with complete(out) as partial:
        partial.mkdir(parents=True)
        for benchmark in progress(benchmarks, len(benchmarks), f"evaluate {out.name}", "benchmark"):
            metrics |= _evaluate_benchmark(model, benchmark, few_shot, parameters.batch_size, partial)
    return metrics
