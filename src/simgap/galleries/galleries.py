"""Queries beside their nearest rows before and after pruning, the most similar pruned rows, and duplicates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simgap.core.files import atomic_output, write_json
from simgap.galleries.choose import choose_queries, most_similar_rows, nearest_lower_rows
from simgap.galleries.pictures import Source, cut_pictures, described, picture_name
from simgap.store.arrays import read_parquet
from simgap.store.columns import Similarity
from simgap.store.split import KEEP_FILE, Split, read_keep

# Of each kind of query of a benchmark; of pruned rows of a benchmark; of duplicates.
QUERIES, PRUNED, DUPLICATES = 4, 8, 8
SEED = 0
FILE = "galleries.json"
PROFILE_COLUMNS = ["similarity", "nearest_rows", "nearest_similarities"]
Entry = dict[str, Any]


def split_shown(benchmark: str, splits: Mapping[str, Split]) -> str | None:
    """Give the first imagenet-like split whose rule used the benchmark."""
    names = (name for name, split in splits.items() if split.rule == "imagenet-like" and benchmark in split.benchmarks)
    return next(names, None)


class Galleries:
    """Entries of the galleries, and the rows that they show.

    An entry names a row, its similarity to what it stands beside, and in the end its picture and caption.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = sources
        self._entries: list[tuple[str, int, Entry]] = []

    def entry(self, name: str, row: int, **about: Any) -> Entry:
        """Give the entry of a row of a set."""
        entry: Entry = {"row": int(row), **about}
        self._entries.append((name, int(row), entry))
        return entry

    def write_pictures(self, folder: Path) -> None:
        """Cut the pictures, and name them and the captions in the entries."""
        rows: dict[str, set[int]] = defaultdict(set)
        for name, row, _ in self._entries:
            rows[name].add(row)
        texts = {name: described(self.sources[name], of_set) for name, of_set in rows.items()}
        for name, row, entry in self._entries:
            entry["caption"], entry["image"] = texts[name][row]["caption"], picture_name(name, row)
        cut_pictures(self.sources, texts, folder)


def _first(table: pa.Table, column: str, query: int) -> Any:
    values = table.column(column)[query].as_py()
    return values[0] if values else None


def benchmark_gallery(galleries: Galleries, name: str, similarity: Similarity, after: pa.Table | None) -> list[Entry]:
    """Choose a benchmark's queries and set them beside their nearest rows.

    Args:
        after: the benchmark's table in the profile of the split that is shown, or None.
    """
    table = similarity.queries(
        ["used_by_rule", "reference_similarity", "reference_row", "pool_similarity", "nearest_rows"]
    )
    in_pool = table.column("pool_similarity").to_numpy()
    left = None if after is None else after.column("similarity").to_numpy(zero_copy_only=False)
    shown = []
    for query, why in choose_queries(in_pool, left, QUERIES, SEED):
        entry = galleries.entry(name, query, chosen=why, used_by_rule=table.column("used_by_rule")[query].as_py())
        near_reference = table.column("reference_similarity")[query].as_py()
        entry["reference"] = galleries.entry(
            "reference", table.column("reference_row")[query].as_py(), similarity=near_reference
        )
        entry["pool"] = galleries.entry("pool", _first(table, "nearest_rows", query), similarity=float(in_pool[query]))
        kept = None if after is None else _first(after, "nearest_rows", query)
        if after is not None and kept is not None:
            entry["after"] = galleries.entry("pool", kept, similarity=_first(after, "nearest_similarities", query))
        shown.append(entry)
    return shown


def pruned_gallery(galleries: Galleries, name: str, similarity: Similarity, pruned: NDArray[np.bool_]) -> list[Entry]:
    """Choose the pruned rows most similar to a benchmark, each beside its nearest query of those that the rule saw."""
    best, margin, nearest = (similarity.column(column) for column in ("best", "margin", "nearest_query"))
    shown = []
    for row in most_similar_rows(pruned, best, PRUNED):
        entry = galleries.entry("pool", row, similarity=float(best[row]), margin=float(margin[row]))
        entry["query"] = galleries.entry(name, int(nearest[row]))
        shown.append(entry)
    return shown


def duplicate_gallery(galleries: Galleries, full: NDArray[np.bool_]) -> list[Entry]:
    """Show the first rows that deduplication dropped, each beside the lower row nearest to it."""
    dropped = np.flatnonzero(~full)[:DUPLICATES]
    lower, similarity = nearest_lower_rows(galleries.sources["pool"].embeddings, dropped)
    shown = []
    for row, original, how_similar in zip(dropped, lower, similarity, strict=True):
        entry = galleries.entry("pool", row, similarity=float(how_similar))
        entry["of"] = galleries.entry("pool", original)
        shown.append(entry)
    return shown


def write_galleries(
    sources: Mapping[str, Source],
    benchmarks: Sequence[str],
    splits: Mapping[str, Split],
    splits_folder: Path,
    similarity: Path,
    profiles: Path,
    out: Path,
) -> None:
    """Write thumbnails and `galleries.json`, which says what they show.

    Memory: two bits a pool row, unpacked, and a block of a column.

    Args:
        sources: `pool`, `reference` and every benchmark.
        splits: those that may be shown, in the order in which they are preferred; `full` among them.
    """
    galleries = Galleries(sources)
    rows = splits["full"].pool_rows
    full = read_keep(splits_folder / "full" / KEEP_FILE, rows)
    content: dict[str, Any] = {"benchmarks": {}}
    for name in benchmarks:
        measured = Similarity(similarity / name, splits["full"].row_order)
        split = split_shown(name, splits)
        after = read_parquet(profiles / split / f"{name}.parquet", PROFILE_COLUMNS) if split else None
        of_benchmark: Entry = {"queries": benchmark_gallery(galleries, name, measured, after)}
        if split:
            pruned = full & ~read_keep(splits_folder / split / KEEP_FILE, rows)
            of_benchmark |= {"split": split, "pruned": pruned_gallery(galleries, name, measured, pruned)}
        content["benchmarks"][name] = of_benchmark
    content["duplicates"] = duplicate_gallery(galleries, full)
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        galleries.write_pictures(partial)
        write_json(partial / FILE, content)
