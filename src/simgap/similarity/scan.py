"""Ask an engine about all rows of a set, part by part, and keep what is finished."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from simgap.embed.store import Embeddings
from simgap.files import complete
from simgap.progress import progress
from simgap.similarity.engine import Candidates, Engine, Nearest, NearestCandidates, RowAnswers

COLUMNS = {"best": np.float32, "nearest_query": np.int32, "margin": np.float32}


def scan_part(
    engine: Engine, first_row: int, part: NDArray[np.float16], tile_rows: int, known: Nearest, bar: Any
) -> tuple[list[RowAnswers], Nearest]:
    """Answer for one part in tiles, as many at a time as there are cores; neither changes the answers."""
    threads = len(os.sched_getaffinity(0))
    nearest = NearestCandidates(engine.neighbours, engine.error, known.similarity[:, -1])
    answers: list[RowAnswers] = []
    running: deque[Future[tuple[RowAnswers | None, Candidates]]] = deque()

    def finish() -> None:
        of_rows, found = running.popleft().result()
        nearest.update(found)
        if of_rows is not None:
            answers.append(of_rows)

    with ThreadPoolExecutor(threads) as pool, threadpool_limits(1, "blas"):
        for start in range(0, len(part), tile_rows):
            tile = part[start : start + tile_rows]
            running.append(pool.submit(engine.answer, first_row + start, tile, nearest.bound))
            if len(running) > threads:
                finish()
            bar.update(len(tile))
        while running:
            finish()
    return answers, nearest.decide(engine.given, lambda rows: part[rows - first_row])


def nearest_rows(rows: Embeddings, engine: Engine, tile_rows: int) -> Nearest:
    """Find the nearest rows of each query in a set of the size of a reference."""
    nearest = Nearest.none(len(engine.given), engine.neighbours)
    bar: Any = progress(None, rows.rows, f"similarity {rows.folder.name}", "row")
    with bar:
        for first_row, part in rows.parts():
            _, found = scan_part(engine, first_row, part, tile_rows, nearest, bar)
            nearest = nearest.merged(found)
    return nearest


def scan(rows: Embeddings, engine: Engine, tile_rows: int, scratch: Path) -> Nearest:
    """Answer for all rows of a set; finished parts wait in `scratch`, from where a stage that was killed goes on.

    Answers for the rows of part i are in `scratch/part_<i>/<column>.npy`; the neighbours in all parts are given back.
    Memory: the queries, for each thread a tile and a block of products, and a part's answers.
    """
    nearest = Nearest.none(len(engine.given), engine.neighbours)
    bar: Any = progress(None, rows.rows, f"similarity {rows.folder.name}", "row")
    with bar:
        for number, (first_row, part) in enumerate(rows.parts()):
            folder = scratch / f"part_{number:04d}"
            if folder.is_dir():
                bar.update(len(part))
            else:
                answers, found = scan_part(engine, first_row, part, tile_rows, nearest, bar)
                with complete(folder) as partial:
                    partial.mkdir(parents=True)
                    for name, dtype in COLUMNS.items():
                        values = [getattr(of_tile, name) for of_tile in answers]
                        np.save(partial / f"{name}.npy", np.concatenate([np.empty(0, dtype), *values]))
                    np.save(partial / "similarity.npy", found.similarity)
                    np.save(partial / "row.npy", found.row)
            found = Nearest(np.load(folder / "similarity.npy"), np.load(folder / "row.npy"))
            nearest = nearest.merged(found)
    return nearest
