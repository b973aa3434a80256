"""What the page shows beside the metrics: tables of the comparison, galleries, and columns of queries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simgap.core.files import read_json
from simgap.data.benchmarks import read_lines
from simgap.store.estimates import Metric
from simgap.store.study import Folder, Study
from simgap.store.tables import Row, read_table

LEAKS = "leaks/leaks"
IMAGENET_LIKE = "imagenet-like"
BY_SIZE = ("dissimilar", "similar")


@dataclass(frozen=True)
class Folders:
    """The folders of a study's results: metrics, tables of the comparison, galleries, profiles, similarity, benchmarks."""

    metrics: Path
    tables: Path
    galleries: Path
    profiles: Path
    similarity: Path
    benchmarks: Path


class ReportInputs:
    """A finished study, with all that its page shows.

    Attributes:
        study: The reader of the study's metrics.
        folders, pruned, ground_truths, in_distribution_benchmark: See `__init__`.
        galleries: The content of `galleries.json`.
        queries: By benchmark, columns of its queries.
        classnames: By benchmark, the names of its classes.
    """

    def __init__(
        self,
        folders: Folders,
        runs: list[str],
        pruned: list[str],
        benchmarks: list[str],
        seeds: list[int],
        ground_truths: list[str],
        in_distribution_benchmark: str,
    ) -> None:
        """Read the files that every page needs.

        Args:
            folders: Where the results are.
            runs: The trained splits, in the order of the params file.
            pruned: The imagenet-like splits, trained or not.
            benchmarks: Names of the benchmarks.
            seeds: Training seeds.
            ground_truths: Names of the metrics of the `ground-truth` stage.
            in_distribution_benchmark: The benchmark without distribution shift.
        """
        self.folders, self.pruned, self.ground_truths = folders, pruned, ground_truths
        self.in_distribution_benchmark = in_distribution_benchmark
        self.study = Study(Folder(), runs, benchmarks, seeds, str(folders.metrics))
        self._galleries_file = folders.galleries / "galleries.json"
        self.galleries: dict[str, Any] = read_json(self._galleries_file)
        self.queries = {
            name: pq.read_table(
                folders.similarity / name / "queries.parquet",
                columns=["reference_similarity", "pool_similarity", "nearest_similarities"],
            )
            for name in benchmarks
        }
        self.classnames = {
            name: read_lines(folders.benchmarks / name / "classnames.txt", "one class name a line")
            for name in benchmarks
        }

    def profile(self, split: str, benchmark: str) -> pa.Table:
        """Return the queries of a split's profile: `similarity` (null if no row is kept) and `nearest_similarities`."""
        columns = ["similarity", "nearest_similarities"]
        return pq.read_table(self.folders.profiles / split / f"{benchmark}.parquet", columns=columns)

    def classes(self, split: str, benchmark: str) -> pa.Table:
        """Return how many pool rows have their nearest query in each class: `label`, `rows_of_full`, `kept`."""
        return pq.read_table(self.folders.profiles / split / "classes" / f"{benchmark}.parquet")

    def table(self, name: str) -> list[Row]:
        """Return the rows of a table of the comparison, all values as text. A table that was not written has no rows."""
        return read_table(self.folders.tables / f"{name}.csv")

    def ground_truth(self, name: str) -> dict[str, Any]:
        """Return the metrics of an instance of the `ground-truth` stage."""
        return self.study.read(f"ground-truth/{name}")

    def shown_for(self, benchmark: str) -> str | None:
        """Return the split whose rows the galleries show for a benchmark after pruning, or None."""
        split: str | None = self.galleries["benchmarks"][benchmark].get("split")
        return split

    def gallery_similarity(self, entry: dict[str, Any], key: str) -> Metric:
        """Return the similarity of an entry of the galleries. `key` is the path of the entry in their file."""
        return Metric(entry["similarity"], str(self._galleries_file), f"{key}/similarity")
