from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
import pytest
from conftest import unit_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output
from simgap.deduplicate import within_cluster
from simgap.deduplicate.centroids import assign, find_centroids, unit_centroids
from simgap.deduplicate.deduplicate import deduplicate
from simgap.params.deduplicate import DeduplicateParameters
from simgap.similarity.search import scan
from simgap.similarity.search.engines.cpu import CpuEngine
from simgap.store import arrays


def parameters(**changes) -> DeduplicateParameters:
    values = {"eps": 0.1, "clusters": 1, "iterations": 5, "sample": 1000, "seed": 0}
    return DeduplicateParameters(**{**values, **changes})


class Rows:
    """Vectors in memory, with the methods of a set that deduplication uses."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, (self.rows, self.dim) = vectors, vectors.shape

    def take(self, rows: np.ndarray) -> np.ndarray:
        assert (np.diff(rows) > 0).all()
        return self.vectors[rows]

    def parts(self):
        yield 0, self.vectors[: self.rows // 3]
        yield self.rows // 3, self.vectors[self.rows // 3 :]


def near_duplicates(vectors: np.ndarray, cluster: np.ndarray, clusters: int, eps: float, block_rows: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as scratch:
        return within_cluster.near_duplicates(
            Rows(vectors), cluster.astype(np.int32), clusters, eps, block_rows, Path(scratch)
        )


def naive(vectors: np.ndarray, cluster: np.ndarray, eps: float) -> list[bool]:
    """Compare all pairs, one at a time."""
    wide = vectors.astype(np.float64)
    return [
        any(wide[row] @ wide[lower] > 1 - eps for lower in range(row) if cluster[lower] == cluster[row])
        for row in range(len(wide))
    ]


def near(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Return the vectors with one or two components of each moved by one unit in the last fp16 place."""
    moved = vectors.copy()
    random = np.random.default_rng(seed)
    for row in moved:
        column = random.integers(0, len(row), 2)
        row[column] = np.nextafter(row[column], np.float16(1))
    return moved


@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 60),
    clusters=st.integers(1, 70),
    eps=st.sampled_from([0.0, 1e-3, 0.05, 0.3, 1.0, 2.0]),
    block=st.integers(1, 20),
    tile=st.integers(1, 9),
    section=st.integers(1, 3),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_a_row_goes_where_a_lower_one_of_its_cluster_is_too_similar(
    seed: int, rows: int, clusters: int, eps: float, block: int, tile: int, section: int
) -> None:
    vectors = unit_rows(rows, 4, seed)
    vectors[rows // 2 :] = near(vectors[: rows - rows // 2], seed)
    cluster = np.random.default_rng(seed).integers(0, clusters, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(within_cluster, "TILE_ROWS", tile)
        patch.setattr(within_cluster, "SECTION_BLOCKS", section)
        assert near_duplicates(vectors, cluster, clusters, eps, block).tolist() == naive(vectors, cluster, eps)


@pytest.mark.parametrize("block", [7, 100, 1000])
def test_pairs_at_the_limit_are_decided_by_their_exact_similarity(block: int) -> None:
    vectors = unit_rows(300, 64, 0)
    vectors[150:] = near(vectors[:150], 1)
    wide = vectors.astype(np.float64)
    cluster = np.zeros(300, np.int64)
    decided = set()
    for pair in range(4):
        exact = float(wide[pair] @ wide[150 + pair])
        # 1 - eps is exact here. The limit is the pair's own similarity, and then the next lower float64.
        at, below = 1 - exact, 1 - np.nextafter(exact, 0)
        assert (1 - at, 1 - below) == (exact, np.nextafter(exact, 0))
        for eps in (at, below):
            found = near_duplicates(vectors, cluster, 1, eps, block)
            assert found.tolist() == naive(vectors, cluster, eps)
            decided.add(bool(found[150 + pair]))
    assert decided == {True, False}


def test_a_dropped_row_still_drops_higher_ones() -> None:
    angle = np.radians([0, 20, 40])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float16)
    assert near_duplicates(vectors, np.zeros(3, np.int64), 1, 0.1, 2).tolist() == [False, True, True]


def test_neither_threads_nor_blocks_change_the_result(monkeypatch: pytest.MonkeyPatch, store, tmp_path: Path) -> None:
    vectors = unit_rows(900, 12, 3)
    pool = store("pool", vectors, parts=4)
    centroids = find_centroids(parameters(clusters=5), pool)
    found = []
    for number, (threads, block, tile) in enumerate([(1, 50, 1024), (3, 50, 7), (2, 333, 100), (8, 5000, 1)]):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, threads=threads: set(range(threads)))
        monkeypatch.setattr(CpuEngine, "tile_rows", tile)
        scratch = tmp_path / str(number)
        cluster = assign(pool, centroids, "cpu", scratch)
        found.append((cluster, within_cluster.near_duplicates(pool, cluster, 5, 0.2, block, scratch)))
    assert 0 < found[0][1].sum() < 900
    for cluster, duplicate in found[1:]:
        assert np.array_equal(cluster, found[0][0])
        assert np.array_equal(duplicate, found[0][1])


