"""The engine against exact sums of fractions, taken one pair at a time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from simgap.errors import SimgapError
from simgap.similarity.engine import NearestRows, answer_rows, exact_product, nearest_rows


def naive_similarity(a: np.ndarray, b: np.ndarray) -> Fraction:
    return sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), Fraction(0))


def naive_nearest(rows: np.ndarray, queries: np.ndarray, k: int) -> list[list[int]]:
    return [
        sorted(range(len(rows)), key=lambda row: (-naive_similarity(rows[row], query), row))[:k] for query in queries
    ]


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 23), queries=st.integers(1, 5), dim=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_similarity_is_exact(seed: int, rows: int, queries: int, dim: int) -> None:
    a, b = unit_rows(rows, dim, seed), unit_rows(queries, dim, seed + 1)
    product = exact_product(a, b.astype(np.float64))
    for row in range(rows):
        for query in range(queries):
            assert Fraction(float(product[row, query])) == naive_similarity(a[row], b[query])


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 40),
    queries=st.integers(1, 4),
    k=st.integers(1, 6),
    block=st.integers(1, 17),
)
@settings(max_examples=60, deadline=None)
def test_nearest_rows_over_any_blocks_with_ties_to_the_lower_row(
    seed: int, rows: int, queries: int, k: int, block: int
) -> None:
    a, b = unit_rows(rows, 3, seed), unit_rows(queries, 3, seed + 1)
    found = nearest_rows(((first, a[first : first + block]) for first in range(0, rows, block)), b, k)
    for query, expected in enumerate(naive_nearest(a, b, k)):
        assert found.row[query].tolist() == expected + [-1] * (k - len(expected))
        assert np.isneginf(found.similarity[query, len(expected) :]).all()


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 20), queries=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_answers_of_rows(seed: int, rows: int, queries: int) -> None:
    a, b, reference = unit_rows(rows, 4, seed), unit_rows(queries, 4, seed + 1), unit_rows(5, 4, seed + 2)
    s_reference = [max(naive_similarity(x, q) for x in reference) for q in b]
    answers = answer_rows(exact_product(a, b.astype(np.float64)), np.array([float(s) for s in s_reference]))
    for row in range(rows):
        similarities = [naive_similarity(a[row], q) for q in b]
        best = max(similarities)
        assert answers.best[row] == np.float32(float(best))
        assert answers.nearest_query[row] == similarities.index(best)
        margin = max(s - r for s, r in zip(similarities, s_reference, strict=True))
        assert answers.margin[row] == np.float32(float(margin))


def test_all_similarities_negative() -> None:
    rows = np.array([[-1, 0], [-0.6, -0.8]], np.float16)
    queries = np.array([[1, 0]], np.float16)
    answers = answer_rows(exact_product(rows, queries.astype(np.float64)), np.array([-0.9]))
    assert answers.best.max() < 0
    found = nearest_rows([(0, rows)], queries, 1)
    assert found.row[0, 0] == 1


def test_equal_bytes_in_pool_and_reference_have_margin_zero() -> None:
    rows = unit_rows(300, 64, 5)
    queries = unit_rows(20, 64, 6)
    reference = nearest_rows([(0, rows)], queries, 1).similarity[:, 0]
    margin = answer_rows(exact_product(rows, queries.astype(np.float64)), reference).margin
    assert margin.max() == 0


def test_rows_that_are_not_of_unit_norm_are_refused() -> None:
    for bad in ([[2.0, 0.0]], [[0.0, 0.0]], [[np.nan, 0.0]]):
        with pytest.raises(SimgapError, match="unit norm"):
            exact_product(np.array(bad, np.float16), np.eye(2))


def test_update_without_rows_changes_nothing() -> None:
    nearest = NearestRows(2, 3)
    nearest.update(0, np.empty((0, 2)))
    assert (nearest.row == -1).all()
