"""Accuracies of a study's splits, their differences to full and to their controls, and claims A and B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from simgap.compare.bootstrap import RATE, Estimate, accuracy, estimate, gap_explained, mean_per_class_recall, verdict
from simgap.compare.by_similarity import Bin, Change, accuracy_by_similarity, change_by_similarity
from simgap.compare.leaks import Leaks, leaks
from simgap.compare.resamples import ALL, HELD_OUT, QUERIES, RULE_QUERIES, Resamples
from simgap.compare.robustness import Line, Robustness, fitted_lines, robustness
from simgap.compare.study import Study
from simgap.core.progress import progress
from simgap.params.compare import CompareParameters

Found = TypeVar("Found")


@dataclass(frozen=True)
class Measured:
    """One split on some images of one benchmark.

    Attributes:
        images: how many.
        top1, top5, mean_per_class_recall: zero-shot, in [0, 1]; top5 is None where there are fewer than five classes.
        minus_full, minus_control: differences of top-1 accuracy; None where there is nothing to compare with.
        minus_others: differences to the split's other controls, by their names.
    """

    images: int
    top1: Estimate
    top5: Estimate | None
    mean_per_class_recall: Estimate
    minus_full: Estimate | None
    minus_control: Estimate | None
    minus_others: dict[str, Estimate]


@dataclass(frozen=True)
class Cell:
    """One split on one benchmark.

    Attributes:
        used: whether the split's rule used queries of the benchmark.
        measured: by kind of query: `all`, and where the rule used the benchmark `used by the rule` and `held out`.
        gap_explained: claim A; None where undefined.
        verdict_full, verdict_control: what the differences over all images show, or None.
        verdict_others: the same, by other controls.
    """

    used: bool
    measured: dict[str, Measured]
    gap_explained: Estimate | None
    verdict_full: str | None
    verdict_control: str | None
    verdict_others: dict[str, str]

    @property
    def mark(self) -> str:
        """What the split's rule made of the benchmark: `used by the rule` or `held out`."""
        return RULE_QUERIES if self.used else HELD_OUT

    @property
    def whole(self) -> Measured:
        """The figures over all images."""
        return self.measured[ALL]

    @property
    def held_out(self) -> Measured | None:
        """The figures over images that the rule did not see; None where it saw all of them."""
        return self.measured.get(HELD_OUT) if self.used else self.whole


def _kinds_of(study: Study, split: str, benchmark: str) -> tuple[str, ...]:
    return QUERIES if benchmark in study.splits[split].benchmarks else (ALL,)


def _measure(study: Study, resamples: Resamples, benchmark: str, queries: str) -> dict[str, Measured]:
    """Measure every split on one kind of a benchmark's images, where the kind says something of it."""
    chosen = resamples.chosen(benchmark, queries)
    if not chosen.any():
        return {}
    images, count = resamples.images(benchmark, queries), int(chosen.sum())
    seeds = {split: resamples.seeds(split) for split in study.splits}
    top1 = {split: accuracy(study.correct[split, benchmark][:, chosen], images, seeds[split]) for split in study.splits}
    full = study.full()

    def minus(split: str, other: str) -> Estimate:
        return estimate(top1[split] - top1[other], count)

    def measure(split: str) -> Measured:
        top5 = study.correct_top5.get((split, benchmark))
        control = study.control_of(split)
        recall = mean_per_class_recall(
            study.correct[split, benchmark][:, chosen], study.labels[benchmark][chosen], images, seeds[split]
        )
        return Measured(
            images=count,
            top1=estimate(top1[split], count, RATE),
            top5=None if top5 is None else estimate(accuracy(top5[:, chosen], images, seeds[split]), count, RATE),
            mean_per_class_recall=estimate(recall, count, RATE),
            minus_full=minus(split, full) if full and full != split else None,
            minus_control=minus(split, control) if control else None,
            minus_others={other: minus(split, other) for other in study.other_controls(split)},
        )

    return {split: measure(split) for split in study.splits if queries in _kinds_of(study, split, benchmark)}


