"""Measure the pruning rules on synthetic columns, and compare the rules with reference code.

The reference code prunes as the paper's code does. It collects sets of keys, or it sorts all rows.
"""

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
    """Write the columns `best` and `margin` of each benchmark, block by block.

    The function rounds the values, because ties should be common.
    """
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
    """Map the columns of all benchmarks into memory, and return the first `rows` rows of each column."""
    return {
        name: [np.load(folder / f"{name}_{benchmark}.npy", mmap_mode="r")[:rows] for benchmark in range(benchmarks)]
        for name in ("best", "margin")
    }


def reference_imagenet_like(keys: list[str], margins: list[NDArray[np.float32]]) -> list[str]:
    """Prune by the imagenet-like rule, and return the kept keys.

    The function collects a set of pruned keys for each benchmark. Then it looks up every key in the union of the sets.
    """
    pruned: set[str] = set()
    for margin in margins:
        pruned |= {keys[row] for row in np.flatnonzero(np.asarray(margin) > 0)}
    return [key for key in keys if key not in pruned]


def reference_dissimilar(keys: list[str], best: list[NDArray[np.float32]], keep: int) -> list[str]:
    """Sort all rows by similarity, most similar first, and return the keys of the first `keep` rows."""
    order = np.argsort(-np.max(np.stack(best), axis=0), kind="stable")
    return [keys[row] for row in order[:keep]]


# Each function takes the rows of the full split, the columns, and the number of rows to keep. The functions of the reference
# code take keys in place of the rows.
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


def measure(rule: str, reference_code: bool, folder: Path, rows: int, benchmarks: int, keep: int) -> dict[str, Any]:
    """Measure one rule in this process.

    The measured seconds do not include the creation of the rule's input. The measured memory includes this input.

    Args:
        rule: Name of the rule.
        reference_code: Whether to measure the reference code instead of simgap.
        folder: Folder of the columns.
        rows: Number of rows.
        benchmarks: Number of benchmarks.
        keep: Number of rows to keep.

    Returns:
        A dict with the keys `rows`, `kept`, `seconds` and `memory_mb`. The memory is the peak anonymous memory in megabytes.
    """
    columns = map_columns(folder, rows, benchmarks)
    rule_input: Any = [f"{row:09d}" for row in range(rows)] if reference_code else np.ones(rows, np.bool_)
    with AnonymousMemory() as memory:
        started = time.perf_counter()
        result = (REFERENCE_RULES if reference_code else RULES)[rule](rule_input, columns, keep)
        seconds = time.perf_counter() - started
    kept = len(result) if isinstance(result, list) else int(result.sum())
    return {"rows": rows, "kept": kept, "seconds": seconds, "memory_mb": memory.peak / 1e6}


def measure_alone(*arguments: Any) -> dict[str, Any]:
    """Call `measure` in a new process, and return its result.

    A process that has measured before may keep memory. The next measurement would then count too much memory. If the rule used
    the kept memory again, the measurement would count too little.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measure, *arguments).result()


@click.command()
@click.option("--rows", default=20_000_000, show_default=True)
@click.option("--keep", type=int, help="Number of rows that dissimilar and random keep.  [default: half of --rows]")
@click.option(
    "--reference-rows",
    default=5_000_000,
    show_default=True,
    help="Number of rows for the comparison with the reference code; 0 skips it.",
)
@click.option("--benchmarks", default=6, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Folder for the columns.  [default: a temporary folder]"
)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(
    rows: int, keep: int | None, reference_rows: int, benchmarks: int, folder: Path | None, out: Path | None
) -> None:
    """Measure each rule, and compare it with the reference code on fewer rows.

    The ratios are the seconds and the memory of the reference code, divided by the values of simgap.
    """
    keep = rows // 2 if keep is None else keep
    fewer = min(rows, reference_rows)
    table: list[tuple[str, ...]] = [
        ("rule", "code", "rows", "kept", "seconds", "memory, MB", "time ratio", "memory ratio")
    ]
    content: dict[str, Any] = {"rows": rows, "keep": keep, "reference_rows": fewer, "benchmarks": benchmarks}
    content |= {"rules": {}, "side_by_side": {}}

    def add(rule: str, code: str, found: dict[str, Any], *ratios: float) -> None:
        values = (str(found["rows"]), str(found["kept"]), f"{found['seconds']:.2f}", f"{found['memory_mb']:.0f}")
        table.append((rule, code, *values, *(f"{ratio:.1f}" for ratio in ratios), *[""] * (2 - len(ratios))))

    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        columns = Path(temporary)
        write_columns(columns, rows, benchmarks)
        for rule in RULES:
            content["rules"][rule] = measure_alone(rule, False, columns, rows, benchmarks, keep)
            add(rule, "simgap", content["rules"][rule])
        for rule in REFERENCE_RULES if fewer else ():
            share = keep * fewer // rows
            ours, theirs = (
                measure_alone(rule, reference_code, columns, fewer, benchmarks, share)
                for reference_code in (False, True)
            )
            ratios = {unit: theirs[unit] / ours[unit] for unit in ("seconds", "memory_mb")}
            content["side_by_side"][rule] = {"simgap": ours, "reference": theirs, "ratios": ratios}
            add(rule, "simgap", ours)
            add(rule, "reference code", theirs, *ratios.values())
    report(table, content, out)


if __name__ == "__main__":
    main()
