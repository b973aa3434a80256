"""`simgap export`: a command for each form in which a split leaves the study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simgap.core.errors import SimgapError, nearest_first
from simgap.params.load import PARAMS_FILE, load_params
from simgap.stage.command import PATH, reports_errors

if TYPE_CHECKING:
    from simgap.export.kept import Kept

SPLITS = Path("data", "splits")
POOL_EMBEDDINGS = Path("data", "embeddings", "pool")


def _export(split: str, out: Path, write: Callable[[Kept], str]) -> None:
    """Write what a function writes, given the split's samples, and say what it says."""
    from simgap.export.kept import Kept
    from simgap.export.new import check_new
    from simgap.store.split import INFO_FILE

    pool = Path(load_params(PARAMS_FILE).pool.path)
    known = sorted(file.parent.name for file in SPLITS.glob(f"*/{INFO_FILE}"))
    if split not in known:
        remedy = f"choose from {nearest_first(split, known)}" if known else "run `dvc repro`"
        raise SimgapError(f"SPLIT: {split!r} is not there; {remedy}")
    # Before hours of work; what comes to stand there meanwhile is seen to at their end.
    check_new(out)
    kept = Kept(SPLITS / split, POOL_EMBEDDINGS, pool)
    try:
        line = f"{out}: {write(kept)}"
    except OSError as error:
        raise SimgapError(f"{error.filename or out}: {error.strerror or error}") from None
    if kept.split.reference_rows:
        line += "; the reference, which joins the split's training data, is not among them"
    click.echo(line)


@click.group()
def export() -> None:
    """Give a SPLIT of the finished study to other tools; see docs/data.md."""


@export.command("datacomp")
@click.argument("split")
@click.argument("out", type=PATH)
@reports_errors
def datacomp(split: str, out: Path) -> None:
    """Write a DataComp subset, the uids of the samples, to the .npy file OUT."""
    from simgap.export.subset import export_subset

    def write(kept: Kept) -> str:
        count, derived = export_subset(kept, out)
        return f"{count} uids" + (", each the MD5 of SHARD/KEY, since the pool names none" if derived else "")

    _export(split, out, write)


@export.command("keys")
@click.argument("split")
@click.argument("out", type=PATH)
@reports_errors
def keys(split: str, out: Path) -> None:
    """Write shard and key of the samples to OUT, a .txt or .parquet file."""
    from simgap.export.key_list import export_keys

    _export(split, out, lambda kept: f"{export_keys(kept, out)} keys")


@export.command("shards")
@click.argument("split")
@click.argument("out", type=PATH)
@click.option("--samples-per-shard", type=int, default=10_000, show_default=True)
@reports_errors
def shards(split: str, out: Path, samples_per_shard: int) -> None:
    """Copy the samples into new webdataset shards, in the folder OUT, with sizes.json.

    An export that was stopped goes on where it stood when it is started again.
    """
    from simgap.export.reshard import export_shards

    def write(kept: Kept) -> str:
        samples, tars = export_shards(kept, out, samples_per_shard)
        return f"{samples} samples in {tars} shards"

    _export(split, out, write)
