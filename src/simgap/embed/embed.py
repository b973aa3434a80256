"""Embed the shards of a set, part by part."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simgap.batches import batched
from simgap.data.shards import Accounting, Sample, read_shard
from simgap.embed.decode import decoded
from simgap.embed.encode import check_precision, encode
from simgap.embed.limits import check_label
from simgap.embed.model import Model
from simgap.embed.parameters import EmbedParameters
from simgap.embed.parts import join_parts, write_part
from simgap.progress import progress


def unit_norm(vectors: NDArray[np.float32], dropped: Counter[str]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Scale rows to unit norm and store as fp16; rows that are not finite or have zero norm are counted and left out.

    Returns the kept rows fp16 [kept, dim] and which of the given rows they are, bool [n].
    """
    wide = vectors.astype(np.float64)
    finite = np.asarray(np.isfinite(wide).all(axis=1))
    norms = np.linalg.norm(np.where(finite[:, None], wide, 0.0), axis=1)
    good = finite & (norms > 0)
    dropped["not_finite"] += int((~finite).sum())
    dropped["zero_norm"] += int((finite & (norms == 0)).sum())
    return (wide[good] / norms[good, None]).astype(np.float16), good


def _embed_part(
    parameters: EmbedParameters, model: Model, shards: tuple[Path, ...], classes: int | None, captioned: bool
) -> tuple[NDArray[np.float16], list[Sample], Accounting]:
    accounting = Accounting()
    vectors = [np.empty((0, model.dim), np.float16)]
    kept: list[Sample] = []
    labelled = classes is not None

    def samples() -> Iterator[Sample]:
        for shard in shards:
            for sample in read_shard(shard, accounting, caption=captioned, label=labelled):
                if classes is not None:
                    check_label(sample, classes, shard)
                yield sample

    batch_size = parameters.batch_size
    for group in batched(decoded(samples(), model, parameters.decoders, batch_size, accounting), batch_size):
        raw = encode(model, [image for _, image in group], batch_size, parameters.precision)
        unit, good = unit_norm(raw, accounting.dropped)
        vectors.append(unit)
        kept += [sample for (sample, _), is_good in zip(group, good, strict=True) if is_good]
    return np.concatenate(vectors), kept, accounting


def _metadata(samples: list[Sample], labelled: bool, captioned: bool) -> pa.Table:
    columns: dict[str, pa.Array] = {
        "shard": pa.array([sample.shard for sample in samples], pa.string()),
        "key": pa.array([sample.key for sample in samples], pa.string()),
    }
    if captioned:
        columns["caption"] = pa.array([sample.caption for sample in samples], pa.string())
    if labelled:
        columns["label"] = pa.array([sample.label for sample in samples], pa.int32())
    return pa.table(columns)


def embed(
    parameters: EmbedParameters,
    model: Model,
    embedder: str,
    shards: tuple[Path, ...],
    out: Path,
    scratch: Path,
    *,
    classes: int | None,
    captioned: bool,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Embed shards into `out`, in clip-retrieval's layout, and give the accounting and the rates.

    Vectors are fp16, unit norm; a row is a readable sample, in shard order. Finished parts wait in `scratch`, from where
    a stage that was killed goes on.

    Args:
        embedder: hash of the embedder's files, recorded with the embeddings.
        classes: the number of classes of a labelled set; None for a set without labels.

    Raises:
        SimgapError: the precision is not for this machine, no row is left, more than `drop_limit` of the samples were
            dropped or of the shards are damaged, or a label is outside the class list.
    """
    check_precision(parameters.precision, model.device)
    groups = list(batched(shards, parameters.shards_per_part))
    embedded, begun_at = 0, time.perf_counter()
    for number, group in enumerate(progress(groups, len(groups), f"embed {out.name}", "part")):
        part = scratch / f"part_{number:04d}"
        if part.is_dir():
            continue
        vectors, kept, accounting = _embed_part(parameters, model, group, classes, captioned)
        embedded += len(vectors)
        write_part(part, vectors, _metadata(kept, classes is not None, captioned), accounting)
    seconds = time.perf_counter() - begun_at

    parts = [scratch / f"part_{number:04d}" for number in range(len(groups))]
    metrics = join_parts(parts, out, embedder=embedder, dim=model.dim, drop_limit=parameters.drop_limit, sources=shards)
    # Of what this process did itself: parts that were there took it no time.
    return metrics, {"images_per_second": embedded / seconds, "seconds": seconds}
