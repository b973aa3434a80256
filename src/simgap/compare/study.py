"""What a finished study left on disk: splits, their queries' marks, and every image's outcome under every model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
        correct: by (split, benchmark): top-1 outcomes, bool [seeds, images].
        used_by_rule: by benchmark: the images that are queries of rules, bool [images].
        few_shot: by (split, benchmark, shots): mean few-shot accuracy over seeds.
    """

    splits: dict[str, Split]
    full_rows: int
    benchmarks: list[str]
    seeds: list[int]
    correct: dict[tuple[str, str], NDArray[np.bool_]]
    used_by_rule: dict[str, NDArray[np.bool_]]
    few_shot: dict[tuple[str, str, int], float]

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


def read_study(
    runs: list[str], seeds: list[int], benchmarks: list[str], splits: Path, similarity: Path, evaluations: Path
) -> Study:
    """Read a study, and check that all its tables speak of the same images.

    Raises:
        SimgapError: an evaluation has other images than the benchmark's queries.
    """
    used, labels = {}, {}
    for benchmark in benchmarks:
        table = pq.read_table(similarity / benchmark / "queries.parquet", columns=["label", "used_by_rule"])
        used[benchmark] = table.column("used_by_rule").to_numpy()
        labels[benchmark] = table.column("label").to_numpy()
    correct: dict[tuple[str, str], NDArray[np.bool_]] = {}
    few_shot: dict[tuple[str, str, int], float] = {}
    for run in runs:
        for benchmark in benchmarks:
            outcomes = []
            shot_outcomes: dict[int, list[float]] = {}
            for seed in seeds:
                path = evaluations / f"{run}-{seed}" / f"{benchmark}.parquet"
                table = pq.read_table(path)
                if not np.array_equal(table.column("label").to_numpy(), labels[benchmark]):
                    raise SimgapError(
                        f"{path}: has other images than {similarity / benchmark}; evaluate or measure anew"
                    )
                outcomes.append(table.column("correct").to_numpy())
                for column in table.column_names:
                    if column.endswith("_shot"):
                        shots = int(column.removeprefix("correct_").removesuffix("_shot"))
                        shot_outcomes.setdefault(shots, []).append(float(table.column(column).to_numpy().mean()))
            correct[run, benchmark] = np.stack(outcomes)
            few_shot |= {(run, benchmark, shots): float(np.mean(found)) for shots, found in shot_outcomes.items()}
    read = {run: read_split(splits / run) for run in runs}
    return Study(read, read_split(splits / "full").kept, benchmarks, seeds, correct, used, few_shot)
