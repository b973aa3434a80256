"""A comparison in words and tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simgap.compare.bootstrap import Estimate
from simgap.compare.by_similarity import FIFTHS
from simgap.compare.compare import Cell, Comparison
from simgap.compare.resamples import QUERIES, RULE_QUERIES
from simgap.compare.study import Study, spread
from simgap.params.compare import CompareParameters
from simgap.store.split import is_degenerate

Cells = dict[tuple[str, str], Cell]
SIZE_RULES = {"dissimilar": "dissimilar-pruned", "similar": "similar-pruned", "random": "random", "full": "full"}


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _with_interval(estimate: Estimate | None, signed: bool = False) -> str:
    if estimate is None:
        return "-"
    sign = "+" if signed else ""
    return f"{100 * estimate.value:{sign}.1f} [{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"


def _share(estimate: Estimate | None) -> str:
    return "undefined" if estimate is None else f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Lay out rows as markdown; nothing where there are none."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _section(title: str, before: str, table: str, after: str = "") -> list[str]:
    """Give the blocks of a section; none where its table is empty."""
    return [block for block in (title, before, table, after) if block] if table else []


def _seeds(study: Study) -> str:
    count = len(study.seeds)
    if count == 1:
        return "one seed: intervals are over images only"
    return f"{count} seeds" + (": so few that intervals are approximate" if count < 4 else "")


def _flags(study: Study) -> list[str]:
    return [
        f"{name} keeps {_percent(split.kept / study.full_rows)}% of full: too little to speak for the pool (degenerate)"
        for name, split in study.splits.items()
        if is_degenerate(split, study.full_rows)
    ]


def text_table(study: Study, comparison: Comparison) -> str:
    """Lay out top-1 accuracies for a terminal; `*` marks a benchmark whose queries the split's rule used."""
    width = max(len(name) for name in study.splits) + 2
    lines = [
        f"Zero-shot top-1 accuracy in percent, {_seeds(study)}; * marks a benchmark that the split's rule used",
        "",
    ]
    columns = {name: max(len(name) + 1, 11) for name in study.benchmarks}
    header = "".join(f"{name:>{column}}" for name, column in columns.items())
    lines.append(f"{'split':<{width}}{'pool rows':>10}{header}")
    for split, info in study.splits.items():
        row = f"{split:<{width}}{info.kept:>10}"
        for benchmark, column in columns.items():
            cell = comparison.cells[split, benchmark]
            row += f"{_percent(cell.whole.top1.value) + ('*' if cell.used else ' '):>{column}}"
        lines.append(row)
    return "\n".join([*lines, *_flags(study)]) + "\n"


def _accuracy_section(study: Study, cells: Cells) -> str:
    rows = []
    for split, info in study.splits.items():
        figures = []
        for benchmark in study.benchmarks:
            cell = cells[split, benchmark]
            figures.append(_with_interval(cell.whole.top1) + (" *" if cell.used else ""))
        rows.append([split, info.rule, str(info.kept), *figures])
    return _table(["split", "rule", "pool rows", *study.benchmarks], rows)


def _held_out_section(cells: Cells) -> str:
    rows = []
    for (split, benchmark), cell in cells.items():
        if cell.used:
            row = [split, benchmark]
            for measured in (cell.measured.get(RULE_QUERIES), cell.held_out):
                row.append(_with_interval(measured.top1 if measured else None))
                row.append(_with_interval(measured.minus_control if measured else None, signed=True))
            rows.append(row)
    return _table(["split", "benchmark", "used by the rule", "minus control", "held out", "minus control"], rows)


def _differences_section(study: Study, cells: Cells) -> str:
    rows = []
    for (split, benchmark), cell in cells.items():
        if split != study.full():
            whole = cell.whole
            to_controls = {study.control_of(split) or "-": (whole.minus_control, cell.verdict_control)}
            to_controls |= {name: (found, cell.verdict_others[name]) for name, found in whole.minus_others.items()}
            for control in study.controls_of(split) or ["-"]:
                row = [split, control, benchmark, cell.mark]
                for difference, verdict in (to_controls[control], (whole.minus_full, cell.verdict_full)):
                    row += [_with_interval(difference, signed=True), verdict or "-"]
                rows.append(row)
    header = [
        "split",
        "control",
        "benchmark",
        "the benchmark was",
        "split minus control",
        "verdict",
        "split minus full",
        "verdict",
    ]
    return _table(header, rows)


