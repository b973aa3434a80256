"""The pruning rules on synthetic columns, beside the way of the reference code (sets of keys, a sort of all)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from perf.machine import AnonymousMemory, report
from simgap.prune import rules

BLOCK = 4_000_000


def write_columns(folder: Path, rows: int, benchmarks: int) -> dict[str, list[NDArray[np.float32]]]:
    """Write `best` and `margin` of each benchmark block by block, rounded so that ties are common, and map them."""
    columns: dict[str, list[NDArray[np.float32]]] = {"best": [], "margin": []}
    for benchmark in range(benchmarks):
        random = np.random.default_rng(benchmark)
        paths = {name: folder / f"{name}_{benchmark}.npy" for name in columns}
        written = {name: open_memmap(path, mode="w+", dtype=np.float32, shape=(rows,)) for name, path in paths.items()}
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            best = np.round(random.normal(0.35, 0.1, count).astype(np.float32), 5).clip(-1, 1)
            written["best"][start : start + count] = best
            written["margin"][start : start + count] = best - random.normal(0.6, 0.05, count).astype(np.float32)
        for name, path in paths.items():
            written[name].flush()
            columns[name].append(np.load(path, mmap_mode="r"))
    return columns


def reference_imagenet_like(keys: list[str], margins: list[NDArray[np.float32]]) -> list[str]:
    """Prune as the reference code does: a set of keys a benchmark, their union, and a look-up of every key."""
    pruned: set[str] = set()
    for margin in margins:
        pruned |= {keys[row] for row in np.flatnonzero(np.asarray(margin) > 0)}
    return [key for key in keys if key not in pruned]


def reference_dissimilar(keys: list[str], best: list[NDArray[np.float32]], keep: int) -> list[str]:
    """Keep the most similar as the reference code does: sort all rows, take the first."""
    order = np.argsort(-np.max(np.stack(best), axis=0), kind="stable")
    return [keys[row] for row in order[:keep]]


@click.command()
@click.option("--rows", default=20_000_000, show_default=True)
@click.option("--reference-rows", default=2_000_000, show_default=True, help="Rows of the comparison; 0 leaves it out.")
@click.option("--benchmarks", default=6, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where the columns are written.  [default: a temporary one]"
)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(rows: int, reference_rows: int, benchmarks: int, folder: Path | None, out: Path | None) -> None:
    """Measure seconds and anonymous memory of each rule, and what the reference code's way takes on fewer rows."""
    table: list[tuple[str, ...]] = [("rule", "rows", "kept", "seconds", "memory, MB")]
    content: dict[str, Any] = {"rows": rows, "reference_rows": reference_rows, "benchmarks": benchmarks}

    def measure(name: str, count: int, work: Callable[[], int]) -> None:
        with AnonymousMemory() as memory:
            begun = time.perf_counter()
            kept = work()
            seconds = time.perf_counter() - begun
        used = (memory.peak - memory.begin) / 1e6
        content[name] = {"rows": count, "kept": kept, "seconds": seconds, "memory_mb": used}
        table.append((name, str(count), str(kept), f"{seconds:.2f}", f"{used:.0f}"))

    with tempfile.TemporaryDirectory(dir=folder) as place:
        columns = write_columns(Path(place), rows, benchmarks)
        for count in filter(None, (rows, reference_rows)):
            margins = [margin[:count] for margin in columns["margin"]]
            best = [column[:count] for column in columns["best"]]
            full = np.ones(count, np.bool_)
            keep = count // 2
            suffix = "" if count == rows else ", fewer rows"
            measure(f"imagenet-like{suffix}", count, lambda: int(rules.imagenet_like(full, margins, 0.0).sum()))  # noqa: B023
            measure(
                f"dissimilar{suffix}",
                count,
                lambda: int(rules.by_similarity(full, best, "max", keep, most_similar=True).sum()),  # noqa: B023
            )
            measure(f"random{suffix}", count, lambda: int(rules.random(full, keep, 0).sum()))  # noqa: B023
        if reference_rows:
            keys = [f"{row:09d}" for row in range(reference_rows)]
            measure(
                "imagenet-like, reference code's way",
                reference_rows,
                lambda: len(reference_imagenet_like(keys, margins)),
            )
            measure(
                "dissimilar, reference code's way", reference_rows, lambda: len(reference_dissimilar(keys, best, keep))
            )
    report(table, content, out)


if __name__ == "__main__":
    main()
