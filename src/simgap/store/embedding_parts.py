"""Parts of embeddings: written one by one, then joined into a set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.core.files import atomic_output, link_or_copy, read_json, write_json
from simgap.data.limits import check_limit
from simgap.data.shards import Accounting, Shard
from simgap.store.embeddings import INFO_FILE

# Of the folder of a part.
VECTORS_FILE, METADATA_FILE, ACCOUNTING_FILE = "embeddings.npy", "metadata.parquet", "accounting.json"


def write_part(part: Path, vectors: NDArray[np.float16], metadata: pa.Table, accounting: Accounting) -> None:
    """Write the folder `part`: vectors fp16 [kept, dim], as many rows of metadata, and what became of the samples.

    Raises:
        SimgapError: the accounting does not add up.
    """
    accounting.metrics(len(vectors))
    with atomic_output(part) as partial:
        partial.mkdir(parents=True)
        np.save(partial / VECTORS_FILE, vectors)
        pq.write_table(metadata, partial / METADATA_FILE)
        (partial / ACCOUNTING_FILE).write_text(json.dumps({**vars(accounting), "dropped": dict(accounting.dropped)}))


def join_parts(
    parts: list[Path], out: Path, *, embedder: str, dim: int, drop_limit: float, sources: tuple[Shard, ...]
) -> dict[str, Any]:
    """Link finished parts into the set `out`, in clip-retrieval's layout, and give its metrics.

    Args:
        embedder: hash of the embedder's files, recorded with the embeddings.
        sources: files that the parts come from, for what an error says.

    Raises:
        SimgapError: no row is left, or more than `drop_limit` of the samples were dropped or of the files are damaged.
    """
    of_parts = [Accounting(**read_json(part / ACCOUNTING_FILE)) for part in parts]
    total = Accounting(
        sum(found.read for found in of_parts),
        sum((Counter(found.dropped) for found in of_parts), Counter()),
        sum(found.damaged_shards for found in of_parts),
    )
    rows = sum(np.load(part / VECTORS_FILE, mmap_mode="r").shape[0] for part in parts)
    metrics = total.metrics(rows)
    check_limit(drop_limit, total, rows, sources)
    with atomic_output(out) as partial:
        (partial / "img_emb").mkdir(parents=True)
        (partial / "metadata").mkdir()
        for number, part in enumerate(parts):
            link_or_copy(part / VECTORS_FILE, partial / "img_emb" / f"img_emb_{number:04d}.npy")
            link_or_copy(part / METADATA_FILE, partial / "metadata" / f"metadata_{number:04d}.parquet")
        write_json(
            partial / INFO_FILE,
            {
                "embedder": embedder,
                "dim": dim,
                "rows": rows,
                "read": total.read,
                "kept": rows,
                "dropped": dict(total.dropped),
                "damaged_shards": total.damaged_shards,
            },
        )
    return {**metrics, "dim": dim, "parts": len(parts)}
