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
import pyarrow.compute as pc
from numpy.typing import NDArray

from simgap.clip.model import read_dim
from simgap.core.code import code_fingerprint
from simgap.core.errors import SimgapError
from simgap.core.files import read_json, resumable_output, sha256_of
from simgap.core.progress import progress
from simgap.data.fingerprint import fingerprint
from simgap.data.limits import check_limit
from simgap.data.shards import Accounting, find_shards
from simgap.store.arrays import parquet_columns, read_array, read_parquet
from simgap.store.embedding_parts import ACCOUNTING_FILE, METADATA_FILE, VECTORS_FILE, join_parts, write_part

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


def _text(path: Path, choices: tuple[str, ...]) -> tuple[str, pa.StringArray] | None:
    """Read the first of some columns that a table has; None where it has none of them."""
    name = next((name for name in choices if name in parquet_columns(path)), None)
    if name is None:
        return None
    column = read_parquet(path, [name]).column(name).combine_chunks()
    # A column without a single value has no type of its own.
    if column.type not in (pa.string(), pa.large_string(), pa.null()):
        raise SimgapError(f"{path}: {name} is {column.type}; it should be text")
    return name, column.cast(pa.string())


def _check_rows(path: Path, rows: int, vectors: Path, expected: int) -> None:
    if rows != expected:
        raise SimgapError(f"{path}: has {rows} rows, {vectors.name} has {expected}; they should be of the same samples")


def _open(path: Path, dim: int) -> NDArray[Any]:
    found = read_array(path, np.float16, np.float32, shape=(None, None), mapped=True)
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


def _names(part: _Part, shard_digits: int | None) -> tuple[pa.StringArray, pa.StringArray | None]:
    """Read the key of every row, and its shard where rows say theirs or the key does."""
    named = _text(part.shards, ("key",)) if part.shards else None
    named = named or _text(part.metadata, NAMES)
    if named is None:
        raise SimgapError(f"{part.metadata}: names no samples; it should have a column {' or '.join(NAMES)}")
    column, keys = named
    if part.shards is not None:
        shard = _text(part.shards, ("shard",))
        if shard is None:
            raise SimgapError(f"{part.shards}: has no column shard; it should name each row's tar")
        if column == "url":
            raise SimgapError(f"{part.shards}: has no column key, and {part.metadata.name} has urls alone")
        return keys, shard[1]
    if shard_digits is None:
        return keys, None
    leads = pc.utf8_slice_codeunits(keys, 0, shard_digits)
    numbers = pc.and_(pc.ascii_is_decimal(leads), pc.equal(pc.utf8_length(leads), shard_digits))
    return keys, pc.if_else(numbers, pc.binary_join_element_wise(leads, ".tar", ""), None)


def _check_shards(parts: list[_Part], shard_digits: int | None, pool: Path) -> None:
    """Refuse rows of shards that the pool lacks, before vectors are read."""
    known: set[str] | None = None
    for part in parts:
        _, shards = _names(part, shard_digits)
        if shards is None:
            return
        if known is None:
            known = {shard.name for shard in find_shards(pool)}
        lacking = sorted({name for name in shards.unique().to_pylist() if name} - known)
        if lacking:
            more = f" and {len(lacking) - 1} more" if lacking[1:] else ""
            raise SimgapError(
                f"{pool}: has no shard {lacking[0]!r}{more}, though rows of {part.shards or part.metadata} lie there; it "
                "should hold every shard that rows name"
            )


def _lacking(names: pa.StringArray) -> NDArray[np.bool_]:
    """Say which names are null or empty, bool [rows]."""
    return np.asarray(pc.fill_null(pc.equal(names, ""), True).to_numpy(zero_copy_only=False), np.bool_)


def _import_part(part: _Part, dim: int, shard_digits: int | None) -> tuple[NDArray[np.float16], pa.Table, Accounting]:
    found = _open(part.vectors, dim)
    _check_rows(part.metadata, read_parquet(part.metadata, []).num_rows, part.vectors, len(found))
    if part.shards is not None:
        _check_rows(part.shards, read_parquet(part.shards, []).num_rows, part.vectors, len(found))
    keys, shards = _names(part, shard_digits)
    caption = _text(part.metadata, ("caption",))
    reasons = np.full(len(found), "", "U16")
    vectors = _check_vectors(found, reasons)
    reasons[(reasons == "") & _lacking(keys)] = "no_key"
    if shards is not None:
        reasons[(reasons == "") & _lacking(shards)] = "no_shard"
    good = reasons == ""
    nothing = pa.nulls(len(found), pa.string())
    table = pa.table(
        {
            "shard": nothing if shards is None else shards,
            "key": keys,
            "caption": nothing if caption is None else caption[1],
        }
    )
    dropped = Counter(reasons[~good].tolist())
    return vectors if good.all() else vectors[good], table.filter(pa.array(good)), Accounting(len(found), dropped)


def _rows_of(part: Path) -> list[tuple[str, str]]:
    """Read the shard and key of every row of a finished part."""
    table = read_parquet(part / METADATA_FILE, ["shard", "key"])
    return list(zip(table.column("shard").to_pylist(), table.column("key").to_pylist(), strict=True))


