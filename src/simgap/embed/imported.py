"""Import embeddings that the user computed outside the study with clip-retrieval."""

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
# The first of these columns that exists contains the keys. img2dataset stores keys in the column `key`, and clip-retrieval
# stores them in the column `image_path`. The column `url` comes last, because a URL identifies a row but not a sample in a
# shard.
KEY_COLUMNS = ("key", "image_path", "url")
# The tolerance must be between 0.0005 and 0.005. Rounding to fp16 changes the norm of a unit vector by 0.0005. The similarity
# search rejects a vector if its squared norm differs from 1 by more than 0.01. The norm of such a vector differs from 1 by
# more than 0.005.
NORM_TOLERANCE = 0.004
# The check converts this many rows to float64 at a time. Memory grows with this number.
BLOCK = 4096


@dataclass(frozen=True)
class _Part:
    """The files of one part. `shards` is None if the source has no table that maps rows to shards."""

    vectors: Path
    metadata: Path
    shards: Path | None


def _numbered_files(folder: Path, stem: str, suffix: str) -> dict[int, Path]:
    """Find the files `{stem}_{number}.{suffix}` of a folder, and return the path for each number.

    The caller needs the numbers, because clip-retrieval does not always pad them. The order of the file names may therefore
    differ from the order of the numbers.
    """
    pattern = re.compile(rf"{stem}_(\d+)\.{suffix}")
    found: dict[int, Path] = {}
    for path in sorted(folder.glob(f"*.{suffix}")):
        match = pattern.fullmatch(path.name)
        if match is None or int(match[1]) in found:
            raise SimgapError(
                f"{path}: unexpected or duplicate name of a part; rename the parts to {stem}_0.{suffix}, {stem}_1.{suffix}, ..."
            )
        found[int(match[1])] = path
    return found


def _find_parts(source: Path) -> list[_Part]:
    """Return the parts of a folder, ordered by the number of the part."""
    vectors = _numbered_files(source / VECTORS, "img_emb", "npy")
    if not vectors:
        raise SimgapError(
            f"{source / VECTORS}: the folder contains no img_emb_0.npy, ...; it must contain the embeddings of clip-retrieval"
        )
    beside = {"metadata": _numbered_files(source / "metadata", "metadata", "parquet")}
    if (source / "shards").is_dir():
        beside["shards"] = _numbered_files(source / "shards", "shards", "parquet")
    for name, files in beside.items():
        for number in sorted(vectors.keys() ^ files.keys()):
            raise SimgapError(f"{source}: part {number} is in only one of {VECTORS} and {name}; it must be in both")
    shards = beside.get("shards", {})
    return [_Part(vectors[n], beside["metadata"][n], shards.get(n)) for n in sorted(vectors)]


def _read_text_column(path: Path, choices: tuple[str, ...]) -> tuple[str, pa.StringArray] | None:
    """Read the first column in `choices` that exists in the table.

    Returns:
        The name and the values of the column, or None if the table has none of these columns.
    """
    name = next((name for name in choices if name in parquet_columns(path)), None)
    if name is None:
        return None
    column = read_parquet(path, [name]).column(name).combine_chunks()
    # The null type is also valid, because it is the type of a column that contains only nulls.
    if column.type not in (pa.string(), pa.large_string(), pa.null()):
        raise SimgapError(f"{path}: the type of column {name} is {column.type}; it must be text")
    return name, column.cast(pa.string())


def _check_rows(path: Path, rows: int, vectors: Path, expected: int) -> None:
    if rows != expected:
        raise SimgapError(
            f"{path}: has {rows} rows but {vectors.name} has {expected}; both must have one row for each sample"
        )


def _open_vectors(path: Path, dim: int) -> NDArray[Any]:
    found = read_array(path, np.float16, np.float32, shape=(None, None), mapped=True)
    if found.shape[1] != dim:
        raise SimgapError(
            f"{path}: the vectors have {found.shape[1]} dimensions; they must have {dim}, as the embedder's vectors do"
        )
    return found


def _check_vectors(found: NDArray[Any], reasons: NDArray[np.str_]) -> NDArray[np.float16]:
    """Round vectors to fp16, and find the invalid vectors.

    Args:
        found: Vectors, fp16 or fp32 [rows, dim]. fp16 vectors do not change.
        reasons: Why each row is invalid, str [rows]. The function writes the reason for each invalid vector.

    Returns:
        The rounded vectors, fp16 [rows, dim].
    """
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


