"""Measure how the seconds and the memory of each step grow with the number of rows.

The steps are embedding, similarity, deduplication, pruning and the report. Each measurement runs in its own process.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import webdataset
from matplotlib.figure import Figure

from perf.drawn_study import MARGIN, write_study
from perf.evaluate import REPOSITORY, make_model
from perf.machine import AnonymousMemory, report
from perf.prune import map_columns, write_columns
from perf.similarity import draw
from perf.store import part_sizes, write_embeddings
from simgap.clip.model import load
from simgap.core.progress import progress
from simgap.data.shards import find_shards
from simgap.deduplicate.deduplicate import deduplicate
from simgap.embed.embed import embed
from simgap.galleries.choose import most_similar_rows, nearest_lower_rows
from simgap.galleries.galleries import DUPLICATES, PRUNED
from simgap.params.deduplicate import DeduplicateParameters
from simgap.params.draw import DrawParameters
from simgap.params.embed import EmbedParameters
from simgap.prune import rules
from simgap.report.page import write_report
from simgap.similarity.search.engines.engine import SearchRequest
from simgap.similarity.search.scan import scan
from simgap.stage.command import reports_errors
from simgap.store.embeddings import Embeddings
from simgap.toy.world import draw_sample

# Embedding is much slower than the other steps, so it processes only this fraction of the rows.
EMBEDDED = 0.02
SHARD_SAMPLES = 100
DISTINCT_IMAGES = 64
BENCHMARKS, SPLITS = 5, 4
# Each process first runs the step on `FEW_ROWS` rows from the folder `FEW`. The measurement then does not include compilation
# and imports.
FEW_ROWS, FEW = 2000, "few"
NEIGHBOURS = 10


@dataclass(frozen=True)
class Sizes:
    """Sizes that stay the same while the number of rows grows."""

    dim: int
    queries: int
    clusters: int


Work = Callable[[], Any]


def embedded(rows: int) -> int:
    """Return the number of rows that the embedding step processes if the other steps process `rows` rows."""
    return max(1, round(EMBEDDED * rows))


def write_shards(folder: Path, samples: int) -> None:
    """Write shards with `samples` small images. Only a few images are distinct, because it takes time to create images."""
    folder.mkdir()
    size = DrawParameters(seed=0, pool=samples, reference=1, queries=1, image_size=40, planted=0, broken=0)
    drawn = [draw_sample(size, "pool", index) for index in range(DISTINCT_IMAGES)]
    for first in range(0, samples, SHARD_SAMPLES):
        with webdataset.TarWriter(str(folder / f"{first // SHARD_SAMPLES:05d}.tar")) as tar:
            for index in range(first, min(first + SHARD_SAMPLES, samples)):
                sample = drawn[index % DISTINCT_IMAGES]
                tar.write({"__key__": f"{index:09d}", "jpg": sample.image, "txt": sample.caption.encode()})


def write_inputs(folder: Path, rows: int, sizes: Sizes) -> None:
    """Write the inputs of all steps for a number of rows to `folder`."""
    folder.mkdir(exist_ok=True)
    parts = (draw(count, sizes.dim, "clustered", 10 + number) for number, count in enumerate(part_sizes(rows)))
    write_embeddings(folder / "pool", sizes.dim, parts)
    (folder / "columns").mkdir()
    write_columns(folder / "columns", rows, BENCHMARKS)
    write_shards(folder / "shards", embedded(rows))
    make_model(str(REPOSITORY / "presets" / "models" / "toy.json"), folder)


def _embedding(folder: Path, rows: int, sizes: Sizes) -> Work:
    shards = tuple(find_shards(folder / "shards"))
    parameters = EmbedParameters(batch_size=100, precision="fp32", shards_per_part=2)
    (folder / "embedded").mkdir()
    out, scratch = folder / "embedded" / "out", folder / "embedded" / "scratch"
    return lambda: embed(
        parameters,
        partial(load, folder / "model"),
        "",
        shards,
        out,
        scratch,
        classes=None,
        captioned=True,
        decoders=1,
        drop_limit=0.0,
    )


def _similarity(folder: Path, rows: int, sizes: Sizes) -> Work:
    pool, queries = Embeddings(folder / "pool"), draw(sizes.queries, sizes.dim, "clustered", 2)
    reference = (queries.astype(np.float64) * draw(sizes.queries, sizes.dim, "clustered", 3)).sum(axis=1)
    request = SearchRequest(queries, NEIGHBOURS, reference, np.ones(sizes.queries, np.bool_))
    return lambda: scan(pool, request, "auto", folder / "scanned", "rows on disk")


def _deduplication(folder: Path, rows: int, sizes: Sizes) -> Work:
    pool = Embeddings(folder / "pool")
    # K-means uses a sample of a fixed size. The time of k-means therefore does not grow with the number of rows.
    parameters = DeduplicateParameters(0.124, sizes.clusters, 10, 2 * sizes.clusters, 0)
    return lambda: deduplicate(parameters, pool, "auto", 4096, folder / "deduplicated")


def _pruning(folder: Path, rows: int, sizes: Sizes) -> Work:
    columns, full = map_columns(folder / "columns", rows, BENCHMARKS), np.ones(rows, np.bool_)

    def prune() -> None:
        rules.imagenet_like(full, columns["margin"], 0.0)
        rules.by_similarity(full, columns["best"], "max", rows // 2, most_similar=True)
        rules.random(full, rows // 2, 0)

    return prune


def _reporting(folder: Path, rows: int, sizes: Sizes) -> Work:
    pool, columns = Embeddings(folder / "pool"), map_columns(folder / "columns", rows, BENCHMARKS)
    # The last rows are the duplicates. The search for similar rows therefore compares the duplicates with all other rows.
    pruned, duplicates = np.ones(rows, np.bool_), np.arange(rows - DUPLICATES, rows)
    inputs = write_study(folder / "study", SPLITS, BENCHMARKS, queries=sizes.queries)

    def make_report() -> None:
        for best in columns["best"]:
            most_similar_rows(pruned, best, PRUNED)
        nearest_lower_rows(pool, duplicates)
        write_report(inputs, MARGIN, folder / "report" / "index.html", folder / "report" / "figures")

    return make_report


STEPS: dict[str, Callable[[Path, int, Sizes], Work]] = {
    "embed": _embedding,
    "similarity": _similarity,
    "deduplicate": _deduplication,
    "prune": _pruning,
    "report": _reporting,
}


def measure(step: str, folder: Path, rows: int, sizes: Sizes) -> dict[str, float]:
    """Measure a step in this process.

    The step first runs on a few rows, so that compilation and imports do not count.

    Returns:
        A dict: `seconds` is the time, and `memory_mb` is the peak anonymous memory in megabytes.
    """
    STEPS[step](folder / FEW, FEW_ROWS, sizes)()
    work = STEPS[step](folder, rows, sizes)
    with AnonymousMemory() as memory:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "memory_mb": memory.peak / 1e6}


def measure_alone(*arguments: Any) -> dict[str, float]:
    """Call `measure` in a new process, and return its result.

    In a process that has measured before, memory of the earlier measurement would count.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measure, *arguments).result()


