"""A comparison in words and tables."""

from __future__ import annotations

from simgap.compare.bootstrap import Estimate
from simgap.compare.compare import Cell
from simgap.compare.parameters import CompareParameters
from simgap.compare.study import Study
from simgap.prune.split import is_degenerate

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
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _seeds(study: Study) -> str:
    count = len(study.seeds)
    return "one seed: intervals are over images only" if count == 1 else f"{count} seeds"


def _flags(study: Study) -> list[str]:
    return [
        f"{name} keeps {_percent(split.kept / study.full_rows)}% of full: too little to speak for the pool (degenerate)"
        for name, split in study.splits.items()
        if is_degenerate(split, study.full_rows)
    ]


def text_table(study: Study, cells: Cells) -> str:
    """Lay out top-1 accuracies for a terminal; `*` marks a benchmark whose queries the split's rule used."""
    width = max(len(name) for name in study.splits) + 2
    lines = [
        f"Zero-shot top-1 accuracy in percent, {_seeds(study)}; * marks a benchmark that the split's rule used",
        "",
    ]
    lines.append(f"{'split':<{width}}{'pool rows':>10}" + "".join(f"{name:>11}" for name in study.benchmarks))
    for split, info in study.splits.items():
        row = f"{split:<{width}}{info.kept:>10}"
        for benchmark in study.benchmarks:
            cell = cells[split, benchmark]
            row += f"{_percent(cell.accuracy.value) + ('*' if cell.marked == 'used by the rule' else ' '):>11}"
        lines.append(row)
    return "\n".join([*lines, *_flags(study)]) + "\n"


def _accuracy_section(study: Study, cells: Cells) -> str:
    rows = []
    for split, info in study.splits.items():
        figures = []
        for benchmark in study.benchmarks:
            cell = cells[split, benchmark]
            figures.append(_with_interval(cell.accuracy) + (" *" if cell.marked == "used by the rule" else ""))
        rows.append([split, info.rule, str(info.kept), *figures])
    return _table(["split", "rule", "pool rows", *study.benchmarks], rows)


def _held_out_section(study: Study, cells: Cells) -> str:
    rows = [
        [split, benchmark, _with_interval(cell.rule_queries), _with_interval(cell.held_out)]
        for (split, benchmark), cell in cells.items()
        if cell.rule_queries is not None
    ]
    return _table(["split", "benchmark", "queries used by the rule", "held-out queries"], rows)


def _control_section(study: Study, cells: Cells) -> str:
    rows = []
    for split in study.splits:
        control = study.control_of(split)
        if control:
            for benchmark in study.benchmarks:
                cell = cells[split, benchmark]
                difference = _with_interval(cell.minus_control, signed=True)
                rows.append([split, control, benchmark, cell.marked, difference, str(cell.verdict_control)])
    return _table(["split", "control", "benchmark", "the benchmark was", "split minus control", "verdict"], rows)


def _claim_a_section(study: Study, cells: Cells) -> str:
    rows = []
    for split, info in study.splits.items():
        if info.rule == "imagenet-like":
            control = study.control_of(split)
            for benchmark in study.benchmarks:
                of_control = _share(cells[control, benchmark].gap_explained) if control else "-"
                rows.append([split, benchmark, _share(cells[split, benchmark].gap_explained), of_control])
    return _table(["split", "benchmark", "share of the gap explained", "the same of its control"], rows)


def _claim_b_section(study: Study, cells: Cells) -> str:
    rows = []
    for split, info in study.splits.items():
        if info.rule in ("dissimilar", "similar"):
            for benchmark in study.benchmarks:
                cell = cells[split, benchmark]
                difference = _with_interval(cell.minus_full, signed=True)
                rows.append([split, str(info.kept), benchmark, cell.marked, difference, str(cell.verdict_full)])
    return _table(["split", "pool rows", "benchmark", "the benchmark was", "split minus full", "verdict"], rows)


def _size_section(study: Study, cells: Cells) -> str:
    chosen = [(name, info) for name, info in study.splits.items() if info.rule in SIZE_RULES]
    chosen.sort(key=lambda item: (item[1].rule, item[1].kept))
    rows = [
        [
            SIZE_RULES[info.rule],
            name,
            str(info.kept),
            *(_percent(cells[name, b].accuracy.value) for b in study.benchmarks),
        ]
        for name, info in chosen
    ]
    return _table(["rule", "split", "pool rows", *study.benchmarks], rows)


def _few_shot_section(study: Study) -> str:
    rows = []
    numbers = sorted({shots for _, _, shots in study.few_shot})
    for shots in numbers:
        for split in study.splits:
            found = [study.few_shot.get((split, benchmark, shots)) for benchmark in study.benchmarks]
            rows.append([str(shots), split, *("refused" if value is None else _percent(value) for value in found)])
    return _table(["shots", "split", *study.benchmarks], rows)


def markdown_report(parameters: CompareParameters, study: Study, cells: Cells) -> str:
    """Write the whole comparison as markdown."""
    joined = any(split.reference_rows and split.kept for split in study.splits.values())
    margin = _percent(parameters.equivalence_margin)
    sections = [
        "# Splits compared\n",
        f"Top-1 accuracies in percent with 95% intervals ({_seeds(study)}; {parameters.resamples} resamples of seeds and images "
        "together, paired by image where two splits are compared). `*`: the split's rule used queries of this benchmark.\n",
        "## Zero-shot accuracy\n",
        _accuracy_section(study, cells) + "".join(f"\n{flag}\n" for flag in _flags(study)),
        "The reference joins the training data of every split.\n"
        if joined
        else "The reference joins no split but the one without pool rows: imagenet-like splits are at most ImageNet-like.\n",
        "## Queries that the rule used, and held-out queries of the same benchmark\n",
        _held_out_section(study, cells),
        "## Splits against random controls of the same size\n",
        _control_section(study, cells),
        "## Claim A: the share of the gap that pruning explains\n",
        "(full - split) / (full - reference alone); undefined where the interval of that gap is not "
        "wholly above 0: then there is no gap of which pruning could explain a share.\n",
        _claim_a_section(study, cells),
        "## Claim B: does a small dissimilar-pruned split match full?\n",
        f"`equivalent`: the whole interval lies within {margin} points of 0.\n",
        _claim_b_section(study, cells),
        "Accuracy against split size:\n",
        _size_section(study, cells),
        "## Few-shot accuracy\n",
        "Linear classifier on the same reference images for every split and seed"
        + ("; the reference was also trained on, as it joins every split.\n" if joined else ".\n"),
        _few_shot_section(study),
    ]
    return "\n".join(sections)
