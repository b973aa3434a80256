from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from conftest import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from simgap.core.errors import SimgapError
from simgap.params.similarity import SimilarityParameters
from simgap.prune import rules
from simgap.prune.prune import prune_by_similarity, prune_imagenet_like, prune_matched, prune_random
from simgap.similarity.measure import measure
from simgap.store.split import Split, read_keep, read_split, write_split


@contextmanager
def in_blocks_of(rows: int) -> Iterator[None]:
    size, rules.BLOCK_ROWS = rules.BLOCK_ROWS, rows
    try:
        yield
    finally:
        rules.BLOCK_ROWS = size


columns = st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=40)


@given(values=columns, threshold=st.floats(-1, 1), seed=st.integers(0, 100), block=st.integers(1, 50))
@settings(max_examples=80, deadline=None)
def test_imagenet_like_prunes_strictly_larger_margins_and_only_those(values, threshold, seed, block) -> None:
    first = np.array(values, np.float32)
    second = np.roll(first, 1)
    full = np.random.default_rng(seed).random(len(first)) < 0.8
    with in_blocks_of(block):
        keep = rules.imagenet_like(full, [first, second], threshold)
    for row in range(len(first)):
        violated = float(first[row]) > threshold or float(second[row]) > threshold
        assert keep[row] == (bool(full[row]) and not violated)


@given(
    values=columns,
    thresholds=st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    seed=st.integers(0, 100),
    block=st.integers(1, 50),
)
@settings(max_examples=80, deadline=None)
def test_rows_pruned_counts_the_rows_that_the_rule_prunes(values, thresholds, seed, block) -> None:
    margins = [np.array(values, np.float32), np.roll(np.array(values, np.float32), 1)]
    # Some thresholds equal a margin.
    thresholds = [*thresholds, *values[:3]]
    full = np.random.default_rng(seed).random(len(values)) < 0.8
    with in_blocks_of(block):
        pruned = rules.rows_pruned(full, margins, thresholds)
    for threshold, count in zip(thresholds, pruned, strict=True):
        assert count == sum(full[row] and max(float(m[row]) for m in margins) > threshold for row in range(len(full)))
        assert count == full.sum() - rules.imagenet_like(full, margins, threshold).sum()


@given(
    values=columns,
    share=st.floats(0, 1),
    most=st.booleans(),
    join=st.sampled_from(["max", "mean"]),
    block=st.integers(1, 50),
)
@settings(max_examples=150, deadline=None)
def test_by_similarity_keeps_exactly_so_many_rows_and_the_lower_of_equal_ones(values, share, most, join, block) -> None:
    first = np.round(np.array(values, np.float32), 1)
    second = np.roll(first, 1)
    full = np.ones(len(values), bool)
    full[::3] = False
    count = int(share * full.sum())
    with in_blocks_of(block):
        keep = rules.by_similarity(full, [first, second], join, count, most_similar=most)
    similarity = [
        max(float(a), float(b)) if join == "max" else (float(a) + float(b)) / 2
        for a, b in zip(first, second, strict=True)
    ]
    order = sorted(np.flatnonzero(full), key=lambda row: (-similarity[row] if most else similarity[row], row))
    assert np.flatnonzero(keep).tolist() == sorted(order[:count])


def test_join() -> None:
    a, b = np.array([0.1, 0.5], np.float32), np.array([0.3, 0.1], np.float32)
    assert np.allclose(rules.join_similarities([a, b], "max"), [0.3, 0.5])
    assert np.allclose(rules.join_similarities([a, b], "mean"), [0.2, 0.3])


def test_random_is_seeded_and_exact() -> None:
    full = np.ones(100, bool)
    full[:50] = False
    first = rules.random(full, 20, 0)
    assert first.sum() == 20
    assert not (first & ~full).any()
    assert np.array_equal(first, rules.random(full, 20, 0))
    assert not np.array_equal(first, rules.random(full, 20, 1))
    assert np.array_equal(rules.random(full, 50, 0), full)
    assert not rules.random(full, 0, 0).any()


