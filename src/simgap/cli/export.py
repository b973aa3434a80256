"""Define the commands of `simgap export`. Each command exports a split in one format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simgap.core.errors import SimgapError, nearest_first
from simgap.params.load import PARAMS_FILE, load_params
from simgap.stage.command import PATH, reports_errors

if TYPE_CHECKING:
    from simgap.export.kept import KeptSamples

SPLITS = Path("data", "splits")
POOL_EMBEDDINGS = Path("data", "embeddings", "pool")


def _export(split: str, out: Path, write: Callable[[KeptSamples], str]) -> None:
    """Export the samples of a split, and print one line about the result.

    Args:
        split: Name of the split.
        out: File or folder to write.
        write: Function that exports the samples and returns the text of the line.
    """
    from simgap.export.kept import KeptSamples
    from simgap.export.new import check_new
    from simgap.store.split import INFO_FILE

    pool = Path(load_params(PARAMS_FILE).pool.path)
    known = sorted(file.parent.name for file in SPLITS.glob(f"*/{INFO_FILE}"))
    if split not in known:
        remedy = f"choose from {nearest_first(split, known)}" if known else "run `dvc repro`"
        raise SimgapError(f"SPLIT: there is no split {split!r}; {remedy}")
    # The command checks `out` before the export starts. The export checks it again at the end, but a failure then would
    # lose hours of work.
    check_new(out)
    kept = KeptSamples(SPLITS / split, POOL_EMBEDDINGS, pool)
    try:
        line = f"{out}: {write(kept)}"
    except OSError as error:
        raise SimgapError(f"{error.filename or out}: {error.strerror or error}") from None
    if kept.split.reference_rows:
        line += "; the training data of this split also contain the reference, which is not exported"
    click.echo(line)


@click.group()
def export() -> None:
    """Export a SPLIT of the finished study for other tools. See docs/share-a-study.md."""


@export.command("datacomp")
@click.argument("split")
@click.argument("out", type=PATH)
@reports_errors
def datacomp(split: str, out: Path) -> None:
    """Write the uids of the samples to the .npy file OUT, in the format of a DataComp subset."""
    from simgap.export.subset import export_subset

    def write(kept: KeptSamples) -> str:
        count, derived = export_subset(kept, out)
        return f"{count} uids" + (", each the MD5 of SHARD/KEY, since the pool has no uids" if derived else "")

    _export(split, out, write)


@export.command("keys")
@click.argument("split")
@click.argument("out", type=PATH)
@reports_errors
def keys(split: str, out: Path) -> None:
    """Write the shard and the key of each sample to the .txt or .parquet file OUT."""
    from simgap.export.key_list import export_keys

    _export(split, out, lambda kept: f"{export_keys(kept, out)} keys")


@export.command("shards")
@click.argument("split")
@click.argument("out", type=PATH)
@click.option("--samples-per-shard", type=int, default=10_000, show_default=True)
@reports_errors
def shards(split: str, out: Path, samples_per_shard: int) -> None:
    """Copy the samples to new webdataset shards in the folder OUT.

    The folder also gets sizes.json, which names the number of samples of each shard. If an export was interrupted, the same
    command continues the export.
    """
    from simgap.export.reshard import export_shards

    def write(kept: KeptSamples) -> str:
        samples, tars = export_shards(kept, out, samples_per_shard)
        return f"{samples} samples in {tars} shards"

    _export(split, out, write)
