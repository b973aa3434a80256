"""Ask an engine about all rows of a set, part by part, and keep what is finished."""

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
from simgap.store.embeddings import Embeddings

COLUMNS = {"best": np.float32, "nearest_query": np.int32, "margin": np.float32}
# Pairs that a thread decides at a time.
TAKEN = 16384


def _tiles(rows: int, engine: Engine) -> Iterator[tuple[int, int]]:
    """Cut rows into tiles of equal size, as many for each thread: none waits for another at the end."""
    tiles = engine.threads * math.ceil(rows / (engine.threads * engine.tile_rows))
    cuts = [rows * number // tiles for number in range(tiles + 1)] if rows else []
    return ((start, stop) for start, stop in pairwise(cuts) if stop > start)


def scan_part(
    engine: Engine, first_row: int, part: NDArray[np.float16], known: Nearest, advance: Callable[[int], object]
) -> tuple[list[RowResults], Nearest]:
    """Answer for one part in tiles, several at a time; neither changes the answers."""
    answers: list[RowResults] = []
    running: deque[Future[tuple[RowResults | None, Candidates]]] = deque()

    def similarities(row: NDArray[np.int64], query: NDArray[np.int64]) -> NDArray[np.float64]:
        turns = [slice(start, start + TAKEN) for start in range(0, len(row), TAKEN)]
        exact = pool.map(lambda turn: engine.similarities(part, row[turn] - first_row, query[turn]), turns)
        return np.concatenate([np.empty(0), *exact])

    nearest = NearestCandidates(engine.error, known, similarities)

    def finish() -> None:
        of_rows, found = running.popleft().result()
        nearest.update(found)
        if of_rows is not None:
            answers.append(of_rows)

    with ThreadPoolExecutor(engine.threads) as pool, threadpool_limits(1, "blas"):
        for start, stop in _tiles(len(part), engine):
            running.append(pool.submit(engine.answer, first_row + start, part[start:stop], nearest.bound))
            if len(running) > engine.threads:
                finish()
            advance(stop - start)
        while running:
            finish()
        return answers, nearest.decide()


def nearest_rows(rows: Embeddings, engine: Engine) -> Nearest:
    """Find the nearest rows of each query in a set of the size of a reference."""
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
    """The parts of a scan. What one finds is kept as a bound for those that this process does later, in any order."""

    rows: Embeddings
    asked: SearchRequest
    engine_name: str
    scratch: Path
    known: Nearest

    @cached_property
    def engine(self) -> Engine:
        return make_engine(self.engine_name, self.asked)

    @property
    def sizes(self) -> Sequence[int]:
        return [len(part) for _, part in self.rows.parts()]

    def path(self, number: int) -> Path:
        return _part_folder(self.scratch, number)

    def write(self, number: int, out: Path, advance: Callable[[int], object]) -> None:
        first_row, part = next(islice(self.rows.parts(), number, None))
        answers, found = scan_part(self.engine, first_row, part, self.known, advance)
        with atomic_output(out) as partial:
            partial.mkdir(parents=True)
            for name, dtype in COLUMNS.items():
                values = [getattr(of_tile, name) for of_tile in answers]
                np.save(partial / f"{name}.npy", np.concatenate([np.empty(0, dtype), *values]))
            np.save(partial / "similarity.npy", found.similarity)
            np.save(partial / "row.npy", found.row)
        self.known = self.known.merged(found)


def scan(
    rows: Embeddings, asked: SearchRequest, engine: str, scratch: Path, description: str, executor: Executor = LOCAL
) -> Nearest:
    """Answer for all rows of a set; finished parts wait in `scratch`, from where a stage that was killed goes on.

    `scanned_column` reads the answers for rows; the neighbours in all parts are given back. Memory: the queries, for each
    thread a tile and a block of products, and a part's answers.

    Args:
        engine: name of the engine that is asked; changes no answer.
        description: what the progress bar says.
        by: who scans; changes no answer.
    """
    nearest = Nearest.none(len(asked.queries), asked.neighbours)
    parts = _Scan(rows, asked, engine, scratch, nearest)
    run_parts(executor, parts, description, "row")
    for number in range(len(parts.sizes)):
        folder = parts.path(number)
        nearest = nearest.merged(Nearest(np.load(folder / "similarity.npy"), np.load(folder / "row.npy")))
    return nearest


def scanned_column(scratch: Path, rows: Embeddings, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, values) of each part that `scan` left in `scratch`, of one of COLUMNS."""
    for number, (first_row, _) in enumerate(rows.parts()):
        yield first_row, np.load(_part_folder(scratch, number) / f"{name}.npy")
