"""The inputs of a comparison: splits, which queries they used, and the outcome of every image under every model."""

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
        splits: the trained splits by name, in the order of the params file.
        full_rows: rows of the split full, trained or not.
        benchmarks: names.
        seeds: training seeds.
        labels: by benchmark: int64 [images].
        used_by_rule: by benchmark: the images that are queries of rules, bool [images].
        copied: by benchmark: the images with a copy in the pool, bool [images].
        correct: by (split, benchmark): top-1 outcomes, bool [seeds, images].
        correct_top5: the same for top-5, without benchmarks of fewer than five classes.
        similarity: by (split, benchmark): s_q of the training data, the reference included if it joined, float64 [images].
        few_shot: by (split, benchmark, shots): accuracies, float64 [seeds, draws], without benchmarks that refuse few-shot.
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
    """Return the standard deviation of accuracies over all seeds and draws together, or None for a single one."""
    return float(accuracies.std(ddof=1)) if accuracies.size > 1 else None


def _read_table(path: Path, columns: list[str], remedy: str) -> pa.Table:
    """Read a Parquet table that has at least `columns`."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise SimgapError(f"{path}: no such file; {remedy}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise SimgapError(f"{path}: cannot be read as a table ({str(error).splitlines()[0]}); {remedy}") from None
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise SimgapError(f"{path}: has no column {missing[0]}; {remedy}")
    return table


def _stacked(tables: list[pa.Table], column: str) -> NDArray[np.bool_]:
    return np.stack([table.column(column).to_numpy() for table in tables])


def _shots_of(table: pa.Table) -> list[int]:
    columns = [column for column in table.column_names if column.endswith("_shot")]
    return [int(column.removeprefix("correct_").removesuffix("_shot")) for column in columns]


def _few_shot(tables: list[pa.Table]) -> dict[int, NDArray[np.float64]]:
    """Return accuracies [seeds, draws] by number of shots."""
    found = {}
    for shots in _shots_of(tables[0]):
        outcomes: list[NDArray[Any]] = [
            pc.list_flatten(table.column(f"correct_{shots}_shot")).to_numpy().reshape(len(table), -1)
            for table in tables
        ]
        found[shots] = np.stack([of_draws.mean(axis=0) for of_draws in outcomes])
    return found


def _read_evaluation(path: Path, queries: pa.Table, similarity: Path, shots: list[int]) -> pa.Table:
    """Read the outcomes of a model on a benchmark, and check that they are of its images and of `shots`, or of none."""
    table = _read_table(path, ["row", "label", "correct"], EVALUATE)
    for column in ("row", "label"):
        if not np.array_equal(table.column(column).to_numpy(), queries.column(column).to_numpy()):
            raise SimgapError(f"{path}: its images are not those of {similarity}; {EVALUATE}, or {MEASURE}")
    if sorted(_shots_of(table)) not in ([], sorted(shots)):
        raise SimgapError(
            f"{path}: was evaluated with {_shots_of(table)} shots, but evaluate.few_shot.shots is {shots}; {EVALUATE}"
        )
    return table


def _read_evaluations(
    paths: dict[tuple[str, int], Path], queries: pa.Table, similarity: Path, shots: list[int]
) -> dict[tuple[str, int], pa.Table]:
    """Read the outcomes of all models on a benchmark, by (split, seed), and check that they have the same columns."""
    tables = {model: _read_evaluation(path, queries, similarity, shots) for model, path in paths.items()}
    first = next(iter(tables))
    for model, table in tables.items():
        # A quantity that only some models have could not be compared.
        if not table.schema.equals(tables[first].schema):
            raise SimgapError(f"{paths[model]}: has other columns than {paths[first]}; {EVALUATE} for both")
    return tables


def _read_profile(path: Path, column: str, queries: pa.Table, similarity: Path) -> NDArray[np.float64]:
    """Read s_q of the images of `queries`, float64 [images]."""
    table = _read_table(path, ["row", column], PROFILE)
    if not np.array_equal(table.column("row").to_numpy(), queries.column("row").to_numpy()):
        raise SimgapError(
            f"{path}: its {len(table)} images are not the {len(queries)} images of {similarity}; {PROFILE}"
        )
    if table.column(column).null_count:
        raise SimgapError(f"{path}: {column} is missing for some images; {PROFILE}")
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
    """Read the outcomes of a study, and check that all its tables are of the same images.

    Args:
        runs: names of the trained splits.
        seeds: training seeds.
        benchmarks: names of the benchmarks.
        shots: numbers of reference images for each class with which models were evaluated.
        leak_threshold: similarity to the pool above which an image counts as copied.
        splits: folder of the splits.
        similarity: folder of the queries' similarity, by benchmark.
        profiles: folder of the profiles, by split.
        evaluations: folder of the outcomes, by model.

    Raises:
        SimgapError: A table is missing, cannot be read or lacks a column; an evaluation or a profile has other images than
            the benchmark's queries; or two evaluations on a benchmark have other columns or other numbers of shots.
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
            of_run = [tables[run, seed] for seed in seeds]
            outcomes.correct[place] = _stacked(of_run, "correct")
            if "correct_top5" in of_run[0].column_names:
                outcomes.correct_top5[place] = _stacked(of_run, "correct_top5")
            outcomes.few_shot.update({(*place, count): few for count, few in _few_shot(of_run).items()})
            column = "similarity_with_reference" if split.reference_rows else "similarity"
            outcomes.similarity[place] = _read_profile(
                profiles / run / f"{benchmark}.parquet", column, queries, measured
            )
    return outcomes
