"""Check that enough samples of a set could be used. Embedding and evaluation share this rule."""

from __future__ import annotations

from simgap.core.errors import SimgapError
from simgap.data.shards import Accounting, Shard


def check_limit(limit: float, accounting: Accounting, rows: int, shards: tuple[Shard, ...]) -> None:
    """Check that only a small share of a set was dropped or damaged.

    Args:
        limit: `limits.drop_limit`, the largest share of samples that may be dropped, and of shards that may be damaged.
        accounting: counts of the samples and damaged shards of the set.
        rows: number of samples that were embedded.
        shards: all shards of the set.

    Raises:
        SimgapError: No row is left, or more than `limit` of the samples were dropped or of the shards are damaged.
    """
    folder, dropped = shards[0].parent, dict(accounting.dropped)
    if rows == 0:
        raise SimgapError(f"{folder}: none of its {accounting.read} samples could be embedded ({dropped})")
    if accounting.dropped.total() > limit * accounting.read:
        raise SimgapError(
            f"{folder}: {accounting.dropped.total()} of {accounting.read} samples were dropped ({dropped}), "
            f"more than limits.drop_limit {limit} allows; repair the samples or raise the limit"
        )
    if accounting.damaged_shards > limit * len(shards):
        raise SimgapError(
            f"{folder}: {accounting.damaged_shards} of {len(shards)} shards are truncated or corrupt, "
            f"more than limits.drop_limit {limit} allows; repair the shards or raise the limit"
        )
