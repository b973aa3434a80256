"""Test the GPU engine on a GPU if there is one, else on small data with Triton's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_engine import assert_equal, dense, naive, search, unit_rows

from simgap.core.errors import SimgapError
from simgap.similarity.search.engines.engine import SearchRequest
from simgap.similarity.search.engines.gpu import GpuEngine

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def engine(*arguments) -> GpuEngine:
    return GpuEngine(SearchRequest(*arguments), device=DEVICE)


@pytest.mark.parametrize("draw", [dense, unit_rows])
@pytest.mark.parametrize(
    ("rows", "queries", "dim", "k", "tile"), [(1, 1, 1, 1, 10), (200, 150, 40, 3, 1000), (300, 20, 70, 2, 140)]
)
def test_bits_are_those_of_naive_float64(draw, rows: int, queries: int, dim: int, k: int, tile: int) -> None:
    a, b, reference = draw(rows, dim, 0), draw(queries, dim, 1), draw(5, dim, 2)
    used = np.random.default_rng(0).random(queries) < 0.6
    used[0] = True
    s_reference = (reference.astype(float) @ b.astype(float).T).max(axis=0)
    found = search(engine(b, k, s_reference, used), a, tile, parts=2)
    assert_equal(found, naive(a, b, s_reference, used, k))


def test_ties_and_repeated_rows() -> None:
    rows = np.repeat(dense(1, 64, 0), 300, axis=0)
    queries = np.concatenate([dense(6, 64, 1), rows[:1]])
    s_reference = (rows[:1].astype(float) @ queries.astype(float).T)[0]
    used = np.ones(7, bool)
    assert_equal(search(engine(queries, 3, s_reference, used), rows, 200), naive(rows, queries, s_reference, used, 3))


def test_without_a_rule_only_neighbours_are_given() -> None:
    rows, queries = dense(200, 16, 0), dense(3, 16, 1)
    row_results, _ = engine(queries, 2).search(0, rows, np.full(3, -np.inf, np.float32))
    assert row_results is None


def test_a_tile_that_does_not_fit_is_halved(monkeypatch) -> None:
    rows, queries = dense(300, 16, 0), dense(9, 16, 1)
    used = np.ones(9, bool)
    whole, sizes = GpuEngine._search, []

    def fits_up_to_a_hundred(self, first_row, tile, bound):
        sizes.append(len(tile))
        if len(tile) > 100:
            raise torch.cuda.OutOfMemoryError
        return whole(self, first_row, tile, bound)

    monkeypatch.setattr(GpuEngine, "_search", fits_up_to_a_hundred)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    found = search(engine(queries, 4, np.zeros(9), used), rows, 1000)
    assert sizes == [300, 150, 75, 75, 150, 75, 75]
    assert_equal(found, naive(rows, queries, np.zeros(9), used, 4))
    monkeypatch.setattr(GpuEngine, "_search", lambda *_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError()))
    with pytest.raises(SimgapError, match="do not fit"):
        engine(queries, 4).search(0, rows, np.full(9, -np.inf, np.float32))


def test_vectors_that_are_no_directions_are_refused() -> None:
    with pytest.raises(SimgapError, match="unit norm"):
        engine(np.eye(2, dtype=np.float16), 1).search(0, np.array([[np.nan, 1]], np.float16), np.zeros(2, np.float32))


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="there is no GPU")
def test_bits_on_a_card_are_those_of_the_processor() -> None:
    """Use enough rows and queries to fill a GPU; its rounding of sums must stay within the bound."""
    from simgap.similarity.search.engines.cpu import CpuEngine

    rows, queries = dense(50_000, 640, 0), dense(3_000, 640, 1)
    arguments = (queries, 8, np.zeros(3_000), np.arange(3_000) % 2 == 0)
    assert_equal(search(engine(*arguments), rows, 20_000), search(CpuEngine(SearchRequest(*arguments)), rows, 1024))


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="there is no GPU")
def test_no_product_of_a_card_is_further_off_than_the_bound() -> None:
    rows = dense(4_000, 640, 0)
    made = engine(rows, 1, np.zeros(4_000), np.ones(4_000, bool))
    tile = torch.from_numpy(rows).to(DEVICE)
    largest, _, _ = made._maxima(tile)
    exact = tile.double() @ tile.double().T
    padded = torch.nn.functional.pad(exact, (0, -len(rows) % 128), value=-torch.inf)
    assert (padded.view(len(rows), -1, 128).amax(dim=2) - largest.double()).abs().max() < made.error