def drawn_at_once(full: np.ndarray, keep: int, seed: int) -> list[int]:
    return sorted(np.random.default_rng(seed).choice(np.flatnonzero(full), keep, replace=False))


@given(full=st.lists(st.booleans(), max_size=60), share=st.floats(0, 1), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_a_block_that_holds_all_rows_draws_as_if_there_were_no_blocks(full, share, seed) -> None:
    keep = int(share * sum(full))
    full = np.array(full, bool)
    assert np.flatnonzero(rules.random(full, keep, seed)).tolist() == drawn_at_once(full, keep, seed)
    among_empty_blocks = np.concatenate([np.zeros(120, bool), full, np.zeros(60 - len(full) + 120, bool)])
    with in_blocks_of(60):
        drawn = np.flatnonzero(rules.random(among_empty_blocks, keep, seed))
    assert (drawn - 120).tolist() == drawn_at_once(full, keep, seed)


@given(
    full=st.lists(st.booleans(), max_size=60), share=st.floats(0, 1), seed=st.integers(0, 9), block=st.integers(1, 60)
)
@settings(max_examples=100, deadline=None)
def test_random_in_blocks_draws_as_many_rows_as_asked(full, share, seed, block) -> None:
    full = np.array(full, bool)
    keep = int(share * full.sum())
    with in_blocks_of(block):
        drawn = rules.random(full, keep, seed)
        assert np.array_equal(rules.random(full, full.sum(), seed), full)
        assert not rules.random(full, 0, seed).any()
    assert drawn.sum() == keep
    assert not (drawn & ~full).any()


def test_random_in_blocks_draws_every_set_equally_often() -> None:
    full = np.array([1, 1, 0, 1, 1, 1, 0, 0, 1], bool)
    with in_blocks_of(2):
        draws = [tuple(np.flatnonzero(rules.random(full, 3, seed))) for seed in range(10_000)]
    sets, counts = np.unique(draws, axis=0, return_counts=True)
    assert len(sets) == 20
    # Each set is drawn with probability 0.05; five standard deviations of its count are 109.
    assert np.abs(counts - 500).max() < 109


def test_a_pool_too_large_for_a_random_draw_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "LARGEST_DRAW", 4)
    with pytest.raises(SimgapError, match=r"full has 4 rows; a random split needs fewer than 4 rows\."):
        rules.random(np.ones(4, bool), 2, 0)


@pytest.mark.parametrize("block", [7, 100])
def test_random_draws_every_row_equally_often(block: int) -> None:
    full = np.arange(100) % 4 > 0
    with in_blocks_of(block):
        draws = np.array([rules.random(full, 30, seed) for seed in range(2000)])
    assert (draws.sum(axis=1) == 30).all()
    # Each row is drawn with probability 0.4; five standard deviations of its share are 0.055.
    assert np.abs(draws[:, full].mean(axis=0) - 0.4).max() < 0.055
    assert not draws[:, ~full].any()


@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=60),
    seed=st.integers(0, 50),
    block=st.integers(1, 70),
)
@settings(max_examples=150, deadline=None)
def test_a_matched_control_has_as_many_rows_of_each_group(rows, seed, block) -> None:
    groups = np.array([group for group, _, _ in rows], np.int32)
    full = np.array([in_full for _, in_full, _ in rows], bool)
    kept = np.array([in_full and keeps for _, in_full, keeps in rows], bool)
    with in_blocks_of(block):
        drawn = rules.matched(full, kept, groups, seed)
        assert np.array_equal(drawn, rules.matched(full, kept, groups, seed))
    chosen = [row for row in range(len(rows)) if drawn[row]]
    assert all(full[row] for row in chosen)
    assert Counter(groups[row] for row in chosen) == Counter(
        group for (group, _, _), keeps in zip(rows, kept, strict=True) if keeps
    )
    for group in set(groups):
        if all(kept[row] for row in range(len(rows)) if full[row] and groups[row] == group):
            assert all(drawn[row] for row in range(len(rows)) if full[row] and groups[row] == group)


