from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from conftest import jpeg, write_tar

from simgap.data.images import BrokenImage, decode
from simgap.data.shards import read_json_members, read_shard, shard_paths
from simgap.errors import SimgapError


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
    dropped: Counter[str] = Counter()
    samples = list(read_shard(path, dropped, caption=True, label=False))
    assert [(s.shard, s.key, s.image, s.caption) for s in samples] == [
        ("00000.tar", "b", b"B", "two words"),
        ("00000.tar", "a", b"A", "käse"),
    ]
    assert dropped == {"no_image": 1, "no_caption": 2, "duplicate_key": 1}


def test_a_truncated_tar_gives_what_came_before(tmp_path: Path) -> None:
    members = [(f"{index}.{suffix}", b"x" * 600) for index in range(4) for suffix in ("jpg", "txt")]
    path = write_tar(tmp_path / "0.tar", members)
    path.write_bytes(path.read_bytes()[: 5 * 1536 + 700])
    dropped: Counter[str] = Counter()
    samples = list(read_shard(path, dropped, caption=True, label=False))
    assert [sample.key for sample in samples] == ["0", "1"]
    assert dropped["damaged_shard"] == 1
    assert list(read_shard(write_tar(tmp_path / "1.tar", []), dropped, caption=True, label=False)) == []


@pytest.mark.parametrize("label", [b"cat", b"-1", b"", b"1.5"])
def test_a_label_that_is_no_index_is_counted(tmp_path: Path, label: bytes) -> None:
    path = write_tar(tmp_path / "0.tar", [("a.jpg", b"A"), ("a.cls", label), ("b.jpg", b"B"), ("b.cls", b" 3\n")])
    dropped: Counter[str] = Counter()
    assert [s.label for s in read_shard(path, dropped, caption=False, label=True)] == [3]
    assert dropped == {"no_label": 1}


def test_members_that_would_leave_the_folder_stay_names(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", [("../../evil.jpg", b"E"), ("../../evil.txt", b"words")])
    (sample,) = read_shard(path, Counter(), caption=True, label=False)
    assert sample.key == "evil"
    assert [p.name for p in tmp_path.iterdir()] == ["0.tar"]


def test_json_members(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", [("a.jpg", b"A"), ("a.json", b"{}"), ("b.json", b"[]")])
    assert list(read_json_members(path, Counter())) == [("a", b"{}"), ("b", b"[]")]


def test_a_folder_without_shards(tmp_path: Path) -> None:
    with pytest.raises(SimgapError, match="no such folder"):
        shard_paths(tmp_path / "nowhere")
    with pytest.raises(SimgapError, match=r"holds no \.tar"):
        shard_paths(tmp_path)


def test_images() -> None:
    assert decode(jpeg(0, 24)).size == (24, 24)
    for damaged in (b"", b"GIF89a", jpeg(0)[:200], b"\x89PNG\r\n\x1a\n" + b"\0" * 40):
        with pytest.raises(BrokenImage, match="broken_image"):
            decode(damaged)
