from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import unit_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simgap.core.errors import SimgapError
from simgap.params.similarity import SimilarityParameters
from simgap.profile import certificate
from simgap.profile import profile as profiles
from simgap.profile.certificate import certify, check_bound, queries_to_check
from simgap.profile.profile import known_nearest, profile, rows_by_class, threshold_curve
from simgap.prune.prune import prune_imagenet_like, prune_random
from simgap.similarity.measure import measure
from simgap.similarity.search.nearest import Nearest
from simgap.store.columns import QUERIES_FILE, Similarity
from simgap.store.split import Split, read_keep, read_split, write_split

ROWS, QUERIES = 120, 9


class Study:
    """A pool, a reference and a benchmark with measured similarity, and one imagenet-like split."""

    def __init__(self, store, folder, pool_rows: int = ROWS, neighbours: int = 2) -> None:
        self.folder, self.rows = folder, pool_rows
        self.pool = store("pool", unit_rows(pool_rows, 6, 0), parts=2)
        self.reference = store("reference", unit_rows(15, 6, 1))
        self.benchmark = store("val", unit_rows(QUERIES, 6, 2), labels=[0] * QUERIES)
        measure(
            SimilarityParameters(neighbours),
            self.pool,
            self.reference,
            self.benchmark,
            np.arange(QUERIES) < 6,
            folder / "similarity" / "val",
            folder / "scratch",
        )
        full = Split("full", {}, [], None, pool_rows, pool_rows, "all", True, self.pool.row_order, None)
        write_split(full, np.ones(pool_rows, bool), folder / "full")
        prune_imagenet_like(folder / "full", folder / "similarity", ["val"], 0.0, True, folder / "like")

    def similarity(self) -> Similarity:
        return Similarity(self.folder / "similarity" / "val")

    def exact(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute all similarities of the pool [rows, queries], and the largest ones of the reference [queries]."""
        queries = self.benchmark.read().astype(np.float64).T
        return (
            self.pool.read().astype(np.float64) @ queries,
            (self.reference.read().astype(np.float64) @ queries).max(axis=0),
        )

    def profile(self, split: Split, keep: np.ndarray) -> dict:
        sets = {"val": (self.benchmark, self.similarity())}
        full = read_keep(self.folder / "full" / "keep.npy", self.rows)
        return profile(split, keep, full, self.pool, self.reference, sets, "auto", self.folder / "out")

    def certify(self, keep: np.ndarray) -> dict:
        return certify(keep, 0.0, self.pool, self.reference, self.benchmark, self.similarity(), "here")

    def table(self) -> pa.Table:
        return pq.read_table(self.folder / "out" / "val.parquet")


@pytest.fixture
def study(store, tmp_path) -> Study:
    return Study(store, tmp_path)


@contextmanager
def in_blocks_of(rows: int) -> Iterator[None]:
    size, profiles.BLOCK_ROWS = profiles.BLOCK_ROWS, rows
    try:
        yield
    finally:
        profiles.BLOCK_ROWS = size


@given(share=st.floats(0, 1), seed=st.integers(0, 1000), block=st.integers(1, 70))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_profile_is_what_a_plain_scan_gives(study, share, seed, block) -> None:
    keep = np.random.default_rng(seed).random(ROWS) < share
    split = replace(read_split(study.folder / "full"), kept=int(keep.sum()))
    with in_blocks_of(block):
        metrics = study.profile(split, keep)
    exact, reference = study.exact()
    kept = np.max(exact[keep], axis=0, initial=-np.inf).astype(np.float32)
    reference = reference.astype(np.float32)
    similarity = study.table().column("similarity")
    assert similarity.null_count == (0 if keep.any() else QUERIES)
    assert np.array_equal(similarity.to_numpy(zero_copy_only=False) if keep.any() else kept, kept)
    for query, rows in enumerate(study.table().column("nearest_rows").to_pylist()):
        assert rows == sorted(np.flatnonzero(keep), key=lambda row: (-exact[row, query], row))[:2]
        stored = study.table().column("nearest_similarities")[query].as_py()
        assert stored == exact[rows, query].astype(np.float32).tolist()
    joined = study.table().column("similarity_with_reference").to_numpy()
    assert np.array_equal(joined, np.maximum(kept, reference))
    gap = np.maximum(kept, reference).astype(float) - reference.astype(float)
    assert metrics["val/gap_to_reference_mean"] == pytest.approx(gap.mean(), abs=1e-12)
    if keep.any():
        order = [sorted(range(ROWS), key=lambda row: (-exact[row, q], row))[:2] for q in range(QUERIES)]
        assert metrics["val/queries_rescanned"] == sum(keep[rows].sum() < min(2, keep.sum()) for rows in order)
        assert metrics["val/nearer_than_reference_share"] == (kept > reference).mean()
        assert metrics["val/similarity/smallest"] == kept.min()
        assert metrics["val/similarity/mean"] == pytest.approx(kept.astype(float).mean(), abs=1e-12)
    else:
        assert set(metrics) == {"val/gap_to_reference_mean"}


def test_the_kept_ones_of_the_stored_rows_come_first() -> None:
    keep = np.array([False, True, False, True])
    rows = np.array([[0, 1, 3], [2, 0, -1], [3, 1, 0], [-1, -1, -1]])
    similarities = np.array([[0.9, 0.8, 0.7], [0.5, 0.4, -np.inf], [0.3, 0.3, 0.1], [-np.inf] * 3])
    known = known_nearest(keep, Nearest(similarities, rows))
    none = -np.inf
    assert known.row.tolist() == [[1, 3, -1], [-1, -1, -1], [3, 1, -1], [-1, -1, -1]]
    assert known.similarity.tolist() == [[0.8, 0.7, none], [none] * 3, [0.3, 0.3, none], [none] * 3]


@given(seed=st.integers(0, 1000), block=st.integers(1, 70))
def test_rows_are_counted_by_the_class_of_their_nearest_query(seed: int, block: int) -> None:
    random = np.random.default_rng(seed)
    labels, nearest = random.integers(0, 4, 9).astype(np.int32), random.integers(0, 9, 50).astype(np.int32)
    full = random.random(50) < 0.9
    keep = full & (random.random(50) < 0.5)
    with in_blocks_of(block):
        of_full, of_kept = rows_by_class(full, keep, nearest, labels)
    assert len(of_full) == labels.max() + 1
    for label in range(len(of_full)):
        rows = [row for row in range(50) if labels[nearest[row]] == label]
        assert (of_full[label], of_kept[label]) == (full[rows].sum(), keep[rows].sum())


def test_a_pool_of_fewer_rows_than_neighbours(store, tmp_path) -> None:
    study = Study(store, tmp_path, pool_rows=5, neighbours=8)
    keep = np.array([False, False, True, False, True])
    metrics = study.profile(replace(read_split(study.folder / "full"), kept=2), keep)
    exact, _ = study.exact()
    assert metrics["val/queries_rescanned"] == 0
    assert np.array_equal(study.table().column("similarity").to_numpy(), exact[keep].max(axis=0).astype(np.float32))


def test_an_imagenet_like_split_is_certified(study) -> None:
    split = read_split(study.folder / "like")
    keep = read_keep(study.folder / "like" / "keep.npy", ROWS)
    metrics = study.profile(split, keep)
    exact, reference = study.exact()
    slack = reference[:6] - exact[keep].max(axis=0)[:6]
    assert metrics["val/certificate/queries"] == metrics["val/certificate/queries_checked"] == 6
    assert metrics["val/certificate/sampled"] is False
    assert metrics["val/certificate/violations"] == 0
    assert metrics["val/certificate/slack/smallest"] == np.float32(slack.min())
    assert metrics["val/certificate/slack/mean"] == slack.astype(np.float32).astype(float).mean()
    assert metrics["val/certificate/slack/quantile_0.5"] == np.median(slack.astype(np.float32).astype(float))


def test_other_splits_have_a_profile_and_no_certificate(study) -> None:
    prune_random(study.folder / "full", "like", 40, 1.0, 0, True, study.folder / "control")
    split = read_split(study.folder / "control")
    metrics = study.profile(split, read_keep(study.folder / "control" / "keep.npy", ROWS))
    assert "val/similarity/mean" in metrics
    assert not [key for key in metrics if "certificate" in key or key.startswith("rows_pruned_at")]


def test_a_sample_of_queries_is_checked_where_there_are_many_pairs(study, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = read_keep(study.folder / "like" / "keep.npy", ROWS)
    whole = study.certify(keep)
    # In the first case five queries are checked; in the second the minimum, one.
    for pairs, checked in ((6 * keep.sum() - 1, 5), (1, 1)):
        monkeypatch.setattr(certificate, "PAIRS", int(pairs))
        metrics = study.certify(keep)
        assert metrics["certificate/queries"] == 6
        assert metrics["certificate/queries_checked"] == checked
        assert metrics["certificate/sampled"] is True
        assert metrics["certificate/slack/smallest"] >= whole["certificate/slack/smallest"]
        assert metrics == study.certify(keep)
        monkeypatch.setattr(certificate, "PAIRS", checked * ROWS)
        with pytest.raises(SimgapError, match=f"of {checked} queries are closer"):
            study.certify(np.ones(ROWS, bool))


@given(used=st.lists(st.booleans(), min_size=1, max_size=40), kept=st.integers(0, 30), pairs=st.integers(1, 200))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_queries_to_check(used, kept, pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "PAIRS", pairs)
    used = np.array(used)
    checked = queries_to_check(used, kept)
    assert used[checked].all()
    assert checked.tolist() == sorted(set(checked.tolist()))
    if used.sum() * kept <= pairs:
        assert len(checked) == used.sum()
    else:
        assert len(checked) == max(1, pairs // kept)


def test_a_split_that_breaks_its_rule_is_found(study) -> None:
    split = replace(read_split(study.folder / "like"), kept=ROWS)
    with pytest.raises(
        SimgapError, match=r"split out, benchmark val: . of 6 queries .* does not follow its rule; prune again"
    ):
        study.profile(split, np.ones(ROWS, bool))
    assert not (study.folder / "out").exists()


def test_a_reference_similarity_that_is_not_the_reference_s_is_found(study) -> None:
    path = study.folder / "similarity" / "val" / QUERIES_FILE
    table = pq.read_table(path)
    stored = table.column("reference_similarity").to_numpy().copy()
    stored[2] = np.nextafter(stored[2], np.float32(1))
    place = table.schema.get_field_index("reference_similarity")
    pq.write_table(table.set_column(place, "reference_similarity", pa.array(stored)), path)
    with pytest.raises(SimgapError, match="here: 1 of 6 reference similarities"):
        study.certify(read_keep(study.folder / "like" / "keep.npy", ROWS))


def test_similarity_of_other_queries_is_refused(study) -> None:
    path = study.folder / "similarity" / "val" / QUERIES_FILE
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(SimgapError, match=r"val has 8 queries, but .*val has 9; measure the similarity again"):
        study.profile(read_split(study.folder / "full"), np.ones(ROWS, bool))


def test_without_pool_rows_the_profile_is_the_reference(study) -> None:
    split = replace(read_split(study.folder / "full"), rule="random", kept=0)
    assert study.profile(split, np.zeros(ROWS, bool)) == {"val/gap_to_reference_mean": 0.0}
    assert study.table().column("similarity").null_count == QUERIES


def test_the_bound_is_inclusive() -> None:
    content = check_bound(np.array([0.5, 0.6]), np.array([0.5, 0.5]), float(np.float32(0.6 - 0.5)), "here")
    assert content["certificate/violations"] == 0
    with pytest.raises(SimgapError, match="1 of 2 queries"):
        check_bound(np.array([0.5, 0.6]), np.array([0.5, 0.5]), 0.09, "here")


def test_the_curve_has_the_split_s_own_threshold(study) -> None:
    margin = np.load(study.folder / "similarity" / "val" / "margin.npy")
    for threshold in (0.0, 0.0123):
        out = study.folder / "another"
        prune_imagenet_like(study.folder / "full", study.folder / "similarity", ["val"], threshold, True, out)
        split = read_split(out)
        metrics = study.profile(split, read_keep(out / "keep.npy", ROWS))
        curve = {key.split("/")[1]: value for key, value in metrics.items() if key.startswith("rows_pruned_at/")}
        assert curve[str(threshold)] == ROWS - split.kept
        assert curve == {str(t): (margin > t).sum() for t in sorted({*profiles.THRESHOLDS, threshold})}


def test_a_split_of_other_margins_is_found() -> None:
    margins = [np.array([0.1, -0.1, 0.2], np.float32)]
    assert threshold_curve(1, 0.0, np.ones(3, bool), margins, "here")["rows_pruned_at/0.0"] == 2
    with pytest.raises(
        SimgapError, match=r"here: the split keeps 2 of 3 rows, but 2 have a margin above 0\.0; prune again"
    ):
        threshold_curve(2, 0.0, np.ones(3, bool), margins, "here")
