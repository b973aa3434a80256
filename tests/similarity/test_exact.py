"""Compare canonical similarity with exact sums of fractions, one pair at a time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from simgap.core.errors import SimgapError
from simgap.similarity.search.exact import exact_pairs, exact_product, screening_error


def naive_similarity(a: np.ndarray, b: np.ndarray) -> Fraction:
    return sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), Fraction(0))


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 23), queries=st.integers(1, 5), dim=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_similarity_is_exact(seed: int, rows: int, queries: int, dim: int) -> None:
    a, b = unit_rows(rows, dim, seed), unit_rows(queries, dim, seed + 1)
    product = exact_product(a, b.astype(np.float64))
    row, query = (index.ravel() for index in np.indices((rows, queries)))
    assert np.array_equal(exact_pairs(a.astype(np.float32), b.astype(np.float32), row, query), product.ravel())
    for i in range(rows):
        for j in range(queries):
            assert Fraction(float(product[i, j])) == naive_similarity(a[i], b[j])


def test_many_pairs_are_taken_in_turns() -> None:
    a, b = unit_rows(50, 4, 0), unit_rows(7, 4, 1)
    random = np.random.default_rng(0)
    row, query = random.integers(0, 50, 10_000), random.integers(0, 7, 10_000)
    assert np.array_equal(
        exact_pairs(a.astype(np.float32), b.astype(np.float32), row, query),
        exact_product(a, b.astype(np.float64))[row, query],
    )


@pytest.mark.parametrize("dim", [3, 64, 640])
def test_no_fp32_product_is_further_off_than_the_bound(dim: int) -> None:
    random = np.random.default_rng(dim)
    a = random.standard_normal((400, dim)) + 2
    a = (a / np.linalg.norm(a, axis=1, keepdims=True)).astype(np.float16)
    exact = exact_product(a, a.astype(np.float64))
    for screened in (
        a.astype(np.float32) @ a.astype(np.float32).T,
        a.astype(np.float32) @ a[:, ::-1].astype(np.float32)[:, ::-1].T,
    ):
        assert np.abs(screened.astype(np.float64) - exact).max() < screening_error(dim)


def test_rows_that_are_not_of_unit_norm_are_refused() -> None:
    for bad in ([[2.0, 0.0]], [[0.0, 0.0]], [[np.nan, 0.0]], [[np.inf, 0.0]]):
        with pytest.raises(SimgapError, match="unit norm"):
            exact_product(np.array(bad, np.float16), np.eye(2))
