"""Read the metrics of a finished study."""

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
    """The trained splits of a study, and the relations between splits and controls.

    Attributes:
        splits: The trained splits by name, in the order of the params file.
    """

    splits: dict[str, Split]

    def full(self) -> str | None:
        """Return the name of the split full, or None if full was not trained."""
        return next(iter(self.splits_by_rule("full")), None)

    def reference_only(self) -> str | None:
        """Return the name of the trained split without pool rows, or None if there is no such split.

        If several splits have no pool rows, the function prefers a random split. A random split is empty because its parameters
        say so. The rule of another split may have left no row by chance.
        """
        empty = [name for name, split in self.splits.items() if split.kept == 0]
        return next((name for name in empty if self.splits[name].rule == "random"), next(iter(empty), None))

    def splits_by_rule(self, *rules: str) -> list[str]:
        """Return the names of the trained splits with one of the given rules."""
        return [name for name, split in self.splits.items() if split.rule in rules]

    def control_of(self, name: str) -> str | None:
        """Return the name of the trained random control of a split, or None if there is no such control.

        A random control is a random split of the same size. If there are several, the function prefers the first control whose
        `controls` attribute names the split. Controls and full have no control.
        """
        split = self.splits[name]
        if split.rule in ("random", "matched", "full"):
            return None
        same_size = [other for other in self.splits_by_rule("random") if self.splits[other].kept == split.kept]
        return next((other for other in same_size if self.splits[other].controls == name), next(iter(same_size), None))

    def other_controls(self, name: str) -> list[str]:
        """Return the names of all trained controls of a split except `control_of`.

        These are further random controls, and controls with the same share of each class or style.
        """
        first = self.control_of(name)
        return [other for other, split in self.splits.items() if split.controls == name and other != first]

    def controls_of(self, name: str) -> list[str]:
        """Return the names of all trained controls of a split. The control that `control_of` returns comes first."""
        control = self.control_of(name)
        return [*([control] if control else []), *self.other_controls(name)]

    def used(self, split: str, benchmark: str) -> bool:
        """Return whether the rule of a split used queries of a benchmark."""
        return benchmark in self.splits[split].benchmarks

    def rule_use(self, split: str, benchmark: str) -> str:
        """Return `used by the rule` if the rule of a split used queries of a benchmark, else `held out`."""
        return USED if self.used(split, benchmark) else HELD_OUT


def threshold_of(split: str, read: Callable[[str], dict[str, Any]]) -> float | None:
    """Return the threshold that a split depends on, or None if the split depends on no threshold.

    An imagenet-like split has its own threshold. Other splits may take their size, or a share of it, from a source split. Such
    splits depend on the threshold of the source split.

    Args:
        split: The name of the split.
        read: A function that takes the name of a split and returns the metrics of its rule.
    """
    prune = read(split)
    parameters = prune["parameters"]
    if prune["threshold"] is not None or "size_of" not in parameters or isinstance(parameters.get("keep"), int):
        threshold: float | None = prune["threshold"]
        return threshold
    return threshold_of(parameters["size_of"], read)


class Source(Protocol):
    """An object that reads the files of a study, from a folder or from a revision."""

    def read(self, path: str) -> dict[str, Any]:
        """Return the content of a JSON file."""

    def where(self, path: str) -> str:
        """Return the name of a file for messages and pages."""


class Folder:
    """A source that reads the files of a study from disk. Paths are absolute or relative to the working folder."""

    def read(self, path: str) -> dict[str, Any]:
        """Return the content of a JSON file.

        Raises:
            SimgapError: The file is missing or is not JSON.
        """
        content: dict[str, Any] = read_json(Path(path))
        return content

    def where(self, path: str) -> str:
        """Return the path unchanged, because a path already names a file on disk."""
        return path


