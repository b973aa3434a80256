from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

import pytest
from conftest import jpeg, write_tar
from PIL import Image

from simgap.core.errors import SimgapError
from simgap.data import shards as module
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import (
    Accounting,
    ShardsByName,
    find_shards,
    open_writer,
    read_json_members,
    read_samples,
    read_shard,
    select_samples,
    write_sample,
)


def test_samples_in_tar_order_and_the_rest_counted_by_reason(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "00000.tar",
        [
            ("b.jpg", b"B"),
            ("b.txt", b" two words "),
            ("folder/a.png", b"A"),
            ("folder/a.txt", "käse".encode()),
            ("noimage.txt", b"text"),
            ("nocaption.webp", b"N"),
            ("empty.jpeg", b"E"),
            ("empty.txt", b"  "),
            ("b.jpg", b"again"),
            ("b.txt", b"again"),
            (".hidden", b""),
        ],
    )
    accounting = Accounting()
    samples = list(read_shard(path, accounting, caption=True, label=False))
    assert [(s.shard, s.key, s.image, s.caption) for s in samples] == [
        ("00000.tar", "b", b"B", "two words"),
        ("00000.tar", "folder/a", b"A", "käse"),
    ]
    assert accounting.metrics(2) == {
        "read": 6,
        "kept": 2,
        "dropped/duplicate_key": 1,
        "dropped/no_caption": 2,
        "dropped/no_image": 1,
    }


def test_a_truncated_tar_gives_what_came_before(tmp_path: Path) -> None:
    members = [(f"{index}.{suffix}", b"x" * 600) for index in range(4) for suffix in ("jpg", "txt")]
    path = write_tar(tmp_path / "0.tar", members)
    path.write_bytes(path.read_bytes()[: 5 * 1536 + 700])
    accounting = Accounting()
    samples = list(read_shard(path, accounting, caption=True, label=False))
    assert [sample.key for sample in samples] == ["0", "1"]
    assert accounting.damaged_shards == 1
    assert list(read_shard(write_tar(tmp_path / "1.tar", []), accounting, caption=True, label=False)) == []


def cut(content: bytes) -> bytes:
    return content[: 2 * 3072]


def cut_in_a_header(content: bytes) -> bytes:
    return content[: 2 * 3072 + 200]


def corrupt_header(content: bytes) -> bytes:
    return content[: 2 * 3072] + b"x" * 512 + content[2 * 3072 + 512 :]


def zeros_in_the_middle(content: bytes) -> bytes:
    return content[: 2 * 3072] + bytes(1024) + content[2 * 3072 :]


@pytest.mark.parametrize("damage", [cut, cut_in_a_header, corrupt_header, zeros_in_the_middle])
def test_a_tar_that_tarfile_takes_for_whole_is_counted_as_damaged(tmp_path: Path, damage) -> None:
    members = [(f"{index}.{suffix}", b"x" * 600) for index in range(4) for suffix in ("jpg", "txt")]
    path = write_tar(tmp_path / "0.tar", members)
    whole = Accounting()
    assert len(list(read_shard(path, whole, caption=True, label=False))) == 4
    assert whole.damaged_shards == 0
    path.write_bytes(damage(path.read_bytes()))
    accounting = Accounting()
    assert [sample.key for sample in read_shard(path, accounting, caption=True, label=False)] == ["0", "1"]
    assert accounting.damaged_shards == 1


