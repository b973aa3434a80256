"""Read the accuracies of several revisions, by split and threshold."""

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
    """The models of a point on one benchmark.

    Attributes:
        accuracies: Zero-shot top-1, by training seed.
        accuracy, minus_control: From a revision that compared all these seeds together; None if there is no such revision, or
            no control.
    """

    accuracies: dict[int, Metric] = field(default_factory=dict)
    accuracy: Estimate | None = None
    minus_control: Estimate | None = None

    @property
    def mean(self) -> float:
        """The mean over seeds."""
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
    """A split at a threshold, or a split that depends on no threshold.

    Attributes:
        split: The name of the split.
        threshold: The threshold, or None.
        rule: The rule of the split.
        pruned, kept: Number of rows of full that the split leaves out, and that it keeps.
        seeds: Training seeds.
        cells: By benchmark.
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
    """Models of one study at several thresholds.

    Attributes:
        revisions: Names of the revisions that were read.
        left_out: The revisions that were not read, and why.
        benchmarks: Names.
        points: By (split, threshold), in the order of the params file, then by threshold.
    """

    revisions: list[str]
    left_out: list[str]
    benchmarks: list[str]
    points: Points

    @property
    def thresholds(self) -> list[float]:
        """The thresholds, ascending."""
        return sorted({threshold for _, threshold in self.points if threshold is not None})

    @property
    def splits(self) -> list[str]:
        """The splits that depend on the threshold."""
        return list(dict.fromkeys(split for split, threshold in self.points if threshold is not None))

    def line(self, split: str) -> list[Point]:
        """Return the points of a split, by threshold."""
        return [point for (name, _), point in self.points.items() if name == split]

    def full(self) -> Point | None:
        """Return the point of the split with all rows, or None if it was not trained."""
        return next((point for point in self._without_threshold() if point.rule.rule == "full"), None)

    def reference_only(self) -> Point | None:
        """Return the point of the split without pool rows, or None if it was not trained."""
        return next((point for point in self._without_threshold() if point.rule.kept == 0), None)

    def _without_threshold(self) -> list[Point]:
        return [point for (_, threshold), point in self.points.items() if threshold is None]


def _settings(params: Params, splits: Iterable[str]) -> dict[str, str]:
    """Flatten all parameters that a sweep does not change. Of `runs`, keep only some splits."""
    runs = {split: params.runs[split] for split in splits}
    unchanged = asdict(replace(params, threshold=0.0, repeats=replace(params.repeats, seeds=[0]), runs=runs))
    # They cannot change a result.
    del unchanged["resources"]
    return flatten(unchanged, "")


def _difference(first: Params, other: Params) -> str | None:
    """Name a parameter that differs between two revisions, other than threshold, seeds and which splits are trained."""
    both = first.runs.keys() & other.runs.keys()
    ours, theirs = _settings(first, both), _settings(other, both)
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name) != theirs.get(name):
            return f"{name} is {theirs.get(name, 'nothing')} instead of {ours.get(name, 'nothing')}"
    return None


def _add(points: Points, study: Study, split: str) -> None:
    """Add a revision's models of one split."""
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
                    "name only revisions that belong together"
                )
    point.seeds = sorted({*point.seeds, *study.seeds})


def _add_comparison(points: Points, study: Study, threshold: float) -> None:
    """Add a revision's comparison to the points that it compared: at its threshold, with all of their seeds."""
    for point in points.values():
        if point.threshold not in (None, threshold) or sorted(study.seeds) != point.seeds:
            continue
        for benchmark, cell in point.cells.items():
            cell.accuracy = cell.accuracy or study.estimate(point.split, benchmark, "accuracy")
            if point.threshold is not None:
                found = study.estimate(point.split, benchmark, "minus_control")
                cell.minus_control = cell.minus_control or found


def read_sweep(revisions: Sequence[Revision], base: Params) -> Sweep:
    """Read the accuracies of the models of several revisions from their metrics in git.

    A model that several revisions have counts once. A revision is another study, and left out, if a parameter differs from
    `base` other than the threshold, the seeds and which splits are trained.

    Args:
        revisions: The revisions.
        base: The parameters that say which study it is.

    Raises:
        SimgapError: A file is missing, two revisions have different results for one model, or no split depends on a threshold.
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
        of_split: Points = {}
        for _, study, _ in read:
            if split in study.splits:
                _add(of_split, study, split)
        points |= dict(sorted(of_split.items(), key=lambda item: item[0][1] or 0.0))
    for _, study, params in read:
        _add_comparison(points, study, params.threshold)
    sweep = Sweep([name for name, _, _ in read], left_out, base.benchmarks.names, points)
    if not sweep.splits:
        found = f"{len(read)} revisions have its parameters" + "".join(f"; left out {reason}" for reason in left_out)
        raise SimgapError(f"sweep: no trained split depends on the threshold: {found}")
    return sweep
