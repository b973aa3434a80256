"""What a finished study left on disk: splits, their queries' marks, and every image's outcome under every model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.store.split import Split, read_split


@dataclass(frozen=True)
class Study:
    """The trained splits of a study.

    Attributes:
        splits: by name, in the order of the params file.
        full_rows: rows of the split full, trained or not.
        benchmarks: names.
        seeds: training seeds.
        labels: by benchmark: int64 [images].
        used_by_rule: by benchmark: the images that are queries of rules, bool [images].
        copied: by benchmark: the images with a copy in the pool, bool [images].
        correct: by (split, benchmark): top-1 outcomes, bool [seeds, images].
        correct_top5: the same for top-5, without benchmarks of fewer than five classes.
        similarity: by (split, benchmark): s_q of what the split is trained on, the reference included where it joined,
            float64 [images].
        few_shot: by (split, benchmark, shots): accuracies, float64 [seeds, draws]; without benchmarks that are refused.
    """

    splits: dict[str, Split]
    full_rows: int
    benchmarks: list[str]
    seeds: list[int]
    labels: dict[str, NDArray[np.int64]]
    used_by_rule: dict[str, NDArray[np.bool_]]
    copied: dict[str, NDArray[np.bool_]]
    correct: dict[tuple[str, str], NDArray[np.bool_]]
    correct_top5: dict[tuple[str, str], NDArray[np.bool_]]
    similarity: dict[tuple[str, str], NDArray[np.float64]]
    few_shot: dict[tuple[str, str, int], NDArray[np.float64]]

    def full(self) -> str | None:
        """Give the name of the split with all rows, where it was trained."""
        return next((name for name, split in self.splits.items() if split.rule == "full"), None)

    def reference_alone(self) -> str | None:
        """Give the trained split without pool rows; before one of which a rule left nothing, one that is meant to have none."""
        without = [name for name, split in self.splits.items() if split.kept == 0]
        return next((name for name in without if self.splits[name].rule == "random"), next(iter(without), None))

    def control_of(self, name: str) -> str | None:
        """Give the trained random split of the same size, one that names this split first; None for a control or full."""
        split = self.splits[name]
        if split.rule in ("random", "matched", "full"):
            return None
        same_size = [other for other, s in self.splits.items() if s.rule == "random" and s.kept == split.kept]
        return next((other for other in same_size if self.splits[other].controls == name), next(iter(same_size), None))

    def other_controls(self, name: str) -> list[str]:
        """Give a split's trained controls beside that one: further random ones, and those of the same composition."""
        first = self.control_of(name)
        return [other for other, split in self.splits.items() if split.controls == name and other != first]

    def controls_of(self, name: str) -> list[str]:
        """Give all controls of a split, the one that `control_of` gives first."""
        control = self.control_of(name)
        return [*([control] if control else []), *self.other_controls(name)]


def spread(accuracies: NDArray[np.float64]) -> float | None:
    """Give the standard deviation of accuracies over all seeds and draws together; None where there is one alone."""
    return float(accuracies.std(ddof=1)) if accuracies.size > 1 else None


def _read_table(path: Path, columns: list[str], remedy: str) -> pa.Table:
    """Read a table that has `columns`, and maybe others."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise SimgapError(f"{path}: no such file; {remedy}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise SimgapError(f"{path}: is no table that can be read ({str(error).splitlines()[0]}); {remedy}") from None
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise SimgapError(f"{path}: has no column {missing[0]}; {remedy}")
    return table


def _outcomes(tables: list[pa.Table], column: str) -> NDArray[np.bool_]:
    return np.stack([table.column(column).to_numpy() for table in tables])


def _shots_of(table: pa.Table) -> list[int]:
    columns = [column for column in table.column_names if column.endswith("_shot")]
    return [int(column.removeprefix("correct_").removesuffix("_shot")) for column in columns]


def _few_shot(tables: list[pa.Table]) -> dict[int, NDArray[np.float64]]:
    """Give accuracies [seeds, draws] by number of shots."""
    found = {}
    for shots in _shots_of(tables[0]):
        outcomes: list[NDArray[Any]] = [
            pc.list_flatten(table.column(f"correct_{shots}_shot")).to_numpy().reshape(len(table), -1)
            for table in tables
        ]
        found[shots] = np.stack([of_draws.mean(axis=0) for of_draws in outcomes])
    return found


def _read_evaluation(path: Path, queries: pa.Table, similarity: Path, shots: list[int]) -> pa.Table:
    """Read a model's outcomes on a benchmark: of the images of `queries`, and of `shots` unless few-shot was refused."""
    table = _read_table(path, ["row", "label", "correct"], "evaluate anew")
    for column in ("row", "label"):
        if not np.array_equal(table.column(column).to_numpy(), queries.column(column).to_numpy()):
            raise SimgapError(f"{path}: has other images than {similarity}; evaluate or measure anew")
    if sorted(_shots_of(table)) not in ([], sorted(shots)):
        raise SimgapError(
            f"{path}: was evaluated with {_shots_of(table)} shots, evaluate.few_shot.shots is {shots}; evaluate anew"
        )
    return table