def test_a_matched_control_draws_every_set_of_a_group_equally_often() -> None:
    full = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1], bool)
    groups = np.array([0, 1, 0, 0, 0, 1, 0, 1, 1], np.int32)
    kept = np.isin(np.arange(9), [0, 1, 2])
    with in_blocks_of(2):
        draws = [tuple(np.flatnonzero(rules.matched(full, kept, groups, seed))) for seed in range(12_000)]
    # There are 24 sets: two of the rows 0, 2, 4, 6 and one of the rows 1, 5, 7, 8. Five standard deviations are 110.
    sets, counts = np.unique(draws, axis=0, return_counts=True)
    assert len(sets) == 24
    assert np.abs(counts - 500).max() < 110


def test_with_one_group_a_matched_control_is_a_random_split() -> None:
    full = np.arange(100) % 3 > 0
    kept = full & (np.arange(100) < 40)
    with in_blocks_of(16):
        drawn = rules.matched(full, kept, np.zeros(100, np.int32), 3)
        assert np.array_equal(drawn, rules.random(full, int(kept.sum()), 3))


@pytest.mark.parametrize(("keep", "rows"), [(0, 0), (3, 3), (0.25, 2), (1.0, 10), (0.0, 0), (0.7, 7)])
def test_keep_is_a_number_or_a_fraction_of_rows(keep, rows) -> None:
    assert rules.rows_to_keep(keep, 10, 10, "here") == rows


@pytest.mark.parametrize("keep", [11, -1, 1.5, True, "x"])
def test_an_invalid_keep_is_refused(keep) -> None:
    with pytest.raises(SimgapError, match="here is "):
        rules.rows_to_keep(keep, 10, 10, "here")


def full_split(row_order: str, rows: int) -> Split:
    return Split("full", {}, [], None, rows, rows, "all", True, row_order, None)


@pytest.fixture
def study(store, tmp_path):
    pool = store("pool", unit_rows(203, 8, 0), parts=2)
    queries = store("val", unit_rows(10, 8, 2), labels=[0] * 10)
    measure(
        SimilarityParameters(3),
        pool,
        store("reference", unit_rows(30, 8, 1)),
        queries,
        np.ones(10, bool),
        tmp_path / "similarity" / "val",
        tmp_path / "scratch",
    )
    write_split(full_split(pool.row_order, 203), np.ones(203, bool), tmp_path / "full")
    return tmp_path


def test_splits_on_disk(study) -> None:
    margin = np.load(study / "similarity" / "val" / "margin.npy")
    metrics = prune_imagenet_like(study / "full", study / "similarity", ["val"], 0.0, True, study / "like")
    split = read_split(study / "like")
    keep = read_keep(study / "like" / "keep.npy", split.pool_rows)
    assert np.array_equal(keep, margin <= 0)
    assert metrics["read"] == metrics["kept"] + metrics["dropped/pruned"] == 203
    assert metrics["degenerate"] == (split.kept < 0.2 * 203)
    bits = np.load(study / "like" / "keep.npy")
    assert bits.dtype == np.uint8
    assert np.array_equal(np.unpackbits(bits, count=203, bitorder="little").astype(bool), keep)

    best = np.load(study / "similarity" / "val" / "best.npy")
    for most in (True, False):
        out = study / f"ranked-{most}"
        content = prune_by_similarity(
            study / "full", study / "similarity", ["val"], "max", 0.25, True, out, most_similar=most
        )
        kept = best[read_keep(out / "keep.npy", 203)]
        gone = best[~read_keep(out / "keep.npy", 203)]
        assert len(kept) == content["kept"] == 50
        assert kept.min() >= gone.max() if most else kept.max() <= gone.min()
        assert ("most" if most else "least") in content["kept_description"]

    control = prune_random(study / "full", "like", split.kept, 1.0, 0, True, study / "control")
    assert control["kept"] == split.kept
    assert control["controls"] == "like"
    empty = prune_random(study / "full", "full", 203, 0, 0, True, study / "reference-only")
    assert empty["kept"] == 0


