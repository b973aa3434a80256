"""Compare every engine with a naive float64 search that computes one pair at a time."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import pytest
from conftest import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from simgap.core.errors import SimgapError
from simgap.similarity.search.engines import cpu
from simgap.similarity.search.engines.bf16 import Bf16Queries
from simgap.similarity.search.engines.choose import make_engine
from simgap.similarity.search.engines.cpu import CpuEngine, PrecisionTuner
from simgap.similarity.search.engines.engine import Engine, SearchRequest
from simgap.similarity.search.engines.faiss_engine import FaissEngine
from simgap.similarity.search.exact import exact_product
from simgap.similarity.search.nearest import CANDIDATES_PER_NEIGHBOUR, Nearest, NearestCandidates
from simgap.similarity.search.scan import scan_part


class Bf16Engine(CpuEngine):
    """Screen in bf16 on every CPU."""

    def __init__(self, request: SearchRequest) -> None:
        super().__init__(request, precisions=["bf16"])


class MixedEngine(CpuEngine):
    """Change the precision with every tile."""

    def __init__(self, request: SearchRequest) -> None:
        super().__init__(request, precisions=["fp32", "bf16"])
        precisions = cycle(["bf16", "fp32"])
        self._precision.choose = lambda: next(precisions)  # type: ignore[method-assign]


ENGINES = [CpuEngine, Bf16Engine, MixedEngine, FaissEngine]


def silent(rows: int) -> None: ...


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


def search(engine: Engine, rows: np.ndarray, tile: int, parts: int = 1) -> dict[str, Any]:
    engine.tile_rows = tile
    nearest = Nearest.none(len(engine.order), engine.neighbours)
    row_results = []
    for part in np.array_split(np.arange(len(rows)), parts):
        if len(part):
            results, found = scan_part(engine, int(part[0]), rows[part], nearest, silent)
            row_results += results
            nearest = nearest.merged(found)
    return {
        **{
            name: np.concatenate([getattr(tile, name) for tile in row_results])
            for name in ("best", "nearest_query", "margin")
        },
        "row": nearest.row.tolist(),
        "similarity": nearest.similarity.tolist(),
    }


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in ("best", "nearest_query", "margin"):
        assert np.array_equal(found[name], expected[name]), name
    assert found["row"] == expected["row"]
    assert found["similarity"] == expected["similarity"]


def dense(count: int, dim: int, seed: int) -> np.ndarray:
    """Draw unit vectors in all directions; a third of them are equal."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, dim))
    vectors[random.random(count) < 0.3] = vectors[0]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("kind", ENGINES)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 90),
    queries=st.integers(1, 20),
    dim=st.integers(1, 40),
    k=st.integers(1, 9),
    tile=st.integers(1, 50),
    parts=st.integers(1, 3),
    block=st.integers(1, 30),
    grid=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_bits_are_those_of_naive_float64(kind, seed, rows, queries, dim, k, tile, parts, block, grid) -> None:
    draw = unit_rows if grid else dense
    a, b, reference = draw(rows, dim, seed), draw(queries, dim, seed + 1), draw(5, dim, seed + 2)
    used = np.random.default_rng(seed).random(queries) < 0.6
    used[0] = True
    s_reference = (reference.astype(float) @ b.astype(float).T).max(axis=0)
    size, cpu.BLOCK_QUERIES = cpu.BLOCK_QUERIES, block
    try:
        found = search(kind(SearchRequest(b, k, s_reference, used)), a, tile, parts)
    finally:
        cpu.BLOCK_QUERIES = size
    assert_equal(found, naive(a, b, s_reference, used, k))


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    ("rows", "queries"),
    [
        (dense(1, 64, 0), dense(1, 64, 1)),
        (np.repeat(dense(1, 64, 0), 300, axis=0), dense(6, 64, 1)),
        (-np.abs(dense(200, 16, 0)), np.abs(dense(5, 16, 1))),
        (np.eye(64, dtype=np.float16)[::-1], np.eye(64, dtype=np.float16)),
        (
            # The smallest subnormal number stands next to the largest component.
            np.array([[1, 6e-8, 0], [1, 0, 6e-8], [1, 0, 0], [6e-8, 1, 0]], np.float16),
            np.array([[6e-8, 1, 0], [6e-8, 6e-8, 1], [1, 6e-8, 6e-8]], np.float16),
        ),
    ],
    ids=["one of each", "one vector repeated", "all negative", "orthogonal", "subnormal"],
)
def test_extremes(kind, rows: np.ndarray, queries: np.ndarray) -> None:
    used = np.ones(len(queries), bool)
    s_reference = (rows[:1].astype(float) @ queries.astype(float).T)[0]
    expected = naive(rows, queries, s_reference, used, 3)
    for tile in (1, 64, 1000):
        assert_equal(search(kind(SearchRequest(queries, 3, s_reference, used)), rows, tile), expected)


@pytest.mark.parametrize("kind", ENGINES)
def test_rows_that_fp32_cannot_tell_apart(kind) -> None:
    """Rows that differ by one unit in the last fp16 place have similarities that differ by less than the error of fp32."""
    random = np.random.default_rng(0)
    base = dense(1, 640, 3)[0]
    rows = np.repeat(base[None], 400, axis=0)
    for row in range(400):
        place = random.integers(640)
        rows[row, place] = np.nextafter(rows[row, place], np.float16(1 if row % 2 else -1))
    queries = np.concatenate([rows[:5], dense(5, 640, 4)])
    used = np.ones(10, bool)
    s_reference = (base[None].astype(float) @ queries.astype(float).T)[0]
    found = search(kind(SearchRequest(queries, 8, s_reference, used)), rows, 150)
    assert_equal(found, naive(rows, queries, s_reference, used, 8))