def test_a_row_s_cluster_is_the_lower_of_equally_near_centroids(tmp_path: Path) -> None:
    centroids = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 0, 0]], np.float16)
    rows = np.array([[0.6, 0.8, 0], [1, 0, 0], [0.7071, 0.7071, 0], [0, 0, -1], [0, 0, 1]], np.float16)
    assert assign(Rows(rows), centroids, "cpu", tmp_path).tolist() == [2, 1, 1, 1, 0]


@given(seed=st.integers(0, 1000), rows=st.integers(1, 40), clusters=st.integers(1, 12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_a_row_s_cluster_is_that_of_the_most_similar_centroid(seed: int, rows: int, clusters: int) -> None:
    vectors, centroids = unit_rows(rows, 3, seed), unit_rows(clusters, 3, seed + 1)
    with tempfile.TemporaryDirectory() as scratch:
        found = assign(Rows(vectors), centroids, "cpu", Path(scratch))
    for row, cluster in enumerate(found):
        similarity = [float(vectors[row].astype(np.float64) @ other.astype(np.float64)) for other in centroids]
        assert cluster == similarity.index(max(similarity))


def test_without_eps_all_rows_stay(tmp_path: Path) -> None:
    vectors = np.repeat(unit_rows(1, 4, 0), 5, axis=0)
    assert deduplicate(parameters(eps=None), Rows(vectors), "cpu", 16, tmp_path)[1].all()


def test_the_rows_that_stay_follow_from_the_centroids(store, tmp_path: Path) -> None:
    vectors = unit_rows(200, 8, 4)
    pool = store("pool", vectors, parts=3)
    centroids, keep = deduplicate(parameters(eps=0.2, clusters=6), pool, "cpu", 16, tmp_path / "scratch")
    assert centroids.shape == (6, 8)
    assert centroids.dtype == np.float16
    assert np.allclose(np.linalg.norm(centroids.astype(np.float64), axis=1), 1, atol=2e-3)
    cluster = (vectors.astype(np.float64) @ centroids.astype(np.float64).T).argmax(axis=1)
    assert keep.tolist() == [not dropped for dropped in naive(vectors, cluster, 0.2)]


def two_clusters() -> tuple[np.ndarray, np.ndarray]:
    """Draw two clusters of 1000 unit vectors around opposite directions, and return them with their unit-norm means."""
    random = np.random.default_rng(0)
    side = np.repeat([[1], [-1]], 1000, axis=0) * np.array([[2, 0, 0, 0]])
    vectors = side + 0.5 * random.standard_normal((2000, 4))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    mean = unit.astype(np.float64).reshape(2, 1000, 4).mean(axis=1)
    return unit, mean / np.linalg.norm(mean, axis=1, keepdims=True)


def test_all_of_the_seeded_sample_is_used() -> None:
    unit, mean = two_clusters()
    found = find_centroids(parameters(clusters=2, sample=2000), Rows(unit))
    # By default, FAISS would use 256 rows for each cluster, and their mean is different.
    assert np.allclose(sorted(found.tolist()), sorted(mean.tolist()), atol=1e-3)


def test_the_sample_is_drawn_with_the_seed() -> None:
    pool = Rows(unit_rows(500, 8, 0))
    first, again, other = (find_centroids(parameters(clusters=4, sample=100, seed=seed), pool) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_cluster_without_direction_gets_a_row_of_the_sample() -> None:
    sample = unit_rows(5, 3, 0).astype(np.float32)
    found = np.array([[0, 0, 0], [3, 4, 0], [np.nan, 1, 0], [np.inf, 1, 0]], np.float32)
    expected = sample[:4].copy()
    expected[1] = [0.6, 0.8, 0]
    assert np.array_equal(unit_centroids(found, sample), expected.astype(np.float16))


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_k_means_runs_on_gpus_if_faiss_finds_one(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result on the CPU stands in for that of a GPU."""
    pool, real, used = Rows(unit_rows(500, 8, 0)), faiss.Kmeans, []
    expected = find_centroids(parameters(clusters=4), pool)

    def kmeans(*sizes: int, gpu: bool, **options):
        used.append(gpu)
        return real(*sizes, **options)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: gpus)
    monkeypatch.setattr(faiss, "Kmeans", kmeans)
    assert np.array_equal(find_centroids(parameters(clusters=4), pool), expected)
    assert used == [gpus > 0]


@pytest.mark.gpu
@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="FAISS has no GPU support or finds no GPU")
def test_k_means_on_a_gpu_finds_the_means_of_the_clusters() -> None:
    unit, mean = two_clusters()
    found, again = (find_centroids(parameters(clusters=2, sample=2000), Rows(unit)) for _ in range(2))
    assert np.allclose(sorted(found.tolist()), sorted(mean.tolist()), atol=1e-3)
    assert np.array_equal(found, again)


def test_more_clusters_than_rows() -> None:
    with pytest.raises(SimgapError, match=r"deduplicate\.clusters is 9, .* at most 8 clusters"):
        find_centroids(parameters(clusters=9), Rows(unit_rows(8, 4, 0)))


@pytest.mark.parametrize("clusters", [1, 3])
def test_a_row_that_is_not_of_unit_norm_is_refused(clusters: int, tmp_path: Path) -> None:
    vectors = unit_rows(30, 4, 0)
    centroids = find_centroids(parameters(clusters=clusters), Rows(vectors))
    np.save(tmp_path / "centroids.npy", centroids)
    vectors[17] = np.nan
    with pytest.raises(SimgapError, match="unit norm"):
        deduplicate(parameters(clusters=clusters), Rows(vectors), "cpu", 16, tmp_path)


class Killed(Exception):
    """Raised in place of a signal that kills a stage."""


@pytest.mark.parametrize("writes", range(8))
def test_a_killed_run_goes_on_and_ends_with_the_same(
    writes: int, monkeypatch: pytest.MonkeyPatch, store, tmp_path: Path
) -> None:
    pool = store("pool", unit_rows(200, 8, 4), parts=3)
    chosen = parameters(eps=0.2, clusters=4)
    monkeypatch.setattr(within_cluster, "SECTION_BLOCKS", 4)
    expected = deduplicate(chosen, pool, "cpu", 16, tmp_path / "undisturbed")
    written: list[str] = []

    @contextmanager
    def killed(path: Path) -> Iterator[Path]:
        with atomic_output(path) as partial:
            yield partial
            if len(written) == writes:
                raise Killed
        written.append(path.name)

    for module in (arrays, scan):
        monkeypatch.setattr(module, "atomic_output", killed)
    with pytest.raises(Killed):
        deduplicate(chosen, pool, "cpu", 16, tmp_path / "scratch")
    before = list(written)
    writes = 100
    centroids, keep = deduplicate(chosen, pool, "cpu", 16, tmp_path / "scratch")
    assert np.array_equal(centroids, expected[0])
    assert np.array_equal(keep, expected[1])
    assert len(written) == len(set(written)) == 8
    assert written[: len(before)] == before


def test_planted_near_duplicates_are_found(store, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    centres = random.standard_normal((8, 48))
    vectors = centres[random.integers(0, 8, 3000)] + 0.6 * random.standard_normal((3000, 48))
    copies = random.permutation(3000)[:600].reshape(2, 300)
    vectors[copies[1]] = vectors[copies[0]] + 0.1 * random.standard_normal((300, 48))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    _, keep = deduplicate(
        parameters(eps=0.05, clusters=8, sample=3000), store("pool", unit), "cpu", 512, tmp_path / "scratch"
    )
    assert (~keep[copies.max(axis=0)]).mean() >= 0.99
    wide = unit.astype(np.float64)
    has_lower_neighbour = (np.tril(wide @ wide.T, -1) > 1 - 0.05).any(axis=1)
    assert has_lower_neighbour[~keep].all()


def test_a_sampled_row_that_is_no_direction_is_refused(store) -> None:
    vectors = unit_rows(50, 8, 0)
    vectors[7] = np.nan
    with pytest.raises(SimgapError, match="unit norm"):
        find_centroids(parameters(clusters=3), store("pool", vectors))
