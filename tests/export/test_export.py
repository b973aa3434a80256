"""Exports of a split, read as other tools read them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from conftest import DAMAGES, write_tar
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from open_clip_train.data import get_dataset_size
from pools import Study, write_study

from simgap.core.files import read_json
from simgap.data import shards as shards_module
from simgap.export import kept as kept_module
from simgap.export import subset
from simgap.export.kept import KeptSamples
from simgap.store.embeddings import Embeddings

KEEP = [True, True, False, True, False, False, True, True, False, True, True, True, False, True, True]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    return write_study(tmp_path, (5, 4, 6))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_back(folder: Path) -> list[dict[str, bytes]]:
    """Read all shards with webdataset. Return the members of each sample by suffix."""
    urls = sorted(str(path) for path in folder.glob("*.tar"))
    dataset = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    return [{key: value for key, value in sample.items() if not key.startswith("__")} for sample in dataset]


def uid_halves(rows: list) -> list[tuple[int, int]]:
    """Return uids as DataComp's own code splits them (baselines/apply_filter.py)."""
    uids = [json.loads(held["json"])["uid"] for _, _, held in rows]
    return [(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids]


def test_shards_are_what_open_clip_and_webdataset_read(study) -> None:
    study.keep("few", KEEP)
    result = study.export("shards", "few", "out", "--samples-per-shard", "4")
    assert (result.exit_code, result.output) == (0, "out: 10 samples in 3 shards\n")
    kept = read_json(study.folder / "data" / "splits" / "few" / "split.json")["kept"]
    assert get_dataset_size("out/{00000..00002}.tar") == (kept, 3)
    assert read_json(Path("out", "sizes.json")) == {"00000.tar": 4, "00001.tar": 4, "00002.tar": 2}
    assert read_back(Path("out")) == [held for _, _, held in study.kept(KEEP)]
    tables = pa.concat_tables([pq.read_table(path) for path in sorted(Path("out").glob("*.parquet"))])
    places = zip(*(tables.column(name).to_pylist() for name in ("source_shard", "source_key")), strict=True)
    assert list(places) == [(shard, key) for shard, key, _ in study.kept(KEEP)]
    with tarfile.open("out/00001.tar") as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names[:5] == ["000010000.jpg", "000010000.txt", "000010000.json", "000010000.meta.bin", "000010001.jpg"]
    assert {(m.mtime, m.uid, m.uname, m.mode) for m in members} == {(0, 0, "", 0o644)}
    assert sorted(path.name for path in study.folder.iterdir()) == ["data", "out", "params.yaml", "pool", "presets"]


def test_repeated_exports_are_the_same_bytes(study) -> None:
    study.keep("few", KEEP)
    for name in ("one", "two"):
        study.export("shards", "few", name, "--samples-per-shard", "4")
    assert bytes_of(Path("one")) == bytes_of(Path("two"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rows_in_shards_of_any_size(tmp_path_factory, data) -> None:
    """Samples are ordered by part of the embeddings, then by shard, then as in the tar: row order, if no import mixed rows."""
    samples = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("study")
        patch.chdir(folder)
        study = own = write_study(folder, tuple(samples), data.draw(st.integers(1, 3)))
        if mixed := data.draw(st.booleans()):
            study = own.mixed(data.draw(st.permutations(range(sum(samples)))))
        keep = data.draw(st.lists(st.booleans(), min_size=sum(samples), max_size=sum(samples)).filter(any))
        size = data.draw(st.integers(1, 7))
        name = tmp_path_factory.mktemp("out") / "out"
        study.keep("some", keep)
        assert study.export("shards", "some", str(name), "--samples-per-shard", str(size)).exit_code == 0
        kept = study.kept(keep)
        expected = [row for part in study.parts() for row in sorted(part, key=own.rows.index) if row in kept]
        assert mixed or expected == kept
        assert read_back(name) == [held for _, _, held in expected]
        tables = pa.concat_tables([pq.read_table(path) for path in sorted(name.glob("*.parquet"))])
        places = zip(*(tables.column(column).to_pylist() for column in ("source_shard", "source_key")), strict=True)
        assert list(places) == [(shard, key) for shard, key, _ in expected]
        rows = list(read_json(name / "sizes.json").values())
        assert rows[:-1] == [size] * (len(rows) - 1)
        assert sum(rows) == len(kept)
        assert study.export("datacomp", "some", str(name.with_suffix(".npy"))).exit_code == 0
        assert np.load(name.with_suffix(".npy")).tolist() == sorted(uid_halves(kept))


@pytest.mark.parametrize("form", [["datacomp", "out.npy"], ["shards", "out", "--samples-per-shard", "2"]])
def test_a_part_reads_each_of_its_shards_once(study, monkeypatch: pytest.MonkeyPatch, form: list[str]) -> None:
    """This holds even if the rows of several shards alternate. The shards of the pool are listed once."""
    study = study.mixed([0, 9, 5, 1, 10, 6, 2, 11, 7, 3, 12, 8, 4, 13, 14])
    study.keep("all", [True] * 15)
    opened, listed = [], []
    real, real_list = shards_module._read_members, shards_module.find_shards

    def members(shard, *rest, **options):
        opened.append(shard.name)
        return real(shard, *rest, **options)

    def find_shards(folder):
        listed.append(folder)
        return real_list(folder)

    monkeypatch.setattr(shards_module, "_read_members", members)
    monkeypatch.setattr(shards_module, "find_shards", find_shards)
    assert study.export(form[0], "all", *form[1:]).exit_code == 0
    assert opened == [shard for part in study.parts() for shard in sorted({shard for shard, _, _ in part})]
    assert len(opened) == 6
    assert listed == [Path("pool")]


def test_a_datacomp_subset_finds_exactly_the_kept_samples(study) -> None:
    study.keep("few", KEEP, reference_rows=True)
    result = study.export("datacomp", "few", "few.npy")
    expected = "few.npy: 10 uids; the training data of this split also contain the reference, which is not exported\n"
    assert (result.exit_code, result.output) == (0, expected)
    # DataComp's resharder opens the file in this way, and searches it for each sample of the pool.
    found = np.load("few.npy", mmap_mode="r")
    assert found.dtype == np.dtype("u8,u8")
    assert found.shape == (10,)
    for halves, is_kept in zip(uid_halves(study.rows), KEEP, strict=True):
        wanted = np.array([halves], "u8,u8")[0]
        count = np.searchsorted(found, wanted, "right") - np.searchsorted(found, wanted, "left")
        assert count == is_kept
    expected_array = np.array(uid_halves(study.kept(KEEP)), "u8,u8")
    expected_array.sort()
    assert np.array_equal(found, expected_array)


def test_of_two_samples_of_one_key_the_first_is_the_row(study) -> None:
    """Embedding keeps the first, whether the second is adjacent or comes later."""
    shard, (_, key, held) = Path("pool", "00001.tar"), study.rows[5]
    members = [(f"{key}.{suffix}", data) for suffix, data in held.items()]
    again = [(f"{key}.jpg", b"again"), (f"{key}.json", json.dumps({"uid": "f" * 32}).encode())]
    others = [(f"{key}.{suffix}", data) for _, key, held in study.rows[6:9] for suffix, data in held.items()]
    write_tar(shard, [*members, *again, *others, *again])
    study.keep("all", [True] * 15)
    assert study.export("shards", "all", "out").exit_code == 0
    assert read_back(Path("out")) == [held for _, _, held in study.rows]
    assert study.export("datacomp", "all", "all.npy").exit_code == 0
    assert np.load("all.npy").tolist() == sorted(uid_halves(study.rows))


def test_uids_come_from_the_table_beside_a_shard_where_it_has_them(study) -> None:
    keys = [key for shard, key, _ in study.rows if shard == "00001.tar"]
    pq.write_table(pa.table({"key": keys, "uid": [f"{n:032x}" for n in range(4)]}), "pool/00001.parquet")
    pq.write_table(pa.table({"key": keys}), "pool/00002.parquet")
    study.keep("all", [True] * 15)
    assert study.export("datacomp", "all", "all.npy").exit_code == 0
    expected = uid_halves(study.rows[:5]) + [(0, n) for n in range(4)] + uid_halves(study.rows[9:])
    assert np.load("all.npy").tolist() == sorted(expected)


@pytest.mark.parametrize("uid", [None, 5, "", "g" * 32, "0" * 33])
def test_a_sample_without_a_uid_is_refused_in_one_line(study, uid) -> None:
    keys = [key for shard, key, _ in study.rows if shard == "00001.tar"]
    values = pa.array([uid if n == 2 else (n if uid == 5 else f"{n:032x}") for n in range(4)])
    pq.write_table(pa.table({"key": keys, "uid": values}), "pool/00001.parquet")
    study.keep("few", KEEP)
    line = study.refused("datacomp", "few", "few.npy")
    assert f"pool/00001.tar: the sample '{'../../evil' if uid == 5 else '0002'}' has the uid " in line
    assert "simgap export keys" in line


def without_uids(shard: Path, held: list) -> None:
    write_tar(
        shard,
        [
            (f"{key}.{suffix}", json.dumps({"key": key}).encode() if suffix == "json" else data)
            for _, key, sample in held
            for suffix, data in sample.items()
        ],
    )


def test_uids_are_derived_where_the_pool_names_none_and_the_command_says_so(study) -> None:
    study.keep("few", KEEP)
    for number in range(4):
        name = f"{number:05d}.tar"
        without_uids(Path("pool", name), [row for row in study.rows if row[0] == name])
    line = "few.npy: 10 uids, each the MD5 of SHARD/KEY, since the pool has no uids\n"
    assert study.export("datacomp", "few", "few.npy").output == line
    digests = [hashlib.md5(f"{shard}/{key}".encode()).hexdigest() for shard, key, _ in study.kept(KEEP)]
    expected = np.array([(int(digest[:16], 16), int(digest[16:], 16)) for digest in digests], "u8,u8")
    expected.sort()
    found = np.load("few.npy")
    assert found.dtype == np.dtype("u8,u8")
    assert np.array_equal(found, expected)


def test_samples_with_and_without_a_uid_are_refused(study) -> None:
    study.keep("all", [True] * 15)
    without_uids(Path("pool", "00001.tar"), [row for row in study.rows if row[0] == "00001.tar"])
    assert "4 of the split's 15 samples have no uid" in study.refused("datacomp", "all", "all.npy")


def test_shards_where_there_are_no_hard_links(study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    study.keep("few", KEEP)
    monkeypatch.setattr(os, "link", refused)
    assert study.export("shards", "few", "out").exit_code == 0
    assert read_back(Path("out")) == [held for _, _, held in study.kept(KEEP)]


def test_a_uid_of_two_samples_is_refused(study) -> None:
    keys = [key for shard, key, _ in study.rows if shard == "00001.tar"]
    pq.write_table(pa.table({"key": keys, "uid": [f"{n // 2:032x}" for n in range(4)]}), "pool/00001.parquet")
    study.keep("all", [True] * 15)
    assert f"the uid {0:032x} names two samples" in study.refused("datacomp", "all", "few.npy")


def test_keys_as_text_and_as_a_table(study) -> None:
    study.keep("few", KEEP)
    assert study.export("keys", "few", "few.txt").output == "few.txt: 10 keys\n"
    assert study.export("keys", "few", "few.parquet").output == "few.parquet: 10 keys\n"
    expected = [(shard, key) for shard, key, _ in study.kept(KEEP)]
    assert Path("few.txt").read_text() == "".join(f"{shard}\t{key}\n" for shard, key in expected)
    table = pq.read_table("few.parquet")
    assert table.schema.names == ["shard", "key"]
    assert list(zip(*table.to_pydict().values(), strict=True)) == expected


def test_what_cannot_be_exported(study) -> None:
    study.keep("few", KEEP)
    study.keep("none", [False] * 15)
    assert "SPLIT: there is no split 'fwe'; choose from few, none" in study.refused("keys", "fwe", "x.txt")
    assert "none: keeps no pool row" in study.refused("keys", "none", "x.txt")
    assert "'.csv' is not the suffix of a list" in study.refused("keys", "few", "x.csv")
    assert "'.np' is not the suffix of an array" in study.refused("datacomp", "few", "x.np")
    assert "pool: exists" in study.refused("shards", "few", "pool")
    assert "--samples-per-shard: 0" in study.refused("shards", "few", "out", "--samples-per-shard", "0")
    split = Path("data", "splits", "few", "split.json")
    split.write_text(split.read_text().replace('"row_order": "', '"row_order": "0'))
    assert "few: belongs to other rows" in study.refused("shards", "few", "out")


@pytest.mark.parametrize("split", ["../splits/few", "few/", "./few", "../embeddings", "", ".", "*"])
def test_a_split_is_a_name_and_no_path(study, split: str) -> None:
    study.keep("few", KEEP)
    assert f"SPLIT: there is no split {split!r}; choose from few\n" in study.refused("keys", split, "x.txt")
    absolute = str(Path("data", "splits", "few").resolve())
    assert f"SPLIT: there is no split {absolute!r}; choose from few\n" in study.refused("keys", absolute, "x.txt")


@pytest.mark.parametrize("form", [["keys", "out.txt"], ["datacomp", "out.npy"], ["shards", "out"]])
def test_what_came_to_stand_in_the_place_meanwhile_stays(study, monkeypatch: pytest.MonkeyPatch, form) -> None:
    study.keep("few", KEEP)
    real, out = Embeddings.metadata_parts, Path(form[1])

    def put(self, columns):
        if not out.exists():
            out.mkdir()
            (out / "mine").write_text("mine")
        return real(self, columns)

    monkeypatch.setattr(Embeddings, "metadata_parts", put)
    result = study.export(form[0], "few", form[1])
    assert (result.exit_code, result.output) == (1, f"error: {out}: exists; choose a path that does not exist yet\n")
    assert bytes_of(out) == {"mine": b"mine"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_one_line(study, damage) -> None:
    study.keep("few", KEEP)
    beside = Path("pool", "00000.parquet")
    pq.write_table(pa.table({"key": ["x"], "uid": ["0"]}), beside)
    damage(beside)
    assert "pool/00000.parquet: the file cannot be read as a Parquet table (" in study.refused(
        "datacomp", "few", "x.npy"
    )
    beside.unlink()
    damage(Path("data", "embeddings", "pool", "metadata", "metadata_0001.parquet"))
    for form in (["keys", "few", "x.txt"], ["datacomp", "few", "x.npy"], ["shards", "few", "x"]):
        line = study.refused(*form)
        assert (
            "data/embeddings/pool/metadata/metadata_0001.parquet: the file cannot be read as a Parquet table (" in line
        )
        assert line.endswith("; embed or import the set again\n")


def test_a_table_that_lacks_a_column(study) -> None:
    study.keep("few", KEEP)
    path = Path("data", "embeddings", "pool", "metadata", "metadata_0000.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["shard"]), path)
    assert "metadata_0000.parquet: the table has no column shard; embed or import" in study.refused(
        "keys", "few", "x.txt"
    )


def test_a_split_whose_bits_are_of_another_number(study) -> None:
    study.keep("few", KEEP)
    np.save("data/splits/few/keep.npy", np.array([1, 0], np.uint8))
    assert "few/keep.npy: keeps 1 rows, but the split's description says 10" in study.refused("shards", "few", "out")


def test_a_pool_that_is_not_the_one_that_was_embedded(study) -> None:
    study.keep("few", KEEP)
    Path("pool", "00002.tar").write_bytes(Path("pool", "00001.tar").read_bytes())
    line = study.refused("shards", "few", "out")
    assert "pool/00002.tar: lacks 2 of the 5 samples to read, '0004' first" in line
    assert "pool/00002.tar: the sample '0004' has the uid None" in study.refused("datacomp", "few", "out.npy")
    Path("pool", "00001.tar").unlink()
    for form in (["shards", "few", "out"], ["datacomp", "few", "out.npy"]):
        assert "pool: has no shard '00001.tar'" in study.refused(*form)


def test_a_key_that_does_not_fit_a_line(study) -> None:
    path = Path("data", "embeddings", "pool", "metadata", "metadata_0000.parquet")
    table = pq.read_table(path).to_pydict()
    table["key"][0] = "two\nlines"
    pq.write_table(pa.table(table), path)
    study.keep("few", KEEP)
    assert r"the key 'two\nlines' of '00000.tar'" in study.refused("keys", "few", "x.txt")
    assert study.export("keys", "few", "x.parquet").exit_code == 0


def test_rows_that_name_no_shard_are_not_exported(study) -> None:
    for path in Path("data", "embeddings", "pool", "metadata").iterdir():
        table = pq.read_table(path)
        nothing = pa.nulls(table.num_rows, pa.string())
        pq.write_table(table.set_column(0, "shard", nothing), path)
    study.keep("few", KEEP)
    for form in (["keys", "few", "x.txt"], ["datacomp", "few", "x.npy"], ["shards", "few", "x"]):
        assert "the metadata name no shards, and training and export need the shards" in study.refused(*form)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, owner, name: str, calls: int) -> list:
    """Interrupt a function of a module or class after some calls. Return the list of its first arguments."""
    real, seen = getattr(owner, name), []

    def counted(first, *rest):
        if len(seen) == calls:
            raise KeyboardInterrupt
        seen.append(first)
        return real(first, *rest)

    monkeypatch.setattr(owner, name, counted)
    return seen


def test_stopped_shards_go_on_and_end_with_the_same_bytes(study) -> None:
    study.keep("few", KEEP)
    arguments = ["shards", "few"]
    study.export(*arguments, "whole", "--samples-per-shard", "3")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, webdataset.TarWriter, "write", 30)
        assert study.export(*arguments, "out", "--samples-per-shard", "3").exit_code == 1
    assert not Path("out").exists()
    with pytest.MonkeyPatch.context() as patch:
        written = interrupt_after(patch, webdataset.TarWriter, "write", 1000)
        assert study.export(*arguments, "out", "--samples-per-shard", "3").exit_code == 0
    # Two of the four shards, of twelve members each, were done.
    assert len(written) == 40 - 24
    assert bytes_of(Path("out")) == bytes_of(Path("whole"))
    assert not list(study.folder.glob(".*"))


def test_a_stopped_subset_goes_on_and_ends_with_the_same_bytes(study) -> None:
    study.keep("few", KEEP)
    study.export("datacomp", "few", "whole.npy")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, subset, "_uids_of", 2)
        assert study.export("datacomp", "few", "out.npy").exit_code == 1
    assert not Path("out.npy").exists()
    with pytest.MonkeyPatch.context() as patch:
        read = interrupt_after(patch, subset, "_uids_of", 1000)
        study.export("datacomp", "few", "out.npy")
    assert [run.shard.name for run in read] == ["00002.tar"]
    assert Path("out.npy").read_bytes() == Path("whole.npy").read_bytes()
    assert not list(study.folder.glob(".*"))


def test_what_another_split_or_pool_left_is_not_used(study) -> None:
    study.keep("few", KEEP)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, webdataset.TarWriter, "write", 30)
        study.export("shards", "few", "out", "--samples-per-shard", "3")
    other = [not is_kept for is_kept in KEEP]
    study.keep("other", other)
    assert study.export("shards", "other", "out", "--samples-per-shard", "3").exit_code == 0
    assert read_back(Path("out")) == [held for _, _, held in study.kept(other)]


def test_two_processes_do_not_write_one_export(study) -> None:
    study.keep("few", KEEP)
    Path(".out.exporting").mkdir()
    with FileLock(".out.exporting/lock"):
        assert "out: another process is writing it" in study.refused("shards", "few", "out")


def test_a_full_disk_is_one_line_and_leaves_nothing(study, monkeypatch) -> None:
    study.keep("few", KEEP)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(webdataset.TarWriter, "write", full)
    assert "out: No space left on device" in study.refused("shards", "few", "out")
    assert not list(study.folder.glob(".*"))


KILLED = """
import os, signal, sys
from webdataset import TarWriter
from simgap.cli.main import main
real, calls = TarWriter.write, []
def add(*rest):
    calls.append(0)
    if len(calls) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*rest)
TarWriter.write = add
main(["export", "shards", "few", "out", "--samples-per-shard", "3"])
"""


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_half_written(study) -> None:
    study.keep("few", KEEP)
    environment = {**os.environ, "PYTHONPATH": str(Path(kept_module.__file__).parents[2])}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not Path("out").exists()
    study.export("shards", "few", "whole", "--samples-per-shard", "3")
    study.export("shards", "few", "out", "--samples-per-shard", "3")
    assert bytes_of(Path("out")) == bytes_of(Path("whole"))
    assert not list(study.folder.glob(".*"))


def test_memory_is_a_part_and_not_the_pool(study) -> None:
    """Rows are read part by part."""
    study.keep("few", KEEP)
    kept = KeptSamples(Path("data", "splits", "few"), Path("data", "embeddings", "pool"), Path("pool"))
    assert [table.num_rows for table in kept.tables("shard", "key")] == [sum(KEEP[:9]), sum(KEEP[9:])]