def test_one_reason_for_each_sample(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAXIMUM_MEMBER_BYTES", 100)
    members = [("a.jpg", b"x" * 101), ("a.txt", b"t"), ("b.jpg", b"B"), ("b.jpg", b"C"), ("b.txt", b"t")]
    path = write_tar(tmp_path / "0.tar", [*members, ("\udce9.jpg", b"x"), ("\udce9.txt", b"t")])
    accounting = Accounting()
    assert [sample.image for sample in read_shard(path, accounting, caption=True, label=False)] == [b"B"]
    expected = {"read": 3, "kept": 1, "dropped/bad_name": 1, "dropped/member_too_large": 1}
    assert accounting.metrics(1) == expected
    with pytest.raises(SimgapError, match="3 samples read, but 2 kept"):
        accounting.metrics(2)


def test_one_name_in_two_folders_is_two_samples(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", [("x/1.jpg", b"X"), ("x/1.txt", b"x"), ("./y/1.jpg", b"Y"), ("y/1.txt", b"y")])
    found = [(s.key, s.image, s.caption) for s in read_shard(path, Accounting(), caption=True, label=False)]
    assert found == [("x/1", b"X", "x"), ("y/1", b"Y", "y")]


@pytest.mark.parametrize("label", [b"cat", b"-1", b"", b"1.5", b"99999999999", b"1" * 5000, "²".encode()])
def test_a_label_that_is_no_index_is_counted(tmp_path: Path, label: bytes) -> None:
    path = write_tar(tmp_path / "0.tar", [("a.jpg", b"A"), ("a.cls", label), ("b.jpg", b"B"), ("b.cls", b" 3\n")])
    accounting = Accounting()
    assert [s.label for s in read_shard(path, accounting, caption=False, label=True)] == [3]
    assert accounting.dropped == {"no_label": 1}


def test_members_that_would_leave_the_folder_stay_names(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", [("../../evil.jpg", b"E"), ("../../evil.txt", b"words")])
    (sample,) = read_shard(path, Accounting(), caption=True, label=False)
    assert sample.key == "../../evil"
    assert [p.name for p in tmp_path.iterdir()] == ["0.tar"]


def test_json_members(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", [("a.jpg", b"A"), ("a.json", b"{}"), ("b.json", b"[]")])
    assert list(read_json_members(path, Accounting())) == [("a", b"{}"), ("b", b"[]")]


def test_all_members_of_a_sample(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAXIMUM_MEMBER_BYTES", 3)
    members = [
        ("x/a.JPG", b"A"),
        ("x/a.seg.png", b""),
        ("x/a.jpg", b"2"),
        ("b.jpg", b"B"),
        ("c.jpg", b"four"),
        ("c.txt", b"c"),
    ]
    path = write_tar(tmp_path / "0.tar", [*members, ("x/a.jpg", b"3"), ("\udce9.jpg", b"x")])
    assert list(read_samples(path)) == [("x/a", {"jpg": b"A", "seg.png": b""}), ("b", {"jpg": b"B"})]


def test_a_folder_without_shards(tmp_path: Path) -> None:
    with pytest.raises(SimgapError, match="no such folder"):
        find_shards(tmp_path / "nowhere")
    with pytest.raises(SimgapError, match=r"holds no \.tar"):
        find_shards(tmp_path)


def test_shards_by_name(tmp_path: Path) -> None:
    paths = [write_tar(tmp_path / name, []) for name in ("b.tar", "a.tar")]
    shards = ShardsByName(tmp_path)
    assert shards == {path.name: path for path in paths}
    with pytest.raises(SimgapError, match=rf"^{tmp_path}: has no shard 'c\.tar', but embedded samples lie in it"):
        shards["c.tar"]


def test_selected_samples_in_tar_order_and_none_read_after_them(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", [(f"{key}.jpg", key.encode()) for key in "abcde"])
    samples = read_samples(path)
    assert [sample.members["jpg"] for sample in select_samples(samples, ["d", "b"], path)] == [b"b", b"d"]
    assert [sample.key for sample in samples] == ["e"]
    assert list(select_samples(read_samples(path), [], path)) == []


def test_a_shard_that_lacks_selected_samples(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", [("a.jpg", b"A"), ("b.jpg", b"B")])
    selected = select_samples(read_shard(path, Accounting(), caption=False, label=False), ["z", "a", "y"], path)
    assert next(selected).image == b"A"
    with pytest.raises(SimgapError, match=r"0\.tar: lacks 2 of the 3 samples to read, 'z' first"):
        next(selected)


SAMPLES = {
    "x/a": {"jpg": b"A" * 70_000, "txt": "käse".encode(), "json": b"{}", "cls": b"3", "_meta": b"m"},
    "b": {"seg.png": b"", "jpg": b"B"},
    "long/" * 30 + "name": {"webp": b"W"},
}


def test_written_samples_keep_names_order_and_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tar is that of `tarfile` with default headers, whenever it is written."""
    members = [(f"{key}.{suffix}", data) for key, held in SAMPLES.items() for suffix, data in held.items()]
    expected = write_tar(tmp_path / "expected.tar", members).read_bytes()
    for now in (0.0, 1e9):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        with open_writer(tmp_path / "0.tar") as writer:
            for key, held in SAMPLES.items():
                write_sample(writer, key, held)
        assert (tmp_path / "0.tar").read_bytes() == expected
    with tarfile.open(tmp_path / "0.tar") as tar:
        assert [member.name for member in tar] == [name for name, _ in members]
    assert [(sample.key, sample.members) for sample in read_samples(tmp_path / "0.tar")] == list(SAMPLES.items())


def test_images() -> None:
    assert decode(jpeg(0, 24)).size == (24, 24)
    for damaged in (b"", b"GIF89a", jpeg(0)[:200], b"\x89PNG\r\n\x1a\n" + b"\0" * 40):
        with pytest.raises(BrokenImage, match="broken_image"):
            decode(damaged)
    stream = io.BytesIO()
    Image.new("RGB", (1, 101)).save(stream, "PNG")
    with pytest.raises(BrokenImage, match="too_narrow"):
        decode(stream.getvalue())