def _read_profile(path: Path, column: str, queries: pa.Table, similarity: Path) -> NDArray[np.float64]:
    """Read s_q of the images of `queries`, float64 [images]."""
    table = _read_table(path, ["row", column], "profile the split anew")
    if not np.array_equal(table.column("row").to_numpy(), queries.column("row").to_numpy()):
        raise SimgapError(
            f"{path}: has other images ({len(table)}) than {similarity} ({len(queries)}); profile the split anew"
        )
    if table.column(column).null_count:
        raise SimgapError(f"{path}: {column} is not known for every image; profile the split anew")
    return table.column(column).to_numpy().astype(np.float64)  # type: ignore[no-any-return]


def read_study(
    runs: list[str],
    seeds: list[int],
    benchmarks: list[str],
    shots: list[int],
    leak_threshold: float,
    splits: Path,
    similarity: Path,
    profiles: Path,
    evaluations: Path,
) -> Study:
    """Read a study, and check that all its tables speak of the same images.

    Args:
        shots: numbers of reference images a class with which models were evaluated.
        leak_threshold: similarity to the pool above which an image counts as copied.

    Raises:
        SimgapError: a table is missing, cannot be read or lacks a column, an evaluation or a profile has other images than
            the benchmark's queries, or two evaluations on a benchmark have other columns or other numbers of shots.
    """
    read = {run: read_split(splits / run) for run in runs}
    study = Study(read, read_split(splits / "full").kept, benchmarks, seeds, {}, {}, {}, {}, {}, {}, {})
    for benchmark in benchmarks:
        measured = similarity / benchmark
        queries = _read_table(
            measured / "queries.parquet", ["row", "label", "used_by_rule", "pool_similarity"], "measure anew"
        )
        study.used_by_rule[benchmark] = queries.column("used_by_rule").to_numpy()
        study.copied[benchmark] = queries.column("pool_similarity").to_numpy() > leak_threshold
        study.labels[benchmark] = queries.column("label").to_numpy().astype(np.int64)
        paths = {(run, seed): evaluations / f"{run}-{seed}" / f"{benchmark}.parquet" for run in runs for seed in seeds}
        tables = {model: _read_evaluation(path, queries, measured, shots) for model, path in paths.items()}
        first = (runs[0], seeds[0])
        for model, table in tables.items():
            # What one model was measured by and another was not would be left out, or end in a traceback.
            if not table.schema.equals(tables[first].schema):
                raise SimgapError(f"{paths[model]}: has other columns than {paths[first]}; evaluate both anew")
        for run, split in read.items():
            place = (run, benchmark)
            of_run = [tables[run, seed] for seed in seeds]
            study.correct[place] = _outcomes(of_run, "correct")
            if "correct_top5" in of_run[0].column_names:
                study.correct_top5[place] = _outcomes(of_run, "correct_top5")
            study.few_shot.update({(*place, count): few for count, few in _few_shot(of_run).items()})
            column = "similarity_with_reference" if split.reference_rows else "similarity"
            study.similarity[place] = _read_profile(profiles / run / f"{benchmark}.parquet", column, queries, measured)
    return study
