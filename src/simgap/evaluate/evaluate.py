"""Measure the zero-shot and few-shot accuracy of a model on benchmarks."""

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
    """Few-shot classification of several benchmarks. The constructor embeds the shots only once for all benchmarks."""

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
        """Embed the shots of every draw. A draw is one random choice of the shots.

        Args:
            parameters: The `evaluate.few_shot` parameters.
            model: The model to evaluate.
            benchmarks: The benchmarks to classify.
            shots: The shots of every draw.
            classnames: The class names of the reference.
            batch_size: Number of images in a forward pass.
            decoders: Number of threads that decode images.

        Raises:
            SimgapError: A benchmark refers to a class that the reference does not have. A shot is no longer in the reference,
                or its image can no longer be decoded.
        """
        self.parameters, self.classnames, self.shots = parameters, classnames, shots
        # A classifier depends only on the draw and on the number of shots, so it is fitted once for all benchmarks.
        self._probes: dict[tuple[int, int], Probe] = {}
        self._mapped = {benchmark.name: map_classes(benchmark, classnames) for benchmark in benchmarks}
        self.features = image_features(
            model, shots.samples(), batch_size, decoders, Accounting(), shots.reference
        ).features
        if len(self.features) != len(shots.rows):
            raise SimgapError(f"{shots.reference}: some shots can no longer be decoded; embed the reference again")

    def predict(self, benchmark: str, features: NDArray[np.float32]) -> dict[int, NDArray[np.int64]]:
        """Predict the class of each image, once for every draw of the shots.

        Args:
            benchmark: Name of the benchmark.
            features: Features of the benchmark's images, fp32 [images, dim].

        Returns:
            The predicted classes for each number of shots, int64 [images, draws]. The dictionary is empty if `map_classes`
            cannot map the benchmark's classes to reference classes.
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
        # argmax returns the first maximum, so the class with the smaller index wins a tie.
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
            f"{benchmark.folder}: {accounting.damaged_shards} shards are truncated or corrupt; download or convert the benchmark "
            "again, because it must be complete"
        )
    check_limit(drop_limit, accounting, len(found.labels), benchmark.shards)
    return found


def _few_shot_results(
    name: str, predictions: dict[int, NDArray[np.int64]], labels: NDArray[np.int64]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compute the few-shot columns of the image table and the few-shot metrics.

    Args:
        name: Name of the benchmark.
        predictions: The predicted classes for each number of shots, int64 [images, draws].
        labels: The class of each image, int64 [images].

    Returns:
        The few-shot columns by name, and the few-shot metrics by name.
    """
    columns: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for shots, predicted in predictions.items():
        correct = predicted == labels[:, None]
        accuracies = correct.mean(axis=0)
        columns[f"correct_{shots}_shot"] = pa.FixedSizeListArray.from_arrays(correct.ravel(), correct.shape[1])
        metrics[f"few_shot/{name}/top1_{shots}_shot"] = float(accuracies.mean())
        if len(accuracies) > 1:
            metrics[f"few_shot/{name}/top1_{shots}_shot/spread"] = float(accuracies.std(ddof=1))
    return columns, metrics


def _evaluate_benchmark(
    images: LabelledFeatures, classes: NDArray[np.float32], benchmark: Benchmark, out: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Classify the images of a benchmark zero-shot, and write the table of the benchmark's classes.

    Returns:
        The zero-shot columns of the image table by name, and the zero-shot metrics by name.
    """
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
    """Evaluate a model on benchmarks and write two tables for each benchmark.

    `<benchmark>.parquet` has one row for each readable image. The rows have the same order as in the benchmark's embeddings,
    which is the order of the shards. The columns are `row`, `label`, `prediction`, `correct` (top-1) and `correct_top5`. For
    each number k of shots, there is also a column `correct_<k>_shot`. Each value in this column is a list with one item for
    each draw. The item says whether the prediction is correct.

    `classes/<benchmark>.parquet` has one row for each class. `class_table` describes its columns.

    A prediction is always one of the benchmark's own classes. The model embeds every image only once.

    Args:
        parameters: The `evaluate` parameters.
        model: The model to evaluate.
        benchmarks: The benchmarks.
        shots: The shots of few-shot classification, or None to evaluate zero-shot only.
        classnames: The class names of the reference.
        decoders: Number of threads that decode images. This number does not change the results.
        drop_limit: Largest allowed share of broken images in a benchmark, in [0, 1].
        out: Folder to write.

    Returns:
        The metrics by name: accuracies in [0, 1] and numbers of samples. CLIP_benchmark defines `top1` (acc1), `top5` (acc5)
        and `mean_per_class_recall`. `top5` is missing if there are fewer than five classes. A few-shot accuracy is the mean
        over draws, and `spread` is the standard deviation over draws. `refused` is true if few-shot classification of a
        benchmark is not possible.

    Raises:
        SimgapError: A benchmark has a damaged shard or no readable image, or the share of broken images exceeds `drop_limit`. A
            label is outside the class list. A benchmark refers to a class that the reference does not have. A shot is no longer
            in the reference. The features of an image or a class are not finite or are zero. The function does not drop such an
            image.
    """
    few_shot = None
    if shots is not None:
        few_shot = FewShot(parameters.few_shot, model, benchmarks, shots, classnames, parameters.batch_size, decoders)
    metrics: dict[str, Any] = {}
    prompts: dict[tuple[tuple[str, ...], tuple[str, ...]], NDArray[np.float32]] = {}
    with atomic_output(out) as partial:
        (partial / "classes").mkdir(parents=True)
        for benchmark in progress(benchmarks, len(benchmarks), f"evaluate {out.name}", "benchmark"):
            # Several benchmarks often have the same classes and templates. For these benchmarks, the class features are
            # computed only once.
            prompt = (benchmark.classnames, benchmark.templates)
            if prompt not in prompts:
                prompts[prompt] = class_features(model, *prompt, benchmark.folder)
            accounting = Accounting()
            images = _load(model, benchmark, parameters.batch_size, decoders, drop_limit, accounting)
            columns, found = _evaluate_benchmark(images, prompts[prompt], benchmark, partial / "classes")
            found |= {f"zero_shot/{benchmark.name}/{k}": v for k, v in accounting.metrics(len(images.labels)).items()}
            if few_shot is not None:
                predictions = few_shot.predict(benchmark.name, images.features)
                found[f"few_shot/{benchmark.name}/refused"] = not predictions
                more = _few_shot_results(benchmark.name, predictions, images.labels)
                columns, found = columns | more[0], found | more[1]
            pq.write_table(pa.table(columns), partial / f"{benchmark.name}.parquet")
            metrics |= found
    return metrics
