"""Accuracies of a study's splits, their differences to full and to their controls, and claims A and B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from simgap.compare.bootstrap import Accuracies, Estimate, accuracies, gap_explained, resample_weights, verdict
from simgap.compare.parameters import CompareParameters
from simgap.compare.study import Study


@dataclass(frozen=True)
class Cell:
    """One split on one benchmark.

    Attributes:
        marked: `used by the rule` or `held out`.
        accuracy: over all images of the benchmark.
        rule_queries, held_out: over the queries that the rule saw and over the others; None where there are none.
        minus_full, minus_control: differences over all images; None where there is nothing to compare with.
        gap_explained: claim A; None where undefined.
        verdict_full, verdict_control: what the differences show, or None.
    """

    marked: str
    accuracy: Estimate
    rule_queries: Estimate | None
    held_out: Estimate | None
    minus_full: Estimate | None
    minus_control: Estimate | None
    gap_explained: Estimate | None
    verdict_full: str | None
    verdict_control: str | None


def _resampled(parameters: CompareParameters, study: Study) -> dict[tuple[str, str], dict[str, Accuracies]]:
    """Resample every split on every benchmark, over all images and over the two kinds of query apart."""
    result: dict[tuple[str, str], dict[str, Accuracies]] = {}
    for benchmark in study.benchmarks:
        used = study.used_by_rule[benchmark]
        parts = {"all": np.ones(len(used), np.bool_), "rule_queries": used, "held_out": ~used}
        for part, (part_name, chosen) in enumerate(parts.items()):
            if not chosen.any():
                continue
            named = (parameters.seed, 0, part, *benchmark.encode())
            images = resample_weights(int(chosen.sum()), parameters.resamples, named)
            for split in study.splits:
                # Named, not numbered: a split's interval does not depend on which others there are.
                seeds = resample_weights(len(study.seeds), parameters.resamples, (parameters.seed, 1, *split.encode()))
                correct = study.correct[split, benchmark][:, chosen]
                result.setdefault((split, benchmark), {})[part_name] = accuracies(correct, images, seeds)
    return result


def compare(parameters: CompareParameters, study: Study) -> dict[tuple[str, str], Cell]:
    """Compare the splits of a study on every benchmark: a cell for each (split, benchmark)."""
    resampled = _resampled(parameters, study)
    full, alone = study.full(), study.reference_alone()
    cells = {}
    for split, info in study.splits.items():
        control = study.control_of(split)
        for benchmark in study.benchmarks:
            parts = resampled[split, benchmark]
            used = benchmark in info.benchmarks
            whole = parts["all"]
            base = resampled[full, benchmark]["all"] if full and full != split else None
            same_size = resampled[control, benchmark]["all"] if control else None
            minus_full = whole.minus(base) if base else None
            minus_control = whole.minus(same_size) if same_size else None
            explained = None
            if base and alone and split != alone:
                explained = gap_explained(base, whole, resampled[alone, benchmark]["all"])
            cells[split, benchmark] = Cell(
                marked="used by the rule" if used else "held out",
                accuracy=whole.estimate(),
                rule_queries=parts["rule_queries"].estimate() if used else None,
                held_out=(parts["held_out"].estimate() if "held_out" in parts else None) if used else whole.estimate(),
                minus_full=minus_full,
                minus_control=minus_control,
                gap_explained=explained,
                verdict_full=verdict(minus_full, parameters.equivalence_margin) if minus_full else None,
                verdict_control=verdict(minus_control, parameters.equivalence_margin) if minus_control else None,
            )
    return cells


def flat_metrics(study: Study, cells: dict[tuple[str, str], Cell]) -> dict[str, Any]:
    """Flatten a comparison to metrics: `<split>/<benchmark>/<figure>`, with `/low` and `/high` for its interval."""
    metrics: dict[str, Any] = {"seeds": len(study.seeds)}
    for (split, benchmark), cell in cells.items():
        place = f"{split}/{benchmark}"
        metrics[f"{place}/marked"] = cell.marked
        for figure in ("accuracy", "rule_queries", "held_out", "minus_full", "minus_control", "gap_explained"):
            estimate = getattr(cell, figure)
            if estimate is not None:
                metrics[f"{place}/{figure}"] = estimate.value
                metrics[f"{place}/{figure}/low"] = estimate.low
                metrics[f"{place}/{figure}/high"] = estimate.high
        for figure in ("verdict_full", "verdict_control"):
            if getattr(cell, figure) is not None:
                metrics[f"{place}/{figure}"] = getattr(cell, figure)
    for (split, benchmark, shots), accuracy in study.few_shot.items():
        metrics[f"{split}/{benchmark}/accuracy_{shots}_shot"] = accuracy
    for split, info in study.splits.items():
        metrics[f"{split}/kept"] = info.kept
    return metrics
