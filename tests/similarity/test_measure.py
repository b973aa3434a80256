from __future__ import annotations

import numpy as np
import pytest
from conftest import unit_rows

from simgap.core.errors import SimgapError
from simgap.params.similarity import SimilarityParameters
from simgap.similarity.measure import measure, rule_queries
from simgap.similarity.search.engines.choose import make_engine
from simgap.similarity.search.engines.cpu import CpuEngine
from simgap.similarity.search.engines.engine import SearchRequest
from simgap.store.columns import Similarity


@pytest.mark.parametrize(
    ("engine", "tile_rows"), [("cpu", 1), ("cpu", 7), ("cpu", 64), ("auto", 1024), ("faiss", 7), ("faiss", 1024)]
)
def test_columns_do_not_depend_on_engine_tiles_and_parts(store, tmp_path, monkeypatch, engine, tile_rows: int) -> None:
    monkeypatch.setattr(type(make_engine(engine, SearchRequest(unit_rows(1, 2, 0), 1))), "tile_rows", tile_rows)
    pool, reference, queries = unit_rows(150, 16, 0), unit_rows(20, 16, 1), unit_rows(12, 16, 2)
    used = rule_queries(12, 0.5, 0)
    labels = np.arange(12) % 3
    out = tmp_path / "similarity"
    metrics = measure(
        SimilarityParameters(neighbours=4),
        store("pool", pool, parts=3),
        store("reference", reference),
        store("val", queries, labels=labels),
        used,
        out,
        tmp_path / "scratch",
        engine,
    )
    exact = pool.astype(np.float64) @ queries.astype(np.float64).T
    s_reference = (reference.astype(np.float64) @ queries.astype(np.float64).T).max(axis=0)
    found = Similarity(out)
    rule = np.flatnonzero(used)
    assert np.array_equal(found.column("best"), exact[:, rule].max(axis=1).astype(np.float32))
    assert np.array_equal(found.column("nearest_query"), rule[exact[:, rule].argmax(axis=1)])
    assert np.array_equal(found.column("margin"), (exact - s_reference)[:, rule].max(axis=1).astype(np.float32))
    table = found.queries(["label", "used_by_rule", "reference_similarity", "nearest_rows"])
    assert table.column("label").to_pylist() == labels.tolist()
    assert table.column("used_by_rule").to_pylist() == used.tolist()
    assert np.array_equal(table.column("reference_similarity").to_numpy(), s_reference.astype(np.float32))
    for query, rows in enumerate(table.column("nearest_rows").to_pylist()):
        assert rows == np.lexsort((np.arange(150), -exact[:, query]))[:4].tolist()
    assert metrics["queries_used_by_rule"] == 6


def test_sets_of_different_embedders_are_not_compared(store, tmp_path) -> None:
    pool, queries = store("pool", unit_rows(5, 4, 0)), store("val", unit_rows(5, 4, 1), labels=[0] * 5)
    parameters = SimilarityParameters(neighbours=1)
    for other in (
        store("other", unit_rows(5, 4, 2), embedder="f"),
        store("wide", unit_rows(5, 6, 2)),
    ):
        with pytest.raises(SimgapError, match="the same embedder"):
            measure(parameters, pool, other, queries, np.ones(5, bool), tmp_path / "out", tmp_path / "scratch")
        assert not (tmp_path / "out").exists()


def test_rule_queries_are_seeded_and_as_many_as_asked() -> None:
    assert rule_queries(400, 0.75, 0).sum() == 300
    assert np.array_equal(rule_queries(40, 0.5, 3), rule_queries(40, 0.5, 3))
    assert not np.array_equal(rule_queries(40, 0.5, 3), rule_queries(40, 0.5, 4))
    assert rule_queries(5, 0.01, 0).sum() == 1
    assert rule_queries(5, 1.0, 0).all()


def test_a_killed_stage_goes_on_from_its_finished_parts_and_ends_with_the_same_bytes(
    store, tmp_path, monkeypatch
) -> None:
    sets = (store("pool", unit_rows(90, 8, 0), parts=3), store("reference", unit_rows(9, 8, 1)))
    queries = store("val", unit_rows(7, 8, 2), labels=[0] * 7)
    parameters = SimilarityParameters(neighbours=3)

    monkeypatch.setattr(CpuEngine, "tile_rows", 16)

    def run(name: str) -> dict[str, bytes]:
        out = tmp_path / name
        measure(parameters, *sets, queries, np.ones(7, bool), out, tmp_path / f"scratch-{name}")
        return {file.name: file.read_bytes() for file in sorted(out.iterdir())}

    whole = run("whole")
    real, searched = CpuEngine.search, []

    def dies_in_the_third_part(self: CpuEngine, first_row: int, *arguments):
        if first_row >= 60:
            raise KeyboardInterrupt
        searched.append(first_row)
        return real(self, first_row, *arguments)

    monkeypatch.setattr(CpuEngine, "search", dies_in_the_third_part)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    assert not (tmp_path / "killed").exists()
    before = len(searched)
    monkeypatch.setattr(CpuEngine, "search", lambda *a: (searched.append(a[1]), real(*a))[1])
    assert run("killed") == whole
    # The second run searches the reference again, but only the third part of the pool.
    assert {first for first in searched[before:] if first >= 9} == {first for first in searched if first >= 60}


@pytest.mark.parametrize("empty", ["pool", "reference", "val"])
def test_a_set_without_rows_is_named(store, tmp_path, empty: str) -> None:
    rows = {"pool": 5, "reference": 3, "val": 2, empty: 0}
    pool, reference = (
        store("pool", unit_rows(rows["pool"], 4, 0)),
        store("reference", unit_rows(rows["reference"], 4, 1)),
    )
    queries = store("val", unit_rows(rows["val"], 4, 2), labels=[0] * rows["val"])
    used = np.ones(rows["val"], bool)
    with pytest.raises(SimgapError, match=f"{empty}: the set has no rows"):
        measure(SimilarityParameters(2), pool, reference, queries, used, tmp_path / "out", tmp_path / "scratch")
