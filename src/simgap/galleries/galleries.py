"""Make the galleries of a study.

The first kind of gallery shows queries with their nearest rows before and after pruning. Other galleries show pruned
rows and duplicates.
"""

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

# These numbers limit the size of galleries.json and the number of thumbnails. QUERIES is the largest number of queries
# for each reason and benchmark. PRUNED is the largest number of pruned rows for each benchmark. DUPLICATES is the
# largest number of duplicates in the whole study.
QUERIES, PRUNED, DUPLICATES = 4, 8, 8
SEED = 0
FILE = "galleries.json"
PROFILE_COLUMNS = ["similarity", "nearest_rows", "nearest_similarities"]
Entry = dict[str, Any]


def split_shown(benchmark: str, splits: Mapping[str, Split]) -> str | None:
    """Choose the split that illustrates pruning by a benchmark.

    Args:
        benchmark: Name of the benchmark.
        splits: Splits by name. The preferred splits come first.

    Returns:
        The name of the first imagenet-like split whose rule used the benchmark, or None if there is no such split.
    """
    names = (name for name, split in splits.items() if split.rule == "imagenet-like" and benchmark in split.benchmarks)
    return next(names, None)


class Galleries:
    """Collect the entries of the galleries.

    An entry describes one row of a set. Most entries also have a similarity to the row that the gallery shows beside
    them. `write_pictures` adds the image and the caption to every entry.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        """Start without entries.

        Args:
            sources: Sets by name.
        """
        self.sources = sources
        self._entries: list[tuple[str, int, Entry]] = []

    def entry(self, name: str, row: int, **about: Any) -> Entry:
        """Add an entry for a row of a set, and return the entry.

        Args:
            name: Name of the set.
            row: Number of the row.
            about: Further fields of the entry.
        """
        entry: Entry = {"row": int(row), **about}
        self._entries.append((name, int(row), entry))
        return entry

    def write_pictures(self, folder: Path) -> None:
        """Write a thumbnail for each entry, and complete the entries.

        The function adds the file name of the thumbnail and the caption of the row to each entry.
        """
        rows: dict[str, set[int]] = defaultdict(set)
        for name, row, _ in self._entries:
            rows[name].add(row)
        texts = {name: described(self.sources[name], set_rows) for name, set_rows in rows.items()}
        for name, row, entry in self._entries:
            entry["caption"], entry["image"] = texts[name][row]["caption"], picture_name(name, row)
        cut_pictures(self.sources, texts, folder)


def _first(table: pa.Table, column: str, query: int) -> Any:
    values = table.column(column)[query].as_py()
    return values[0] if values else None


def benchmark_gallery(galleries: Galleries, name: str, similarity: Similarity, after: pa.Table | None) -> list[Entry]:
    """Choose queries of a benchmark, and add an entry for each chosen query.

    The entry of a query contains entries for the nearest reference row, the nearest pool row and the nearest row of the
    split. The entry for the split is missing if no split is shown or the split is empty.

    Args:
        galleries: Galleries to add entries to.
        name: Name of the benchmark.
        similarity: Similarity of the pool to the benchmark.
        after: Table that the profile of the shown split has for the benchmark. None if no split is shown.

    Returns:
        The entries of the chosen queries.
    """
    table = similarity.queries(
        ["used_by_rule", "reference_similarity", "reference_row", "pool_similarity", "nearest_rows"]
    )
    in_pool = table.column("pool_similarity").to_numpy()
    left = None if after is None else after.column("similarity").to_numpy(zero_copy_only=False)
    shown = []
    for query, reason in choose_queries(in_pool, left, QUERIES, SEED):
        entry = galleries.entry(name, query, chosen=reason, used_by_rule=table.column("used_by_rule")[query].as_py())
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
    """Add entries for the pruned rows that are most similar to a benchmark.

    Each entry contains an entry for the most similar query among the queries that rules use.

    Args:
        galleries: Galleries to add entries to.
        name: Name of the benchmark.
        similarity: Similarity of the pool to the benchmark.
        pruned: Pruned rows, bool [pool rows].

    Returns:
        The entries of the pruned rows, the most similar row first.
    """
    best, margin, nearest = (similarity.column(column) for column in ("best", "margin", "nearest_query"))
    shown = []
    for row in most_similar_rows(pruned, best, PRUNED):
        entry = galleries.entry("pool", row, similarity=float(best[row]), margin=float(margin[row]))
        entry["query"] = galleries.entry(name, int(nearest[row]))
        shown.append(entry)
    return shown


def duplicate_gallery(galleries: Galleries, full: NDArray[np.bool_]) -> list[Entry]:
    """Add entries for the first rows that deduplication dropped.

    Each entry contains an entry for the most similar row with a smaller number.

    Args:
        galleries: Galleries to add entries to.
        full: Rows that deduplication kept, bool [pool rows].

    Returns:
        The entries of the dropped rows.
    """
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
    """Write the thumbnails of all galleries, and write the entries to `galleries.json`.

    Memory holds a few bytes for each pool row, and one block of a column.

    Args:
        sources: Sets by name: `pool`, `reference` and each benchmark.
        benchmarks: Names of the benchmarks.
        splits: Splits that may be shown, by name. The preferred splits come first. The split `full` must be among them.
        splits_folder: Folder of all splits.
        similarity: Folder of the similarity columns of all benchmarks.
        profiles: Folder of the profiles of all splits.
        out: Folder to write.
    """
    galleries = Galleries(sources)
    rows = splits["full"].pool_rows
    full = read_keep(splits_folder / "full" / KEEP_FILE, rows)
    content: dict[str, Any] = {"benchmarks": {}}
    for name in benchmarks:
        measured = Similarity(similarity / name, splits["full"].row_order)
        split = split_shown(name, splits)
        after = read_parquet(profiles / split / f"{name}.parquet", PROFILE_COLUMNS) if split else None
        gallery: Entry = {"queries": benchmark_gallery(galleries, name, measured, after)}
        if split:
            pruned = full & ~read_keep(splits_folder / split / KEEP_FILE, rows)
            gallery |= {"split": split, "pruned": pruned_gallery(galleries, name, measured, pruned)}
        content["benchmarks"][name] = gallery
    content["duplicates"] = duplicate_gallery(galleries, full)
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        galleries.write_pictures(partial)
        write_json(partial / FILE, content)
