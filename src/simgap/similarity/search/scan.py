"""Search all rows of a dataset part by part, and store the results of finished parts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from simgap.core.executor import LOCAL, Executor, run_parts
from simgap.core.files import atomic_output
from simgap.core.progress import progress
from simgap.similarity.search.engines.choose import make_engine
from simgap.similarity.search.engines.engine import Engine, RowResults, SearchRequest
from simgap.similarity.search.nearest import Candidates, Nearest, NearestCandidates
from simgap.store.arrays import read_array
from simgap.store.embeddings import Embeddings

COLUMNS = {"best": np.float32, "nearest_query": np.int32, "margin": np.float32}
# A thread computes the exact similarities of this many pairs at a time. With a larger number, there might be too few
# tasks for all threads.
PAIRS_PER_TASK = 16384


def _tiles(rows: int, engine: Engine) -> Iterator[tuple[int, int]]:
    """Divide rows into tiles of about equal size.

    Every thread gets the same number of tiles, because otherwise some threads would wait at the end.

    Returns:
        An iterator over the tiles. Each tile is a pair of two row numbers: the first row, and the row after the last
        row.
    """
    tiles = engine.threads * math.ceil(rows / (engine.threads * engine.tile_rows))
    cuts = [rows * number // tiles for number in range(tiles + 1)] if rows else []
    return ((start, stop) for start, stop in pairwise(cuts) if stop > start)


def scan_part(
    engine: Engine, first_row: int, part: NDArray[np.float16], known: Nearest, advance: Callable[[int], object]
) -> tuple[list[RowResults], Nearest]:
    """Search one part of a dataset. The part is divided into tiles, and several tiles are searched at the same time.

    Neither the tile size nor the number of threads changes the results.

    Args:
        engine: Engine that searches the tiles.
        first_row: Number of the part's first row in the dataset.
        part: Vectors of the part, fp16 [rows, dim].
        known: Nearest rows that are known from other parts. They only speed up the search.
        advance: Function to call with the number of rows of each submitted tile.

    Returns:
        A list with the results for the rows of each tile, and the nearest rows in this part. The list is empty if the
        request has no rule queries.
    """
    results: list[RowResults] = []
    running: deque[Future[tuple[RowResults | None, Candidates]]] = deque()

    def similarities(row: NDArray[np.int64], query: NDArray[np.int64]) -> NDArray[np.float64]:
        tasks = [slice(start, start + PAIRS_PER_TASK) for start in range(0, len(row), PAIRS_PER_TASK)]
        exact = threads.map(lambda task: engine.similarities(part, row[task] - first_row, query[task]), tasks)
        return np.concatenate([np.empty(0), *exact])

    nearest = NearestCandidates(engine.error, known, similarities)

    def finish() -> None:
        row_results, candidates = running.popleft().result()
        nearest.update(candidates)
        if row_results is not None:
            results.append(row_results)

    with ThreadPoolExecutor(engine.threads) as threads, threadpool_limits(1, "blas"):
        for start, stop in _tiles(len(part), engine):
            running.append(threads.submit(engine.search, first_row + start, part[start:stop], nearest.bound))
            if len(running) > engine.threads:
                finish()
            advance(stop - start)
        while running:
            finish()
        return results, nearest.decide()


def nearest_rows(rows: Embeddings, engine: Engine) -> Nearest:
    """Find the nearest rows of each query in a small dataset, such as a reference.

    Unlike `scan`, this function does not store the results of finished parts.
    """
    nearest = Nearest.none(len(engine.order), engine.neighbours)
    bar: Any = progress(None, rows.rows, f"similarity {rows.folder.name}", "row")
    with bar:
        for first_row, part in rows.parts():
            _, found = scan_part(engine, first_row, part, nearest, bar.update)
            nearest = nearest.merged(found)
    return nearest


def _part_folder(scratch: Path, number: int) -> Path:
    return scratch / f"part_{number:04d}"


@dataclass
class _Scan:
    """Search the parts of a dataset, as tasks of an executor.

    A process may search the parts in any order. It keeps the nearest rows of its finished parts, because these rows
    speed up the search of later parts.
    """

    rows: Embeddings
    request: SearchRequest
    engine_name: str
    scratch: Path
    known: Nearest

    @cached_property
    def engine(self) -> Engine:
        return make_engine(self.engine_name, self.request)

    @property
    def sizes(self) -> Sequence[int]:
        return [len(part) for _, part in self.rows.parts()]

    def path(self, number: int) -> Path:
        return _part_folder(self.scratch, number)

    def write(self, number: int, out: Path, advance: Callable[[int], object]) -> None:
        first_row, part = next(islice(self.rows.parts(), number, None))
        results, nearest = scan_part(self.engine, first_row, part, self.known, advance)
        with atomic_output(out) as partial:
            partial.mkdir(parents=True)
            for name, dtype in COLUMNS.items():
                values = [getattr(tile, name) for tile in results]
                np.save(partial / f"{name}.npy", np.concatenate([np.empty(0, dtype), *values]))
            np.save(partial / "similarity.npy", nearest.similarity)
            np.save(partial / "row.npy", nearest.row)
        self.known = self.known.merged(nearest)


def scan(
    rows: Embeddings, request: SearchRequest, engine: str, scratch: Path, description: str, executor: Executor = LOCAL
) -> Nearest:
    """Search all rows of a dataset, and store the results of finished parts in `scratch`.

    A restarted stage does not repeat the finished parts. Use `scanned_column` to read the stored results for rows.
    Memory: the queries, the results of one part, and a tile and a block of products for each thread.

    Args:
        rows: Embeddings of the dataset.
        request: The queries, and the kinds of results to compute.
        engine: Name of the engine. Every engine gives the same result.
        scratch: Folder of the finished parts.
        description: Text of the progress bar.
        executor: Executor that processes the parts. Every executor gives the same result.

    Returns:
        The nearest rows of each query in the whole dataset.
    """
    nearest = Nearest.none(len(request.queries), request.neighbours)
    parts = _Scan(rows, request, engine, scratch, nearest)
    run_parts(executor, parts, description, "row")
    for number in range(len(parts.sizes)):
        folder = parts.path(number)
        nearest = nearest.merged(Nearest(read_array(folder / "similarity.npy"), read_array(folder / "row.npy")))
    return nearest


def scanned_column(scratch: Path, rows: Embeddings, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield one column of the results that `scan` stored, part by part.

    Args:
        scratch: Folder of the finished parts.
        rows: Embeddings of the dataset that `scan` searched.
        name: Name of a column in `COLUMNS`.

    Yields:
        The number of the part's first row, and the column's values for the rows of the part.
    """
    for number, (first_row, _) in enumerate(rows.parts()):
        yield first_row, read_array(_part_folder(scratch, number) / f"{name}.npy")
