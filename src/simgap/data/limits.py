"""Check that only a few samples of a dataset were dropped. Embedding and evaluation use this check."""

from __future__ import annotations

from simgap.core.errors import SimgapError
from simgap.data.shards import Accounting, Shard


def check_limit(limit: float, accounting: Accounting, rows: int, shards: tuple[Shard, ...]) -> None:
    """Check that only a few samples of a dataset were dropped, and that only a few shards are damaged.

    Args:
        limit: `limits.drop_limit`, a number from 0 to 1. At most this share of the samples may be dropped, and at most this
            share of the shards may be damaged.
        accounting: Counts of the samples and of the damaged shards of the dataset.
        rows: Number of embedded samples.
        shards: All shards of the dataset.

    Raises:
        SimgapError: No sample was embedded. Or the share of dropped samples or the share of damaged shards exceeds `limit`.
    """
    folder, dropped = shards[0].parent, dict(accounting.dropped)
    if rows == 0:
        raise SimgapError(
            f"{folder}: none of its {accounting.read} samples could be embedded ({dropped}); repair the samples"
        )
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
