"""Import of embeddings: what is kept, what is dropped and why, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from conftest import DAMAGES, MODEL_CONFIG, unit_rows, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st

from simgap.cli.main import main
from simgap.clip.model import CONFIG_FILE
from simgap.core.errors import SimgapError
from simgap.core.files import read_json, sha256_of
from simgap.embed import imported
from simgap.store.embeddings import Embeddings
from simgap.train.data import kept_shards

DIM = 16


def write_source(folder: Path, parts: list[np.ndarray], padded: bool = False, **columns: list[list]) -> Path:
    """Write embeddings in clip-retrieval's layout.

    The numbers of parts are not padded unless `padded` is set. Further columns of the metadata are given by part.
    """
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
    """Write a folder with the config of an embedder; an import does not read its weights."""
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


def test_vectors_and_names_are_imported_unchanged(embedder: Path, tmp_path: Path) -> None:
    """There are more than ten parts with unpadded numbers, so part 10 must come after part 9."""
    vectors = [unit_rows(3 + number % 2, DIM, number) for number in range(12)]
    source = write_source(tmp_path / "source", vectors)
    out = tmp_path / "out"
    result = run(source, out, "--shard-digits", "5")
    assert result.output == f"{out}: kept 42 of 42 embeddings of 16 dimensions\n"
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
    """Norms that differ from 1 by fp16 rounding are accepted, norms that similarity would refuse are not."""
    exact = np.random.default_rng(0).normal(size=(500, DIM))
    rounded = (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float16)
    off = np.zeros((2, DIM), np.float32)
    off[:, 0] = [1.005, 0.995]
    source = write_source(tmp_path / "source", [rounded.astype(np.float32), off])
    output = run(source, tmp_path / "out").output
    assert "kept 500 of 502 embeddings of 16 dimensions; dropped: 2 not_unit_norm; the kept rows have no" in output


def write_mapping(source: Path, parts: list[dict[str, list]]) -> None:
    (source / "shards").mkdir(exist_ok=True)
    for number, table in enumerate(parts):
        pq.write_table(pa.table(table), source / "shards" / f"shards_{number}.parquet")


def test_a_mapping_names_shards_and_keys(embedder: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", [unit_rows(3, DIM, 0), unit_rows(2, DIM, 1)])
    tables = [{"shard": ["b.tar", "a.tar", "b.tar"], "key": ["k", "k", "k"]},
              {"shard": ["b.tar", None], "key": ["l", "m"]}]  # fmt: skip
    write_mapping(source, tables)
    output = run(source, tmp_path / "out", "--drop-limit", "0.5").output
    assert "kept 3 of 5 embeddings of 16 dimensions; dropped: 1 duplicate_key, 1 no_shard\n" in output
    table = Embeddings(tmp_path / "out").metadata(["shard", "key"]).to_pydict()
    assert table == {"shard": ["b.tar", "a.tar", "b.tar"], "key": ["k", "k", "l"]}


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("klmn"), st.booleans()), min_size=1, max_size=30),
    parts=st.integers(1, 4),
    mapped=st.booleans(),
    collide=st.booleans(),
)
def test_the_first_valid_row_of_a_sample_is_kept(tmp_path_factory, rows, parts, mapped, collide) -> None:
    """The rows may be in any parts, and other samples may have the same hash."""
    folder = tmp_path_factory.mktemp("import")
    rows = [("z", "k", True), *rows]
    whole = unit_rows(len(rows), DIM, len(rows))
    whole[[not good for _, _, good in rows]] = 0
    split = np.array_split(np.arange(len(rows)), parts)
    digits = {"a": "1", "b": "2", "c": "3", "z": "0"}
    names = [(f"{digits[shard]}.tar", f"{digits[shard]}{key}") for shard, key, _ in rows]
    keys = [[names[row][1] for row in part] for part in split]
    source = write_source(folder / "source", [whole[part] for part in split], image_path=keys)
    if mapped:
        write_mapping(source, [{"shard": [names[row][0] for row in part]} for part in split])
    with pytest.MonkeyPatch.context() as patch:
        if collide:
            patch.setattr(imported, "_hashes", lambda rows: np.array([len(key) for _, key in rows], np.uint64))
        arguments = (source, "e", DIM, None if mapped else 1, 1.0, folder / "out", folder / "scratch")
        metrics, _ = imported.import_embeddings(*arguments)
    seen, good, repeated = set(), [], 0
    for row, (name, (_, _, is_good)) in enumerate(zip(names, rows, strict=True)):
        if is_good and name in seen:
            repeated += 1
        elif is_good:
            seen.add(name)
            good.append(row)
    assert metrics["kept"] == len(good)
    assert metrics.get("dropped/duplicate_key", 0) == repeated
    assert metrics.get("dropped/zero_norm", 0) == sum(not is_good for _, _, is_good in rows)
    found = Embeddings(folder / "out")
    assert np.array_equal(found.read(), whole[good])
    table = found.metadata(["shard", "key", "caption"]).to_pydict()
    assert list(zip(table["shard"], table["key"], strict=True)) == [names[row] for row in good]
    assert table["caption"] == [f"c{row}" for row in good]


def test_duplicate_parts_are_refused(embedder: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", [unit_rows(5, DIM, 0)] * 2, image_path=[[f"{n}" for n in range(5)]] * 2)
    assert "5 of 10 samples were dropped ({'duplicate_key': 5}), more than limits.drop_limit 0.01 allows" in refused(
        source, "--shard-digits", "1"
    )


def test_keys_without_shards_may_repeat(embedder: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", [unit_rows(5, DIM, 0)] * 2, image_path=[["k"] * 5] * 2)
    assert "kept 10 of 10 " in run(source, tmp_path / "out").output


@pytest.mark.parametrize("stopped_at", [1, 2])
def test_an_import_that_is_killed_while_dropping_repeated_rows_resumes(
    embedder: Path, tmp_path: Path, stopped_at: int
) -> None:
    keys = [["0a", "0b", "0c"], ["0d", "0a", "0e"], ["0e", "0f", "0c"]]
    source = write_source(tmp_path / "source", [unit_rows(3, DIM, n) for n in range(3)], image_path=keys)
    options = ("--shard-digits", "1", "--drop-limit", "0.5")
    assert "dropped: 3 duplicate_key" in run(source, tmp_path / "whole", *options).output
    real, calls = imported.write_part, []

    def stopped(*rest):
        # The first three calls write the imported parts.
        calls.append(rest)
        if len(calls) == 3 + stopped_at:
            raise KeyboardInterrupt
        real(*rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imported, "write_part", stopped)
        assert run(source, tmp_path / "again", *options).exit_code == 1
    assert not (tmp_path / "again").exists()
    assert "kept 6 of 9 embeddings of 16 dimensions; dropped: 3 duplicate_key" in (
        run(source, tmp_path / "again", *options).output
    )
    assert sha256_of(tmp_path / "whole") == sha256_of(tmp_path / "again")


@pytest.mark.parametrize("mapped", [True, False])
def test_shards_that_the_pool_does_not_have_are_refused_before_vectors_are_read(
    embedder: Path, tmp_path: Path, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path / "source", [unit_rows(8, DIM, 0), unit_rows(9, DIM, 1)])
    shards = [[f"{row // 4:05d}.tar" for row in rows] for rows in (range(8), range(8, 17))]
    if mapped:
        write_mapping(source, [{"shard": names} for names in shards])
    options = () if mapped else ("--shard-digits", "5")
    pool = tmp_path / "pool"
    for name in {*shards[0], *shards[1]} - {"00002.tar", "00004.tar"}:
        write_tar(pool / name, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imported, "_open_vectors", lambda *_: pytest.fail("vectors are read"))
        line = refused(source, *options, "--pool", str(pool))
    by = source / ("shards/shards_1.parquet" if mapped else "metadata/metadata_1.parquet")
    assert f"error: {pool}: has no shard '00002.tar' and 1 more, but rows of {by} need it; the pool must have" in line
    for name in ("00002.tar", "00004.tar", "00005.tar"):
        write_tar(pool / name, [])
    assert "kept 17 of 17 " in run(source, tmp_path / "out", *options, "--pool", str(pool)).output


def test_the_pool_is_not_read_if_no_shards_are_named(embedder: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", [unit_rows(2, DIM, 0)])
    output = run(source, tmp_path / "out", "--pool", str(tmp_path / "none")).output
    assert "cannot be trained on or exported" in output


@pytest.mark.parametrize("key", ["1234", "١٢٣٤٥", "12a45", "x1234567", "-12345", " 12345", "12345"])
def test_keys_that_contain_the_number_of_their_shard(embedder: Path, tmp_path: Path, key: str) -> None:
    source = write_source(tmp_path / "source", [unit_rows(2, DIM, 0)], image_path=[["543210000", key]])
    output = run(source, tmp_path / "out", "--shard-digits", "5", "--drop-limit", "0.5").output
    named = key == "12345"
    assert ("dropped: 1 no_shard" in output) != named
    shards = Embeddings(tmp_path / "out").metadata(["shard"]).column("shard").to_pylist()
    assert shards == ["54321.tar", *(["12345.tar"] if named else [])]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("table", ["metadata/metadata_1.parquet", "shards/shards_1.parquet"])
def test_a_damaged_table_is_refused_in_one_line(embedder: Path, tmp_path: Path, damage, table: str) -> None:
    source = write_source(tmp_path / "source", [unit_rows(3, DIM, 0), unit_rows(3, DIM, 1)])
    write_mapping(source, [{"shard": ["a.tar"] * 3}] * 2)
    damage(source / table)
    assert f"{table}: the file cannot be read as a Parquet table (" in refused(source)


def test_embeddings_without_shards_can_only_be_measured(embedder: Path, tmp_path: Path) -> None:
    vectors = unit_rows(5, DIM, 0)
    source = write_source(tmp_path / "source", [vectors])
    assert "cannot be trained on or exported" in run(source, tmp_path / "out").output
    found = Embeddings(tmp_path / "out")
    assert np.array_equal(found.read(), vectors)
    assert len(found.row_order) == 64
    with pytest.raises(SimgapError, match="name no shards, and training and export need the shards"):
        kept_shards(tmp_path, found.metadata(["shard", "key"]), np.ones(5, np.bool_))


def test_rows_that_are_only_named_by_a_url(embedder: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", [unit_rows(2, DIM, 0)])
    path = source / "metadata" / "metadata_0.parquet"
    pq.write_table(pa.table({"url": ["https://example.org/a", "https://example.org/b"]}), path)
    assert run(source, tmp_path / "out").exit_code == 0
    table = Embeddings(tmp_path / "out").metadata(["key", "caption"]).to_pydict()
    assert table == {"key": ["https://example.org/a", "https://example.org/b"], "caption": [None, None]}
    (source / "shards").mkdir()
    pq.write_table(pa.table({"shard": ["0.tar", "0.tar"]}), source / "shards" / "shards_0.parquet")
    (tmp_path / "out").rename(tmp_path / "other")
    assert "has no column key, and metadata_0.parquet has only urls" in refused(source)


def test_inconsistent_files_are_refused(embedder: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", [unit_rows(3, DIM, 0), unit_rows(2, DIM, 1)])
    vectors, metadata = source / "img_emb" / "img_emb_1.npy", source / "metadata" / "metadata_1.parquet"

    def put(content: object) -> None:
        np.save(vectors, content, allow_pickle=True)

    put(unit_rows(3, DIM, 1))
    assert "metadata_1.parquet: has 2 rows but img_emb_1.npy has 3" in refused(source)
    put(unit_rows(2, DIM + 1, 1))
    assert "img_emb_1.npy: the vectors have 17 dimensions; they must have 16" in refused(source)
    put(unit_rows(2, DIM, 1).astype(np.float64))
    assert "img_emb_1.npy: the array is float64 [2, 16]; it must be float16 or float32 [*, *]" in refused(source)
    put(np.array([["object"]], object))
    assert "img_emb_1.npy: the file cannot be read as a NumPy array" in refused(source)
    put(unit_rows(2, DIM, 1))
    metadata.write_bytes(b"no table")
    assert "metadata_1.parquet: the file cannot be read as a Parquet table" in refused(source)
    pq.write_table(pa.table({"key": [1, 2]}), metadata)
    assert "metadata_1.parquet: the type of column key is int64; it must be text" in refused(source)
    pq.write_table(pa.table({"width": [1, 2]}), metadata)
    assert "metadata_1.parquet: has none of the columns key, image_path, url; add one of these columns" in refused(
        source
    )
    metadata.rename(metadata.with_name("metadata_2.parquet"))
    assert "part 1 is in only one of img_emb and metadata" in refused(source)
    metadata.with_name("metadata_2.parquet").rename(metadata.with_name("metadata_01b.parquet"))
    assert "metadata_01b.parquet: unexpected or duplicate name of a part" in refused(source)
    assert "contains no img_emb_0.npy" in refused(tmp_path / "embedder")
    assert "open_clip_config.json: no such file" in refused(source, "--embedder", str(source))


def test_too_many_broken_rows_end_the_import(embedder: Path, tmp_path: Path) -> None:
    vectors = unit_rows(20, DIM, 0)
    vectors[3] = 0
    source = write_source(tmp_path / "source", [vectors])
    assert "1 of 20 samples were dropped ({'zero_norm': 1}), more than limits.drop_limit 0.01 allows" in refused(source)
    assert run(source, tmp_path / "out", "--drop-limit", "0.05").exit_code == 0


def test_a_killed_import_resumes_with_the_same_bytes(embedder: Path, tmp_path: Path) -> None:
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