def slope(rows: list[float], values: list[float]) -> float:
    """Return the slope of the values over the rows on two logarithmic axes.

    The slope is 1 if the values are proportional to the rows, and 0 if the values are constant.
    """
    return float(np.polyfit(np.log(rows), np.log(values), 1)[0])


def plot(found: dict[str, dict[str, list[float]]], out: Path) -> None:
    """Plot seconds and memory over rows on logarithmic axes, with a line that is proportional to the rows. Write a PNG file."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, unit, label in zip(
        figure.subplots(1, 2), ("seconds", "memory_mb"), ("seconds", "memory, MB"), strict=True
    ):
        for step, values in found.items():
            axes.loglog(
                values["rows"],
                values[unit],
                "o-",
                label=f"{step}, slope {slope(values['rows'], values[unit]):z.2f}",
            )
        first = found["similarity"]
        ends = np.array([min(first["rows"]), max(first["rows"])])
        axes.loglog(ends, first[unit][0] * ends / ends[0], "--", color="gray", label="proportional to the rows")
        axes.set(xlabel="rows", ylabel=label)
        axes.grid(which="both", alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(out, dpi=110)


@click.command()
@click.option("--rows", type=int, multiple=True, default=(10_000, 100_000, 1_000_000), show_default=True)
@click.option("--dim", default=640, show_default=True)
@click.option("--queries", default=2000, show_default=True)
@click.option("--clusters", default=1000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Folder for the rows.  [default: a temporary folder]")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="PNG file to write the plot to.")
@click.option("--json", "out", type=click.Path(path_type=Path))
@reports_errors
def main(
    rows: tuple[int, ...],
    dim: int,
    queries: int,
    clusters: int,
    folder: Path | None,
    picture: Path | None,
    out: Path | None,
) -> None:
    """Measure each step at each number of rows, and fit a slope on logarithmic axes.

    The embedding step processes a fiftieth of the rows, as images of 40 pixels. The numbers of queries, clusters, benchmarks
    and splits stay the same. The report step searches the rows of the galleries, but does not draw their images,
    because the number of images is fixed.
    """
    sizes = Sizes(dim, queries, clusters)
    found: dict[str, dict[str, list[float]]] = {step: {"rows": [], "seconds": [], "memory_mb": []} for step in STEPS}
    table: list[tuple[str, ...]] = [("step", "rows", "seconds", "memory, MB")]
    for count in sorted(rows):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            write_inputs(Path(name), count, sizes)
            write_inputs(Path(name) / FEW, FEW_ROWS, sizes)
            for step, values in progress(found.items(), len(found), f"{count} rows", "step"):
                measured = measure_alone(step, Path(name), count, sizes)
                values["rows"].append(float(embedded(count) if step == "embed" else count))
                for unit, value in measured.items():
                    values[unit].append(value)
    for step, values in found.items():
        for processed, seconds, memory in zip(values["rows"], values["seconds"], values["memory_mb"], strict=True):
            table.append((step, f"{processed:.0f}", f"{seconds:.2f}", f"{memory:.0f}"))
        slopes = (slope(values["rows"], values[unit]) for unit in ("seconds", "memory_mb"))
        table.append((step, "slope", *(f"{value:z.2f}" for value in slopes)))
    if picture is not None:
        plot(found, picture)
    report(table, {"dim": dim, "queries": queries, "clusters": clusters, "scaling": found}, out)


if __name__ == "__main__":
    main()
