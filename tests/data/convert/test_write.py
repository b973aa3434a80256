"""Written shards: their content, images that are left out, and conversions that are stopped."""

from __future__ import annotations

import tarfile
import threading
from pathlib import Path

import pytest
from conftest import jpeg
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import bytes_of, convert, refused, write_tree, written

from simgap.data.convert import write


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write twelve images of three classes, for shards of five images."""
    monkeypatch.setattr(write, "SHARD_IMAGES", 5)
    monkeypatch.setattr(write, "GROUP", 2)
    files = {f"{label}/{index}.jpg": jpeg(4 * label + index) for label in range(3) for index in range(4)}
    return write_tree(tmp_path / "tree", files)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(1, 4), min_size=2, max_size=4), shard=st.integers(1, 9), group=st.integers(1, 4))
def test_every_image_with_its_label_for_any_size_of_shard(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    counts: list[int],
    shard: int,
    group: int,
) -> None:
    monkeypatch.setattr(write, "SHARD_IMAGES", shard)
    monkeypatch.setattr(write, "GROUP", group)
    images = [(label, jpeg(10 * label + index)) for label, count in enumerate(counts) for index in range(count)]
    folder = tmp_path_factory.mktemp("set")
    write_tree(folder / "tree", {f"{label}/{index}.jpg": image for index, (label, image) in enumerate(images)})
    convert("image-folder", folder / "tree", folder / "out")
    assert written(folder / "out") == images
    assert (folder / "out" / "test" / "nshards.txt").read_text() == f"{-(-len(images) // shard)}\n"


def test_members_do_not_know_when_and_by_whom_they_were_made(tree: Path, tmp_path: Path) -> None:
    convert("image-folder", tree, tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "test" / "1.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members[:3]] == ["000010000.jpg", "000010000.cls", "000010001.jpg"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}


def test_a_repeated_conversion_writes_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        convert("image-folder", tree, tmp_path / name)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def stop_after(monkeypatch: pytest.MonkeyPatch, images: int) -> list[Path]:
    """Interrupt a conversion after a number of images. Return the list of the images that it reads."""
    read: list[Path] = []
    read_image, one_at_a_time = write._read_image, threading.Lock()

    def interrupted(path: Path, border: int) -> bytes | str:
        with one_at_a_time:
            if len(read) == images:
                raise KeyboardInterrupt
            read.append(path)
        return read_image(path, border)

    monkeypatch.setattr(write, "_read_image", interrupted)
    return read


def test_a_stopped_conversion_goes_on_and_ends_with_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    convert("image-folder", tree, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 8)
        assert convert("image-folder", tree, tmp_path / "out").exit_code == 1
    assert not (tmp_path / "out").exists()
    with pytest.MonkeyPatch.context() as patch:
        read = stop_after(patch, 1000)
        convert("image-folder", tree, tmp_path / "out")
    assert len(read) == 12 - 5
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tree", "whole"]


def test_finished_shards_of_other_images_are_not_used(tree: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 11)
        convert("image-folder", tree, tmp_path / "out")
    (tree / "0" / "0.jpg").write_bytes(jpeg(99, 32))
    with pytest.MonkeyPatch.context() as patch:
        read = stop_after(patch, 1000)
        convert("image-folder", tree, tmp_path / "out")
    # The second shard had not changed, so it was not written again.
    assert len(read) == 12 - 5
    assert written(tmp_path / "out")[0] == (0, jpeg(99, 32))
    assert len(written(tmp_path / "out")) == 12


def test_unreadable_images_are_refused_or_left_out_and_counted(tree: Path, tmp_path: Path) -> None:
    (tree / "1" / "2.jpg").write_bytes(jpeg(6)[:200])
    (tree / "2" / "0.jpg").write_bytes(b"")
    line = refused("image-folder", tree, tmp_path / "out")
    assert f"{tree / '1' / '2.jpg'}: broken_image; 2 of 12 images cannot be used" in line
    assert "--allow-incomplete" in line
    with pytest.MonkeyPatch.context() as patch:
        read = stop_after(patch, 1000)
        result = convert("image-folder", tree, tmp_path / "out", "--allow-incomplete")
    assert read == []
    assert result.output == f"{tmp_path / 'out'}: 10 images of 3 classes; 2 left out (broken_image)\n"
    expected = [(n // 4, jpeg(n)) for n in range(12) if n not in (6, 8)]
    assert written(tmp_path / "out") == expected


def test_a_file_above_the_limit_of_a_member(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MAXIMUM_MEMBER_BYTES", (tree / "0" / "0.jpg").stat().st_size - 1)
    (tree / "0" / "1.jpg").write_bytes(jpeg(1, 8))
    assert f"{tree / '0' / '0.jpg'}: member_too_large" in refused("image-folder", tree, tmp_path / "out")


def test_a_set_without_a_readable_image(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a/1.jpg": b"", "b/1.jpg": b""})
    assert "2 of 2 images cannot be used" in refused("image-folder", tree, tmp_path / "out", "--allow-incomplete")


def test_a_file_that_cannot_be_read_is_one_line(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: Path, border: int) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(write, "_read_image", unreadable)
    assert f"{tree / '0' / '0.jpg'}: Permission denied" in refused("image-folder", tree, tmp_path / "out")


def test_two_processes_do_not_write_one_output(tree: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.converting").mkdir()
    with FileLock(tmp_path / ".out.converting" / "lock"):
        assert "another process is writing it" in refused("image-folder", tree, tmp_path / "out")
    assert convert("image-folder", tree, tmp_path / "out").exit_code == 0
