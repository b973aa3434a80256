"""A split as a DataComp subset: the sorted 128-bit uids of its samples."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.core.files import resumable_output
from simgap.core.progress import progress
from simgap.data.shards import Accounting, Shard, read_json_members
from simgap.export.kept import Kept, KeptOfShard
from simgap.export.new import new_output
from simgap.store.arrays import parquet_columns, read_array, read_parquet, write_array

# Upper and lower half, as DataComp's filters write it and its resharder searches it.
UID = np.dtype("u8,u8")
# The same of a part that waits, and whether the uid was derived.
PART = np.dtype("u8,u8,?")
# Of a sample whose json has no uid.
UNNAMED = object()
HEX = re.compile(r"[0-9a-fA-F]{1,32}")


def _from_parquet(shard: Shard) -> dict[str, object] | None:
    """Read the uids by key from the table that img2dataset writes beside a shard; None where it has none or is remote."""
    if not isinstance(shard, Path):
        return None
    path = shard.with_suffix(".parquet")
    if not path.is_file() or not {"key", "uid"} <= set(parquet_columns(path)):
        return None
    table = read_parquet(path, ["key", "uid"])
    return dict(zip(table.column("key").to_pylist(), table.column("uid").to_pylist(), strict=True))


def _from_json(of_shard: KeptOfShard) -> dict[str, object]:
    wanted, found = set(of_shard.keys), dict[str, object]()
    for key, text in read_json_members(of_shard.shard, Accounting()):
        # Of two samples of one key the first is the pool's row.
        if key in wanted and key not in found:
            try:
                content = json.loads(text)
            except ValueError:
                content = None
            found[key] = content.get("uid", UNNAMED) if isinstance(content, dict) else None
    return found


def derived_uid(shard: str, key: str) -> str:
    """Give the uid of a sample whose json names none: the MD5 of `{shard}/{key}`, as 32 hexadecimal digits."""
    return hashlib.md5(f"{shard}/{key}".encode(), usedforsecurity=False).hexdigest()


def _uids_of(of_shard: KeptOfShard) -> NDArray[np.void]:
    found = _from_parquet(of_shard.shard)
    found = _from_json(of_shard) if found is None else found
    uids = np.empty(len(of_shard.keys), PART)
    for place, key in enumerate(of_shard.keys):
        uid = found.get(key)
        unnamed = uid is UNNAMED
        if unnamed:
            uid = derived_uid(of_shard.shard.name, key)
        if not isinstance(uid, str) or not HEX.fullmatch(uid):
            raise SimgapError(
                f"{of_shard.shard}: the sample {key!r} has the uid {uid!r}, a DataComp subset needs 32 hexadecimal digits, "
                "in its json or in a .parquet of the shard's name; `simgap export keys` needs none"
            )
        uids[place] = (*divmod(int(uid, 16), 2**64), unnamed)
    return uids


def export_subset(kept: Kept, out: Path) -> tuple[int, bool]:
    """Write the uids of the kept samples, sorted, as `.npy` of `u8,u8`; give their number, and whether they were derived.

    The format is that of DataComp's `resharder.py --subset-file`: upper and lower 64 bits, in lexicographic order. A uid
    comes from `{shard}.parquet` beside the shard where that has `key` and `uid`, else from the sample's json; where no json
    names one, as in LAION's shards, all are derived (see `derived_uid`). The uids of each part of the embeddings wait beside
    `out`, from where an export that was killed goes on. Memory is 60 bytes a kept sample at the end, where all are sorted.

    Raises:
        SimgapError: `out` is no `.npy`, some samples have a uid and others none, two share one, a shard is missing, or
            `out` exists when it is complete.
    """
    if out.suffix != ".npy":
        raise SimgapError(f"{out}: {out.suffix!r} is no suffix of an array; name a file that ends in .npy")
    identity = kept.identity("subset")
    bar: Any = progress(None, kept.split.kept, "export", "sample")
    with resumable_output(out, "exporting") as folder, bar:
        parts = []
        for number, shards in enumerate(kept.parts()):
            part = folder / f"{identity}-{number:05d}.npy"
            if part.is_file():
                bar.update(sum(len(of_shard.keys) for of_shard in shards))
            else:
                uids = []
                for of_shard in shards:
                    uids.append(_uids_of(of_shard))
                    bar.update(len(of_shard.keys))
                write_array(part, np.concatenate([np.empty(0, PART), *uids]))
            parts.append(part)
        found = np.concatenate([read_array(part, mapped=True) for part in parts])
        derived = int(found["f2"].sum())
        if 0 < derived < len(found):
            raise SimgapError(
                f"{kept.pool}: {derived} of the split's {len(found)} samples have no uid in their json, the others have one; "
                "all should, or none; `simgap export keys` needs none"
            )
        subset = np.empty(len(found), UID)
        subset["f0"], subset["f1"] = found["f0"], found["f1"]
        # By columns: to compare records as such takes three times as long.
        subset = subset[np.lexsort((subset["f1"], subset["f0"]))]
        twice = np.flatnonzero(subset[1:] == subset[:-1])
        if len(twice):
            high, low = (int(half) for half in subset[twice[0]])
            raise SimgapError(
                f"{kept.pool}: the uid {high:016x}{low:016x} names two samples of the split; it should name one"
            )
        with new_output(out) as partial, partial.open("wb") as stream:
            np.save(stream, subset)
    return len(subset), derived > 0
