"""Write the embeddings of a dataset in parts, and join the parts."""

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
from simgap.store.arrays import read_array
from simgap.store.embeddings import INFO_FILE

# These are the files in the folder of a part. `write_part` writes these files, and `join_parts` reads them.
VECTORS_FILE, METADATA_FILE, ACCOUNTING_FILE = "embeddings.npy", "metadata.parquet", "accounting.json"


def write_part(part: Path, vectors: NDArray[np.float16], metadata: pa.Table, accounting: Accounting) -> None:
    """Write one part of the embeddings of a dataset.

    Args:
        part: The folder to write.
        vectors: The embeddings, fp16 [kept samples, dim].
        metadata: The metadata, with one row for each vector.
        accounting: The number of samples that were read, and the number of samples that were dropped for each reason.

    Raises:
        SimgapError: The number of samples that were read is not the sum of the kept and the dropped samples.
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
    """Join finished parts into one folder in the layout of clip-retrieval.

    Files are hard-linked if the file system allows hard links. Otherwise the files are copied.

    Args:
        parts: The folders of the parts, in row order.
        out: The folder to write.
        embedder: The hash of the files of the embedder. The hash is recorded with the embeddings.
        dim: The number of dimensions. It is recorded with the embeddings too.
        drop_limit: The largest allowed share of dropped samples. The same limit applies to the share of damaged files.
        sources: The files that the parts come from. They appear in error messages.

    Returns:
        The metrics by name: the accounting of all parts together, the number of dimensions and the number of parts.

    Raises:
        SimgapError: All samples were dropped, or a share of dropped samples or damaged files exceeds `drop_limit`.
    """
    accountings = [Accounting(**read_json(part / ACCOUNTING_FILE)) for part in parts]
    total = Accounting(
        sum(found.read for found in accountings),
        sum((Counter(found.dropped) for found in accountings), Counter()),
        sum(found.damaged_shards for found in accountings),
    )
    rows = sum(len(read_array(part / VECTORS_FILE, mapped=True)) for part in parts)
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
