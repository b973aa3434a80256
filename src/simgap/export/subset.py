"""Export a split as a DataComp subset, which is a sorted array of the 128-bit uids of the samples."""

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
from simgap.export.kept import KeptSamples, ShardSelection
from simgap.export.new import new_output
from simgap.store.arrays import parquet_columns, read_array, read_parquet, write_array

# A uid has an upper and a lower half of 64 bits. The filters and the resharder of DataComp use this type.
UID = np.dtype("u8,u8")
# A finished part of the export has this type. The fields are the two halves of a uid, and whether the uid was derived.
PART = np.dtype("u8,u8,?")
# This object marks a sample whose JSON has no uid. None cannot mark it, because a JSON may contain the uid null.
UNNAMED = object()
HEX = re.compile(r"[0-9a-fA-F]{1,32}")


def _from_parquet(shard: Shard) -> dict[str, object] | None:
    """Read the uid of each key from the Parquet file that img2dataset writes beside a shard.

    Returns:
        Map from key to uid. The result is None if the shard is remote, if there is no such file, or if the file lacks the
        column `key` or `uid`.
    """
    if not isinstance(shard, Path):
        return None
    path = shard.with_suffix(".parquet")
    if not path.is_file() or not {"key", "uid"} <= set(parquet_columns(path)):
        return None
    table = read_parquet(path, ["key", "uid"])
    return dict(zip(table.column("key").to_pylist(), table.column("uid").to_pylist(), strict=True))


def _from_json(selection: ShardSelection) -> dict[str, object]:
    wanted, found = set(selection.keys), dict[str, object]()
    for key, text in read_json_members(selection.shard, Accounting()):
        # If two samples have the same key, only the first sample was embedded, so its uid counts.
        if key in wanted and key not in found:
            try:
                content = json.loads(text)
            except ValueError:
                content = None
            found[key] = content.get("uid", UNNAMED) if isinstance(content, dict) else None
    return found


def derived_uid(shard: str, key: str) -> str:
    """Return the MD5 of `{shard}/{key}`, as 32 hexadecimal digits. It is the uid of a sample whose dataset has no uids."""
    return hashlib.md5(f"{shard}/{key}".encode(), usedforsecurity=False).hexdigest()


def _uids_of(selection: ShardSelection) -> NDArray[np.void]:
    found = _from_parquet(selection.shard)
    found = _from_json(selection) if found is None else found
    uids = np.empty(len(selection.keys), PART)
    for place, key in enumerate(selection.keys):
        uid = found.get(key)
        unnamed = uid is UNNAMED
        if unnamed:
            uid = derived_uid(selection.shard.name, key)
        if not isinstance(uid, str) or not HEX.fullmatch(uid):
            raise SimgapError(
                f"{selection.shard}: the sample {key!r} has the uid {uid!r}; a uid must have up to 32 hexadecimal digits; "
                "correct it in the JSON or the .parquet of the shard, or use `simgap export keys`, which needs no uids"
            )
        uids[place] = (*divmod(int(uid, 16), 2**64), unnamed)
    return uids


def export_subset(kept: KeptSamples, out: Path) -> tuple[int, bool]:
    """Write the sorted uids of the kept samples as an array of dtype `u8,u8`.

    DataComp's `resharder.py --subset-file` reads this format. An entry has the upper and the lower 64 bits of a uid. The
    entries are in lexicographic order.

    If `{shard}.parquet` beside a shard has the columns `key` and `uid`, the uids come from this file. Otherwise, a uid comes
    from the JSON of the sample. If no JSON has a uid, `derived_uid` computes all uids. LAION's shards, for example, have no
    uids.

    The uids of each finished part of the embeddings lie beside `out` until `out` is complete. If an export is killed, the next
    export continues from these uids.

    Memory: 60 bytes for each kept sample during the final sort.

    Args:
        kept: The samples.
        out: The `.npy` file to write.

    Returns:
        The number of uids, and whether the uids were derived.

    Raises:
        SimgapError: `out` is not a `.npy` file, or `out` exists when the export ends. Or only some samples have a uid, or two
            samples have the same uid, or the pool lacks a shard.
    """
    if out.suffix != ".npy":
        raise SimgapError(f"{out}: {out.suffix!r} is not the suffix of an array; name a file that ends in .npy")
    cache_key = kept.cache_key(__file__)
    bar: Any = progress(None, kept.split.kept, "export", "sample")
    with resumable_output(out, "exporting") as folder, bar:
        parts = []
        for number, shards in enumerate(kept.parts()):
            part = folder / f"{cache_key}-{number:05d}.npy"
            if part.is_file():
                bar.update(sum(len(selection.keys) for selection in shards))
            else:
                uids = []
                for selection in shards:
                    uids.append(_uids_of(selection))
                    bar.update(len(selection.keys))
                write_array(part, np.concatenate([np.empty(0, PART), *uids]))
            parts.append(part)
        found = np.concatenate([read_array(part, mapped=True) for part in parts])
        derived = int(found["f2"].sum())
        if 0 < derived < len(found):
            raise SimgapError(
                f"{kept.pool}: {derived} of the split's {len(found)} samples have no uid in their JSON, but the others have one; "
                "give all samples a uid, or use `simgap export keys`, which needs no uids"
            )
        subset = np.empty(len(found), UID)
        subset["f0"], subset["f1"] = found["f0"], found["f1"]
        # `lexsort` on two columns is about three times as fast as sorting the structured array.
        subset = subset[np.lexsort((subset["f1"], subset["f0"]))]
        twice = np.flatnonzero(subset[1:] == subset[:-1])
        if len(twice):
            high, low = (int(half) for half in subset[twice[0]])
            raise SimgapError(
                f"{kept.pool}: the uid {high:016x}{low:016x} names two samples of the split; give each sample its own uid"
            )
        with new_output(out) as partial, partial.open("wb") as stream:
            np.save(stream, subset)
    return len(subset), derived > 0
