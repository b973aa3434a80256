"""Embeddings made elsewhere: what is taken, what is left out and why, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from conftest import MODEL_CONFIG, unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from simgap.cli import main
from simgap.embed import imported
from simgap.embed.model import CONFIG_FILE
from simgap.embed.store import Embeddings
from simgap.errors import SimgapError
from simgap.files import read_json, sha256_of
from simgap.train.data import kept_shards

DIM = 16


def write_source(folder: Path, parts: list[np.ndarray], padded: bool = False, **columns: list[list]) -> Path:
    """Write clip-retrieval's layout: unpadded numbers, `image_path` and `caption`, and other columns by part."""
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    first = 0
    for number, vectors in enumerate(parts):
        label = f"{number:03d}" if padded else str(number)
        np.save(folder / "img_emb" / f"img_emb_{label}.npy", vectors)
        rows = range(first, first + len(vectors))
        table = {"image_path": [f"{row // 4:05d}{row % 4:04d}" for row in rows], "caption": [f"c{row}" for row in rows]}
        table |= {name: values[number] for name, values in columns.items()}
        pq.write_table(pa.table(table), folder / "metadata" / f"metadata_{label}.parquet")
        first += len(vectors)
    return folder


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    """A folder whose config says the width; an import reads no weights."""
    folder = tmp_path / "embedder"
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(json.dumps(MODEL_CONFIG))
    return folder


def run(source: Path, out: Path, *options: str) -> Result:
    arguments = ["import-embeddings", str(source), str(out), "--embedder", str(source.parent / "embedder"), *options]
    return CliRunner().invoke(main, arguments)


def refused(source: Path, *options: str) -> str:
    result = run(source, source.parent / "out", *options)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1
    assert not (source.parent / "out").exists()
    return result.output


def test_vectors_and_names_come_as_they_are(embedder: Path, tmp_path: Path) -> None:
    """More than ten parts, numbered without padding: 10 comes after 9."""
    vectors = [unit_rows(3 + number % 2, DIM, number) for number in range(12)]
    source = write_source(tmp_path / "source", vectors)
    out = tmp_path / "out"
    result = run(source, out, "--shard-digits", "5")
    assert result.output == f"{out}: 42 of 42 rows of 16 numbers\n"
    found = Embeddings(out)
    assert found.info["embedder"] == sha256_of(embedder)
    assert np.array_equal(found.read(), np.concatenate(vectors))
    table = found.metadata(["shard", "key", "caption"]).to_pydict()
    assert table["key"] == [f"{row // 4:05d}{row % 4:04d}" for row in range(42)]
    assert table["shard"] == [f"{row // 4:05d}.tar" for row in range(42)]
    assert table["caption"] == [f"c{row}" for row in range(42)]
    assert [file.name for file in sorted((out / "img_emb").iterdir())][::11] == ["img_emb_0000.npy", "img_emb_0011.npy"]
    assert not list(tmp_path.glob(".*"))


def broken(row: np.ndarray, how: str) -> np.ndarray:
    row = row.astype(np.float32)
    if how == "not_finite":
        row[3] = np.nan
    elif how == "overflow":
        row[3] = 1e6
    elif how == "zero_norm":
        row[:] = 0
    elif how == "not_unit_norm":
        row *= 1.01
    return row


REASONS = {"overflow": "not_finite"}


@settings(max_examples=30, deadline=None)
@given(
    kinds=st.lists(
        st.sampled_from(["good", "not_finite", "overflow", "zero_norm", "not_unit_norm", "no_key", "no_shard"]),
        min_size=2, max_size=20,
    ),
    parts=st.integers(1, 4),
    block=st.integers(1, 7),
)  # fmt: skip
def test_broken_rows_are_counted_by_reason(tmp_path_factory, kinds, parts, block) -> None:
    folder = tmp_path_factory.mktemp("import")
    kinds = ["good", *kinds]
    whole = unit_rows(len(kinds), DIM, len(kinds))
    vectors = np.stack([broken(row, how) for row, how in zip(whole, kinds, strict=True)])
    keys = [
        {"no_key": None, "no_shard": "x" * 9}.get(how, f"{row:05d}0000") for row, how in enumerate(kinds)
    ]  # fmt: skip
    split = np.array_split(np.arange(len(kinds)), parts)
    key = [pa.array([keys[row] for row in rows], pa.string()) for rows in split]
    source = write_source(folder / "source", [vectors[rows] for rows in split], key=key)
    scratch = folder / "scratch"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imported, "BLOCK", block)
        metrics, _ = imported.import_embeddings(source, "e", DIM, 5, 1.0, folder / "out", scratch)
    counted = Counter(REASONS.get(how, how) for how in kinds)
    kept = counted.pop("good")
    dropped = {f"dropped/{reason}": count for reason, count in counted.items()}
    assert metrics == {"read": len(kinds), "kept": kept, "dim": DIM, "parts": parts, **dropped}
    found = Embeddings(folder / "out")
    good = [row for row, how in enumerate(kinds) if how == "good"]
    assert np.array_equal(found.read(), whole[good])
    assert found.metadata(["key"]).column("key").to_pylist() == [keys[row] for row in good]


def test_norms_to_the_tolerance(embedder: Path, tmp_path: Path) -> None:
    """What rounding to fp16 does to a norm passes, a norm that similarity would refuse does not."""
    exact = np.random.default_rng(0).normal(size=(500, DIM))
    rounded = (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float16)
    off = np.zeros((2, DIM), np.float32)
    off[:, 0] = [1.005, 0.995]
    source = write_source(tmp_path / "source", [rounded.astype(np.float32), off])
    output = run(source, tmp_path / "out").output
    assert "500 of 502 rows of 16 numbers; left out: 2 not_unit_norm; they name no shard" in output


