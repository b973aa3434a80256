"""Embeddings that were made elsewhere, with clip-retrieval, as embeddings of the study."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.data.shards import Accounting
from simgap.embed.model import read_dim
from simgap.embed.parts import join_parts, write_part
from simgap.errors import SimgapError
from simgap.files import sha256_of, unfinished
from simgap.progress import progress
from simgap.stage import state_of

SOURCE = Path(__file__).parents[1]
VECTORS = "img_emb"
# clip-retrieval calls a sample's key its image_path; img2dataset's metadata beside it say key. A url names a row, no sample.
NAMES = ("key", "image_path", "url")
# Squares of norms off by more than 0.01 are refused where similarity is measured. Rounding to fp16 moves a norm by 0.0005.
NORM_TOLERANCE = 0.004
# Rows that are looked at in float64 at a time.
BLOCK = 4096


@dataclass(frozen=True)
class _Part:
    """The files of one part; `shards` is None where there is no mapping."""

    vectors: Path
    metadata: Path
    shards: Path | None


def _numbered(folder: Path, stem: str, suffix: str) -> dict[int, Path]:
    """Give a folder's `{stem}_{number}.{suffix}` by number: as numbers, since clip-retrieval does not always pad them."""
    pattern = re.compile(rf"{stem}_(\d+)\.{suffix}")
    found: dict[int, Path] = {}
    for path in sorted(folder.glob(f"*.{suffix}")):
        match = pattern.fullmatch(path.name)
        if match is None or int(match[1]) in found:
            raise SimgapError(
                f"{path}: is no part of its own; parts should be named {stem}_0.{suffix}, {stem}_1.{suffix}, ..."
            )
        found[int(match[1])] = path
    return found


def _parts(source: Path) -> list[_Part]:
    """Find the parts of a folder, in the order of their numbers."""
    vectors = _numbered(source / VECTORS, "img_emb", "npy")
    if not vectors:
        raise SimgapError(
            f"{source / VECTORS}: holds no img_emb_0.npy, ...; it should hold clip-retrieval's embeddings"
        )
    beside = {"metadata": _numbered(source / "metadata", "metadata", "parquet")}
    if (source / "shards").is_dir():
        beside["shards"] = _numbered(source / "shards", "shards", "parquet")
    for name, files in beside.items():
        for number in sorted(vectors.keys() ^ files.keys()):
            raise SimgapError(f"{source}: part {number} should be in {VECTORS} and in {name}, it is in one of them")
    shards = beside.get("shards", {})
    return [_Part(vectors[n], beside["metadata"][n], shards.get(n)) for n in sorted(vectors)]


