from __future__ import annotations

import numpy as np
import pytest
from conftest import unit_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simgap.deduplicate.deduplicate import assign, deduplicate, duplicates_within, find_centroids
from simgap.deduplicate.parameters import DeduplicateParameters
from simgap.errors import SimgapError


def parameters(**changes) -> DeduplicateParameters:
    values = {"eps": 0.1, "clusters": 1, "iterations": 5, "sample": 1000, "seed": 0, "block_rows": 16}
    return DeduplicateParameters(**{**values, **changes})


class Rows:
    """Vectors in memory, with what deduplication asks of a set."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, (self.rows, self.dim) = vectors, vectors.shape

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.vectors[rows]

    def blocks(self, rows: int):
        for first in range(0, self.rows, rows):
            yield first, self.vectors[first : first + rows]


@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 60),
    eps=st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.0]),
    block=st.integers(1, 20),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_a_row_goes_where_a_lower_one_of_its_cluster_is_too_similar(
    seed: int, rows: int, eps: float, block: int
) -> None:
    vectors = unit_rows(rows, 4, seed)
    cluster = np.random.default_rng(seed).integers(0, 3, rows)
    exact = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    for number in range(3):
        members = np.flatnonzero(cluster == number)
        found = duplicates_within(Rows(vectors), members, eps, block)
        expected = [any(exact[a, b] > 1 - eps for b in members if b < a) for a in members]
        assert found.tolist() == expected


def test_a_dropped_row_still_drops_higher_ones() -> None:
    angle = np.radians([0, 20, 40])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float16)
    keep = deduplicate(parameters(eps=0.1), Rows(vectors), np.zeros((1, 2), np.float32))
    assert keep.tolist() == [True, False, False]


def test_without_eps_all_rows_stay() -> None:
    vectors = np.repeat(unit_rows(1, 4, 0), 5, axis=0)
    assert deduplicate(parameters(eps=None), Rows(vectors), np.zeros((1, 4), np.float32)).all()


def test_given_the_centroids_the_result_is_a_plain_search_within_clusters(store) -> None:
    vectors = unit_rows(200, 8, 4)
    pool = store("pool", vectors, parts=3)
    chosen = parameters(eps=0.2, clusters=6)
    centroids = find_centroids(chosen, pool)
    assert centroids.shape == (6, 8)
    assert np.array_equal(centroids, find_centroids(chosen, pool))
    cluster = assign(pool, centroids, 64)
    scores = (vectors.astype(np.float64) @ centroids.astype(np.float64).T).astype(np.float32)
    assert np.array_equal(cluster, scores.argmax(axis=1))
    exact = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    keep = deduplicate(chosen, pool, centroids)
    for row in range(200):
        lower = [other for other in range(row) if cluster[other] == cluster[row]]
        assert keep[row] == (not any(exact[row, other] > 0.8 for other in lower))


def test_more_clusters_than_rows() -> None:
    with pytest.raises(SimgapError, match=r"deduplicate\.clusters: 9"):
        find_centroids(parameters(clusters=9), Rows(unit_rows(8, 4, 0)))
