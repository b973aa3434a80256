"""What a set may lack: the same for embedding and for evaluation."""

from __future__ import annotations

from simgap.core.errors import SimgapError
from simgap.data.shards import Accounting, Shard


def check_limit(limit: float, accounting: Accounting, rows: int, shards: tuple[Shard, ...]) -> None:
    """Refuse a set of which too little could be embedded.

    Args:
        limit: `embed.drop_limit`, the largest share of samples that may be dropped and of shards that may be damaged.
        rows: samples that were embedded.

    Raises:
        SimgapError: no row is left, or more than `limit` of the samples were dropped or of the shards are damaged.
    """
    folder, dropped = shards[0].parent, dict(accounting.dropped)
    if rows == 0:
        raise SimgapError(f"{folder}: none of its {accounting.read} samples could be embedded ({dropped})")
    if accounting.dropped.total() > limit * accounting.read:
        raise SimgapError(
            f"{folder}: {accounting.dropped.total()} of {accounting.read} samples were dropped ({dropped}), "
            f"more than embed.drop_limit {limit} allows"
        )
    if accounting.damaged_shards > limit * len(shards):
        raise SimgapError(
            f"{folder}: {accounting.damaged_shards} of {len(shards)} shards end too soon or are corrupt, "
            f"more than embed.drop_limit {limit} allows"
        )
