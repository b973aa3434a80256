"""The reader of a finished study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from simgap.core.errors import SimgapError
from simgap.core.files import read_json
from simgap.store.estimates import Estimate, Metric
from simgap.store.split import Split
from simgap.store.verdicts import HELD_OUT, USED

METRICS = "metrics"
COMPARE = "compare/compare"


class TrainedSplits:
    """What the trained splits of a study are to each other.

    Attributes:
        splits: The trained splits by name, in the order of the params file.
    """

    splits: dict[str, Split]

    def full(self) -> str | None:
        """Return the split with all rows, or None if it was not trained."""
        return next(iter(self.of_rules("full")), None)

    def reference_only(self) -> str | None:
        """Return the trained split without pool rows, or None.

        Prefer a split configured to be empty over one that a rule emptied.
        """
        empty = [name for name, split in self.splits.items() if split.kept == 0]
        return next((name for name in empty if self.splits[name].rule == "random"), next(iter(empty), None))

    def of_rules(self, *rules: str) -> list[str]:
        """Return the trained splits of some rules."""
        return [name for name, split in self.splits.items() if split.rule in rules]

    def control_of(self, name: str) -> str | None:
        """Return the trained random split of the same size as a split, or None.

        Prefer a split that names this one as the split it controls. Controls and full have no control.
        """
        split = self.splits[name]
        if split.rule in ("random", "matched", "full"):
            return None
        same_size = [other for other in self.of_rules("random") if self.splits[other].kept == split.kept]
        return next((other for other in same_size if self.splits[other].controls == name), next(iter(same_size), None))

    def other_controls(self, name: str) -> list[str]:
        """Return the other trained controls of a split: further random ones, and those of the same composition."""
        first = self.control_of(name)
        return [other for other, split in self.splits.items() if split.controls == name and other != first]

    def controls_of(self, name: str) -> list[str]:
        """Return all controls of a split. The control of `control_of` comes first."""
        control = self.control_of(name)
        return [*([control] if control else []), *self.other_controls(name)]

    def used(self, split: str, benchmark: str) -> bool:
        """Return whether the rule of a split used queries of a benchmark."""
        return benchmark in self.splits[split].benchmarks

    def mark(self, split: str, benchmark: str) -> str:
        """Return `used by the rule` or `held out`: what a benchmark was to the rule of a split."""
        return USED if self.used(split, benchmark) else HELD_OUT


def threshold_of(split: str, read: Callable[[str], dict[str, Any]]) -> float | None:
    """Return the threshold that a split depends on, or None.

    It is the split's own threshold, or that of the split whose size, or a share of it, this one has.

    Args:
        split: Name of the split.
        read: Returns the metrics of a split's rule.
    """
    prune = read(split)
    parameters = prune["parameters"]
    if prune["threshold"] is not None or "size_of" not in parameters or isinstance(parameters.get("keep"), int):
        threshold: float | None = prune["threshold"]
        return threshold
    return threshold_of(parameters["size_of"], read)


class Source(Protocol):
    """Where the files of a study are read: a folder, or a revision."""

    def read(self, path: str) -> dict[str, Any]:
        """Read a JSON file."""

    def where(self, path: str) -> str:
        """Return the name of a file for messages and pages."""


class Folder:
    """The file system as the source of a study. Paths are relative to the working folder, or absolute."""

    def read(self, path: str) -> dict[str, Any]:
        """Read a JSON file.

        Raises:
            SimgapError: The file is missing, or it is not JSON.
        """
        content: dict[str, Any] = read_json(Path(path))
        return content

    def where(self, path: str) -> str:
        """Return the path."""
        return path


class Study(TrainedSplits):
    """A finished study, read from its metrics files.

    A metrics file is named by stage and instance, as in `prune/full` for `metrics/prune/full.json`.

    Every method raises SimgapError if a metrics file is missing, is not JSON, or lacks a number.

    Attributes:
        splits: The trained splits by name, in the order of the params file.
        benchmarks: Names of the benchmarks.
        seeds: Training seeds.
        compared: The metrics of the comparison.
    """

    def __init__(
        self, source: Source, runs: list[str], benchmarks: list[str], seeds: list[int], folder: str = METRICS
    ) -> None:
        """Read the rules of the trained splits, and the comparison.

        Args:
            source: Where files are read.
            runs: The trained splits, in the order of the params file.
            benchmarks: Names of the benchmarks.
            seeds: Training seeds.
            folder: The folder of the metrics files.
        """
        self._source, self._folder = source, folder
        self.benchmarks, self.seeds = benchmarks, seeds
        self.read, self.rule = cache(self._read), cache(self._rule)
        self.splits = {name: self.rule(name) for name in runs}
        self.compared = self.read(COMPARE)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}.json"

    def _read(self, name: str) -> dict[str, Any]:
        return self._source.read(self._path(name))

    def _rule(self, split: str) -> Split:
        """Return the rule of a split, trained or not."""
        name = f"prune/{split}"
        return Split(**{field.name: self._entry(name, field.name) for field in fields(Split)})

    def _entry(self, name: str, key: str) -> Any:
        content = self.read(name)
        if key not in content:
            raise SimgapError(f"{self._source.where(self._path(name))}: has no {key}; run the stage again")
        return content[key]

    def metric(self, name: str, key: str) -> Metric:
        """Return a number of a metrics file."""
        return Metric(self._entry(name, key), self._source.where(self._path(name)), key)

    def rows_kept(self, split: str) -> Metric:
        """Return how many pool rows a split keeps."""
        return self.metric(f"prune/{split}", "kept")

    def rows_pruned(self, split: str) -> Metric:
        """Return how many rows of full a split is without. For full, which has no such metric, it is 0."""
        name, key = f"prune/{split}", "dropped/pruned"
        return Metric(self.read(name).get(key, 0), self._source.where(self._path(name)), key)

    def model_accuracy(self, split: str, seed: int, benchmark: str) -> Metric:
        """Return the zero-shot top-1 accuracy of one model."""
        return self.metric(f"evaluate/{split}-{seed}", f"zero_shot/{benchmark}/top1")

    def estimate(self, split: str, benchmark: str, quantity: str) -> Estimate | None:
        """Return a quantity of the comparison with its interval, or None if it is undefined for the split.

        Args:
            split: A trained split.
            benchmark: A benchmark.
            quantity: `accuracy`, `minus_full`, `gap_explained` and so on; see `flat_metrics`.
        """
        key = f"{split}/{benchmark}/{quantity}"
        if key not in self.compared:
            return None
        value, low, high = (self.metric(COMPARE, f"{key}{end}") for end in ("", "/low", "/high"))
        return Estimate(value.value, low.value, high.value, value.file, key)

    def accuracy(self, split: str, benchmark: str) -> Estimate:
        """Return the zero-shot top-1 accuracy of a split over all images and seeds."""
        found = self.estimate(split, benchmark, "accuracy")
        if found is None:
            raise SimgapError(
                f"{self._source.where(self._path(COMPARE))}: has no {split}/{benchmark}/accuracy; run the stage again"
            )
        return found

    def minus_full(self, split: str, benchmark: str) -> Estimate | None:
        """Return the accuracy of a split minus that of full."""
        return self.estimate(split, benchmark, "minus_full")

    def minus_control(self, split: str, benchmark: str, control: str) -> Estimate | None:
        """Return the accuracy of a split minus that of one of its controls."""
        return self.estimate(
            split, benchmark, "minus_control" if control == self.control_of(split) else f"minus/{control}"
        )

    def gap_explained(self, split: str, benchmark: str) -> Estimate | None:
        """Return the share of the gap between full and the reference alone that a split explains (claim A)."""
        return self.estimate(split, benchmark, "gap_explained")

    def verdict_full(self, split: str, benchmark: str) -> str | None:
        """Return the verdict on the difference to full, or None if there is no difference."""
        return self.compared.get(f"{split}/{benchmark}/verdict_full")

    def verdict_control(self, split: str, benchmark: str, control: str) -> str | None:
        """Return the verdict on the difference to a control, or None if there is no difference."""
        key = "verdict_control" if control == self.control_of(split) else f"verdict/{control}"
        return self.compared.get(f"{split}/{benchmark}/{key}")

    def threshold_of(self, split: str) -> float | None:
        """Return the threshold that a split depends on, see `threshold_of`."""
        return threshold_of(split, lambda name: self.read(f"prune/{name}"))
