"""Embed the shards of a set, part by part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from simgap.batches import batched
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import Sample, read_shard
from simgap.embed.model import Model
from simgap.embed.parameters import EmbedParameters
from simgap.embed.store import INFO_FILE
from simgap.errors import SimgapError
from simgap.files import complete, read_json, write_json
from simgap.progress import progress


@torch.inference_mode()
def encode(model: Model, images: torch.Tensor, batch_size: int) -> NDArray[np.float32]:
    """Embed preprocessed images [n, 3, height, width], n <= batch_size, to raw vectors fp32 [n, dim].

    The batch is padded to `batch_size`, so that an image's vector does not depend on how many stand beside it.
    """
    padded = torch.zeros((batch_size, *images.shape[1:]), dtype=images.dtype)
    padded[: len(images)] = images
    return model.clip.encode_image(padded).float().numpy()[: len(images)]  # type: ignore[no-any-return]


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


def _decoded(
    samples: Iterable[Sample], model: Model, decoders: int, dropped: Counter[str]
) -> Iterator[tuple[Sample, torch.Tensor]]:
    def prepare(sample: Sample) -> torch.Tensor | str:
        try:
            return model.preprocess(decode(sample.image))  # type: ignore[no-any-return]
        except BrokenImage as reason:
            return str(reason)

    with ThreadPoolExecutor(decoders) as threads:
        for group in batched(samples, 256):
            for sample, image in zip(group, threads.map(prepare, group), strict=True):
                if isinstance(image, str):
                    dropped[image] += 1
                else:
                    yield sample, image


def _embed_part(
    parameters: EmbedParameters, model: Model, shards: tuple[Path, ...], labelled: bool, captioned: bool
) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    samples = (sample for shard in shards for sample in read_shard(shard, dropped, caption=captioned, label=labelled))
    vectors: list[NDArray[np.float16]] = []
    kept: list[Sample] = []
    for group in batched(_decoded(samples, model, parameters.decoders, dropped), parameters.batch_size):
        raw = encode(model, torch.stack([image for _, image in group]), parameters.batch_size)
        unit, good = unit_norm(raw, dropped)
        vectors.append(unit)
        kept += [sample for (sample, _), is_good in zip(group, good, strict=True) if is_good]
    return {
        "vectors": np.concatenate(vectors) if vectors else np.empty((0, model.dim), np.float16),
        "samples": kept,
        "dropped": {reason: count for reason, count in sorted(dropped.items()) if count},
    }


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
) -> dict[str, Any]:
    """Embed shards into `out`, in clip-retrieval's layout, and give the accounting.

    Vectors are fp16, unit norm; a row is a readable sample, in shard order. Finished parts wait in `scratch`, from where
    a stage that was killed goes on.

    Args:
        embedder: hash of the embedder's files, recorded with the embeddings.
        classes: the number of classes of a labelled set; None for a set without labels.

    Raises:
        SimgapError: no row is left, more than `drop_limit` were dropped, or a label is outside the class list.
    """
    groups = list(batched(shards, parameters.shards_per_part))
    for number, group in enumerate(progress(groups, len(groups), f"embed {out.name}", "part")):
        part = scratch / f"part_{number:04d}"
        if part.is_dir():
            continue
        result = _embed_part(parameters, model, group, classes is not None, captioned)
        with complete(part) as partial:
            partial.mkdir(parents=True)
            np.save(partial / "embeddings.npy", result["vectors"])
            pq.write_table(_metadata(result["samples"], classes is not None, captioned), partial / "metadata.parquet")
            (partial / "dropped.json").write_text(json.dumps(result["dropped"]))

    parts = [scratch / f"part_{number:04d}" for number in range(len(groups))]
    dropped = sum((Counter(read_json(part / "dropped.json")) for part in parts), Counter())
    rows = sum(np.load(part / "embeddings.npy", mmap_mode="r").shape[0] for part in parts)
    read = rows + dropped.total()
    if rows == 0:
        raise SimgapError(f"{shards[0].parent}: none of its {read} samples could be embedded ({dict(dropped)})")
    if dropped.total() > parameters.drop_limit * read:
        raise SimgapError(
            f"{shards[0].parent}: {dropped.total()} of {read} samples were dropped ({dict(dropped)}), "
            f"more than embed.drop_limit {parameters.drop_limit} allows"
        )
    if classes is not None:
        for part in parts:
            labels = pq.read_table(part / "metadata.parquet", columns=["label"]).column("label").to_numpy()
            if len(labels) and labels.max() >= classes:
                raise SimgapError(
                    f"{shards[0].parent}: label {labels.max()} is outside the class list of {classes} names"
                )

    accounting = {"read": read, "kept": rows, **{f"dropped/{reason}": dropped[reason] for reason in sorted(dropped)}}
    with complete(out) as partial:
        (partial / "img_emb").mkdir(parents=True)
        (partial / "metadata").mkdir()
        for number, part in enumerate(parts):
            (partial / "img_emb" / f"img_emb_{number:04d}.npy").hardlink_to(part / "embeddings.npy")
            (partial / "metadata" / f"metadata_{number:04d}.parquet").hardlink_to(part / "metadata.parquet")
        write_json(
            partial / INFO_FILE,
            {
                "embedder": embedder,
                "dim": model.dim,
                "rows": rows,
                "read": read,
                "kept": rows,
                "dropped": dict(dropped),
            },
        )
    return {**accounting, "dim": model.dim, "parts": len(parts)}
