"""Check conditions that involve several blocks of a params file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from simgap.clip.config import named_config, read_model_config
from simgap.core.errors import SimgapError
from simgap.params.schema import Params

NEEDS_LICENCE = {"objectnet": "ObjectNet's licence forbids using it to tune a model"}


def check_across_blocks(params: Params, where: str) -> None:
    """Check all conditions that involve several blocks. The function does not check the overrides in `runs`.

    Args:
        params: The params. Each block must already have been checked alone.
        where: Name of the file. Error messages begin with it.

    Raises:
        SimgapError: A condition is violated. The message is one line with the parameter, the value and the requirement.
    """
    _check_worlds(params, where)
    _check_benchmarks(params, where)
    _check_split_names(params, where)
    _check_controls(params, where)
    _check_models(params, where)
    if params.leaks.threshold is None and not params.ground_truth:
        raise SimgapError(
            f"{where}: leaks.threshold is null, but ground_truth has no annotated pool for the calibration; set it to a cosine"
        )


def _unknown(where: str, place: str, value: str, choices: Iterator[str] | list[str]) -> SimgapError:
    return SimgapError(f"{where}: {place} is {value!r}; choose from {', '.join(choices)}")


def _check_worlds(params: Params, where: str) -> None:
    places = [(name, block) for block in ("draw", "copy", "manifest") for name in getattr(params, block)]
    for (name, block), (other, other_block) in itertools.combinations(places, 2):
        if name == other:
            raise SimgapError(
                f"{where}: {other_block}.{name} and {block}.{name} would both write data/worlds/{name}; rename one of them"
            )


def _check_benchmarks(params: Params, where: str) -> None:
    names = params.benchmarks.names
    if params.compare.in_distribution_benchmark not in names:
        raise _unknown(where, "compare.in_distribution_benchmark", params.compare.in_distribution_benchmark, names)
    for rule, splits in params.prune.rules().items():
        for split, parameters in splits.items():
            place = f"prune.{rule}.{split}.benchmarks"
            for benchmark in getattr(parameters, "benchmarks", []):
                if benchmark not in names:
                    raise _unknown(where, place, benchmark, names)
                if benchmark in NEEDS_LICENCE and benchmark not in params.benchmarks.accepted_licences:
                    raise SimgapError(
                        f"{where}: {place} contains {benchmark}, but {NEEDS_LICENCE[benchmark]}; remove it, or add it to "
                        "benchmarks.accepted_licences if you may use it in a rule"
                    )


def _owners(params: Params) -> Iterator[tuple[str, str]]:
    """Yield a pair (split name, block of params.yaml that defines the split) for each split."""
    yield "full", "deduplicate"
    for rule, splits in params.prune.rules().items():
        yield from ((split, f"prune.{rule}") for split in splits)


def _check_split_names(params: Params, where: str) -> None:
    owners: dict[str, str] = {}
    for split, owner in _owners(params):
        if split in owners:
            raise SimgapError(
                f"{where}: {owner}.{split} has the name of a split of {owners[split]}; rename it, because names must be unique"
            )
        owners[split] = owner
    for run in params.runs:
        if run not in owners:
            raise SimgapError(
                f"{where}: runs.{run} is not the name of a split; choose from {', '.join(sorted(owners))}"
            )


def _check_controls(params: Params, where: str) -> None:
    splits = {split for split, _ in _owners(params)}
    controls = {*params.prune.random, *params.prune.matched}
    # A matched control of full is not allowed, because it would contain all rows of full.
    for rule, excluded in (("random", controls), ("matched", controls | {"full"})):
        for split, control in params.prune.rules()[rule].items():
            if control.size_of not in splits - excluded:
                raise _unknown(where, f"prune.{rule}.{split}.size_of", control.size_of, sorted(splits - excluded))


def _check_models(params: Params, where: str) -> None:
    models = {"train.model": params.train.model}
    if params.embedder.train is not None:
        models["embedder.train.model"] = params.embedder.train.model
    models |= {f"runs.{run}.model": str(keys["model"]) for run, keys in params.runs.items() if "model" in keys}
    for place, model in models.items():
        read_model_config(model, f"{where}: {place}")
    if params.embedder.pretrained is not None:
        named_config(params.embedder.pretrained.model, f"{where}: embedder.pretrained.model")
