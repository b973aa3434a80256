"""Evaluate a model on benchmarks, zero-shot and few-shot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.clip.model import Model
from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output
from simgap.core.progress import progress
from simgap.data.benchmarks import Benchmark
from simgap.data.limits import check_limit
from simgap.data.shards import Accounting, Sample, check_label, read_shard
from simgap.evaluate.accuracy import TOP, class_table, mean_per_class_recall, ranking
from simgap.evaluate.features import LabelledFeatures, class_features, image_features
from simgap.evaluate.few_shot import Probe, benchmark_scores, fit_probe, map_classes
from simgap.evaluate.shots import Shots
from simgap.params.evaluate import EvaluateParameters, FewShotParameters


class FewShot:
    """The shots of every draw, embedded once, for every benchmark.

    Args:
        classnames: the reference's classes.

    Raises:
        SimgapError: a benchmark's reference classes are not there, or the reference does not hold its shots any more.
    """

    def __init__(
        self,
        parameters: FewShotParameters,
        model: Model,
        benchmarks: list[Benchmark],
        shots: Shots,
        classnames: tuple[str, ...],
        batch_size: int,
        decoders: int,
    ) -> None:
        self.parameters, self.classnames, self.shots = parameters, classnames, shots
        # They do not depend on the benchmark.
        self._probes: dict[tuple[int, int], Probe] = {}
        self._mapped = {benchmark.name: map_classes(benchmark, classnames) for benchmark in benchmarks}
        self.features = image_features(
            model, shots.samples(), batch_size, decoders, Accounting(), shots.reference
        ).features
        if len(self.features) != len(shots.rows):
            raise SimgapError(f"{shots.reference}: has shots that cannot be decoded any more; embed the reference anew")

    def predict(self, benchmark: str, features: NDArray[np.float32]) -> dict[int, NDArray[np.int64]]:
        """Give the predicted class of each image in every draw, int64 [images, draws], by number of shots.

        Empty where few-shot is refused, as `map_classes` finds no class of the reference for one of the benchmark's.
        """
        mapped = self._mapped[benchmark]
        if mapped is None:
            return {}
        draws = range(self.parameters.draws)
        return {
            shots: np.stack([self._predict(draw, shots, mapped, features) for draw in draws], axis=1)
            for shots in self.parameters.shots
        }

    def _predict(
        self, draw: int, shots: int, mapped: tuple[tuple[int, ...], ...], features: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        if (draw, shots) not in self._probes:
            chosen = self.shots.chosen(draw, shots)
            labels = self.shots.labels[chosen]
            probe = fit_probe(self.features[chosen], labels, len(self.classnames), self.parameters.ridge)
            self._probes[draw, shots] = probe
        scores = self._probes[draw, shots].scores(features)
        # The first of the largest: ties go to the lower class.
        best: NDArray[np.int64] = benchmark_scores(scores, mapped).argmax(axis=1)
        return best


def _samples(benchmark: Benchmark, accounting: Accounting) -> Iterator[Sample]:
    for shard in benchmark.shards:
        for sample in read_shard(shard, accounting, caption=False, label=True):
            check_label(sample, len(benchmark.classnames), shard)
            yield sample


def _load(
    model: Model, benchmark: Benchmark, batch_size: int, decoders: int, drop_limit: float, accounting: Accounting
) -> LabelledFeatures:
    found = image_features(model, _samples(benchmark, accounting), batch_size, decoders, accounting, benchmark.folder)
    if accounting.damaged_shards:
        raise SimgapError(
            f"{benchmark.folder}: {accounting.damaged_shards} shards end too soon or are corrupt; a benchmark should be whole"
        )
    check_limit(drop_limit, accounting, len(found.labels), benchmark.shards)
    return found


def _few_shot_figures(
    name: str, predictions: dict[int, NDArray[np.int64]], labels: NDArray[np.int64]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give columns and metrics of few-shot predictions, int64 [images, draws] by number of shots."""
    columns: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for shots, predicted in predictions.items():
        correct = predicted == labels[:, None]
        of_draws = correct.mean(axis=0)
        columns[f"correct_{shots}_shot"] = pa.FixedSizeListArray.from_arrays(correct.ravel(), correct.shape[1])
        metrics[f"few_shot/{name}/top1_{shots}_shot"] = float(of_draws.mean())
        if len(of_draws) > 1:
            metrics[f"few_shot/{name}/top1_{shots}_shot/spread"] = float(of_draws.std(ddof=1))
    return columns, metrics


