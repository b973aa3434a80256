"""Embed the shards of a set in parts, so that an interrupted stage can resume."""

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
    """Scale vectors to unit norm, round them to fp16, and drop invalid vectors.

    A vector is invalid if it is zero or not finite.

    Args:
        vectors: Vectors as the model computes them, fp32 [n, dim].
        dropped: The number of dropped samples for each reason. The function adds the number of vectors that it drops.

    Returns:
        The kept vectors, fp16 [kept, dim], and whether each vector is kept, bool [n].
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
        # The encoded images of a whole part would need gigabytes of memory, so the kept samples have no images.
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
    """The embeddings of a set, in parts. Each part contains the embeddings of one group of shards."""

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
            # Without this check, a machine that cannot access a shard would count the shard as damaged.
            if isinstance(shard, Path) and not shard.exists():
                raise SimgapError(f"{shard}: no such file; every machine that embeds must be able to read this path")
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
    """Embed the images of shards and write the embeddings to `out` in clip-retrieval's layout.

    Embeddings are fp16 with unit norm. Every readable sample has one row, in the order of the shards. The function drops and
    counts the samples that it cannot read. Finished parts stay in `scratch`, so a killed stage can resume from these parts.

    Args:
        parameters: The `embed` parameters.
        load_model: Function that loads the model. Each process that embeds parts calls this function once.
        embedder: Hash of the embedder's files, which is stored with the embeddings.
        shards: The shards of the set, in the order of the rows.
        out: Folder to write.
        scratch: Folder for finished parts.
        classes: Number of classes of a labelled set, or None if the set has no labels.
        captioned: Whether the samples must have captions. If true, the function stores the captions.
        decoders: Number of threads that decode images. This number does not change the embeddings.
        drop_limit: Largest share of samples that may be dropped, in [0, 1]. The same limit applies to the share of damaged
            shards.
        executor: The executor that computes the parts. If all machines are alike, every executor computes the same vectors.

    Returns:
        A tuple of two dictionaries:

        - The metrics: the number of read samples, the number of kept samples, and the number of dropped samples for each
          reason.
        - The speed of this run: `images_per_second` and `seconds`.

    Raises:
        SimgapError: The machine does not support the precision, a shard is missing, or a label is outside the class list. No
            sample is left. The share of dropped samples or of damaged shards exceeds `drop_limit`.
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
    # The rate counts only the images that this run embedded. An earlier, interrupted run may have embedded some parts, and the
    # time of this run excludes these parts.
    return metrics, {"images_per_second": sum(shapes[number][0] for number in embedded) / seconds, "seconds": seconds}