def _hashes(rows: list[tuple[str, str]]) -> NDArray[np.uint64]:
    """Hash the shard and key of rows, uint64 [rows]."""
    digests = (hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8).digest() for shard, key in rows)
    return np.frombuffer(b"".join(digests), np.uint64)


def _drop_repeated(parts: list[Path], drop_limit: float, sources: tuple[Path, ...]) -> None:
    """Leave the rows out of finished parts whose sample an earlier row has, in whatever part that is.

    Memory is 9 bytes a row, for the hashes by which repeated samples are suspected, and the names of those that are.

    Raises:
        SimgapError: more than `drop_limit` of the rows are repeated.
    """
    bounds = np.cumsum([0, *(len(read_array(part / VECTORS_FILE, mapped=True)) for part in parts)])
    hashes = np.empty(bounds[-1], np.uint64)
    for part, low, high in zip(parts, bounds[:-1], bounds[1:], strict=True):
        hashes[low:high] = _hashes(_rows_of(part))
    hashes.sort()
    repeated = hashes[1:][hashes[1:] == hashes[:-1]]
    del hashes
    if not len(repeated):
        return
    # Before their names are held, of which there may be as many as rows.
    found = Accounting(int(bounds[-1]), Counter(duplicate_key=len(repeated)))
    check_limit(drop_limit, found, found.read - len(repeated), sources)
    seen: set[tuple[str, str]] = set()
    for part in parts:
        rows = _rows_of(part)
        suspected = np.flatnonzero(np.isin(_hashes(rows), repeated))
        good = np.ones(len(rows), np.bool_)
        for row in suspected.tolist():
            good[row] = rows[row] not in seen
            seen.add(rows[row])
        if not good.all():
            accounting = Accounting(**read_json(part / ACCOUNTING_FILE))
            accounting.dropped = Counter(accounting.dropped) + Counter(duplicate_key=int((~good).sum()))
            vectors = read_array(part / VECTORS_FILE, mapped=True)[good]
            table = read_parquet(part / METADATA_FILE, ["shard", "key", "caption"]).filter(pa.array(good))
            write_part(part, vectors, table, accounting)


def import_embeddings(
    source: Path,
    embedder: str,
    dim: int,
    shard_digits: int | None,
    drop_limit: float,
    out: Path,
    scratch: Path,
    pool: Path | None = None,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Import embeddings in clip-retrieval's layout into `out`, and give the accounting and the rates.

    `source` holds `img_emb/img_emb_{n}.npy`, fp16 [rows, dim] (fp32 is rounded to it), and row-aligned
    `metadata/metadata_{n}.parquet`, whose column `key`, `image_path` or `url`, the first that is there, names a row.
    Vectors of unit norm are kept as they are. What is left out is counted by reason: `not_finite`, `zero_norm`,
    `not_unit_norm` (off by more than 0.004), `no_key`, and where shards are named `no_shard` and `duplicate_key` (an earlier
    row, of any part, is of the same sample and was kept).

    Shards are named by `shards/shards_{n}.parquet`, row-aligned with the column `shard`, a tar's file name, and if need be
    `key`; or by `shard_digits`. Without either rows have no shard: they can be measured, not trained on or exported.

    Finished parts wait in `scratch`, from where an import that was killed goes on. Memory is one part, and 9 bytes a row where
    shards are named: 3.7 GB for LAION-400M.

    Args:
        embedder: hash of the embedder that made them, which nothing here can check; recorded with the embeddings.
        dim: width of that embedder's embeddings.
        shard_digits: of a key, how many leading digits are the shard's number, which is its tar's name too; None: none are.
        drop_limit: the largest share of rows that may be left out.
        pool: folder of the shards that rows lie in; None where they are not at hand.

    Raises:
        SimgapError: a file is missing, cannot be read or has other rows or another width than it should, rows lie in a shard
            that the pool lacks, no row is left, or more than `drop_limit` of the rows are broken.
    """
    sources = _parts(source)
    if pool is not None:
        _check_shards(sources, shard_digits, pool)
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
    paths = tuple(files.vectors for files in sources)
    if shard_digits is not None or sources[0].shards is not None:
        _drop_repeated(parts, drop_limit, paths)
    seconds = time.perf_counter() - begun_at
    metrics = join_parts(parts, out, embedder=embedder, dim=dim, drop_limit=drop_limit, sources=paths)
    return metrics, {"rows_per_second": imported / seconds, "seconds": seconds}


def import_into(
    source: Path, out: Path, embedder: Path, shard_digits: int | None, drop_limit: float, pool: Path | None
) -> str:
    """Import embeddings into a folder outside a study, and say what became of them.

    Raises:
        SimgapError: `out` exists, or as `import_embeddings`.
    """
    if out.exists():
        raise SimgapError(f"{out}: exists; name a folder that does not exist yet")
    dim, model = read_dim(embedder), sha256_of(embedder)
    identity = json.dumps([code_fingerprint(__file__), str(source.resolve()), fingerprint(source), model, shard_digits])
    try:
        with resumable_output(out, "importing") as folder:
            parts = folder / hashlib.sha256(identity.encode()).hexdigest()[:16]
            metrics, _ = import_embeddings(source, model, dim, shard_digits, drop_limit, out, parts, pool)
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
