"""Check that the results of the default study are meaningful. They are in `metrics/`, either committed or from `make demo`."""

from __future__ import annotations

from conftest import REPOSITORY

from simgap.core.files import read_json
from simgap.params.load import load_params

METRICS = REPOSITORY / "metrics"
PARAMS = load_params(REPOSITORY / "presets" / "toy.yaml")


def test_the_embedder_finds_planted_copies() -> None:
    truth = read_json(METRICS / "ground-truth" / "toy.json")
    assert truth["rank1_recall/copies"] >= 0.95
    assert truth["rank1_recall/exact"] == 1


def test_the_chosen_eps_drops_annotated_duplicates_and_few_other_rows() -> None:
    truth = read_json(METRICS / "ground-truth" / "toy.json")
    at = f"deduplication/eps_{PARAMS.deduplicate.eps:g}"
    assert truth[f"{at}/precision"] >= 0.9
    assert truth[f"{at}/recall"] >= 0.5


def test_each_benchmark_prunes_2_to_40_per_cent_and_no_split_is_degenerate() -> None:
    splits = {name: read_json(METRICS / "prune" / f"{name}.json") for name in PARAMS.prune.imagenet_like}
    alone = [split for split in splits.values() if len(split["benchmarks"]) == 1]
    assert sorted(name for split in alone for name in split["benchmarks"]) == sorted(PARAMS.benchmarks.names)
    assert all(0.02 <= 1 - split["kept_share_of_full"] <= 0.4 for split in alone)
    assert not any(split["degenerate"] for split in splits.values())


def test_exact_copies_of_the_rule_s_own_queries_are_pruned() -> None:
    truth = read_json(METRICS / "ground-truth" / "toy.json")
    for name in PARAMS.prune.imagenet_like:
        assert truth[f"{name}/pruned_share/planted/exact"] >= 0.9


def test_pruning_lowers_the_accuracy_on_its_own_benchmark_more_than_the_random_control() -> None:
    compared = read_json(METRICS / "compare" / "compare.json")
    assert compared["sketch-pruned/sketch/minus_control/high"] < 0
    assert compared["full/val/accuracy"] > 0.3


def test_exact_copies_of_test_images_are_found_with_few_false_positives() -> None:
    found = read_json(METRICS / "leaks" / "leaks.json")
    assert found["recall/exact"] == 1
    assert found["recall/near"] > 0.5
    assert found["false_positive_share"] <= PARAMS.leaks.false_positives