def _gaps_explained(study: Study, resamples: Resamples, benchmark: str) -> dict[str, Estimate | None]:
    full, alone = study.full(), study.reference_alone()
    if full is None or alone is None:
        return {}
    images = resamples.images(benchmark)
    top1 = {split: accuracy(study.correct[split, benchmark], images, resamples.seeds(split)) for split in study.splits}
    return {
        split: gap_explained(top1[full], top1[split], top1[alone], len(study.labels[benchmark]))
        for split in study.splits
        if split not in (full, alone)
    }


def _cells(parameters: CompareParameters, study: Study, resamples: Resamples, benchmark: str) -> dict[str, Cell]:
    def judge(difference: Estimate) -> str:
        return verdict(difference, parameters.equivalence_margin)

    measured = {queries: _measure(study, resamples, benchmark, queries) for queries in QUERIES}
    explained = _gaps_explained(study, resamples, benchmark)
    cells = {}
    for split, info in study.splits.items():
        of_split = {queries: found[split] for queries, found in measured.items() if split in found}
        whole = of_split[ALL]
        cells[split] = Cell(
            used=benchmark in info.benchmarks,
            measured=of_split,
            gap_explained=explained.get(split),
            verdict_full=judge(whole.minus_full) if whole.minus_full else None,
            verdict_control=judge(whole.minus_control) if whole.minus_control else None,
            verdict_others={control: judge(found) for control, found in whole.minus_others.items()},
        )
    return cells


@dataclass(frozen=True)
class Comparison:
    """A study's splits side by side, each by (split, benchmark), split by split.

    Attributes:
        cells: accuracies, differences and claims.
        by_similarity: see `accuracy_by_similarity`.
        changes: see `change_by_similarity`.
        leaks: see `leaks`.
        robustness: see `robustness`.
        lines: by benchmark, see `fitted_lines`.
    """

    cells: dict[tuple[str, str], Cell]
    by_similarity: dict[tuple[str, str], list[Bin]]
    changes: dict[tuple[str, str], Change]
    leaks: dict[tuple[str, str], Leaks]
    robustness: dict[tuple[str, str], Robustness]
    lines: dict[str, Line]


def _by_split(study: Study, found: dict[str, dict[str, Found]]) -> dict[tuple[str, str], Found]:
    """Key what was found by benchmark and split as the comparison's tables are: by (split, benchmark), split by split."""
    return {
        (split, benchmark): of_splits[split]
        for split in study.splits
        for benchmark, of_splits in found.items()
        if split in of_splits
    }


def compare(parameters: CompareParameters, study: Study) -> Comparison:
    """Compare the splits of a study on every benchmark.

    Memory is that of the resamples of one benchmark: 16 bytes for each image and resample, and as much again while drawn.
    """
    resamples = Resamples(parameters, study)
    cells: dict[str, dict[str, Cell]] = {}
    by_similarity: dict[str, dict[str, list[Bin]]] = {}
    changes: dict[str, dict[str, Change]] = {}
    leaked: dict[str, dict[str, Leaks]] = {}
    for benchmark in progress(study.benchmarks, len(study.benchmarks), "compare", "benchmark"):
        cells[benchmark] = _cells(parameters, study, resamples, benchmark)
        by_similarity[benchmark] = accuracy_by_similarity(study, resamples, benchmark)
        changes[benchmark] = change_by_similarity(study, resamples, benchmark)
        leaked[benchmark] = leaks(study, resamples, benchmark)
    return Comparison(
        _by_split(study, cells),
        _by_split(study, by_similarity),
        _by_split(study, changes),
        _by_split(study, leaked),
        _by_split(study, robustness(study, resamples, parameters.in_distribution_benchmark)),
        fitted_lines(study, parameters.in_distribution_benchmark),
    )
