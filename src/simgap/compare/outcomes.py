"""Read the inputs of a comparison: the splits, the queries that their rules used, and the outcomes of every model.

An outcome says whether a model classifies an image correctly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.store.split import Split, read_split
from simgap.store.study import TrainedSplits

MEASURE, EVALUATE, PROFILE = (f"run the {stage} stage again" for stage in ("similarity", "evaluate", "profile"))


@dataclass(frozen=True)
class Outcomes(TrainedSplits):
    """The outcomes of the models of a study, image by image.

    Attributes:
        splits: The trained splits by name, in the order of the params file.
        full_rows: The number of rows that the split full keeps. Full need not be trained.
        benchmarks: The names of the benchmarks.
        seeds: The training seeds.
        labels: The labels of the images, int64 [images], by benchmark.
        used_by_rule: Which images are queries of rules, bool [images], by benchmark.
        copied: Which images have a copy in the pool, bool [images], by benchmark.
        correct: Whether the top-1 prediction is correct, bool [seeds, images], by (split, benchmark).
        correct_top5: Whether one of the top five predictions is correct, bool [seeds, images], by (split, benchmark).
            Benchmarks with fewer than five classes are absent.
        similarity: The similarity of each image to its nearest image in the training data, float64 [images], by (split,
            benchmark). The training data include the reference if it was added to the split.
        few_shot: The few-shot accuracies, float64 [seeds, repetitions], by (split, benchmark, shots). Each repetition samples
            its own shots. Benchmarks that do not support few-shot evaluation are absent.
    """

    splits: dict[str, Split]
    full_rows: int
    benchmarks: list[str]
    seeds: list[int]
    labels: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    used_by_rule: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    copied: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    correct: dict[tuple[str, str], NDArray[np.bool_]] = field(default_factory=dict)
    correct_top5: dict[tuple[str, str], NDArray[np.bool_]] = field(default_factory=dict)
    similarity: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)
    few_shot: dict[tuple[str, str, int], NDArray[np.float64]] = field(default_factory=dict)


def spread(accuracies: NDArray[np.float64]) -> float | None:
    """Compute the standard deviation over all accuracies.

    Args:
        accuracies: The accuracies, [seeds, repetitions].

    Returns:
        The standard deviation, or None if there is only one accuracy.
    """
    return float(accuracies.std(ddof=1)) if accuracies.size > 1 else None


def _read_table(path: Path, columns: list[str], remedy: str) -> pa.Table:
    """Read a Parquet table, and check that it has all of `columns`."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise SimgapError(f"{path}: no such file; {remedy}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise SimgapError(
            f"{path}: the file cannot be read as a table ({str(error).splitlines()[0]}); {remedy}"
        ) from None
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise SimgapError(f"{path}: the table has no column {missing[0]}; {remedy}")
    return table


def _stacked(tables: list[pa.Table], column: str) -> NDArray[np.bool_]:
    return np.stack([table.column(column).to_numpy() for table in tables])


def _shots_of(table: pa.Table) -> list[int]:
    columns = [column for column in table.column_names if column.endswith("_shot")]
    return [int(column.removeprefix("correct_").removesuffix("_shot")) for column in columns]


def _few_shot(tables: list[pa.Table]) -> dict[int, NDArray[np.float64]]:
    """Return the few-shot accuracies by the number of shots.

    Returns:
        The accuracies, [seeds, repetitions], for each number of shots.
    """
    found = {}
    for shots in _shots_of(tables[0]):
        outcomes: list[NDArray[Any]] = [
            pc.list_flatten(table.column(f"correct_{shots}_shot")).to_numpy().reshape(len(table), -1)
            for table in tables
        ]
        found[shots] = np.stack([draws.mean(axis=0) for draws in outcomes])
    return found


def _read_evaluation(path: Path, queries: pa.Table, similarity: Path, shots: list[int]) -> pa.Table:
    """Read the outcomes of a model on a benchmark.

    Args:
        path: The table of outcomes.
        queries: The queries of the benchmark. The table must have the same images and labels in the same order.
        similarity: The folder that `queries` comes from, for error messages.
        shots: The numbers of shots. The table must have few-shot outcomes for exactly these numbers, or none at all.
    """
    table = _read_table(path, ["row", "label", "correct"], EVALUATE)
    for column in ("row", "label"):
        if not np.array_equal(table.column(column).to_numpy(), queries.column(column).to_numpy()):
            raise SimgapError(f"{path}: the images differ from the images of {similarity}; {EVALUATE} or {MEASURE}")
    if sorted(_shots_of(table)) not in ([], sorted(shots)):
        raise SimgapError(
            f"{path}: the model was evaluated with {_shots_of(table)} shots, but evaluate.few_shot.shots is {shots}; {EVALUATE}"
        )
    return table


