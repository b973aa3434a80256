"""What the page is made of: metrics, tables of the comparison, and columns of queries."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simgap.core.files import read_json
from simgap.data.benchmarks import read_lines
from simgap.report.numbers import Metrics

COMPARE, LEAKS = "compare/compare", "leaks/leaks"
IMAGENET_LIKE = "imagenet-like"
BY_SIZE = ("dissimilar", "similar")


@dataclass(frozen=True)
class Folders:
    """Where a study's results lie: metrics, the comparison's tables, galleries, profiles, similarity, and benchmarks."""

    metrics: Path
    tables: Path
    galleries: Path
    profiles: Path
    similarity: Path
    benchmarks: Path


class Study:
    """A finished study as its files tell it.

    Args:
        runs: the trained splits, in the order of the params file.
        pruned: the imagenet-like splits, trained or not.
        seeds: training seeds.
        truths: names of the metrics of `ground-truth`.
        in_distribution_benchmark: the benchmark without distribution shift.
    """

    def __init__(
        self,
        folders: Folders,
        runs: list[str],
        pruned: list[str],
        benchmarks: list[str],
        seeds: list[int],
        truths: list[str],
        in_distribution_benchmark: str,
    ) -> None:
        self.folders, self.metrics = folders, Metrics(folders.metrics)
        self.runs, self.pruned, self.benchmarks, self.seeds = runs, pruned, benchmarks, seeds
        self.truths, self.in_distribution_benchmark = truths, in_distribution_benchmark
        self.compared = self.metrics.read(COMPARE)
        self.splits = {name: self.metrics.read(f"prune/{name}") for name in dict.fromkeys(["full", *runs, *pruned])}
        self.galleries: dict[str, Any] = read_json(folders.galleries / "galleries.json")
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
        """Read a split's table of queries: `similarity`, null where no row is kept, and `nearest_similarities`."""
        columns = ["similarity", "nearest_similarities"]
        return pq.read_table(self.folders.profiles / split / f"{benchmark}.parquet", columns=columns)

    def classes(self, split: str, benchmark: str) -> pa.Table:
        """Read how many pool rows have their nearest query in each class: `label`, `rows_of_full`, `kept`."""
        return pq.read_table(self.folders.profiles / split / "classes" / f"{benchmark}.parquet")

    def table(self, name: str) -> list[dict[str, str]]:
        """Read one of the comparison's tables; empty where it was not written."""
        path = self.folders.tables / f"{name}.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def full(self) -> str | None:
        """Give the trained split with all rows, or None."""
        return next((name for name in self.runs if self.splits[name]["rule"] == "full"), None)

    def reference_alone(self) -> str | None:
        """Give the trained split without pool rows, or None; before one of which a rule left nothing, one meant to have none."""
        without = [name for name in self.runs if self.splits[name]["kept"] == 0]
        return next((name for name in without if self.splits[name]["rule"] == "random"), next(iter(without), None))

    def control_of(self, split: str) -> str | None:
        """Give the split that the comparison set it against, or None."""
        return self.compared.get(f"{split}/control")

    def controls_of(self, split: str) -> list[str]:
        """Give that split, and the others that the comparison set this one against: random, then of the same composition."""
        kinds = (self.compared.get(f"{split}/{kind}") for kind in ("control", "second_controls", "matched_controls"))
        return [control for found in kinds if found for control in found.split(", ")]

    def used(self, split: str, benchmark: str) -> bool:
        """Say whether the split's rule used queries of the benchmark."""
        return benchmark in self.splits[split]["benchmarks"]

    def has(self, key: str) -> bool:
        """Say whether the comparison has a figure."""
        return key in self.compared

    def trained(self, *rules: str) -> list[str]:
        """Give the trained splits of some rules."""
        return [name for name in self.runs if self.splits[name]["rule"] in rules]

    def shown_for(self, benchmark: str) -> str | None:
        """Give the split by which the galleries show what pruning left of a benchmark, or None."""
        split: str | None = self.galleries["benchmarks"][benchmark].get("split")
        return split