def _by_similarity_section(study: Study, comparison: Comparison) -> str:
    split = study.full() or next(iter(study.splits))
    rows = []
    for benchmark in study.benchmarks:
        bins = [found for found in comparison.by_similarity[split, benchmark] if found.kind == FIFTHS]
        for found in bins:
            rows.append(
                [benchmark, f"{found.low:.3f} to {found.high:.3f}", str(found.images), _with_interval(found.figure)]
            )
    return _table(["benchmark", f"similarity to {split}", "images", "accuracy"], rows)


def _change_section(comparison: Comparison) -> str:
    rows = []
    for (split, benchmark), change in comparison.changes.items():
        ends = [
            f"{found.low:+.3f} to {found.high:+.3f}: {_with_interval(found.figure, signed=True)}"
            for found in (change.bins[0], change.bins[-1])
        ]
        slopes = [_slope(change.slopes[kind]) if kind in change.slopes else "-" for kind in QUERIES]
        rows.append([split, benchmark, comparison.cells[split, benchmark].mark, *ends, *slopes])
    header = [
        "split",
        "benchmark",
        "the benchmark was",
        "where similarity fell most",
        "where it fell least",
        "points for 0.01 of similarity",
        "of queries used by the rule",
        "of held-out queries",
    ]
    return _table(header, rows)


def _slope(slope: Estimate | None) -> str:
    if slope is None:
        return "undefined"
    return f"{slope.value:+.2f} [{slope.low:+.2f}, {slope.high:+.2f}]"


def _robustness_section(comparison: Comparison) -> str:
    rows = []
    for (split, benchmark), found in comparison.robustness.items():
        effective = "undefined" if found.effective is None else _with_interval(found.effective, signed=True)
        beyond = "-" if found.effective is None else ("yes" if found.beyond_the_line else "no")
        relative = _with_interval(found.relative, signed=True)
        rows.append([split, benchmark, comparison.cells[split, benchmark].mark, relative, effective, beyond])
    return _table(["split", "benchmark", "the benchmark was", "relative", "effective", "beyond the line"], rows)


def _claim_a_section(study: Study, cells: Cells) -> str:
    rows = []
    for split, info in study.splits.items():
        if info.rule == "imagenet-like":
            controls = study.controls_of(split)
            for benchmark in study.benchmarks:
                share = _share(cells[split, benchmark].gap_explained)
                of_controls = [[name, _share(cells[name, benchmark].gap_explained)] for name in controls]
                rows += [[split, benchmark, share, *of_control] for of_control in of_controls or [["-", "-"]]]
    return _table(["split", "benchmark", "share of the gap explained", "control", "the same of the control"], rows)


def _claim_b_section(study: Study, cells: Cells) -> str:
    rows = []
    for split, info in study.splits.items():
        if info.rule in ("dissimilar", "similar"):
            for benchmark in study.benchmarks:
                cell = cells[split, benchmark]
                difference = _with_interval(cell.whole.minus_full, signed=True)
                rows.append([split, str(info.kept), benchmark, cell.mark, difference, str(cell.verdict_full)])
    return _table(["split", "pool rows", "benchmark", "the benchmark was", "split minus full", "verdict"], rows)


def _size_section(study: Study, cells: Cells) -> str:
    chosen = [(name, info) for name, info in study.splits.items() if info.rule in SIZE_RULES]
    chosen.sort(key=lambda item: (item[1].rule, item[1].kept))
    rows = [
        [
            SIZE_RULES[info.rule],
            name,
            str(info.kept),
            *(_percent(cells[name, b].whole.top1.value) for b in study.benchmarks),
        ]
        for name, info in chosen
    ]
    return _table(["rule", "split", "pool rows", *study.benchmarks], rows)


