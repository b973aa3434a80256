"""Measure how long it takes to write the report of a synthetic study of any size.

The time to read the study does not count. To run the program, use for example `python -m perf.report --splits 12`.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import click

from perf.drawn_study import MARGIN, write_study
from perf.machine import report
from perf.timing import clocked, interleaved
from simgap.report.page import write_report


@click.command()
@click.option("--splits", default=12, show_default=True)
@click.option("--benchmarks", default=6, show_default=True)
@click.option("--queries", default=2000, show_default=True, help="Number of queries of each benchmark.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(splits: int, benchmarks: int, queries: int, seeds: int, repeats: int, out: Path | None) -> None:
    """Measure the time to write the page and the figures of the report of a synthetic study."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        inputs = write_study(folder, splits, benchmarks, seeds, queries)
        page, figures = folder / "report" / "index.html", folder / "report" / "figures"
        ways = {"page and figures": clocked(lambda: write_report(inputs, MARGIN, page, figures))}
        seconds = interleaved(ways, repeats)["page and figures"]
        size = sum(file.stat().st_size for file in (page, *figures.iterdir()))
        count = len(list(figures.iterdir()))
    rows: list[tuple[str, ...]] = [("splits", "benchmarks", "figures", "megabytes", "seconds, median")]
    rows.append((str(splits), str(benchmarks), str(count), f"{size / 1e6:.1f}", f"{statistics.median(seconds):.1f}"))
    report(
        rows,
        {"splits": splits, "benchmarks": benchmarks, "queries": queries, "figures": count, "seconds": seconds},
        out,
    )


if __name__ == "__main__":
    main()
