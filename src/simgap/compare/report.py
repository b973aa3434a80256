"""Write a comparison as tables for a terminal and as a Markdown report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from simgap.compare.by_similarity import FIFTHS
from simgap.compare.compare import Comparison
from simgap.compare.metrics import flat_metrics
from simgap.compare.outcomes import Outcomes
from simgap.compare.tables import long_tables, write_tables
from simgap.core.text import format_number, markdown_table, terminal_table
from simgap.params.compare import CompareParameters
from simgap.store.estimates import Estimate
from simgap.store.split import is_degenerate
from simgap.store.study import COMPARE, METRICS, Study
from simgap.store.tables import Row, estimate_of
from simgap.store.verdicts import HELD_OUT, UNDEFINED, USED

SIZE_RULES = {"dissimilar": "dissimilar-pruned", "similar": "similar-pruned", "random": "random", "full": "full"}
NONE = "-"
Rows = list[list[str]]
Tables = Mapping[str, list[Row]]


class _Results:
    """A source that lets a `Study` read the metrics of a comparison before the metrics are written to disk."""

    def __init__(self, files: dict[str, dict[str, Any]]) -> None:
        self._files = {f"{METRICS}/{name}.json": content for name, content in files.items()}

    def read(self, path: str) -> dict[str, Any]:
        return self._files[path]

    def where(self, path: str) -> str:
        return path


def finished_study(outcomes: Outcomes, comparison: Comparison) -> Study:
    """Return a study that reads the metrics of a comparison from memory, before the metrics are written to disk."""
    files: dict[str, dict[str, Any]] = {"prune/full": {"kept": outcomes.full_rows}}
    files |= {f"prune/{name}": asdict(split) for name, split in outcomes.splits.items()}
    files[COMPARE] = flat_metrics(outcomes, comparison)
    return Study(_Results(files), list(outcomes.splits), outcomes.benchmarks, outcomes.seeds)


def _interval(estimate: Estimate | None, form: str, undefined: str = NONE) -> str:
    if estimate is None:
        return undefined
    value, low, high = (format_number(metric.value, form) for metric in estimate.metrics)
    return f"{value} [{low}, {high}]"


def _markdown(columns: Iterable[str], rows: Rows) -> str:
    """Return a Markdown table, or an empty string if there are no rows."""
    return markdown_table(list(columns), rows) if rows else ""


def _seeds(study: Study) -> str:
    count = len(study.seeds)
    if count == 1:
        return "one seed, so intervals are over images only"
    return f"{count} seeds" + (", so few that intervals are approximate" if count < 4 else "")


def _flags(study: Study) -> list[str]:
    full_rows = int(study.rows_kept("full").value)
    return [
        f"{name} is degenerate: it keeps only {format_number(split.kept / full_rows, 'percent')}% of full, which is too little "
        "to represent the pool."
        for name, split in study.splits.items()
        if is_degenerate(split, full_rows)
    ]


def _kept(study: Study, split: str) -> str:
    return format_number(study.rows_kept(split).value, "count")


def _top1(study: Study, split: str, benchmark: str) -> str:
    return format_number(study.accuracy(split, benchmark).value, "percent")


def text_table(study: Study) -> str:
    """Return the top-1 accuracies as a table for a terminal.

    A star (`*`) after an accuracy means that the split's rule used queries of the benchmark.
    """
    rows = [
        [
            split,
            _kept(study, split),
            # Columns are aligned to the right. A number without a star gets a space, to align its decimal point with the
            # others.
            *(_top1(study, split, name) + ("*" if study.used(split, name) else " ") for name in study.benchmarks),
        ]
        for split in study.splits
    ]
    columns = ["split", "pool rows", *(f"{name} " for name in study.benchmarks)]
    lines = [
        f"Zero-shot top-1 accuracy in per cent ({_seeds(study)}). *: the split's rule used this benchmark.",
        "",
        terminal_table(columns, rows, left=1),
        *_flags(study),
    ]
    return "\n".join(lines) + "\n"


def _accuracy(study: Study) -> str:
    rows = []
    for split, info in study.splits.items():
        cells = [
            _interval(study.accuracy(split, benchmark), "percent") + (" *" if study.used(split, benchmark) else "")
            for benchmark in study.benchmarks
        ]
        rows.append([split, info.rule, _kept(study, split), *cells])
    return _markdown(["split", "rule", "pool rows", *study.benchmarks], rows)


def _held_out(study: Study, tables: Tables) -> str:
    found = {
        (row["split"], row["benchmark"], row["queries"], row["figure"]): estimate_of(row) for row in tables["accuracy"]
    }
    rows = [
        [
            split,
            benchmark,
            *(
                _interval(found.get((split, benchmark, queries, quantity)), form)
                for queries in (USED, HELD_OUT)
                for quantity, form in (("top1", "percent"), ("minus_control", "points"))
            ),
        ]
        for split in study.splits
        for benchmark in study.benchmarks
        if study.used(split, benchmark)
    ]
    return _markdown(["split", "benchmark", USED, "minus control", HELD_OUT, "minus control"], rows)


def _differences(study: Study) -> str:
    rows = []
    for split in study.splits:
        for benchmark in study.benchmarks if split != study.full() else ():
            to_full = [
                _interval(study.minus_full(split, benchmark), "points"),
                study.verdict_full(split, benchmark) or NONE,
            ]
            about = [benchmark, study.rule_use(split, benchmark)]
            for control in study.controls_of(split):
                difference = _interval(study.minus_control(split, benchmark, control), "points")
                verdict = study.verdict_control(split, benchmark, control) or NONE
                rows.append([split, control, *about, difference, verdict, *to_full])
            if not study.controls_of(split):
                rows.append([split, NONE, *about, NONE, NONE, *to_full])
    columns = ["split", "control", "benchmark", "the benchmark was"]
    return _markdown([*columns, "split minus control", "verdict", "split minus full", "verdict"], rows)


def _claim_a(study: Study) -> str:
    def share(split: str, benchmark: str) -> str:
        return _interval(study.gap_explained(split, benchmark), "share", UNDEFINED)

    rows = []
    for split in study.splits_by_rule("imagenet-like"):
        for benchmark in study.benchmarks:
            control_cells = [[name, share(name, benchmark)] for name in study.controls_of(split)] or [[NONE, NONE]]
            rows += [[split, benchmark, share(split, benchmark), *control_pair] for control_pair in control_cells]
    columns = ["split", "benchmark", "share explained, per cent", "control", "share explained by the control, per cent"]
    return _markdown(columns, rows)


def _claim_b(study: Study) -> str:
    rows = [
        [
            split,
            _kept(study, split),
            benchmark,
            study.rule_use(split, benchmark),
            _interval(study.minus_full(split, benchmark), "points"),
            study.verdict_full(split, benchmark) or NONE,
        ]
        for split in study.splits_by_rule("dissimilar", "similar")
        for benchmark in study.benchmarks
    ]
    columns = ["split", "pool rows", "benchmark", "the benchmark was", "split minus full", "verdict"]
    return _markdown(columns, rows)


def _size(study: Study) -> str:
    splits = sorted(
        study.splits_by_rule(*SIZE_RULES), key=lambda name: (study.splits[name].rule, study.splits[name].kept)
    )
    rows = [
        [
            SIZE_RULES[study.splits[split].rule],
            split,
            _kept(study, split),
            *(_top1(study, split, benchmark) for benchmark in study.benchmarks),
        ]
        for split in splits
    ]
    return _markdown(["rule", "split", "pool rows", *study.benchmarks], rows)


def _by_similarity(study: Study, tables: Tables) -> str:
    split = study.full() or next(iter(study.splits))
    rows = [
        [
            row["benchmark"],
            " to ".join(format_number(row[edge], "similarity") for edge in ("similarity_from", "similarity_to")),
            format_number(row["images"], "count"),
            _interval(estimate_of(row), "percent"),
        ]
        for row in tables["by_similarity"]
        if row["split"] == split and row["bins"] == FIFTHS
    ]
    return _markdown(["benchmark", f"similarity to {split}", "images", "accuracy"], rows)


def _change(study: Study, tables: Tables) -> str:
    bins: dict[tuple[str, str], list[Row]] = {}
    for row in tables["change_by_similarity"]:
        bins.setdefault((row["split"], row["benchmark"]), []).append(row)

    def change(row: Row) -> str:
        edges = (format_number(row[edge], "similarity difference") for edge in ("change_from", "change_to"))
        return f"{' to '.join(edges)}: {_interval(estimate_of(row), 'points')}"

    rows = []
    for (split, benchmark), found in bins.items():
        slopes = [
            _interval(study.estimate(split, benchmark, f"accuracy_per_similarity{kind}"), "slope", undefined)
            for kind, undefined in (("", UNDEFINED), ("/rule_queries", NONE), ("/held_out", NONE))
        ]
        rows.append([split, benchmark, study.rule_use(split, benchmark), change(found[0]), change(found[-1]), *slopes])
    columns = [
        "split",
        "benchmark",
        "the benchmark was",
        "similarity fell most",
        "similarity fell least",
        "points for 0.01 of similarity",
        "queries used by the rule",
        "held-out queries",
    ]
    return _markdown(columns, rows)


def _robustness(study: Study, tables: Tables) -> str:
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in tables["robustness"]:
        found.setdefault((row["split"], row["benchmark"]), {})[row["figure"]] = row
    rows = []
    for (split, benchmark), split_estimates in found.items():
        relative, effective = split_estimates.get("relative"), split_estimates.get("effective")
        rows.append(
            [
                split,
                benchmark,
                study.rule_use(split, benchmark),
                _interval(estimate_of(relative) if relative else None, "points"),
                _interval(estimate_of(effective) if effective else None, "points", UNDEFINED),
                NONE if effective is None else "yes" if effective["beyond_the_line"] else "no",
            ]
        )
    return _markdown(["split", "benchmark", "the benchmark was", "relative", "effective", "beyond the line"], rows)


def _few_shot(study: Study, tables: Tables) -> str:
    def accuracy(row: Row | None) -> str:
        if row is None:
            return "refused"
        mean, spread = row["mean"], row["spread"]
        return format_number(mean, "percent") + ("" if spread is None else f" ± {format_number(spread, 'percent')}")

    found = {(row["shots"], row["split"], row["benchmark"]): row for row in tables["few_shot"]}
    rows = [
        [
            str(shots),
            split,
            "yes" if info.reference_rows else "no",
            *(accuracy(found.get((shots, split, benchmark))) for benchmark in study.benchmarks),
        ]
        for shots in sorted({shots for shots, _, _ in found})
        for split, info in study.splits.items()
    ]
    return _markdown(["shots", "split", "trained on the shots", *study.benchmarks], rows)


def markdown_report(parameters: CompareParameters, study: Study, tables: Tables) -> str:
    """Return the main results of a comparison as Markdown.

    Args:
        parameters: The parameters of the comparison.
        study: The study that reads the metrics of the comparison.
        tables: All results, from `long_tables`.
    """
    environment = Environment(
        loader=PackageLoader("simgap.compare", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Escaping must be off, because it is meant for HTML. In Markdown, escaping would change the text.
        autoescape=False,
    )
    return environment.get_template("table.md").render(
        seeds=_seeds(study),
        resamples=parameters.resamples,
        margin=format_number(parameters.equivalence_margin, "percent"),
        in_distribution=parameters.in_distribution_benchmark,
        joined=any(split.reference_rows and split.kept for split in study.splits.values()),
        flags=_flags(study),
        tables={
            "accuracy": _accuracy(study),
            "held_out": _held_out(study, tables),
            "differences": _differences(study),
            "claim_a": _claim_a(study),
            "claim_b": _claim_b(study),
            "size": _size(study),
            "by_similarity": _by_similarity(study, tables),
            "change": _change(study, tables),
            "robustness": _robustness(study, tables),
            "few_shot": _few_shot(study, tables),
        },
    )


def write_comparison(parameters: CompareParameters, outcomes: Outcomes, comparison: Comparison, out: Path) -> None:
    """Write a comparison into the folder `out`.

    The files are `table.txt` for a terminal, the Markdown report `table.md`, and CSV files with all results.
    """
    study, tables = finished_study(outcomes, comparison), long_tables(outcomes, comparison)
    (out / "table.txt").write_text(text_table(study), encoding="utf-8")
    (out / "table.md").write_text(markdown_report(parameters, study, tables), encoding="utf-8")
    write_tables(tables, out)