def _evaluate_benchmark(
    images: LabelledFeatures, classes: NDArray[np.float32], benchmark: Benchmark, out: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the table of a benchmark's classes, and give zero-shot columns and metrics."""
    labels = images.labels
    best = ranking(images.features.astype(np.float64) @ classes.astype(np.float64).T, min(TOP, len(classes)))
    columns: dict[str, Any] = {
        "row": np.arange(len(labels), dtype=np.int32),
        "label": labels.astype(np.int32),
        "prediction": best[:, 0].astype(np.int32),
        "correct": best[:, 0] == labels,
    }
    zero_shot = f"zero_shot/{benchmark.name}"
    metrics: dict[str, Any] = {
        f"{zero_shot}/top1": float(columns["correct"].mean()),
        f"{zero_shot}/mean_per_class_recall": mean_per_class_recall(labels, best[:, 0]),
    }
    if len(classes) >= TOP:
        columns["correct_top5"] = (best == labels[:, None]).any(axis=1)
        metrics[f"{zero_shot}/top5"] = float(columns["correct_top5"].mean())
    pq.write_table(pa.table(class_table(labels, best, benchmark.classnames)), out / f"{benchmark.name}.parquet")
    return columns, metrics


def evaluate(
    parameters: EvaluateParameters,
    model: Model,
    benchmarks: list[Benchmark],
    shots: Shots | None,
    classnames: tuple[str, ...],
    decoders: int,
    drop_limit: float,
    out: Path,
) -> dict[str, Any]:
    """Write two tables for each benchmark, one row an image and one row a class, and give accuracies in [0, 1].

    `<benchmark>.parquet`: row, label, prediction, correct (top-1), correct_top5 and, for each number of shots,
    correct_<k>_shot, a list with an outcome for each draw. Rows are the readable images in shard order, as in the
    benchmark's embeddings. `classes/<benchmark>.parquet`: see `class_table`.

    The argmax runs over the benchmark's own classes. `top1`, `top5` and `mean_per_class_recall` are CLIP_benchmark's
    acc1, acc5 and mean_per_class_recall; top-5 is left out where there are fewer than five classes. Every image is embedded
    once. Few-shot figures are means over draws, `spread` their standard deviation.

    Args:
        shots: the reference images of few-shot classification, None where there is none.
        classnames: the reference's classes.
        decoders: threads that decode; speed, not results.
        drop_limit: largest share of a benchmark's samples that may be broken, in [0, 1], as in embedding.

    Raises:
        SimgapError: a benchmark has a damaged shard, no readable image, more than `drop_limit` of its samples broken or a
            label outside its class list, its reference classes are not
            there, the reference does not hold its shots any more, or a feature of an image or a class is not finite or
            zero: no image is left out for it.
    """
    few_shot = None
    if shots is not None:
        few_shot = FewShot(parameters.few_shot, model, benchmarks, shots, classnames, parameters.batch_size, decoders)
    metrics: dict[str, Any] = {}
    prompts: dict[tuple[tuple[str, ...], tuple[str, ...]], NDArray[np.float32]] = {}
    with atomic_output(out) as partial:
        (partial / "classes").mkdir(parents=True)
        for benchmark in progress(benchmarks, len(benchmarks), f"evaluate {out.name}", "benchmark"):
            # Benchmarks often share classes and templates.
            asked = (benchmark.classnames, benchmark.templates)
            if asked not in prompts:
                prompts[asked] = class_features(model, *asked, benchmark.folder)
            accounting = Accounting()
            images = _load(model, benchmark, parameters.batch_size, decoders, drop_limit, accounting)
            columns, found = _evaluate_benchmark(images, prompts[asked], benchmark, partial / "classes")
            found |= {f"zero_shot/{benchmark.name}/{k}": v for k, v in accounting.metrics(len(images.labels)).items()}
            if few_shot is not None:
                predictions = few_shot.predict(benchmark.name, images.features)
                found[f"few_shot/{benchmark.name}/refused"] = not predictions
                more = _few_shot_figures(benchmark.name, predictions, images.labels)
                columns, found = columns | more[0], found | more[1]
            pq.write_table(pa.table(columns), partial / f"{benchmark.name}.parquet")
            metrics |= found
    return metrics