def _read_names(part: _Part, shard_digits: int | None) -> tuple[pa.StringArray, pa.StringArray | None]:
    """Return the key and the shard of every row.

    The shards come from the shard table of the part. If there is no table, the first `shard_digits` digits of a key name the
    shard. If a key does not begin with so many digits, the shard of its row is null.

    Returns:
        The key of every row, and the shard of every row. The shards are None if there is neither a table nor `shard_digits`.
    """
    named = _read_text_column(part.shards, ("key",)) if part.shards else None
    named = named or _read_text_column(part.metadata, KEY_COLUMNS)
    if named is None:
        raise SimgapError(
            f"{part.metadata}: has none of the columns {', '.join(KEY_COLUMNS)}; add one of these columns"
        )
    column, keys = named
    if part.shards is not None:
        shard = _read_text_column(part.shards, ("shard",))
        if shard is None:
            raise SimgapError(f"{part.shards}: has no column shard; add it, with the file name of the tar of each row")
        if column == "url":
            raise SimgapError(
                f"{part.shards}: has no column key, and {part.metadata.name} has only urls; add a column key"
            )
        return keys, shard[1]
    if shard_digits is None:
        return keys, None
    leads = pc.utf8_slice_codeunits(keys, 0, shard_digits)
    numbers = pc.and_(pc.ascii_is_decimal(leads), pc.equal(pc.utf8_length(leads), shard_digits))
    return keys, pc.if_else(numbers, pc.binary_join_element_wise(leads, ".tar", ""), None)


def _check_shards(parts: list[_Part], shard_digits: int | None, pool: Path) -> None:
    """Check that the pool has the shards of all rows. This check is fast, so it runs before any vectors are read."""
    known: set[str] | None = None
    for part in parts:
        _, shards = _read_names(part, shard_digits)
        if shards is None:
            return
        if known is None:
            known = {shard.name for shard in find_shards(pool)}
        missing = sorted({name for name in shards.unique().to_pylist() if name} - known)
        if missing:
            more = f" and {len(missing) - 1} more" if missing[1:] else ""
            raise SimgapError(
                f"{pool}: has no shard {missing[0]!r}{more}, but rows of {part.shards or part.metadata} need it; the pool must "
                "have the shards of all rows"
            )


def _is_missing(names: pa.StringArray) -> NDArray[np.bool_]:
    """Return whether each name is null or empty, bool [rows]."""
    return np.asarray(pc.fill_null(pc.equal(names, ""), True).to_numpy(zero_copy_only=False), np.bool_)


def _import_part(part: _Part, dim: int, shard_digits: int | None) -> tuple[NDArray[np.float16], pa.Table, Accounting]:
    found = _open_vectors(part.vectors, dim)
    _check_rows(part.metadata, read_parquet(part.metadata, []).num_rows, part.vectors, len(found))
    if part.shards is not None:
        _check_rows(part.shards, read_parquet(part.shards, []).num_rows, part.vectors, len(found))
    keys, shards = _read_names(part, shard_digits)
    caption = _read_text_column(part.metadata, ("caption",))
    reasons = np.full(len(found), "", "U16")
    vectors = _check_vectors(found, reasons)
    reasons[(reasons == "") & _is_missing(keys)] = "no_key"
    if shards is not None:
        reasons[(reasons == "") & _is_missing(shards)] = "no_shard"
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


def _read_rows(part: Path) -> list[tuple[str, str]]:
    """Return the shard and the key of every row of a finished part, in the order of the rows."""
    table = read_parquet(part / METADATA_FILE, ["shard", "key"])
    return list(zip(table.column("shard").to_pylist(), table.column("key").to_pylist(), strict=True))


def _hashes(rows: list[tuple[str, str]]) -> NDArray[np.uint64]:
    """Compute a hash for each row from the shard and the key of the row, uint64 [rows]."""
    digests = (hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8).digest() for shard, key in rows)
    return np.frombuffer(b"".join(digests), np.uint64)


