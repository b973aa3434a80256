"""Embed the shards of a set, part by part."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simgap.clip.encode import check_precision, encode
from simgap.clip.model import Model
from simgap.core.batches import batched
from simgap.core.errors import SimgapError
from simgap.core.executor import LOCAL, Executor, run_parts
from simgap.data.decode import decode_samples
from simgap.data.shards import Accounting, Sample, Shard, check_label, read_shard
from simgap.params.embed import EmbedParameters
from simgap.store.arrays import read_array
from simgap.store.embedding_parts import VECTORS_FILE, join_parts, write_part


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
    parameters: EmbedParameters,
    model: Model,
    shards: tuple[Shard, ...],
    classes: int | None,
    captioned: bool,
    decoders: int,
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
    images = decode_samples(samples(), model.preprocess, decoders, batch_size, accounting)
    for group in batched(images, batch_size):
        raw = encode(model, [image for _, image in group], batch_size, parameters.precision)
        unit, good = unit_norm(raw, accounting.dropped)
        vectors.append(unit)
        # Without its image: a part's images together would be gigabytes.
        kept += [replace(sample, image=b"") for (sample, _), is_good in zip(group, good, strict=True) if is_good]
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


@dataclass
class _Parts:
    """The parts of a set, a group of shards each."""

    parameters: EmbedParameters
    load_model: Callable[[], Model]
    groups: Sequence[tuple[Shard, ...]]
    classes: int | None
    captioned: bool
    decoders: int
    scratch: Path

    @cached_property
    def model(self) -> Model:
        model = self.load_model()
        check_precision(self.parameters.precision, model.device)
        return model

    @property
    def sizes(self) -> Sequence[int]:
        return [1] * len(self.groups)

    def path(self, number: int) -> Path:
        return self.scratch / f"part_{number:04d}"

    def write(self, number: int, out: Path, advance: Callable[[int], object]) -> None:
        model, shards = self.model, self.groups[number]
        for shard in shards:
            # On a machine that does not see it, it would count as damaged.
            if isinstance(shard, Path) and not shard.exists():
                raise SimgapError(f"{shard}: no such file")
        vectors, kept, accounting = _embed_part(
            self.parameters, model, shards, self.classes, self.captioned, self.decoders
        )
        write_part(out, vectors, _metadata(kept, self.classes is not None, self.captioned), accounting)
        advance(1)


def embed(
    parameters: EmbedParameters,
    load_model: Callable[[], Model],
    embedder: str,
    shards: tuple[Shard, ...],
    out: Path,
    scratch: Path,
    *,
    classes: int | None,
    captioned: bool,
    decoders: int,
    drop_limit: float,
    executor: Executor = LOCAL,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Embed shards into `out`, in clip-retrieval's layout, and give the accounting and the rates.

    Vectors are fp16, unit norm; a row is a readable sample, in shard order. Finished parts wait in `scratch`, from where
    a stage that was killed goes on.

    Args:
        load_model: gives the model; called where parts are embedded, once in each process that does.
        embedder: hash of the embedder's files, recorded with the embeddings.
        classes: the number of classes of a labelled set; None for a set without labels.
        executor: who works on the parts; changes no vector where machines are alike.

    Raises:
        SimgapError: the precision is not for this machine, a shard is missing, no row is left, more than `drop_limit` of the
            samples were dropped or of the shards are damaged, or a label is outside the class list.
    """
    parts = _Parts(
        parameters, load_model, list(batched(shards, parameters.shards_per_part)), classes, captioned, decoders, scratch
    )
    begun_at = time.perf_counter()
    embedded = run_parts(executor, parts, f"embed {out.name}", "part")
    seconds = time.perf_counter() - begun_at

    folders = [parts.path(number) for number in range(len(parts.groups))]
    shapes = [read_array(folder / VECTORS_FILE, mapped=True).shape for folder in folders]
    metrics = join_parts(folders, out, embedder=embedder, dim=shapes[0][1], drop_limit=drop_limit, sources=shards)
    # Of the parts that this run did: those that were there took it no time.
    return metrics, {"images_per_second": sum(shapes[number][0] for number in embedded) / seconds, "seconds": seconds}