@pytest.mark.parametrize("kind", ENGINES)
def test_equal_bytes_in_pool_and_reference_have_margin_zero(kind) -> None:
    rows, queries = dense(300, 64, 5), dense(20, 64, 6)
    s_reference = (rows.astype(float) @ queries.astype(float).T).max(axis=0)
    assert search(kind(SearchRequest(queries, 1, s_reference, np.ones(20, bool))), rows, 128)["margin"].max() == 0


@pytest.mark.parametrize("kind", ENGINES)
def test_thousands_of_violators_of_one_query_are_all_found(kind) -> None:
    query = np.array([[1.0, 0.0]], np.float16)
    angle = np.linspace(0.01, 1.5, 5000)
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float16)
    found = search(kind(SearchRequest(query, 2, np.array([-1.0]), np.ones(1, bool))), rows, 700)
    assert (found["margin"] > 0).all()


@pytest.mark.parametrize("kind", ENGINES)
def test_neighbours_of_parts_merge_to_those_of_the_whole(kind) -> None:
    rows, queries = unit_rows(120, 4, 0), unit_rows(6, 4, 1)
    expected = naive(rows, queries, np.zeros(6), np.ones(6, bool), 5)
    merged = Nearest.none(6, 5)
    for start, stop in ((0, 1), (1, 50), (50, 50), (50, 120)):
        row_results, found = scan_part(kind(SearchRequest(queries, 5)), start, rows[start:stop], merged, silent)
        assert row_results == []
        merged = merged.merged(found)
    assert merged.row.tolist() == expected["row"]
    assert merged.similarity.tolist() == expected["similarity"]


@pytest.mark.parametrize("name", ["auto", "cpu", "faiss"])
def test_vectors_that_are_no_directions_are_refused(name: str) -> None:
    with pytest.raises(SimgapError, match="unit norm"):
        make_engine(name, SearchRequest(np.zeros((1, 2), np.float16), 1))
    for bad in ([np.nan, 1], [np.inf, 0], [0, 0], [2, 0]):
        with pytest.raises(SimgapError, match="unit norm"):
            make_engine(name, SearchRequest(np.eye(2, dtype=np.float16), 1)).search(
                0, np.array([bad], np.float16), np.zeros(2, np.float32)
            )


def test_threads_do_not_change_the_search() -> None:
    rows, queries = dense(3000, 32, 0), dense(70, 32, 1)
    found = []
    for threads in (1, 2, 7):
        engine = CpuEngine(SearchRequest(queries, 6, np.zeros(70), np.arange(70) % 3 > 0))
        engine.threads = threads
        found.append(search(engine, rows, 100))
    assert_equal(found[1], found[0])
    assert_equal(found[2], found[0])


def test_the_faster_precision_is_taken_and_the_slower_one_tried_again() -> None:
    tuner, taken = PrecisionTuner(["fp32", "bf16"]), []
    for tile in range(200):
        taken.append(tuner.choose())
        # bf16 is faster in the first 100 tiles and slower after them.
        tuner.seconds[taken[-1]] = 1.0 if taken[-1] == "fp32" else (0.5 if tile < 100 else 2.0)
    assert set(taken[:2]) == {"fp32", "bf16"}
    assert taken[2:100].count("bf16") >= 95
    assert taken[102:].count("fp32") >= 95
    assert "bf16" in taken[102:]


@pytest.mark.parametrize("dim", [3, 64, 640])
def test_no_bf16_product_is_further_off_than_its_bound(dim: int) -> None:
    random = np.random.default_rng(dim)
    for offset in (0, 2):
        a = random.standard_normal((300, dim)) + offset
        a = (a / np.linalg.norm(a, axis=1, keepdims=True)).astype(np.float16)
        products = Bf16Queries(a.astype(np.float32)).products(a[:200].astype(np.float32))
        found = np.empty((200, 300), np.float32)
        products.write(0, 300, found)
        off = np.abs(found - exact_product(a[:200], a.astype(np.float64))).max()
        assert off < products.error < 20 * off


def test_rows_that_are_alike_do_not_pile_up(monkeypatch) -> None:
    rows, queries = np.repeat(dense(1, 16, 0), 4000, axis=0), dense(30, 16, 1)
    most = []
    update = NearestCandidates.update

    def watched(self, candidates) -> None:
        update(self, candidates)
        most.append(sum(len(candidates.row) for candidates in self._candidates))

    monkeypatch.setattr(NearestCandidates, "update", watched)
    found = search(CpuEngine(SearchRequest(queries, 3, np.zeros(30), np.ones(30, bool))), rows, 100)
    assert max(most) <= 100 * 30 + CANDIDATES_PER_NEIGHBOUR * 3 * 30
    assert found["row"] == [[0, 1, 2]] * 30


def test_a_name_of_no_engine() -> None:
    with pytest.raises(ValueError, match="not an engine; choose auto"):
        make_engine("gpus", SearchRequest(dense(2, 4, 0), 1))
