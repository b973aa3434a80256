"""The few figures of a comparison that are metrics."""

from __future__ import annotations

from typing import Any

from simgap.compare.bootstrap import Estimate
from simgap.compare.compare import Comparison
from simgap.compare.resamples import ALL, HELD_OUT, RULE_QUERIES
from simgap.compare.study import Study


def flat_metrics(study: Study, comparison: Comparison) -> dict[str, Any]:
    """Flatten a comparison to metrics: `<split>/<benchmark>/<figure>`, with `/low` and `/high` for its interval.

    Differences to a second random control, or to one of the same composition, are `minus/<control>`.
    """
    metrics: dict[str, Any] = {"seeds": len(study.seeds)}

    def add(place: str, found: Estimate | None) -> None:
        if found is not None:
            metrics.update({place: found.value, f"{place}/low": found.low, f"{place}/high": found.high})

    for (split, benchmark), cell in comparison.cells.items():
        place = f"{split}/{benchmark}"
        rule_queries = cell.measured.get(RULE_QUERIES)
        metrics[f"{place}/marked"] = cell.mark
        add(f"{place}/accuracy", cell.whole.top1)
        add(f"{place}/rule_queries", rule_queries.top1 if rule_queries else None)
        add(f"{place}/held_out", cell.held_out.top1 if cell.held_out else None)
        add(f"{place}/minus_full", cell.whole.minus_full)
        add(f"{place}/minus_control", cell.whole.minus_control)
        for control, difference in cell.whole.minus_others.items():
            add(f"{place}/minus/{control}", difference)
            metrics[f"{place}/verdict/{control}"] = cell.verdict_others[control]
        add(f"{place}/gap_explained", cell.gap_explained)
        for figure in ("verdict_full", "verdict_control"):
            if getattr(cell, figure) is not None:
                metrics[f"{place}/{figure}"] = getattr(cell, figure)
    for (split, benchmark), change in comparison.changes.items():
        place = f"{split}/{benchmark}/accuracy_per_similarity"
        add(place, change.slopes[ALL])
        add(f"{place}/rule_queries", change.slopes.get(RULE_QUERIES))
        add(f"{place}/held_out", change.slopes.get(HELD_OUT))
    for (split, benchmark), leaks in comparison.leaks.items():
        # What copies add is asked of the whole pool; the other splits' figures are in leaks.csv.
        if split == (study.full() or next(iter(study.splits))):
            for figure in ("of_copies", "without_copies", "added_by_copies"):
                add(f"{split}/{benchmark}/{figure}", getattr(leaks, figure))
    for (split, benchmark), found in comparison.robustness.items():
        add(f"{split}/{benchmark}/effective_robustness", found.effective)
    for (split, benchmark, shots), accuracies in study.few_shot.items():
        metrics[f"{split}/{benchmark}/accuracy_{shots}_shot"] = float(accuracies.mean())
    for split, info in study.splits.items():
        metrics[f"{split}/kept"] = info.kept
        control_of_split = study.control_of(split)
        if control_of_split is not None:
            metrics[f"{split}/control"] = control_of_split
        for kind, rule in (("second", "random"), ("matched", "matched")):
            others = [name for name in study.other_controls(split) if study.splits[name].rule == rule]
            if others:
                metrics[f"{split}/{kind}_controls"] = ", ".join(others)
    return metrics