def _table(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SimgapError(f"{path}: is no table that can be read ({str(error).splitlines()[0]})") from None


def _text(path: Path, choices: tuple[str, ...]) -> tuple[str, pa.Array] | None:
    """Read the first of some columns that a table has; None where it has none of them."""
    table = _table(path)
    for name in choices:
        if name in table.schema_arrow.names:
            column = table.read([name]).column(name).combine_chunks()
            # A column without a single value has no type of its own.
            if column.type not in (pa.string(), pa.large_string(), pa.null()):
                raise SimgapError(f"{path}: {name} is {column.type}; it should be text")
            return name, column.cast(pa.string())
    return None


def _check_rows(path: Path, rows: int, vectors: Path, expected: int) -> None:
    if rows != expected:
        raise SimgapError(f"{path}: has {rows} rows, {vectors.name} has {expected}; they should be of the same samples")


def _open(path: Path, dim: int) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise SimgapError(f"{path}: is no array that can be read ({error})") from None
    if found.dtype not in (np.float16, np.float32) or found.ndim != 2:
        raise SimgapError(f"{path}: is {found.dtype} {found.shape}; it should be float16 [rows, {dim}]")
    if found.shape[1] != dim:
        raise SimgapError(f"{path}: its vectors have {found.shape[1]} numbers, the embedder's have {dim}")
    return found


def _check_vectors(found: NDArray[Any], reasons: NDArray[np.str_]) -> NDArray[np.float16]:
    """Give the vectors as fp16, as they are where they were, and note why rows are broken in `reasons`, [rows]."""
    vectors = np.empty(found.shape, np.float16)
    for start in range(0, len(found), BLOCK):
        rows = slice(start, start + BLOCK)
        with np.errstate(over="ignore"):
            vectors[rows] = found[rows]
        wide = vectors[rows].astype(np.float64)
        finite = np.asarray(np.isfinite(wide).all(axis=1))
        norms = np.linalg.norm(np.where(finite[:, None], wide, 0.0), axis=1)
        block = reasons[rows]
        block[np.abs(norms - 1) > NORM_TOLERANCE] = "not_unit_norm"
        block[norms == 0] = "zero_norm"
        block[~finite] = "not_finite"
    return vectors


def _names(part: _Part, rows: int, shard_digits: int | None) -> tuple[list[str | None], list[str | None] | None]:
    """Read the key of every row, and its shard where rows say theirs or the key does."""
    named = _text(part.shards, ("key",)) if part.shards else None
    named = named or _text(part.metadata, NAMES)
    if named is None:
        raise SimgapError(f"{part.metadata}: names no samples; it should have a column {' or '.join(NAMES)}")
    column, found = named
    keys: list[str | None] = found.to_pylist()
    if part.shards is not None:
        shard = _text(part.shards, ("shard",))
        if shard is None:
            raise SimgapError(f"{part.shards}: has no column shard; it should name each row's tar")
        if column == "url":
            raise SimgapError(f"{part.shards}: has no column key, and {part.metadata.name} has urls alone")
        _check_rows(part.shards, len(shard[1]), part.vectors, rows)
        return keys, shard[1].to_pylist()
    if shard_digits is None:
        return keys, None
    leads = [key[:shard_digits] if key else "" for key in keys]
    named_by = [lead if len(lead) == shard_digits and lead.isascii() and lead.isdigit() else None for lead in leads]
    return keys, [f"{lead}.tar" if lead else None for lead in named_by]


def _check_names(keys: list[str | None], shards: list[str | None] | None, reasons: NDArray[np.str_]) -> None:
    """Note in `reasons`, [rows], why rows without fault so far cannot be named."""
    seen: set[tuple[str, str]] = set()
    for row, key in enumerate(keys):
        if reasons[row]:
            continue
        if not key:
            reasons[row] = "no_key"
        elif shards is not None:
            shard = shards[row]
            if not shard:
                reasons[row] = "no_shard"
            elif (shard, key) in seen:
                reasons[row] = "duplicate_key"
            else:
                seen.add((shard, key))


def _import_part(part: _Part, dim: int, shard_digits: int | None) -> tuple[NDArray[np.float16], pa.Table, Accounting]:
    found = _open(part.vectors, dim)
    _check_rows(part.metadata, _table(part.metadata).metadata.num_rows, part.vectors, len(found))
    reasons = np.full(len(found), "", "U16")
    vectors = _check_vectors(found, reasons)
    keys, shards = _names(part, len(found), shard_digits)
    _check_names(keys, shards, reasons)
    good = reasons == ""
    caption = _text(part.metadata, ("caption",))
    table = pa.table(
        {
            "shard": pa.array(shards if shards is not None else [None] * len(found), pa.string()),
            "key": pa.array(keys, pa.string()),
            "caption": caption[1] if caption else pa.nulls(len(found), pa.string()),
        }
    )
    dropped = Counter(reasons[~good].tolist())
    return vectors if good.all() else vectors[good], table.filter(pa.array(good)), Accounting(len(found), dropped)


def import_embeddings(
    source: Path, embedder: str, dim: int, shard_digits: int | None, drop_limit: float, out: Path, scratch: Path
) -> tuple[dict[str, Any], dict[str, float]]:
    """Import embeddings in clip-retrieval's layout into `out`, and give the accounting and the rates.

    `source` holds `img_emb/img_emb_{n}.npy`, fp16 [rows, dim] (fp32 is rounded to it), and row-aligned
    `metadata/metadata_{n}.parquet`, whose column `key`, `image_path` or `url`, the first that is there, names a row.
    Vectors of unit norm are kept as they are. What is left out is counted by reason: `not_finite`, `zero_norm`,
    `not_unit_norm` (off by more than 0.004), `no_key`, and where shards are named `no_shard` and `duplicate_key` (within a part).

    Shards are named by `shards/shards_{n}.parquet`, row-aligned with the column `shard`, a tar's file name, and if need be
    `key`; or by `shard_digits`. Without either rows have no shard: they can be measured, not trained on or exported.

    Finished parts wait in `scratch`, from where an import that was killed goes on. Memory is one part.

    Args:
        embedder: hash of the embedder that made them, which nothing here can check; recorded with the embeddings.
        dim: width of that embedder's embeddings.
        shard_digits: of a key, how many leading digits are the shard's number, which is its tar's name too; None: none are.
        drop_limit: the largest share of rows that may be left out.

    Raises:
        SimgapError: a file is missing, cannot be read or has other rows or another width than it should, no row is left,
            or more than `drop_limit` of the rows are broken.
    """
    sources = _parts(source)
    imported, begun_at = 0, time.perf_counter()
    parts = []
    for number, files in enumerate(progress(sources, len(sources), f"import {out.name}", "part")):
        part = scratch / f"part_{number:04d}"
        parts.append(part)
        if part.is_dir():
            continue
        vectors, table, accounting = _import_part(files, dim, shard_digits)
        imported += len(vectors)
        write_part(part, vectors, table, accounting)
    seconds = time.perf_counter() - begun_at
    paths = tuple(files.vectors for files in sources)
    metrics = join_parts(parts, out, embedder=embedder, dim=dim, drop_limit=drop_limit, sources=paths)
    return metrics, {"rows_per_second": imported / seconds, "seconds": seconds}


def import_into(source: Path, out: Path, embedder: Path, shard_digits: int | None, drop_limit: float) -> str:
    """Import embeddings into a folder outside a study, and say what became of them.

    Raises:
        SimgapError: `out` exists, or as `import_embeddings`.
    """
    if out.exists():
        raise SimgapError(f"{out}: exists; name a folder that does not exist yet")
    dim, model = read_dim(embedder), sha256_of(embedder)
    identity = json.dumps([sha256_of(SOURCE, "*.py"), str(source.resolve()), state_of(source), model, shard_digits])
    try:
        with unfinished(out, "importing") as folder:
            parts = folder / hashlib.sha256(identity.encode()).hexdigest()[:16]
            metrics, _ = import_embeddings(source, model, dim, shard_digits, drop_limit, out, parts)
    except OSError as error:
        raise SimgapError(f"{error.filename or out}: {error.strerror or error}") from None
    line = f"{out}: {metrics['kept']} of {metrics['read']} rows of {dim} numbers"
    reasons = [
        f"{count} {name.removeprefix('dropped/')}" for name, count in metrics.items() if name.startswith("dropped/")
    ]
    if reasons:
        line += f"; left out: {', '.join(reasons)}"
    if shard_digits is None and not (source / "shards").is_dir():
        line += "; they name no shard, so they can be measured, but neither trained on nor exported"
    return line
