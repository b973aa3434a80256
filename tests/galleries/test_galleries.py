from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import jpeg, unit_rows, write_tar
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from simgap.core.errors import SimgapError
from simgap.galleries import choose
from simgap.galleries.choose import LOST, RANDOM, SIMILAR, choose_queries, most_similar_rows, nearest_lower_rows
from simgap.galleries.galleries import DUPLICATES, PRUNED, QUERIES, split_shown, write_galleries
from simgap.galleries.pictures import THUMBNAIL, Source, cut_pictures, described
from simgap.params.similarity import SimilarityParameters
from simgap.similarity.measure import measure
from simgap.store.embeddings import Embeddings
from simgap.store.split import Split, write_split

HOSTILE = "../../<b>&\"'"


@given(st.integers(0, 1000), st.integers(1, 30), st.integers(0, 6), st.booleans())
def test_queries_are_chosen_by_reason_and_none_twice(seed: int, queries: int, count: int, pruned: bool) -> None:
    random = np.random.default_rng(seed)
    in_pool = random.integers(0, 5, queries).astype(np.float32)
    after = in_pool - random.integers(0, 4, queries).astype(np.float32) if pruned else None
    chosen = choose_queries(in_pool, after, count, 0)
    assert len({query for query, _ in chosen}) == len(chosen)
    most = [query for query, reason in chosen if reason == SIMILAR]
    assert most == sorted(range(queries), key=lambda query: (-in_pool[query], query))[:count]
    lost = [query for query, reason in chosen if reason == LOST]
    left = [query for query in range(queries) if query not in most]
    assert lost == ([] if after is None else sorted(left, key=lambda q: (after[q] - in_pool[q], q))[:count])
    assert len([reason for _, reason in chosen if reason == RANDOM]) == min(count, queries - len(most) - len(lost))


def test_a_query_without_kept_rows_is_not_said_to_lose_most() -> None:
    chosen = choose_queries(np.array([0.9, 0.8, 0.7], np.float32), np.array([0.9, np.nan, 0.6], np.float32), 1, 0)
    assert chosen[:2] == [(0, SIMILAR), (2, LOST)]


@given(st.integers(0, 1000), st.integers(0, 60), st.integers(1, 9), st.integers(1, 70))
def test_the_most_similar_rows(seed: int, rows: int, count: int, block: int) -> None:
    random = np.random.default_rng(seed)
    best, candidates = random.integers(0, 6, rows).astype(np.float32), random.random(rows) < 0.6
    size, choose.BLOCK_ROWS = choose.BLOCK_ROWS, block
    try:
        found = most_similar_rows(candidates, best, count)
    finally:
        choose.BLOCK_ROWS = size
    assert found == sorted(np.flatnonzero(candidates), key=lambda row: (-best[row], row))[:count]


