"""Make a control split with the same composition as another split.

The control keeps as many random rows of each class or style as the other split keeps.
"""

from pathlib import Path

from simgap.core.files import write_json
from simgap.params.schema import Params
from simgap.prune.composition import groups_of_rows
from simgap.prune.prune import prune_matched
from simgap.stage.command import stage
from simgap.store.embeddings import Embeddings


@stage
def main(params: Params, full: Path, controlled: Path, pool: Path, embeddings: Path, out: Path, metrics: Path) -> None:
    rule = params.prune.matched[out.name]
    groups = groups_of_rows(pool, Embeddings(embeddings), rule.match)
    content = prune_matched(
        full, rule.size_of, controlled, groups, rule.match, rule.seed, params.reference.add_to_pool, out
    )
    write_json(metrics, content)


if __name__ == "__main__":
    main()