def _few_shot_section(study: Study) -> str:
    rows = []
    for shots in sorted({shots for _, _, shots in study.few_shot}):
        for split, info in study.splits.items():
            figures = []
            for benchmark in study.benchmarks:
                found = study.few_shot.get((split, benchmark, shots))
                figures.append("refused" if found is None else _with_spread(found))
            rows.append([str(shots), split, "yes" if info.reference_rows else "no", *figures])
    return _table(["shots", "split", "trained on the shots", *study.benchmarks], rows)


def _with_spread(accuracies: NDArray[np.float64]) -> str:
    deviation = spread(accuracies)
    return _percent(float(accuracies.mean())) + ("" if deviation is None else f" ± {_percent(deviation)}")


def markdown_report(parameters: CompareParameters, study: Study, comparison: Comparison) -> str:
    """Write the comparison as markdown; the whole of it is in the tables of `write_tables`."""
    joined = any(split.reference_rows and split.kept for split in study.splits.values())
    margin = _percent(parameters.equivalence_margin)
    cells = comparison.cells
    sections = [
        "# Splits compared\n",
        f"Top-1 accuracies in percent with 95% intervals ({_seeds(study)}; {parameters.resamples} resamples of seeds and images "
        "together, paired by image where two splits are compared). `*`: the split's rule used queries of this benchmark. "
        "The CSV files beside this one hold all figures, top-5 accuracy and mean per-class recall among them.\n",
        *_section(
            "## Zero-shot accuracy\n",
            "",
            _accuracy_section(study, cells) + "".join(f"\n{flag}\n" for flag in _flags(study)),
            "The reference joins the training data of every split.\n"
            if joined
            else "The reference joins no split but the one without pool rows: imagenet-like splits are at most ImageNet-like.\n",
        ),
        *_section(
            "## Queries that the rule used, and held-out queries of the same benchmark\n", "", _held_out_section(cells)
        ),
        *_section(
            "## Splits against random controls of the same size, and against full\n",
            "A control whose rule is matched is also of the same composition, by class or by style. "
            f"`equivalent`: the whole interval lies within {margin} points of 0.\n",
            _differences_section(study, cells),
        ),
        *_section(
            "## Claim A: the share of the gap that pruning explains\n",
            "(full - split) / (full - reference alone); undefined where the interval of that gap is not "
            "wholly above 0: then there is no gap of which pruning could explain a share.\n",
            _claim_a_section(study, cells),
        ),
        *_section(
            "## Claim B: does a small dissimilar-pruned split match full?\n",
            f"`equivalent`: the whole interval lies within {margin} points of 0.\n",
            _claim_b_section(study, cells),
        ),
        *_section("## Accuracy against split size\n", "", _size_section(study, cells)),
        *_section(
            "## Does accuracy follow similarity?\n",
            "By fifths of the images, least similar first; similar images may be easier for other reasons. Other splits, and "
            "bins of 0.05 as in the paper: by_similarity.csv.\n",
            _by_similarity_section(study, comparison),
        ),
        *_section(
            "## Does accuracy change where similarity does?\n",
            "Less confounded: split minus control, query by query. The change in accuracy in the fifths of the images whose "
            "similarity fell most and least (or rose most), and the slope over all, and over rule queries and held-out ones "
            "apart where there are both. Every fifth: change_by_similarity.csv.\n",
            _change_section(comparison),
        ),
        *_section(
            "## Robustness\n",
            "Relative: accuracy minus full's. Effective: minus what a line predicts from the accuracy on "
            f"{parameters.in_distribution_benchmark}, fitted on logits of full and the random splits (Taori et al. 2020); "
            "undefined where they are of fewer than two sizes. "
            f"Beyond the line: the split's accuracy on {parameters.in_distribution_benchmark} lies outside theirs.\n",
            _robustness_section(comparison),
        ),
        *_section(
            "## Few-shot accuracy\n",
            "Linear classifier on the same reference images for every split and seed; mean ± standard deviation over seeds and "
            "draws of the shots.\n",
            _few_shot_section(study),
        ),
    ]
    return "\n".join(sections)