@pytest.mark.parametrize("block", [3, 1000])
def test_the_nearest_lower_row(store, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(choose, "PRODUCT_ROWS", block)
    pool = store("pool", unit_rows(40, 5, 0), parts=3)
    rows = np.array([1, 7, 8, 30])
    nearest, similarity = nearest_lower_rows(pool, rows)
    vectors = pool.read().astype(np.float64)
    for row, below, found in zip(rows, nearest, similarity, strict=True):
        products = vectors[:row] @ vectors[row]
        assert below == int(products.argmax())
        assert found == products.max()
    assert [part.tolist() for part in nearest_lower_rows(pool, np.empty(0, np.int64))] == [[], []]


def _tar(path: Path, rows: range, key: str) -> None:
    members = []
    for row in rows:
        members += [(f"{key}{row:09d}.jpg", jpeg(row, 20 + 300 * (row == 3))), (f"{key}{row:09d}.txt", b"x")]
    write_tar(path, members)


def _source(store, tmp_path: Path, name: str, rows: int, parts: int, labels=None, key: str = "") -> Source:
    embeddings: Embeddings = store(name, unit_rows(rows, 6, len(name)), parts=parts, labels=labels)
    for path in sorted((embeddings.folder / "metadata").iterdir()):
        table = pq.read_table(path).to_pydict()
        first = int(table["key"][0])
        table["key"] = [f"{key}{row}" for row in table["key"]]
        if labels is None:
            table["caption"] = [f"{HOSTILE} {row}" for row in range(first, first + len(table["key"]))]
        pq.write_table(pa.table(table), path)
        _tar(tmp_path / name / table["shard"][0], range(first, first + len(table["key"])), key)
    classnames = None if labels is None else ("cat", "<i>dog</i>")
    return Source(tmp_path / name, Embeddings(embeddings.folder), classnames)


def test_only_the_shards_that_hold_the_rows_are_opened(store, tmp_path: Path) -> None:
    # The names in this archive would be paths outside the folder.
    source = _source(store, tmp_path, "pool", 12, 4, key="../../up/")
    (tmp_path / "pool" / "00003.tar").write_bytes(b"no tar")
    texts = described(source, [7, 3, 0, 3])
    assert list(texts) == [0, 3, 7]
    assert texts[3] == {"shard": "00001.tar", "key": "../../up/000000003", "caption": f"{HOSTILE} 3"}
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    cut_pictures({"pool": source}, {"pool": texts}, out)
    assert sorted(file.name for file in out.iterdir()) == ["pool-0.jpg", "pool-3.jpg", "pool-7.jpg"]
    assert sorted(tmp_path.rglob("*.jpg")) == sorted(out.iterdir())
    assert Image.open(out / "pool-3.jpg").size == (THUMBNAIL, THUMBNAIL)
    small = Image.open(out / "pool-7.jpg")
    original = Image.open(io.BytesIO(jpeg(7, 20)))
    assert small.size == original.size
    assert np.abs(np.asarray(small, float) - np.asarray(original, float)).mean() < 5


def test_a_sample_that_is_gone_is_named(store, tmp_path: Path) -> None:
    source = _source(store, tmp_path, "pool", 12, 4)
    texts = described(source, [4])
    _tar(tmp_path / "pool" / "00001.tar", range(3, 4), "")
    with pytest.raises(SimgapError, match=r"00001\.tar: lacks 1 of the 1 samples to read, '000000004' first"):
        cut_pictures({"pool": source}, {"pool": texts}, tmp_path)
    write_tar(tmp_path / "pool" / "00001.tar", [("000000004.jpg", b"broken")])
    with pytest.raises(SimgapError, match="000000004: was embedded, but is broken_image now"):
        cut_pictures({"pool": source}, {"pool": texts}, tmp_path)
    (tmp_path / "pool" / "00001.tar").unlink()
    with pytest.raises(SimgapError, match=r"has no shard '00001\.tar', but embedded samples lie in it"):
        cut_pictures({"pool": source}, {"pool": texts}, tmp_path)


def test_galleries(store, tmp_path: Path) -> None:
    rows, queries = 60, 30
    sources = {
        "pool": _source(store, tmp_path, "pool", rows, 4),
        "reference": _source(store, tmp_path, "reference", 8, 1, labels=[0, 1] * 4),
        "val": _source(store, tmp_path, "val", queries, 2, labels=[1] * queries),
    }
    embeddings = {name: source.embeddings for name, source in sources.items()}
    order = embeddings["pool"].row_order
    measure(
        SimilarityParameters(3), *embeddings.values(), np.arange(queries) < 20, tmp_path / "similarity" / "val",
        tmp_path / "scratch",
    )  # fmt: skip
    full, keep = np.arange(rows) % 5 != 4, np.arange(rows) % 5 < 2
    splits = {
        "full": Split("full", {}, [], None, int(full.sum()), rows, "", True, order, None),
        "other": Split("imagenet-like", {}, ["sketch"], 0.0, 1, rows, "", True, order, None),
        "like": Split("imagenet-like", {}, ["val"], 0.0, int(keep.sum()), rows, "", True, order, None),
    }
    assert split_shown("val", splits) == "like"
    for name, bits in (("full", full), ("like", keep)):
        write_split(splits[name], bits, tmp_path / "splits" / name)
    vectors = {name: stored.read().astype(np.float64) for name, stored in embeddings.items()}
    in_pool, in_reference = vectors["val"] @ vectors["pool"].T, vectors["val"] @ vectors["reference"].T
    left = np.where(keep, in_pool, -np.inf)
    (tmp_path / "profiles" / "like").mkdir(parents=True)
    nearest_left = left.argmax(axis=1)
    table = {
        "similarity": left.max(axis=1).astype(np.float32),
        "nearest_rows": [[row] for row in nearest_left],
        "nearest_similarities": [[np.float32(value)] for value in left.max(axis=1)],
    }
    pq.write_table(pa.table(table), tmp_path / "profiles" / "like" / "val.parquet")
    out = tmp_path / "galleries"
    folders = (tmp_path / "splits", tmp_path / "similarity", tmp_path / "profiles")
    write_galleries(sources, ["val"], splits, *folders, out)
    content = json.loads((out / "galleries.json").read_text())
    gallery = content["benchmarks"]["val"]
    assert gallery["split"] == "like"
    assert len(gallery["queries"]) == 3 * QUERIES
    for entry in gallery["queries"]:
        query = entry["row"]
        assert entry["caption"] == "<i>dog</i>"
        assert entry["used_by_rule"] == (query < 20)
        for place, similarities in (("reference", in_reference), ("pool", in_pool), ("after", left)):
            shown = entry[place]
            assert shown["row"] == int(similarities[query].argmax())
            assert shown["similarity"] == pytest.approx(similarities[query].max(), abs=1e-6)
        assert entry["pool"]["caption"] == f"{HOSTILE} {entry['pool']['row']}"
        assert entry["reference"]["caption"] == ("cat", "<i>dog</i>")[entry["reference"]["row"] % 2]
    pruned = np.flatnonzero(full & ~keep)
    best = in_pool[:20].max(axis=0).astype(np.float32)
    expected = sorted(pruned, key=lambda row: (-best[row], row))[:PRUNED]
    assert [entry["row"] for entry in gallery["pruned"]] == expected
    for entry in gallery["pruned"]:
        assert entry["query"]["row"] == int(in_pool[:20, entry["row"]].argmax())
        margins = in_pool[:20, entry["row"]] - in_reference[:20].max(axis=1).astype(np.float32)
        assert entry["margin"] == pytest.approx(margins.max(), abs=1e-6)
    assert [entry["row"] for entry in content["duplicates"]] == np.flatnonzero(~full)[:DUPLICATES].tolist()
    assert all(entry["of"]["row"] < entry["row"] for entry in content["duplicates"])
    named = set(json.dumps(content).split('"')) & {file.name for file in out.iterdir()}
    assert named == {file.name for file in out.glob("*.jpg")}
    assert len(named) > 10
    first = {file.name: file.read_bytes() for file in out.iterdir()}
    write_galleries(sources, ["val"], splits, *folders, out)
    assert first == {file.name: file.read_bytes() for file in out.iterdir()}


def test_without_an_imagenet_like_split_nothing_is_shown_after_pruning(store, tmp_path: Path) -> None:
    sources = {
        "pool": _source(store, tmp_path, "pool", 20, 1),
        "reference": _source(store, tmp_path, "reference", 4, 1, labels=[0] * 4),
        "val": _source(store, tmp_path, "val", 5, 1, labels=[0] * 5),
    }
    embeddings = [source.embeddings for source in sources.values()]
    folder = tmp_path / "similarity" / "val"
    measure(SimilarityParameters(3), *embeddings, np.ones(5, bool), folder, tmp_path / "scratch")
    splits = {"full": Split("full", {}, [], None, 20, 20, "", True, embeddings[0].row_order, None)}
    write_split(splits["full"], np.ones(20, bool), tmp_path / "splits" / "full")
    out = tmp_path / "galleries"
    write_galleries(sources, ["val"], splits, tmp_path / "splits", tmp_path / "similarity", tmp_path / "none", out)
    content = json.loads((out / "galleries.json").read_text())
    assert set(content["benchmarks"]["val"]) == {"queries"}
    assert all("after" not in entry for entry in content["benchmarks"]["val"]["queries"])
    assert content["duplicates"] == []