def _read_evaluations(
    paths: dict[tuple[str, int], Path], queries: pa.Table, similarity: Path, shots: list[int]
) -> dict[tuple[str, int], pa.Table]:
    """Read the outcomes of all models on a benchmark. All tables must have the same columns.

    Returns:
        The tables of outcomes by (split, seed).
    """
    tables = {model: _read_evaluation(path, queries, similarity, shots) for model, path in paths.items()}
    first = next(iter(tables))
    for model, table in tables.items():
        # Two models can be compared only by quantities that both models have.
        if not table.schema.equals(tables[first].schema):
            raise SimgapError(
                f"{paths[model]}: the table has other columns than {paths[first]}; {EVALUATE} for both models"
            )
    return tables


def _read_profile(path: Path, column: str, queries: pa.Table, similarity: Path) -> NDArray[np.float64]:
    """Read the similarity of each image in `queries` to its nearest training image.

    Args:
        path: The profile of a split on the benchmark.
        column: The column of the profile that holds the similarities.
        queries: The queries of the benchmark. The profile must have the same rows in the same order.
        similarity: The folder that `queries` comes from, for error messages.

    Returns:
        The similarities, float64 [images].
    """
    table = _read_table(path, ["row", column], PROFILE)
    if not np.array_equal(table.column("row").to_numpy(), queries.column("row").to_numpy()):
        raise SimgapError(
            f"{path}: the profile has {len(table)} images, which are not the {len(queries)} images of {similarity}; {PROFILE}"
        )
    if table.column(column).null_count:
        raise SimgapError(f"{path}: the column {column} is empty for some images; {PROFILE}")
    return table.column(column).to_numpy().astype(np.float64)  # type: ignore[no-any-return]


def read_outcomes(
    runs: list[str],
    seeds: list[int],
    benchmarks: list[str],
    shots: list[int],
    leak_threshold: float,
    splits: Path,
    similarity: Path,
    profiles: Path,
    evaluations: Path,
) -> Outcomes:
    """Read the outcomes of a study, and check that all tables of a benchmark have the same images.

    Args:
        runs: The names of the trained splits.
        seeds: The training seeds.
        benchmarks: The names of the benchmarks.
        shots: The numbers of shots in the few-shot evaluation. A shot is one reference image of each class.
        leak_threshold: An image counts as copied if its similarity to the pool is above this threshold.
        splits: The folder of the splits.
        similarity: The folder with the similarities of the queries. It has one folder for each benchmark.
        profiles: The folder of the profiles. It has one folder for each split.
        evaluations: The folder of the outcomes. It has one folder for each model.

    Raises:
        SimgapError: A table is missing, is damaged or lacks a column. Or a table has other images than the benchmark's queries.
            Or the evaluations of a benchmark differ in their columns or in their numbers of shots.
    """
    read = {run: read_split(splits / run) for run in runs}
    outcomes = Outcomes(read, read_split(splits / "full").kept, benchmarks, seeds)
    for benchmark in benchmarks:
        measured = similarity / benchmark
        columns = ["row", "label", "used_by_rule", "pool_similarity"]
        queries = _read_table(measured / "queries.parquet", columns, MEASURE)
        outcomes.used_by_rule[benchmark] = queries.column("used_by_rule").to_numpy()
        outcomes.copied[benchmark] = queries.column("pool_similarity").to_numpy() > leak_threshold
        outcomes.labels[benchmark] = queries.column("label").to_numpy().astype(np.int64)
        paths = {(run, seed): evaluations / f"{run}-{seed}" / f"{benchmark}.parquet" for run in runs for seed in seeds}
        tables = _read_evaluations(paths, queries, measured, shots)
        for run, split in read.items():
            place = (run, benchmark)
            run_tables = [tables[run, seed] for seed in seeds]
            outcomes.correct[place] = _stacked(run_tables, "correct")
            if "correct_top5" in run_tables[0].column_names:
                outcomes.correct_top5[place] = _stacked(run_tables, "correct_top5")
            outcomes.few_shot.update({(*place, count): few for count, few in _few_shot(run_tables).items()})
            column = "similarity_with_reference" if split.reference_rows else "similarity"
            outcomes.similarity[place] = _read_profile(
                profiles / run / f"{benchmark}.parquet", column, queries, measured
            )
    return outcomes
