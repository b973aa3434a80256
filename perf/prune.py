"""The pruning rules on synthetic columns, beside the way of the reference code (sets of keys, a sort of all)."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from perf.machine import AnonymousMemory, report
from simgap.prune import rules

BLOCK = 4_000_000
Columns = dict[str, list[NDArray[np.float32]]]


def write_columns(folder: Path, rows: int, benchmarks: int) -> None:
    """Write `best` and `margin` of each benchmark block by block, rounded so that ties are common."""
    for benchmark in range(benchmarks):
        random = np.random.default_rng(benchmark)
        best, margin = (
            open_memmap(folder / f"{name}_{benchmark}.npy", mode="w+", dtype=np.float32, shape=(rows,))
            for name in ("best", "margin")
        )
        for start in range(0, rows, BLOCK):
            drawn, reference = random.standard_normal((2, min(BLOCK, rows - start)), np.float32)
            similarity = np.round(0.35 + 0.1 * drawn, 5).clip(-1, 1)
            best[start : start + BLOCK] = similarity
            margin[start : start + BLOCK] = similarity - (0.6 + 0.05 * reference)
        best.flush()
        margin.flush()


def map_columns(folder: Path, rows: int, benchmarks: int) -> Columns:
    """Map the first rows of the columns."""
    return {
        name: [np.load(folder / f"{name}_{benchmark}.npy", mmap_mode="r")[:rows] for benchmark in range(benchmarks)]
        for name in ("best", "margin")
    }


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


# Each is given rows of full or keys, the columns, and how many rows to keep.
RULES: dict[str, Callable[[Any, Columns, int], NDArray[np.bool_]]] = {
    "imagenet-like": lambda full, columns, keep: rules.imagenet_like(full, columns["margin"], 0.0),
    "dissimilar": lambda full, columns, keep: rules.by_similarity(
        full, columns["best"], "max", keep, most_similar=True
    ),
    "random": lambda full, columns, keep: rules.random(full, keep, 0),
}
REFERENCE_RULES: dict[str, Callable[[Any, Columns, int], list[str]]] = {
    "imagenet-like": lambda keys, columns, keep: reference_imagenet_like(keys, columns["margin"]),
    "dissimilar": lambda keys, columns, keep: reference_dissimilar(keys, columns["best"], keep),
}


def measure(rule: str, of_reference: bool, folder: Path, rows: int, benchmarks: int, keep: int) -> dict[str, Any]:
    """Give rows kept, seconds, and the most anonymous memory of this process in megabytes, what a rule is given included.

    That is made, and the columns are mapped, before time counts.
    """
    columns = map_columns(folder, rows, benchmarks)
    given: Any = [f"{row:09d}" for row in range(rows)] if of_reference else np.ones(rows, np.bool_)
    with AnonymousMemory() as memory:
        begun = time.perf_counter()
        result = (REFERENCE_RULES if of_reference else RULES)[rule](given, columns, keep)
        seconds = time.perf_counter() - begun
    kept = len(result) if isinstance(result, list) else int(result.sum())
    return {"rows": rows, "kept": kept, "seconds": seconds, "memory_mb": memory.peak / 1e6}


def measure_alone(*arguments: Any) -> dict[str, Any]:
    """Measure in a process of its own: what another measurement has left would count, or be used again uncounted."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measure, *arguments).result()


@click.command()
@click.option("--rows", default=20_000_000, show_default=True)
@click.option("--keep", type=int, help="Rows that dissimilar and random keep.  [default: half]")
@click.option("--reference-rows", default=5_000_000, show_default=True, help="Rows side by side; 0 leaves it out.")
@click.option("--benchmarks", default=6, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where the columns are written.  [default: a temporary one]"
)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(
    rows: int, keep: int | None, reference_rows: int, benchmarks: int, folder: Path | None, out: Path | None
) -> None:
    """Measure each rule, and on fewer rows side by side with the reference code's way.

    Ratios say how many times the seconds and the memory of simgap's way the reference code's takes.
    """
    keep = rows // 2 if keep is None else keep
    fewer = min(rows, reference_rows)
    table: list[tuple[str, ...]] = [
        ("rule", "way", "rows", "kept", "seconds", "memory, MB", "time ratio", "memory ratio")
    ]
    content: dict[str, Any] = {"rows": rows, "keep": keep, "reference_rows": fewer, "benchmarks": benchmarks}
    content |= {"rules": {}, "side_by_side": {}}

    def add(rule: str, way: str, found: dict[str, Any], *ratios: float) -> None:
        figures = (str(found["rows"]), str(found["kept"]), f"{found['seconds']:.2f}", f"{found['memory_mb']:.0f}")
        table.append((rule, way, *figures, *(f"{ratio:.1f}" for ratio in ratios), *[""] * (2 - len(ratios))))

    with tempfile.TemporaryDirectory(dir=folder) as place:
        columns = Path(place)
        write_columns(columns, rows, benchmarks)
        for rule in RULES:
            content["rules"][rule] = measure_alone(rule, False, columns, rows, benchmarks, keep)
            add(rule, "simgap", content["rules"][rule])
        for rule in REFERENCE_RULES if fewer else ():
            share = keep * fewer // rows
            ours, theirs = (measure_alone(rule, way, columns, fewer, benchmarks, share) for way in (False, True))
            ratios = {unit: theirs[unit] / ours[unit] for unit in ("seconds", "memory_mb")}
            content["side_by_side"][rule] = {"simgap": ours, "reference": theirs, "ratios": ratios}
            add(rule, "simgap", ours)
            add(rule, "reference code", theirs, *ratios.values())
    report(table, content, out)


if __name__ == "__main__":
    main()