class Study(TrainedSplits):
    """A finished study. All numbers come from the metrics files of the study.

    The name of a metrics file is its stage and its instance: `prune/full` is the file `metrics/prune/full.json`.

    A method raises SimgapError if a metrics file is missing, is not JSON, or lacks the requested number.

    Attributes:
        splits: The trained splits by name, in the order of the params file.
        benchmarks: The names of the benchmarks.
        seeds: The training seeds.
        compared: The metrics of the comparison, by key.
    """

    def __init__(
        self, source: Source, runs: list[str], benchmarks: list[str], seeds: list[int], folder: str = METRICS
    ) -> None:
        """Read the descriptions of the trained splits, and the metrics of the comparison.

        Args:
            source: The object that reads the files.
            runs: The names of the trained splits, in the order of the params file.
            benchmarks: The names of the benchmarks.
            seeds: The training seeds.
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
        """Return the description of a split. The split need not be trained."""
        name = f"prune/{split}"
        return Split(**{field.name: self._entry(name, field.name) for field in fields(Split)})

    def _entry(self, name: str, key: str) -> Any:
        content = self.read(name)
        if key not in content:
            raise SimgapError(f"{self._source.where(self._path(name))}: the file has no {key}; run the stage again")
        return content[key]

    def metric(self, name: str, key: str) -> Metric:
        """Return the number `key` of the metrics file `name`."""
        return Metric(self._entry(name, key), self._source.where(self._path(name)), key)

    def rows_kept(self, split: str) -> Metric:
        """Return how many pool rows a split keeps."""
        return self.metric(f"prune/{split}", "kept")

    def rows_pruned(self, split: str) -> Metric:
        """Return how many rows of full a split leaves out. The number is 0 for full. The metrics of full do not record it."""
        name, key = f"prune/{split}", "dropped/pruned"
        return Metric(self.read(name).get(key, 0), self._source.where(self._path(name)), key)

    def model_accuracy(self, split: str, seed: int, benchmark: str) -> Metric:
        """Return the zero-shot top-1 accuracy of the model that was trained on a split with a seed."""
        return self.metric(f"evaluate/{split}-{seed}", f"zero_shot/{benchmark}/top1")

    def estimate(self, split: str, benchmark: str, quantity: str) -> Estimate | None:
        """Return a quantity of the comparison with its interval, or None if the quantity is undefined for the split.

        Args:
            split: The name of a trained split.
            benchmark: The name of a benchmark.
            quantity: The name of the quantity, such as `accuracy`, `minus_full` or `gap_explained`. The function `flat_metrics`
                of `simgap.compare.metrics` defines the names.
        """
        key = f"{split}/{benchmark}/{quantity}"
        if key not in self.compared:
            return None
        value, low, high = (self.metric(COMPARE, f"{key}{end}") for end in ("", "/low", "/high"))
        return Estimate(value.value, low.value, high.value, value.file, key)

    def accuracy(self, split: str, benchmark: str) -> Estimate:
        """Return the zero-shot top-1 accuracy of a split over all images and seeds, with its interval."""
        found = self.estimate(split, benchmark, "accuracy")
        if found is None:
            raise SimgapError(
                f"{self._source.where(self._path(COMPARE))}: the file has no {split}/{benchmark}/accuracy; run the stage again"
            )
        return found

    def minus_full(self, split: str, benchmark: str) -> Estimate | None:
        """Return the accuracy of a split minus the accuracy of full, or None if the difference is undefined."""
        return self.estimate(split, benchmark, "minus_full")

    def minus_control(self, split: str, benchmark: str, control: str) -> Estimate | None:
        """Return the accuracy of a split minus the accuracy of a control, or None if the difference is undefined."""
        return self.estimate(
            split, benchmark, "minus_control" if control == self.control_of(split) else f"minus/{control}"
        )

    def gap_explained(self, split: str, benchmark: str) -> Estimate | None:
        """Return the share of the gap that a split explains (claim A), or None if the share is undefined.

        The gap is the accuracy of full minus the accuracy of the reference alone.
        """
        return self.estimate(split, benchmark, "gap_explained")

    def verdict_full(self, split: str, benchmark: str) -> str | None:
        """Return the verdict on the accuracy of a split minus the accuracy of full, or None if there is no such verdict."""
        return self.compared.get(f"{split}/{benchmark}/verdict_full")

    def verdict_control(self, split: str, benchmark: str, control: str) -> str | None:
        """Return the verdict on a split's accuracy minus a control's accuracy, or None if there is no such verdict."""
        key = "verdict_control" if control == self.control_of(split) else f"verdict/{control}"
        return self.compared.get(f"{split}/{benchmark}/{key}")

    def threshold_of(self, split: str) -> float | None:
        """Return the threshold that a split depends on, or None. The function `threshold_of` defines it."""
        return threshold_of(split, lambda name: self.read(f"prune/{name}"))
