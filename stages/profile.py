"""Measure the similarity profile of a split, and certify that the split satisfies the imagenet-like rule."""

from pathlib import Path

from simgap.core.files import write_json
from simgap.params.schema import Params
from simgap.profile.profile import profile
from simgap.stage.command import stage
from simgap.store.columns import Similarity
from simgap.store.embeddings import Embeddings
from simgap.store.split import KEEP_FILE, read_keep, read_split


@stage
def main(params: Params, split: Path, full: Path, embeddings: Path, similarity: Path, out: Path, metrics: Path) -> None:
    info = read_split(split)
    content = profile(
        info,
        read_keep(split / KEEP_FILE, info.pool_rows),
        read_keep(full, info.pool_rows),
        Embeddings(embeddings / "pool"),
        Embeddings(embeddings / "reference"),
        {
            name: (Embeddings(embeddings / name), Similarity(similarity / name, info.row_order))
            for name in params.benchmarks.names
        },
        params.resources.engine,
        out,
    )
    write_json(metrics, content)


if __name__ == "__main__":
    main()
