"""Make a split by one of the rules imagenet-like, dissimilar, similar and random."""

from pathlib import Path

import click

from simgap.core.files import write_json
from simgap.params.schema import Params
from simgap.prune.prune import prune_by_similarity, prune_imagenet_like, prune_random
from simgap.stage.command import PATH, stage
from simgap.store.split import read_split


@stage
@click.option("--rule", type=click.Choice(["imagenet-like", "dissimilar", "similar", "random"]), required=True)
@click.option("--similarity", type=PATH, help="Folder of the similarity columns. All rules except random need it.")
@click.option("--size-of", type=PATH, help="Folder of the split whose size `keep` refers to. The rule random needs it.")
def main(params: Params, rule: str, full: Path, similarity: Path, size_of: Path, out: Path, metrics: Path) -> None:
    if not (size_of if rule == "random" else similarity):
        raise click.UsageError(f"--rule {rule} needs --{'size-of' if rule == 'random' else 'similarity'}")
    split = params.prune.rules()[rule][out.name]
    joins = params.reference.add_to_pool
    if rule == "imagenet-like":
        content = prune_imagenet_like(full, similarity, split.benchmarks, params.threshold, joins, out)
    elif rule == "random":
        content = prune_random(full, split.size_of, read_split(size_of).kept, split.keep, split.seed, joins, out)
    else:
        most_similar = rule == "dissimilar"
        content = prune_by_similarity(
            full, similarity, split.benchmarks, split.join, split.keep, joins, out, most_similar=most_similar
        )
    write_json(metrics, content)


if __name__ == "__main__":
    main()
