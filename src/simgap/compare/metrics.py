"""Select the results of a comparison that go into its metrics file."""

from __future__ import annotations

from typing import Any

from simgap.compare.compare import Cell, Comparison
from simgap.compare.outcomes import Outcomes
from simgap.compare.resamples import ALL
from simgap.store.estimates import Estimate
from simgap.store.verdicts import HELD_OUT, USED


def _estimates_of(cell: Cell) -> dict[str, Estimate | None]:
    rule_queries = cell.measured.get(USED)
    return {
        "accuracy": cell.whole.top1,
        "rule_queries": rule_queries.top1 if rule_queries else None,
        "held_out": cell.held_out.top1 if cell.held_out else None,
        "minus_full": cell.whole.minus_full,
        "minus_control": cell.whole.minus_control,
        **{f"minus/{control}": difference for control, difference in cell.whole.minus_others.items()},
        "gap_explained": cell.gap_explained,
    }


def _words_of(cell: Cell) -> dict[str, str | None]:
    return {
        "marked": cell.rule_use,
        "verdict_full": cell.verdict_full,
        "verdict_control": cell.verdict_control,
        **{f"verdict/{control}": verdict for control, verdict in cell.verdict_others.items()},
    }


def _estimates(outcomes: Outcomes, comparison: Comparison) -> dict[tuple[str, str], dict[str, Estimate | None]]:
    """Return all estimates of a comparison.

    Returns:
        The estimates by (split, benchmark). Each value is a dictionary with the name of the quantity as the key.
    """
    found = {place: _estimates_of(cell) for place, cell in comparison.cells.items()}
    for place, change in comparison.changes.items():
        found[place] |= {
            "accuracy_per_similarity": change.slopes[ALL],
            "accuracy_per_similarity/rule_queries": change.slopes.get(USED),
            "accuracy_per_similarity/held_out": change.slopes.get(HELD_OUT),
        }
    # The metrics contain only one split here: full, or the first split if full was not trained. Copies matter most for a model
    # of the whole pool. leaks.csv contains all splits.
    whole = outcomes.full() or next(iter(outcomes.splits))
    for (split, benchmark), leaks in comparison.leaks.items():
        if split == whole:
            quantities = ("of_copies", "without_copies", "added_by_copies")
            found[split, benchmark] |= {quantity: getattr(leaks, quantity) for quantity in quantities}
    for place, robustness in comparison.robustness.items():
        found[place]["effective_robustness"] = robustness.effective
    return found


def _relations(outcomes: Outcomes) -> dict[str, Any]:
    """Return the metrics about the size and the controls of every split, by the key in the metrics file."""
    metrics: dict[str, Any] = {}
    for split, info in outcomes.splits.items():
        metrics[f"{split}/kept"] = info.kept
        metrics[f"{split}/control"] = outcomes.control_of(split)
        for kind, rule in (("second", "random"), ("matched", "matched")):
            others = [name for name in outcomes.other_controls(split) if outcomes.splits[name].rule == rule]
            metrics[f"{split}/{kind}_controls"] = ", ".join(others) or None
    return metrics


def flat_metrics(outcomes: Outcomes, comparison: Comparison) -> dict[str, Any]:
    """Return the metrics of a comparison by key. Undefined metrics are left out.

    The key of a value is `<split>/<benchmark>/<quantity>`. The keys of the ends of an interval also end in `/low` and `/high`.
    The difference to the first random control of a split is the quantity `minus_control`. The difference to any other control
    is the quantity `minus/<control>`.
    """
    metrics: dict[str, Any] = {"seeds": len(outcomes.seeds), **_relations(outcomes)}
    for (split, benchmark), cell in comparison.cells.items():
        metrics |= {f"{split}/{benchmark}/{key}": word for key, word in _words_of(cell).items()}
    for (split, benchmark), estimates in _estimates(outcomes, comparison).items():
        for quantity, found in estimates.items():
            if found is not None:
                key = f"{split}/{benchmark}/{quantity}"
                metrics |= {key: found.value, f"{key}/low": found.low, f"{key}/high": found.high}
    for (split, benchmark, shots), accuracies in outcomes.few_shot.items():
        metrics[f"{split}/{benchmark}/accuracy_{shots}_shot"] = float(accuracies.mean())
    return {key: value for key, value in metrics.items() if value is not None}