def _drop_repeated(parts: list[Path], drop_limit: float, sources: tuple[Path, ...]) -> None:
    """Drop every row that has the same sample as an earlier row.

    The earlier row may be in the same part or in an earlier part. The function rewrites the finished parts. If two rows have
    equal hashes, the function compares the shards and keys of the rows.

    The hashes need 9 bytes of memory for each row. The rows whose hash occurs more than once also need memory for their shards
    and keys.

    Raises:
        SimgapError: The share of repeated rows exceeds `drop_limit`.
    """
    bounds = np.cumsum([0, *(len(read_array(part / VECTORS_FILE, mapped=True)) for part in parts)])
    hashes = np.empty(bounds[-1], np.uint64)
    for part, low, high in zip(parts, bounds[:-1], bounds[1:], strict=True):
        hashes[low:high] = _hashes(_read_rows(part))
    hashes.sort()
    repeated = hashes[1:][hashes[1:] == hashes[:-1]]
    del hashes
    if not len(repeated):
        return
    # The limit bounds the memory for shards and keys, so this check runs before the shards and keys are read.
    found = Accounting(int(bounds[-1]), Counter(duplicate_key=len(repeated)))
    check_limit(drop_limit, found, found.read - len(repeated), sources)
    seen: set[tuple[str, str]] = set()
    for part in parts:
        rows = _read_rows(part)
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
    """Import embeddings in clip-retrieval's layout and write them to `out`.

    The files `img_emb/img_emb_{n}.npy` in `source` contain the vectors, fp16 or fp32 [rows, dim]. The files
    `metadata/metadata_{n}.parquet` contain the metadata, in the same order of rows. The key of a row is in the first of the
    columns `key`, `image_path` and `url` that exists. The function rounds fp32 vectors to fp16, and it does not change fp16
    vectors.

    The shard of a row comes from the table `shards/shards_{n}.parquet`, which has the same order of rows. The column `shard` of
    the table contains the file name of a tar. An optional column `key` replaces the key of the metadata. Without this table,
    the shard comes from `shard_digits`. Without the table and `shard_digits`, rows have no shard. simgap can measure the
    similarity of such rows, but it cannot export these rows or train a model on them.

    The function drops a row for one of these reasons, and counts the dropped rows for each reason:

    - `not_finite`: The vector is not finite.
    - `zero_norm`: The norm of the vector is zero.
    - `not_unit_norm`: The norm differs from 1 by more than 0.004.
    - `no_key`: The row has no key.
    - `no_shard`: There is a shard table or `shard_digits`, but it names no shard for the row.
    - `duplicate_key`: The function kept an earlier row with the same shard and key, in any part. It does not compare rows
      without shards.

    Finished parts stay in `scratch`, so a killed import can resume from these parts. The function needs memory for one part. If
    rows have shards, it also needs 9 bytes for each row, which is 3.7 GB for LAION-400M.

    Args:
        source: Folder of the embeddings.
        embedder: Hash of the embedder that computed the embeddings. It is stored with the embeddings, but this function cannot
            check it.
        dim: Number of dimensions of the embedder's embeddings.
        shard_digits: Number of digits at the start of a key that name the shard, or None if keys do not name shards. For
            example, if the number is 5, the key `000120034` belongs to the shard `00012.tar`.
        drop_limit: Largest share of rows that may be dropped, in [0, 1].
        out: Folder to write.
        scratch: Folder for finished parts.
        pool: Folder of the shards that contain the rows, or None if the shards are not available.

    Returns:
        A tuple of two dictionaries:

        - The metrics: the number of read rows, the number of kept rows, and the number of dropped rows for each reason.
        - The speed of this run: `rows_per_second` and `seconds`.

    Raises:
        SimgapError: A file is missing, cannot be read, or has a wrong number of rows or dimensions. The pool does not have
            the shard of a row. No row is left, or the share of dropped rows exceeds `drop_limit`.
    """
    sources = _find_parts(source)
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
    """Import embeddings into a folder outside a study.

    Args:
        source: Folder of the embeddings, in the layout that `import_embeddings` describes.
        out: Folder to write. It must not exist.
        embedder: The open_clip local directory of the model that computed the embeddings.
        shard_digits: Number of digits at the start of a key that name the shard, or None if keys do not name shards.
        drop_limit: Largest share of rows that may be dropped, in [0, 1].
        pool: Folder of the shards that contain the rows, or None if the shards are not available.

    Returns:
        One line of text. It contains the number of kept rows, and the number of dropped rows for each reason.

    Raises:
        SimgapError: `out` exists, a file cannot be read or written, or `import_embeddings` fails.
    """
    if out.exists():
        raise SimgapError(f"{out}: already exists; choose a folder that does not exist")
    dim, model = read_dim(embedder), sha256_of(embedder)
    cache_key = json.dumps(
        [code_fingerprint(__file__), str(source.resolve()), fingerprint(source), model, shard_digits]
    )
    try:
        with resumable_output(out, "importing") as folder:
            parts = folder / hashlib.sha256(cache_key.encode()).hexdigest()[:16]
            metrics, _ = import_embeddings(source, model, dim, shard_digits, drop_limit, out, parts, pool)
    except OSError as error:
        raise SimgapError(
            f"{error.filename or out}: {error.strerror or error}; check permissions and free space"
        ) from None
    line = f"{out}: kept {metrics['kept']} of {metrics['read']} embeddings of {dim} dimensions"
    reasons = [
        f"{count} {name.removeprefix('dropped/')}" for name, count in metrics.items() if name.startswith("dropped/")
    ]
    if reasons:
        line += f"; dropped: {', '.join(reasons)}"
    if shard_digits is None and not (source / "shards").is_dir():
        line += "; the kept rows have no shards, so they can be measured, but they cannot be trained on or exported"
    return line
