"""What the metrics of several revisions say of their models, by split and threshold."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from simgap.core.errors import SimgapError
from simgap.params.schema import Params
from simgap.studies.revisions import COMPARE, Revision
from simgap.tracking.records import flatten, threshold_of


@dataclass(frozen=True)
class Figure:
    """A metric: its value, the file that it stands in, as revision and path, and its name there."""

    value: float
    file: str
    key: str


@dataclass(frozen=True)
class Interval:
    """A figure of a comparison with its 95% interval, by the bootstrap over seeds and images."""

    value: Figure
    low: Figure
    high: Figure


@dataclass
class Cell:
    """The models of a point on one benchmark.

    Attributes:
        accuracies: zero-shot top-1, by training seed.
        accuracy, minus_control: of the revision that compared all these seeds together; None where none did, or where there
            is no control.
    """

    accuracies: dict[int, Figure] = field(default_factory=dict)
    accuracy: Interval | None = None
    minus_control: Interval | None = None

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(figure.value for figure in self.accuracies.values())

    @property
    def lowest(self) -> Figure:
        """The seed whose model is the least accurate."""
        return min(self.accuracies.values(), key=lambda figure: figure.value)

    @property
    def highest(self) -> Figure:
        """The seed whose model is the most accurate."""
        return max(self.accuracies.values(), key=lambda figure: figure.value)


@dataclass
class Point:
    """A split at a threshold, or a split that depends on none.

    Attributes:
        prune: the metrics of its rule.
        pruned, kept: rows of full that it is without, and that it keeps.
        seeds: of training.
        cells: by benchmark.
    """

    split: str
    threshold: float | None
    prune: dict[str, Any]
    pruned: Figure
    kept: Figure
    seeds: list[int]
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Sweep:
    """Models of one study at several thresholds.

    Attributes:
        revisions: names of what was read.
        left_out: what was not, and why.
        benchmarks: names.
        points: by (split, threshold), in the order of the params file, then by threshold.
    """

    revisions: list[str]
    left_out: list[str]
    benchmarks: list[str]
    points: dict[tuple[str, float | None], Point]

    @property
    def thresholds(self) -> list[float]:
        """The thresholds, ascending."""
        return sorted({threshold for _, threshold in self.points if threshold is not None})

    @property
    def splits(self) -> list[str]:
        """The splits that depend on the threshold."""
        return list(dict.fromkeys(split for split, threshold in self.points if threshold is not None))

    def line(self, split: str) -> list[Point]:
        """Give a split's points, by threshold."""
        return [point for (name, _), point in self.points.items() if name == split]

    def alone(self, *, rows: bool) -> Point | None:
        """Give the split full, or with `rows` false the one without pool rows, where it was trained."""
        points = (point for (_, threshold), point in self.points.items() if threshold is None)
        wanted = (lambda p: p.prune["rule"] == "full") if rows else (lambda p: p.kept.value == 0)
        return next(filter(wanted, points), None)


def _settings(params: Params, splits: Iterable[str]) -> dict[str, str]:
    """Flatten all parameters that a sweep does not change, of the runs those of some splits."""
    runs = {split: params.runs[split] for split in splits}
    unchanged = replace(params, threshold=0.0, repeats=replace(params.repeats, seeds=[]), runs=runs)
    return flatten(asdict(unchanged), "")


def _difference(first: Params, other: Params) -> str | None:
    """Name a parameter in which two revisions differ, other than threshold, seeds and which splits are trained."""
    both = first.runs.keys() & other.runs.keys()
    ours, theirs = _settings(first, both), _settings(other, both)
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name) != theirs.get(name):
            return f"{name} is {theirs.get(name, 'nothing')} instead of {ours.get(name, 'nothing')}"
    return None


def _interval(compared: dict[str, Any], file: str, key: str) -> Interval | None:
    names = (key, f"{key}/low", f"{key}/high")
    if not all(name in compared for name in names):
        return None
    return Interval(*(Figure(compared[name], file, name) for name in names))


def _prune_file(split: str) -> str:
    return f"metrics/prune/{split}.json"


def _add(points: dict[tuple[str, float | None], Point], revision: Revision, params: Params, split: str) -> None:
    """Add a revision's models of one split."""
    file = _prune_file(split)
    prune = revision.read(file)
    threshold = threshold_of(split, lambda name: revision.read(_prune_file(name)))
    key = (split, threshold)
    if key not in points:
        pruned, kept = (Figure(prune.get(name, 0), revision.where(file), name) for name in ("dropped/pruned", "kept"))
        points[key] = Point(
            split, threshold, prune, pruned, kept, [], {name: Cell() for name in params.benchmarks.names}
        )
    point = points[key]
    for seed in params.repeats.seeds:
        file = f"metrics/evaluate/{split}-{seed}.json"
        found = revision.read(file)
        for benchmark, cell in point.cells.items():
            name = f"zero_shot/{benchmark}/top1"
            if name not in found:
                raise SimgapError(f"{revision.where(file)}: has no {name}; run the experiment anew")
            figure = Figure(found[name], revision.where(file), name)
            known = cell.accuracies.setdefault(seed, figure)
            if known.value != figure.value:
                raise SimgapError(
                    f"{figure.file}: {name} is {figure.value}, in {known.file} {known.value}, though their parameters "
                    "are the same; name the revisions that belong together"
                )
    point.seeds = sorted({*point.seeds, *params.repeats.seeds})


def read_sweep(revisions: Sequence[Revision], base: Params) -> Sweep:
    """Read what trained models of several revisions achieve, from their metrics in git.

    A model that several revisions have counts once. A revision whose parameters are not those of `base`, other than the
    threshold, seeds and which splits are trained, is another study, and left out.

    Raises:
        SimgapError: a file is missing, two revisions have other results of one model, or no split depends on a threshold.
    """
    left_out, read = [], []
    for revision in revisions:
        params = revision.params()
        difference = _difference(base, params)
        if difference is None:
            read.append((revision, params))
        else:
            left_out.append(f"{revision.name}: {difference}")
    points: dict[tuple[str, float | None], Point] = {}
    for split in dict.fromkeys(split for _, params in read for split in params.runs):
        of_split: dict[tuple[str, float | None], Point] = {}
        for revision, params in read:
            if split in params.runs:
                _add(of_split, revision, params, split)
        points |= dict(sorted(of_split.items(), key=lambda item: item[0][1] or 0.0))
    for revision, params in read:
        compared, file = revision.read(COMPARE), revision.where(COMPARE)
        for (split, threshold), point in points.items():
            # Its comparison is of this point where it has the threshold, and all of the seeds.
            if threshold not in (None, params.threshold) or sorted(params.repeats.seeds) != point.seeds:
                continue
            for benchmark, cell in point.cells.items():
                place = f"{split}/{benchmark}"
                cell.accuracy = cell.accuracy or _interval(compared, file, f"{place}/accuracy")
                if threshold is not None:
                    cell.minus_control = cell.minus_control or _interval(compared, file, f"{place}/minus_control")
    sweep = Sweep([revision.name for revision, _ in read], left_out, base.benchmarks.names, points)
    if not sweep.splits:
        found = f"{len(read)} revisions have its parameters" + "".join(f"; left out {reason}" for reason in left_out)
        raise SimgapError(f"sweep: no trained split depends on the threshold: {found}")
    return sweep