def test_a_mapping_names_shards_and_keys(embedder: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", [unit_rows(3, DIM, 0), unit_rows(2, DIM, 1)])
    (source / "shards").mkdir()
    for number, table in enumerate([{"shard": ["b.tar", "a.tar", "b.tar"], "key": ["k", "k", "k"]},
                                    {"shard": ["b.tar", None], "key": ["l", "m"]}]):  # fmt: skip
        pq.write_table(pa.table(table), source / "shards" / f"shards_{number}.parquet")
    output = run(source, tmp_path / "out", "--drop-limit", "0.5").output
    assert "3 of 5 rows of 16 numbers; left out: 1 duplicate_key, 1 no_shard\n" in output
    table = Embeddings(tmp_path / "out").metadata(["shard", "key"]).to_pydict()
    assert table == {"shard": ["b.tar", "a.tar", "b.tar"], "key": ["k", "k", "l"]}


def test_without_shards_they_are_measured_and_nothing_else(embedder: Path, tmp_path: Path) -> None:
    vectors = unit_rows(5, DIM, 0)
    source = write_source(tmp_path / "source", [vectors])
    assert "neither trained on nor exported" in run(source, tmp_path / "out").output
    found = Embeddings(tmp_path / "out")
    assert np.array_equal(found.read(), vectors)
    assert len(found.row_order) == 64
    with pytest.raises(
        SimgapError, match="name no shard, so they can be measured, but neither trained on nor exported"
    ):
        kept_shards(tmp_path, found.metadata(["shard", "key"]), np.ones(5, np.bool_))


def test_rows_that_only_a_url_names(embedder: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", [unit_rows(2, DIM, 0)])
    path = source / "metadata" / "metadata_0.parquet"
    pq.write_table(pa.table({"url": ["https://example.org/a", "https://example.org/b"]}), path)
    assert run(source, tmp_path / "out").exit_code == 0
    table = Embeddings(tmp_path / "out").metadata(["key", "caption"]).to_pydict()
    assert table == {"key": ["https://example.org/a", "https://example.org/b"], "caption": [None, None]}
    (source / "shards").mkdir()
    pq.write_table(pa.table({"shard": ["0.tar", "0.tar"]}), source / "shards" / "shards_0.parquet")
    (tmp_path / "out").rename(tmp_path / "other")
    assert "has no column key, and metadata_0.parquet has urls alone" in refused(source)


def test_what_is_refused(embedder: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", [unit_rows(3, DIM, 0), unit_rows(2, DIM, 1)])
    vectors, metadata = source / "img_emb" / "img_emb_1.npy", source / "metadata" / "metadata_1.parquet"

    def put(content: object) -> None:
        np.save(vectors, content, allow_pickle=True)

    put(unit_rows(3, DIM, 1))
    assert "metadata_1.parquet: has 2 rows, img_emb_1.npy has 3" in refused(source)
    put(unit_rows(2, DIM + 1, 1))
    assert "img_emb_1.npy: its vectors have 17 numbers, the embedder's have 16" in refused(source)
    put(unit_rows(2, DIM, 1).astype(np.float64))
    assert "img_emb_1.npy: is float64 (2, 16); it should be float16" in refused(source)
    put(np.array([["object"]], object))
    assert "img_emb_1.npy: is no array that can be read" in refused(source)
    put(unit_rows(2, DIM, 1))
    metadata.write_bytes(b"no table")
    assert "metadata_1.parquet: is no table that can be read" in refused(source)
    pq.write_table(pa.table({"key": [1, 2]}), metadata)
    assert "metadata_1.parquet: key is int64; it should be text" in refused(source)
    pq.write_table(pa.table({"width": [1, 2]}), metadata)
    assert "metadata_1.parquet: names no samples; it should have a column key or image_path or url" in refused(source)
    metadata.rename(metadata.with_name("metadata_2.parquet"))
    assert "part 1 should be in img_emb and in metadata, it is in one of them" in refused(source)
    metadata.with_name("metadata_2.parquet").rename(metadata.with_name("metadata_01b.parquet"))
    assert "metadata_01b.parquet: is no part of its own" in refused(source)
    assert "holds no img_emb_0.npy" in refused(tmp_path / "embedder")
    assert "open_clip_config.json: no such file" in refused(source, "--embedder", str(source))


def test_too_many_broken_rows_end_the_import(embedder: Path, tmp_path: Path) -> None:
    vectors = unit_rows(20, DIM, 0)
    vectors[3] = 0
    source = write_source(tmp_path / "source", [vectors])
    assert "1 of 20 samples were dropped ({'zero_norm': 1}), more than embed.drop_limit 0.01 allows" in refused(source)
    assert run(source, tmp_path / "out", "--drop-limit", "0.05").exit_code == 0


def test_a_killed_import_goes_on_and_ends_with_the_same_bytes(embedder: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", [unit_rows(4, DIM, number) for number in range(4)], padded=True)
    run(source, tmp_path / "whole")
    real, done = imported._import_part, []

    def stopped(part, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(part.vectors.name)
        return real(part, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imported, "_import_part", stopped)
        assert run(source, tmp_path / "again").exit_code == 1
        assert not (tmp_path / "again").exists()
        patch.setattr(
            imported, "_import_part", lambda part, *rest: (done.append(part.vectors.name), real(part, *rest))[1]
        )
        assert run(source, tmp_path / "again").exit_code == 0
    assert done == [f"img_emb_{number:03d}.npy" for number in range(4)]
    for file in sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*")):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    assert read_json(tmp_path / "again" / "embeddings.json")["rows"] == 16
