from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgap.compare.by_similarity import (
    FIFTHS,
    WIDTH,
    accuracy_by_similarity,
    change_by_similarity,
    fifths,
    steps,
)
from simgap.compare.outcomes import Outcomes
from simgap.compare.resamples import ALL, Resamples
from simgap.params.compare import CompareParameters
from simgap.store.split import Split
from simgap.store.verdicts import HELD_OUT, USED

PARAMETERS = CompareParameters(resamples=300, seed=0, equivalence_margin=0.05, in_distribution_benchmark="val")
IMAGES = 400
SIMILARITIES = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60)


def outcomes(similarity: dict[str, np.ndarray], correct: dict[str, np.ndarray]) -> Outcomes:
    splits = {
        "pruned": Split("imagenet-like", {}, ["val"], None, 40, 80, "", True, "x", None),
        "control": Split("random", {}, [], None, 40, 80, "", True, "x", None),
    }
    seeds = next(iter(correct.values())).shape[0]
    return Outcomes(
        splits,
        80,
        ["val"],
        list(range(seeds)),
        {"val": np.zeros(IMAGES, np.int64)},
        {"val": np.ones(IMAGES, bool)},
        {},
        {(split, "val"): outcomes for split, outcomes in correct.items()},
        {},
        {(split, "val"): values for split, values in similarity.items()},
        {},
    )


@given(SIMILARITIES)
def test_fifths_share_equal_values_and_follow_the_order(values: list[float]) -> None:
    array = np.array(values, np.float64)
    groups = fifths(array)
    order = np.argsort(array, kind="stable")
    assert (np.diff(groups[order]) >= 0).all()
    for value in array:
        assert len(set(groups[array == value])) == 1
    assert 0 <= groups.min() <= groups.max() <= 4


def test_fifths_of_different_values_are_of_one_size() -> None:
    assert np.bincount(fifths(np.random.default_rng(0).permutation(50) / 50)).tolist() == [10] * 5


@given(SIMILARITIES)
def test_a_step_is_what_lies_between_two_edges(values: list[float]) -> None:
    array = np.array(values, np.float64)
    groups = steps(array)
    # The edges are whole multiples of a twentieth. Integer arithmetic on the stored numbers is exact.
    expected = [
        int(np.float64(value).as_integer_ratio()[0] * 20 // np.float64(value).as_integer_ratio()[1]) for value in values
    ]
    assert [sorted(set(expected)).index(step) for step in expected] == groups.tolist()


def test_a_bin_holds_its_lower_edge() -> None:
    assert steps(np.array([0.25, 0.5, 0.49, 0.3, 0.26])).tolist() == [0, 3, 2, 1, 0]


def test_accuracy_by_similarity_counts_every_image_once() -> None:
    random = np.random.default_rng(0)
    similarity = {name: np.float32(random.random(IMAGES)).astype(np.float64) for name in ("pruned", "control")}
    correct = {name: random.random((2, IMAGES)) < 0.2 + 0.6 * similarity[name] for name in similarity}
    made = outcomes(similarity, correct)
    found = accuracy_by_similarity(made, Resamples(PARAMETERS, made), "val")
    for split in similarity:
        for kind in (FIFTHS, WIDTH):
            bins = [each for each in found[split] if each.kind == kind]
            assert sum(each.images for each in bins) == IMAGES
            for each in bins:
                inside = (similarity[split] >= each.low) & (similarity[split] <= each.high)
                if kind == WIDTH:
                    # All splits and benchmarks share the edges.
                    assert (each.low, each.high) == pytest.approx(
                        (round(each.low * 20) / 20, round(each.low * 20 + 1) / 20)
                    )
                    inside &= similarity[split] < each.high
                assert inside.sum() == each.images
                assert each.estimate is not None
                assert each.estimate.value == pytest.approx(correct[split][:, inside].mean())
                assert each.estimate.low <= each.estimate.value <= each.estimate.high
        fifth = [each.estimate.value for each in found[split] if each.kind == FIFTHS and each.estimate]
        assert fifth[0] < fifth[-1]


def test_a_change_that_follows_similarity_and_one_that_does_not() -> None:
    random = np.random.default_rng(0)
    fell = random.random(IMAGES) * 0.1
    similarity = {"pruned": 0.9 - fell, "control": np.full(IMAGES, 0.9)}
    hard = random.random((2, IMAGES))
    control = hard < 0.9
    for slope_there, pruned in ((5, hard < 0.9 - 5 * fell), (0, hard < 0.6)):
        made = outcomes(similarity, {"pruned": pruned, "control": control})
        change = change_by_similarity(made, Resamples(PARAMETERS, made), "val")["pruned"]
        assert change.slopes[ALL] is not None
        assert change.slopes[ALL].low < slope_there < change.slopes[ALL].high
        x, y = similarity["pruned"] - 0.9, pruned.mean(axis=0) - control.mean(axis=0)
        assert change.slopes[ALL].value == pytest.approx(np.polyfit(x, y, 1)[0])
        assert [each.images for each in change.bins] == [80] * 5
        least = np.argsort(x)[:80]
        assert change.bins[0].estimate is not None
        assert change.bins[0].estimate.value == pytest.approx(y[least].mean())


def test_slopes_of_rule_queries_and_held_out_ones_apart() -> None:
    random = np.random.default_rng(0)
    similarity = {name: random.random(IMAGES) for name in ("pruned", "control")}
    correct = {name: random.random((2, IMAGES)) < 0.5 for name in similarity}
    made = outcomes(similarity, correct)
    assert list(change_by_similarity(made, Resamples(PARAMETERS, made), "val")["pruned"].slopes) == [ALL]
    used = made.used_by_rule["val"] = np.arange(IMAGES) % 4 > 0
    found = change_by_similarity(made, Resamples(PARAMETERS, made), "val")["pruned"].slopes
    change = similarity["pruned"] - similarity["control"]
    y = correct["pruned"].mean(axis=0) - correct["control"].mean(axis=0)
    for kind, chosen in ((ALL, used | True), (USED, used), (HELD_OUT, ~used)):
        slope = found[kind]
        assert slope is not None
        assert slope.value == pytest.approx(np.polyfit(change[chosen], y[chosen], 1)[0])
    assert found[HELD_OUT].high - found[HELD_OUT].low > found[USED].high - found[USED].low


def test_no_change_in_similarity_says_nothing() -> None:
    same = np.random.default_rng(0).random(IMAGES)
    correct = {name: np.random.default_rng(1).random((1, IMAGES)) < 0.5 for name in ("pruned", "control")}
    made = outcomes({"pruned": same, "control": same}, correct)
    change = change_by_similarity(made, Resamples(PARAMETERS, made), "val")
    assert list(change) == ["pruned"]
    assert change["pruned"].slopes[ALL] is None
    assert [each.images for each in change["pruned"].bins] == [IMAGES]
