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

from simgap.errors import SimgapError
from simgap.prune.split import Split, read_split


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
    correct: dict[tuple[str, str], NDArray[np.bool_]]
    correct_top5: dict[tuple[str, str], NDArray[np.bool_]]
    similarity: dict[tuple[str, str], NDArray[np.float64]]
    few_shot: dict[tuple[str, str, int], NDArray[np.float64]]

    def full(self) -> str | None:
        """Give the name of the split with all rows, where it was trained."""
        return next((name for name, split in self.splits.items() if split.rule == "full"), None)

    def reference_alone(self) -> str | None:
        """Give the name of the split without pool rows, where it was trained."""
        return next((name for name, split in self.splits.items() if split.kept == 0), None)

    def control_of(self, name: str) -> str | None:
        """Give the trained random split of the same size, one that names this split first; None for a random or full split."""
        split = self.splits[name]
        if split.rule in ("random", "full"):
            return None
        same_size = [other for other, s in self.splits.items() if s.rule == "random" and s.kept == split.kept]
        return next((other for other in same_size if self.splits[other].controls == name), next(iter(same_size), None))


def spread(accuracies: NDArray[np.float64]) -> float | None:
    """Give the standard deviation of accuracies over all seeds and draws together; None where there is one alone."""
    return float(accuracies.std(ddof=1)) if accuracies.size > 1 else None


def _outcomes(tables: list[pa.Table], column: str) -> NDArray[np.bool_]:
    return np.stack([table.column(column).to_numpy() for table in tables])


def _few_shot(tables: list[pa.Table]) -> dict[int, NDArray[np.float64]]:
    """Give accuracies [seeds, draws] by number of shots."""
    found = {}
    for column in tables[0].column_names:
        if column.endswith("_shot"):
            outcomes: list[NDArray[Any]] = [
                pc.list_flatten(table.column(column)).to_numpy().reshape(len(table), -1) for table in tables
            ]
            found[int(column.removeprefix("correct_").removesuffix("_shot"))] = np.stack(
                [of_draws.mean(axis=0) for of_draws in outcomes]
            )
    return found


def read_study(
    runs: list[str],
    seeds: list[int],
    benchmarks: list[str],
    splits: Path,
    similarity: Path,
    profiles: Path,
    evaluations: Path,
) -> Study:
    """Read a study, and check that all its tables speak of the same images.

    Raises:
        SimgapError: an evaluation or a profile has other images than the benchmark's queries.
    """
    read = {run: read_split(splits / run) for run in runs}
    study = Study(read, read_split(splits / "full").kept, benchmarks, seeds, {}, {}, {}, {}, {}, {})
    for benchmark in benchmarks:
        queries = pq.read_table(similarity / benchmark / "queries.parquet", columns=["label", "used_by_rule"])
        study.used_by_rule[benchmark] = queries.column("used_by_rule").to_numpy()
        labels = study.labels[benchmark] = queries.column("label").to_numpy().astype(np.int64)
        for run, split in read.items():
            place = (run, benchmark)
            paths = [evaluations / f"{run}-{seed}" / f"{benchmark}.parquet" for seed in seeds]
            tables = [pq.read_table(path) for path in paths]
            for path, table in zip(paths, tables, strict=True):
                if not np.array_equal(table.column("label").to_numpy(), labels):
                    raise SimgapError(
                        f"{path}: has other images than {similarity / benchmark}; evaluate or measure anew"
                    )
            study.correct[place] = _outcomes(tables, "correct")
            if "correct_top5" in tables[0].column_names:
                study.correct_top5[place] = _outcomes(tables, "correct_top5")
            study.few_shot.update({(*place, shots): found for shots, found in _few_shot(tables).items()})
            column = "similarity_with_reference" if split.reference_rows else "similarity"
            profile = pq.read_table(profiles / run / f"{benchmark}.parquet", columns=[column])
            if len(profile) != len(labels):
                raise SimgapError(
                    f"{profiles / run}: {benchmark} has {len(profile)} images, {similarity / benchmark} has "
                    f"{len(labels)}; profile the split anew"
                )
            study.similarity[place] = profile.column(column).to_numpy().astype(np.float64)
    return study
