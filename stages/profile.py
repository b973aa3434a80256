"""Compute the similarity profile of a split, and verify the imagenet-like rule."""

from pathlib import Path

import click

from simgap.core.files import write_json
from simgap.params.schema import Params
from simgap.profile.profile import profile
from simgap.stage.command import PATH, stage
from simgap.store.columns import Similarity
from simgap.store.embeddings import Embeddings
from simgap.store.split import KEEP_FILE, read_keep, read_split


@stage
@click.option("--split", "split_folder", type=PATH, required=True)
@click.option("--full", type=PATH, required=True)
@click.option("--embeddings", type=PATH, required=True)
@click.option("--similarity", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(
    params: Params, split_folder: Path, full: Path, embeddings: Path, similarity: Path, out: Path, metrics: Path
) -> None:
    split = read_split(split_folder)
    content = profile(
        split,
        read_keep(split_folder / KEEP_FILE, split.pool_rows),
        read_keep(full, split.pool_rows),
        Embeddings(embeddings / "pool"),
        Embeddings(embeddings / "reference"),
        {
            name: (Embeddings(embeddings / name), Similarity(similarity / name, split.row_order))
            for name in params.benchmarks.names
        },
        params.resources.engine,
        out,
    )
    write_json(metrics, content)


if __name__ == "__main__":
    main()
