"""Read the accuracies of several revisions, and group them by split and threshold."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

from simgap.core.errors import SimgapError
from simgap.params.schema import Params
from simgap.store.estimates import Estimate, Metric
from simgap.store.split import Split
from simgap.store.study import Study
from simgap.studies.revisions import Revision
from simgap.tracking.records import flatten


@dataclass
class Cell:
    """The accuracies of the models of one split at one threshold, on one benchmark.

    Attributes:
        accuracies: The zero-shot top-1 accuracy of each model, by training seed.
        accuracy: The accuracy over all seeds with an interval. None if no revision has a comparison with exactly these seeds.
        minus_control: The accuracy minus the accuracy of the control, with an interval. None if no revision has a comparison
            with exactly these seeds, or if the split has no control or no threshold.
    """

    accuracies: dict[int, Metric] = field(default_factory=dict)
    accuracy: Estimate | None = None
    minus_control: Estimate | None = None

    @property
    def mean(self) -> float:
        """The mean accuracy over all seeds."""
        return statistics.fmean(metric.value for metric in self.accuracies.values())

    @property
    def lowest(self) -> Metric:
        """The accuracy of the least accurate model."""
        return min(self.accuracies.values(), key=lambda metric: metric.value)

    @property
    def highest(self) -> Metric:
        """The accuracy of the most accurate model."""
        return max(self.accuracies.values(), key=lambda metric: metric.value)


@dataclass
class Point:
    """A split at one threshold, or a split that does not depend on the threshold.

    Attributes:
        split: The name of the split.
        threshold: The threshold. None if the split does not depend on the threshold.
        rule: The description of the split.
        pruned: The number of rows of full that the split leaves out.
        kept: The number of rows that the split keeps.
        seeds: The training seeds of all models of the point.
        cells: The accuracies of the models, by benchmark.
    """

    split: str
    threshold: float | None
    rule: Split
    pruned: Metric
    kept: Metric
    seeds: list[int]
    cells: dict[str, Cell]


Points = dict[tuple[str, float | None], Point]


@dataclass(frozen=True)
class Sweep:
    """The models of one study at several thresholds.

    Attributes:
        revisions: The names of the revisions that the sweep includes.
        left_out: One sentence for each revision that the sweep leaves out: the name of the revision, and the reason.
        benchmarks: The names of the benchmarks.
        points: The points by (split, threshold). The splits are in the order of the params file. The points of a split are in
            ascending order of the threshold.
    """

    revisions: list[str]
    left_out: list[str]
    benchmarks: list[str]
    points: Points

    @property
    def thresholds(self) -> list[float]:
        """The thresholds in ascending order."""
        return sorted({threshold for _, threshold in self.points if threshold is not None})

    @property
    def splits(self) -> list[str]:
        """The names of the splits that depend on the threshold."""
        return list(dict.fromkeys(split for split, threshold in self.points if threshold is not None))

    def line(self, split: str) -> list[Point]:
        """Return the points of a split in ascending order of the threshold."""
        return [point for (name, _), point in self.points.items() if name == split]

    def full(self) -> Point | None:
        """Return the point of the split full, or None if full was not trained."""
        return next((point for point in self._without_threshold() if point.rule.rule == "full"), None)

    def reference_only(self) -> Point | None:
        """Return the point of the split without pool rows, or None if no such split was trained."""
        return next((point for point in self._without_threshold() if point.rule.kept == 0), None)

    def _without_threshold(self) -> list[Point]:
        return [point for (_, threshold), point in self.points.items() if threshold is None]


def _settings(params: Params, splits: Iterable[str]) -> dict[str, str]:
    """Return all parameters that must not differ within a sweep, as text by name.

    The block `runs` contains only the given splits.
    """
    runs = {split: params.runs[split] for split in splits}
    unchanged = asdict(replace(params, threshold=0.0, repeats=replace(params.repeats, seeds=[0]), runs=runs))
    # Resources and limits do not change results, so the revisions of a sweep may differ in them.
    del unchanged["resources"], unchanged["limits"]
    return flatten(unchanged, "")


def _difference(first: Params, other: Params) -> str | None:
    """Return a description of the first difference between the parameters of two revisions, or None if there is no difference.

    The threshold, the seeds, the choice of trained splits and `resources` are not compared.
    """
    both = first.runs.keys() & other.runs.keys()
    ours, theirs = _settings(first, both), _settings(other, both)
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name) != theirs.get(name):
            return f"{name} is {theirs.get(name, 'nothing')} instead of {ours.get(name, 'nothing')}"
    return None


def _add(points: Points, study: Study, split: str) -> None:
    """Add the models of one split in one revision to `points`.

    Raises:
        SimgapError: Another revision has a different accuracy for the same model.
    """
    threshold = study.threshold_of(split)
    key = (split, threshold)
    if key not in points:
        cells = {name: Cell() for name in study.benchmarks}
        rows = study.rows_pruned(split), study.rows_kept(split)
        points[key] = Point(split, threshold, study.splits[split], *rows, [], cells)
    point = points[key]
    for seed in study.seeds:
        for benchmark, cell in point.cells.items():
            found = study.model_accuracy(split, seed, benchmark)
            known = cell.accuracies.setdefault(seed, found)
            if known.value != found.value:
                raise SimgapError(
                    f"{found.file}: {found.key} is {found.value}, but {known.value} in {known.file}, with the same parameters; "
                    "leave one of the two revisions out"
                )
    point.seeds = sorted({*point.seeds, *study.seeds})


def _add_comparison(points: Points, study: Study, threshold: float) -> None:
    """Add the intervals of a revision's comparison to `points`.

    A comparison fits a point if both have the same seeds and the same threshold. A point that does not depend on the threshold
    needs only the same seeds. Points that do not fit are skipped. An interval from an earlier revision is not replaced.
    """
    for point in points.values():
        if point.threshold not in (None, threshold) or sorted(study.seeds) != point.seeds:
            continue
        for benchmark, cell in point.cells.items():
            cell.accuracy = cell.accuracy or study.estimate(point.split, benchmark, "accuracy")
            if point.threshold is not None:
                found = study.estimate(point.split, benchmark, "minus_control")
                cell.minus_control = cell.minus_control or found


def read_sweep(revisions: Sequence[Revision], base: Params) -> Sweep:
    """Read the accuracies of the models of several revisions from the metrics files in git.

    A model counts once even if several revisions have it. Revisions of another study are left out. A revision belongs to
    another study if its parameters differ from `base`. Only the threshold, the seeds, the choice of trained splits and
    `resources` may differ.

    Args:
        revisions: The revisions to read.
        base: The parameters of the study.

    Returns:
        The sweep. Its attribute `left_out` names the revisions of other studies.

    Raises:
        SimgapError: A file is missing, two revisions have different results for one model, or no trained split depends on a
            threshold.
    """
    left_out: list[str] = []
    read: list[tuple[str, Study, Params]] = []
    for revision in revisions:
        params = revision.params()
        difference = _difference(base, params)
        if difference is None:
            read.append((revision.name, revision.study(), params))
        else:
            left_out.append(f"{revision.name}: {difference}")
    points: Points = {}
    for split in dict.fromkeys(split for _, study, _ in read for split in study.splits):
        split_points: Points = {}
        for _, study, _ in read:
            if split in study.splits:
                _add(split_points, study, split)
        points |= dict(sorted(split_points.items(), key=lambda item: item[0][1] or 0.0))
    for _, study, params in read:
        _add_comparison(points, study, params.threshold)
    sweep = Sweep([name for name, _, _ in read], left_out, base.benchmarks.names, points)
    if not sweep.splits:
        found = f"revisions with these parameters: {len(read)}" + "".join(
            f"; left out: {reason}" for reason in left_out
        )
        raise SimgapError(
            f"params.yaml: no trained split depends on the threshold ({found}); train an imagenet-like split"
        )
    return sweep
