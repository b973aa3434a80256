"""Compare the splits of a study: accuracies, differences to full and to controls, and claims A and B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from simgap.compare.bootstrap import RATE, accuracy, estimate, gap_explained, mean_per_class_recall
from simgap.compare.by_similarity import Bin, Change, accuracy_by_similarity, change_by_similarity
from simgap.compare.leaks import Leaks, leaks
from simgap.compare.outcomes import Outcomes
from simgap.compare.resamples import ALL, QUERIES, Resamples
from simgap.compare.robustness import Line, Robustness, fitted_lines, robustness
from simgap.core.progress import progress
from simgap.params.compare import CompareParameters
from simgap.store.estimates import Estimate
from simgap.store.verdicts import HELD_OUT, USED, judge_difference

Found = TypeVar("Found")


@dataclass(frozen=True)
class Measured:
    """The accuracy of a split on some images of a benchmark.

    Attributes:
        images: The number of images.
        top1, top5, mean_per_class_recall: Zero-shot accuracies in [0, 1]. `top5` is None if the benchmark has fewer than five
            classes.
        minus_full, minus_control: The top-1 accuracy of the split minus the top-1 accuracy of full or of the control. None if
            full or the control was not trained.
        minus_others: The differences to the other controls of the split, by the name of the control.
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
    """The results of one split on one benchmark.

    Attributes:
        used: Whether the split's rule used queries of the benchmark.
        measured: The accuracies by kind of query. The kind `all` is always present. The kinds `used by the rule` and `held out`
            can be present only if the rule used the benchmark. A kind without images is absent.
        gap_explained: The share of the gap between full and the reference alone that the split explains (claim A). None if the
            share is undefined.
        verdict_full, verdict_control: The verdicts on the differences over all images. None if there is no such difference.
        verdict_others: The verdicts on the differences to the other controls, by the name of the control.
    """

    used: bool
    measured: dict[str, Measured]
    gap_explained: Estimate | None
    verdict_full: str | None
    verdict_control: str | None
    verdict_others: dict[str, str]

    @property
    def rule_use(self) -> str:
        """Whether the split's rule saw the benchmark, in words: `used by the rule` or `held out`."""
        return USED if self.used else HELD_OUT

    @property
    def whole(self) -> Measured:
        """The accuracies on all images of the benchmark."""
        return self.measured[ALL]

    @property
    def held_out(self) -> Measured | None:
        """The accuracies on the images that the rule did not see. None if the rule saw all images."""
        return self.measured.get(HELD_OUT) if self.used else self.whole


def _kinds_of(outcomes: Outcomes, split: str, benchmark: str) -> tuple[str, ...]:
    return QUERIES if outcomes.used(split, benchmark) else (ALL,)


def _measure(outcomes: Outcomes, resamples: Resamples, benchmark: str, queries: str) -> dict[str, Measured]:
    """Measure the accuracies of splits on the images of one kind of `QUERIES`.

    Returns:
        The accuracies by split. A split whose rule used no query of the benchmark has only the kind `all`. Such a split is
        skipped for the other kinds.
    """
    chosen = resamples.chosen(benchmark, queries)
    if not chosen.any():
        return {}
    images, count = resamples.images(benchmark, queries), int(chosen.sum())
    seeds = {split: resamples.seeds(split) for split in outcomes.splits}
    top1 = {
        split: accuracy(outcomes.correct[split, benchmark][:, chosen], images, seeds[split])
        for split in outcomes.splits
    }
    full = outcomes.full()

    def minus(split: str, other: str) -> Estimate:
        return estimate(top1[split] - top1[other], count)

    def measure(split: str) -> Measured:
        top5 = outcomes.correct_top5.get((split, benchmark))
        control = outcomes.control_of(split)
        recall = mean_per_class_recall(
            outcomes.correct[split, benchmark][:, chosen], outcomes.labels[benchmark][chosen], images, seeds[split]
        )
        return Measured(
            images=count,
            top1=estimate(top1[split], count, RATE),
            top5=None if top5 is None else estimate(accuracy(top5[:, chosen], images, seeds[split]), count, RATE),
            mean_per_class_recall=estimate(recall, count, RATE),
            minus_full=minus(split, full) if full and full != split else None,
            minus_control=minus(split, control) if control else None,
            minus_others={other: minus(split, other) for other in outcomes.other_controls(split)},
        )

    return {split: measure(split) for split in outcomes.splits if queries in _kinds_of(outcomes, split, benchmark)}