@pytest.mark.parametrize("add_to_pool", [True, False])
def test_a_split_without_pool_rows_is_trained_on_the_reference_by_every_rule(study, add_to_pool: bool) -> None:
    def joined(name: str) -> bool:
        return read_split(study / name).reference_rows

    full, similarity = study / "full", study / "similarity"
    # The stage `train` uses the reference alone for such a split, whatever joins the other splits.
    prune_imagenet_like(full, similarity, ["val"], -2.0, add_to_pool, study / "like")
    for most in (True, False):
        out = study / f"ranked-{most}"
        prune_by_similarity(full, similarity, ["val"], "max", 0, add_to_pool, out, most_similar=most)
        assert joined(out.name)
    prune_random(full, "like", 0, 1.0, 0, add_to_pool, study / "control")
    groups = np.zeros(203, np.int32)
    prune_matched(full, "like", study / "like" / "keep.npy", groups, "class", 0, add_to_pool, study / "matched")
    assert read_split(study / "like").kept == read_split(study / "matched").kept == 0
    assert joined("like")
    assert joined("control")
    assert joined("matched")
    prune_imagenet_like(full, similarity, ["val"], 0.0, add_to_pool, study / "some")
    assert joined("some") == add_to_pool


def test_a_matched_control_on_disk(study) -> None:
    like = prune_imagenet_like(study / "full", study / "similarity", ["val"], 0.0, True, study / "like")
    groups = (np.arange(203) % 5).astype(np.int32)
    arguments = ("like", study / "like" / "keep.npy", groups, "class", 0, True)
    content = prune_matched(study / "full", *arguments, study / "matched")
    split = read_split(study / "matched")
    assert (split.rule, split.controls) == ("matched", "like")
    assert split.parameters == {"size_of": "like", "match": "class", "seed": 0}
    assert content["kept"] == split.kept == like["kept"]
    assert content["read"] == content["kept"] + content["dropped/pruned"]
    assert content["kept_description"] == f"{like['kept']} rows drawn at random, as many of each class as like keeps"
    of_like, of_control = (read_keep(study / name / "keep.npy", 203) for name in ("like", "matched"))
    assert Counter(groups[of_control]) == Counter(groups[of_like])
    assert not np.array_equal(of_control, of_like)
    # In this smaller full, rows of the controlled split are missing.
    write_split(replace(full_split(split.row_order, 203), kept=3), np.arange(203) < 3, study / "less")
    with pytest.raises(SimgapError, match=r"like/keep\.npy: keeps rows that are not in .*less; run"):
        prune_matched(study / "less", *arguments, study / "other")
    assert not (study / "other").exists()


def test_a_larger_threshold_keeps_more_rows(study) -> None:
    kept = [
        prune_imagenet_like(study / "full", study / "similarity", ["val"], t, True, study / "s")["kept"]
        for t in (-0.5, 0.0, 0.1, 2.0)
    ]
    assert kept == sorted(kept)
    assert kept[-1] == 203


def test_columns_of_other_rows_are_refused(study) -> None:
    info = study / "similarity" / "val" / "similarity.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "row_order": "other"}))
    with pytest.raises(SimgapError, match="other pool rows"):
        prune_imagenet_like(study / "full", study / "similarity", ["val"], 0.0, True, study / "like")
    assert not (study / "like").exists()


def test_a_keep_larger_than_the_pool_is_refused(study) -> None:
    with pytest.raises(SimgapError, match=r"prune\.dissimilar\.big\.keep is 500; it must be at most 203, the rows"):
        prune_by_similarity(
            study / "full", study / "similarity", ["val"], "max", 500, True, study / "big", most_similar=True
        )
    assert not (study / "big").exists()


def test_bits_of_another_pool_are_refused(study) -> None:
    with pytest.raises(SimgapError, match="pool rows needs one bit"):
        read_keep(study / "full" / "keep.npy", 5000)
    with pytest.raises(ValueError, match="both must agree"):
        write_split(full_split("x", 5), np.zeros(5, bool), study / "wrong")
