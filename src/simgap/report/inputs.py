"""Read everything that the page shows: metrics, tables of the comparison, galleries, and columns of queries."""

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
    """The folders that hold the results of a study.

    Attributes:
        metrics: The folder of the metrics files.
        tables: The folder of the tables of the comparison.
        galleries: The folder of the galleries of images.
        profiles: The folder of the similarity profiles of the splits.
        similarity: The folder with the similarity of the pool to each benchmark.
        benchmarks: The folder of the benchmarks.
    """

    metrics: Path
    tables: Path
    galleries: Path
    profiles: Path
    similarity: Path
    benchmarks: Path


class ReportInputs:
    """A finished study and all data that the page of the study shows.

    Attributes:
        study: The study, which reads the metrics files.
        folders, pruned, ground_truths, in_distribution_benchmark: The arguments of `__init__`.
        galleries: The content of `galleries.json`.
        queries: The similarities of the queries, by benchmark.
        classnames: The names of the classes, by benchmark.
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
            folders: The folders that hold the results.
            runs: The names of the trained splits, in the order of the params file.
            pruned: The names of all imagenet-like splits, including the splits that are not trained.
            benchmarks: The names of the benchmarks.
            seeds: The training seeds.
            ground_truths: The names of the metrics files of the `ground-truth` stage.
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
        """Return the similarity profile of a split for a benchmark, with one row for each query.

        The columns are `similarity` and `nearest_similarities`. `similarity` is null if the split keeps no row.
        """
        columns = ["similarity", "nearest_similarities"]
        return pq.read_table(self.folders.profiles / split / f"{benchmark}.parquet", columns=columns)

    def classes(self, split: str, benchmark: str) -> pa.Table:
        """Return a table with one row for each class of a benchmark.

        The class of a pool row is the class of the nearest query. The columns are `label`, `rows_of_full` and `kept`.
        `rows_of_full` is the number of rows of full with the class. `kept` is the number of rows with the class that the split
        keeps.
        """
        return pq.read_table(self.folders.profiles / split / "classes" / f"{benchmark}.parquet")

    def table(self, name: str) -> list[Row]:
        """Return the rows of a table of the comparison. All values are text. The list is empty if there is no such table."""
        return read_table(self.folders.tables / f"{name}.csv")

    def ground_truth(self, name: str) -> dict[str, Any]:
        """Return the metrics of one instance of the `ground-truth` stage."""
        return self.study.read(f"ground-truth/{name}")

    def shown_for(self, benchmark: str) -> str | None:
        """Return the name of the pruned split that the galleries show for a benchmark, or None if there is no such split."""
        split: str | None = self.galleries["benchmarks"][benchmark].get("split")
        return split

    def gallery_similarity(self, entry: dict[str, Any], key: str) -> Metric:
        """Return the similarity of an entry of the galleries.

        Args:
            entry: The entry.
            key: The path of the entry in `galleries.json`.
        """
        return Metric(entry["similarity"], str(self._galleries_file), f"{key}/similarity")