def _gaps_explained(outcomes: Outcomes, resamples: Resamples, benchmark: str) -> dict[str, Estimate | None]:
    full, reference = outcomes.full(), outcomes.reference_only()
    if full is None or reference is None:
        return {}
    images = resamples.images(benchmark)
    top1 = {
        split: accuracy(outcomes.correct[split, benchmark], images, resamples.seeds(split)) for split in outcomes.splits
    }
    return {
        split: gap_explained(top1[full], top1[split], top1[reference], len(outcomes.labels[benchmark]))
        for split in outcomes.splits
        if split not in (full, reference)
    }


def _cells(parameters: CompareParameters, outcomes: Outcomes, resamples: Resamples, benchmark: str) -> dict[str, Cell]:
    def judge(difference: Estimate) -> str:
        return judge_difference(difference, parameters.equivalence_margin)

    measured = {queries: _measure(outcomes, resamples, benchmark, queries) for queries in QUERIES}
    explained = _gaps_explained(outcomes, resamples, benchmark)
    cells = {}
    for split in outcomes.splits:
        by_queries = {queries: found[split] for queries, found in measured.items() if split in found}
        whole = by_queries[ALL]
        cells[split] = Cell(
            used=outcomes.used(split, benchmark),
            measured=by_queries,
            gap_explained=explained.get(split),
            verdict_full=judge(whole.minus_full) if whole.minus_full else None,
            verdict_control=judge(whole.minus_control) if whole.minus_control else None,
            verdict_others={control: judge(found) for control, found in whole.minus_others.items()},
        )
    return cells


@dataclass(frozen=True)
class Comparison:
    """The results of all splits on all benchmarks.

    The keys of all attributes except `lines` are (split, benchmark). All benchmarks of one split come before the next split.

    Attributes:
        cells: The accuracies, the differences and the claims.
        by_similarity: The accuracies by similarity, from `accuracy_by_similarity`.
        changes: The changes between splits and controls, from `change_by_similarity`.
        leaks: The accuracies with and without copied images, from `leaks`.
        robustness: The relative and effective robustness, from `robustness`.
        lines: The lines from `fitted_lines`, by benchmark.
    """

    cells: dict[tuple[str, str], Cell]
    by_similarity: dict[tuple[str, str], list[Bin]]
    changes: dict[tuple[str, str], Change]
    leaks: dict[tuple[str, str], Leaks]
    robustness: dict[tuple[str, str], Robustness]
    lines: dict[str, Line]


def _by_split(outcomes: Outcomes, found: dict[str, dict[str, Found]]) -> dict[tuple[str, str], Found]:
    """Return results with the key (split, benchmark).

    All benchmarks of one split come before the next split.

    Args:
        outcomes: The outcomes of the models. They define the order of the splits.
        found: The results by benchmark. Each value is a dictionary of results by split.
    """
    return {
        (split, benchmark): by_split[split]
        for split in outcomes.splits
        for benchmark, by_split in found.items()
        if split in by_split
    }


def compare(parameters: CompareParameters, outcomes: Outcomes) -> Comparison:
    """Compare the splits of a study on every benchmark.

    The resamples of one benchmark take most of the memory: 16 bytes for each image and resample. While the resamples are being
    sampled, they take twice as much memory.
    """
    resamples = Resamples(parameters, outcomes)
    cells: dict[str, dict[str, Cell]] = {}
    by_similarity: dict[str, dict[str, list[Bin]]] = {}
    changes: dict[str, dict[str, Change]] = {}
    leaked: dict[str, dict[str, Leaks]] = {}
    for benchmark in progress(outcomes.benchmarks, len(outcomes.benchmarks), "compare", "benchmark"):
        cells[benchmark] = _cells(parameters, outcomes, resamples, benchmark)
        by_similarity[benchmark] = accuracy_by_similarity(outcomes, resamples, benchmark)
        changes[benchmark] = change_by_similarity(outcomes, resamples, benchmark)
        leaked[benchmark] = leaks(outcomes, resamples, benchmark)
    return Comparison(
        _by_split(outcomes, cells),
        _by_split(outcomes, by_similarity),
        _by_split(outcomes, changes),
        _by_split(outcomes, leaked),
        _by_split(outcomes, robustness(outcomes, resamples, parameters.in_distribution_benchmark)),
        fitted_lines(outcomes, parameters.in_distribution_benchmark),
    )
