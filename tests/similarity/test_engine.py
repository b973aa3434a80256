"""The engine against naive float64, in which every pair is taken by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from simgap.errors import SimgapError
from simgap.similarity import engine as module
from simgap.similarity.engine import Engine, Nearest, NearestCandidates


def naive(
    rows: np.ndarray, queries: np.ndarray, reference_similarity: np.ndarray, used: np.ndarray, k: int
) -> dict[str, Any]:
    similarity = np.array([[np.dot(x.astype(float), q.astype(float)) for q in queries] for x in rows])
    rule = np.flatnonzero(used)
    nearest = [sorted(range(len(rows)), key=lambda row: (-similarity[row, q], row))[:k] for q in range(len(queries))]
    return {
        "best": similarity[:, rule].max(axis=1).astype(np.float32),
        "nearest_query": rule[similarity[:, rule].argmax(axis=1)],
        "margin": (similarity - reference_similarity)[:, rule].max(axis=1).astype(np.float32),
        "row": [found + [-1] * (k - len(found)) for found in nearest],
        "similarity": [
            [similarity[row, q] for row in found] + [-np.inf] * (k - len(found)) for q, found in enumerate(nearest)
        ],
    }


def answers(
    rows: np.ndarray, queries: np.ndarray, reference_similarity: np.ndarray, used: np.ndarray, k: int, tile: int
) -> dict[str, Any]:
    engine = Engine(queries, k, reference_similarity, used)
    nearest = NearestCandidates(k, engine.error, np.full(len(queries), -np.inf))
    of_rows = []
    for first in range(0, len(rows), tile):
        found, candidates = engine.answer(first, rows[first : first + tile], nearest.bound)
        of_rows.append(found)
        nearest.update(candidates)
    decided = nearest.decide(queries, lambda chosen: rows[chosen])
    return {
        **{name: np.concatenate([getattr(a, name) for a in of_rows]) for name in ("best", "nearest_query", "margin")},
        "row": decided.row.tolist(),
        "similarity": decided.similarity.tolist(),
    }


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in ("best", "nearest_query", "margin"):
        assert np.array_equal(found[name], expected[name]), name
    assert found["row"] == expected["row"]
    assert found["similarity"] == expected["similarity"]


def dense(count: int, dim: int, seed: int) -> np.ndarray:
    """Unit vectors in all directions, a third of them repeated."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, dim))
    vectors[random.random(count) < 0.3] = vectors[0]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 90),
    queries=st.integers(1, 20),
    dim=st.integers(1, 40),
    k=st.integers(1, 9),
    tile=st.integers(1, 50),
    block=st.integers(1, 30),
    grid=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_bits_are_those_of_naive_float64(seed, rows, queries, dim, k, tile, block, grid) -> None:
    draw = unit_rows if grid else dense
    a, b, reference = draw(rows, dim, seed), draw(queries, dim, seed + 1), draw(5, dim, seed + 2)
    used = np.random.default_rng(seed).random(queries) < 0.6
    used[0] = True
    s_reference = (reference.astype(float) @ b.astype(float).T).max(axis=0)
    size, module.BLOCK_QUERIES = module.BLOCK_QUERIES, block
    try:
        found = answers(a, b, s_reference, used, k, tile)
    finally:
        module.BLOCK_QUERIES = size
    assert_equal(found, naive(a, b, s_reference, used, k))


@pytest.mark.parametrize(
    ("rows", "queries"),
    [
        (dense(1, 64, 0), dense(1, 64, 1)),
        (np.repeat(dense(1, 64, 0), 300, axis=0), dense(6, 64, 1)),
        (-np.abs(dense(200, 16, 0)), np.abs(dense(5, 16, 1))),
        (np.eye(64, dtype=np.float16)[::-1], np.eye(64, dtype=np.float16)),
        (
            # The smallest subnormal beside the largest component.
            np.array([[1, 6e-8, 0], [1, 0, 6e-8], [1, 0, 0], [6e-8, 1, 0]], np.float16),
            np.array([[6e-8, 1, 0], [6e-8, 6e-8, 1], [1, 6e-8, 6e-8]], np.float16),
        ),
    ],
    ids=["one of each", "one vector repeated", "all negative", "orthogonal", "subnormal"],
)
def test_extremes(rows: np.ndarray, queries: np.ndarray) -> None:
    used = np.ones(len(queries), bool)
    s_reference = (rows[:1].astype(float) @ queries.astype(float).T)[0]
    expected = naive(rows, queries, s_reference, used, 3)
    for tile in (1, 64, 1000):
        assert_equal(answers(rows, queries, s_reference, used, 3, tile), expected)


def test_rows_that_fp32_cannot_tell_apart() -> None:
    """Neighbours one unit in the last fp16 place apart: their similarities differ by less than fp32 products are wrong by."""
    random = np.random.default_rng(0)
    base = dense(1, 640, 3)[0]
    rows = np.repeat(base[None], 400, axis=0)
    for row in range(400):
        place = random.integers(640)
        rows[row, place] = np.nextafter(rows[row, place], np.float16(1 if row % 2 else -1))
    queries = np.concatenate([rows[:5], dense(5, 640, 4)])
    used = np.ones(10, bool)
    s_reference = (base[None].astype(float) @ queries.astype(float).T)[0]
    assert_equal(answers(rows, queries, s_reference, used, 8, 150), naive(rows, queries, s_reference, used, 8))


def test_equal_bytes_in_pool_and_reference_have_margin_zero() -> None:
    rows, queries = dense(300, 64, 5), dense(20, 64, 6)
    s_reference = (rows.astype(float) @ queries.astype(float).T).max(axis=0)
    assert answers(rows, queries, s_reference, np.ones(20, bool), 1, 128)["margin"].max() == 0


def test_thousands_of_violators_of_one_query_are_all_found() -> None:
    query = np.array([[1.0, 0.0]], np.float16)
    angle = np.linspace(0.01, 1.5, 5000)
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float16)
    found = answers(rows, query, np.array([-1.0]), np.ones(1, bool), 2, 700)
    assert (found["margin"] > 0).all()


def test_neighbours_of_parts_merge_to_those_of_the_whole() -> None:
    rows, queries = unit_rows(120, 4, 0), unit_rows(6, 4, 1)
    expected = naive(rows, queries, np.zeros(6), np.ones(6, bool), 5)
    merged = Nearest.none(6, 5)
    for start, stop in ((0, 1), (1, 50), (50, 50), (50, 120)):
        engine = Engine(queries, 5)
        candidates = NearestCandidates(5, engine.error, merged.similarity[:, -1])
        if stop > start:
            of_rows, found = engine.answer(start, rows[start:stop], candidates.bound)
            assert of_rows is None
            candidates.update(found)
        merged = merged.merged(candidates.decide(queries, lambda chosen: rows[chosen]))
    assert merged.row.tolist() == expected["row"]
    assert merged.similarity.tolist() == expected["similarity"]


def test_vectors_that_are_no_directions_are_refused() -> None:
    with pytest.raises(SimgapError, match="unit norm"):
        Engine(np.zeros((1, 2), np.float16), 1)
    with pytest.raises(SimgapError, match="unit norm"):
        Engine(np.eye(2, dtype=np.float16), 1).answer(0, np.array([[np.nan, 1]], np.float16), np.zeros(2, np.float32))
