"""Remote shards on file systems in memory and on disk. The tests with S3 are in tests/system/test_object_store.py."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from conftest import jpeg, write_pool, write_tar
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from simgap.core.errors import SimgapError
from simgap.data import remote
from simgap.data.fingerprint import fingerprint
from simgap.data.manifest import MANIFEST, read_manifest, write_manifest
from simgap.data.remote import RemoteShard, list_shards, stream
from simgap.data.shards import Accounting, find_shards, read_json_members, read_samples, read_shard, select_samples


class Flaky(MemoryFileSystem):
    """A file system in memory. Each read takes a step of `plan`: an exception to raise, `short` for half the bytes, or None."""

    protocol = "flaky"
    plan: Iterator[Exception | str | None] = iter(())
    opened = 0
    asked: ClassVar[list[tuple[int, int]]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("flaky:", "memory:"))

    def open(self, path: str, mode: str = "rb", **options: object) -> io.IOBase:
        Flaky.opened += 1

        class File(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                fault = next(Flaky.plan, None)
                Flaky.asked.append((self.tell(), size or 0))
                if isinstance(fault, Exception):
                    raise fault
                found = super().read(size)
                return found[: len(found) // 2] if fault == "short" else found

        return File(super().open(path, mode).getvalue())


fsspec.register_implementation("flaky", Flaky, clobber=True)


class Unreachable(Exception):
    """An exception that no library raises."""


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bytes], None]]:
    """Return a function that writes a file to the file system in memory."""
    monkeypatch.setattr(remote, "FIRST_DELAY", 0.0)
    monkeypatch.setattr(Flaky, "plan", iter(()))
    MemoryFileSystem.store.clear()
    system = MemoryFileSystem()
    yield lambda path, content: system.pipe(path, content)
    MemoryFileSystem.store.clear()


def put_pool(memory: Callable[[str, bytes], None], tmp_path: Path) -> tuple[Path, Path]:
    """Write a pool to a folder and to memory. Return that folder, and one with a manifest of the shards in memory."""
    local = write_pool(tmp_path / "local", 2, 5)
    write_tar(local / "00002.tar", [("a.jpg", jpeg(7)), ("a.txt", b"t"), ("a.json", b"{}"), ("b.jpg", b"B")])
    for path in local.iterdir():
        memory(f"/pool/{path.name}", path.read_bytes())
    write_manifest(list_shards("flaky://pool"), tmp_path / "listed")
    return local, tmp_path / "listed"


def test_the_tars_right_below_an_address_in_order_of_name(memory, tmp_path: Path) -> None:
    for name, content in {"b.tar": b"bb", "a.tar": b"a", "a.txt": b"", "in/c.tar": b"c", "a.tar.gz": b""}.items():
        memory(f"/pool/x/{name}", content)
    shards = list_shards("memory://pool/x/")
    assert [(s.address, s.size, s.name) for s in shards] == [
        ("memory://pool/x/a.tar", 1, "a.tar"),
        ("memory://pool/x/b.tar", 2, "b.tar"),
    ]
    for out in ("one", "two"):
        write_manifest(list_shards("memory://pool/x"), tmp_path / out)
    assert (tmp_path / "one" / MANIFEST).read_bytes() == (tmp_path / "two" / MANIFEST).read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == [MANIFEST]
    assert find_shards(tmp_path / "one") == shards
    assert pickle.loads(pickle.dumps(shards)) == shards


def test_a_name_of_any_kind_goes_through_the_manifest(tmp_path: Path) -> None:
    shards = [RemoteShard("s3://b/a,1\n.tar", 5, "e"), RemoteShard('s3://b/"q" ü.tar', 0, "f-2")]
    write_manifest(shards, tmp_path / "out")
    assert sorted(read_manifest(tmp_path / "out" / MANIFEST)) == sorted(shards)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("memory://nowhere", "memory://nowhere: cannot be read"),
        ("memory://pool", "memory://pool: holds no .tar"),
        ("nosuch://pool", "nosuch://pool: is not an address that fsspec can open (Protocol not known: nosuch); write it as"),
        ("github://pool/x", "github://pool/x: is not an address that fsspec can open (GithubFileSystem"),
        ("reference://pool", "reference://pool: is not an address that fsspec can open (ReferenceFileSystem"),
        ("generic://pool", "generic://pool: is not an address that fsspec can open (GenericFileSystem"),
        ("gs://pool", "gs://pool: needs a package that is not installed (Please install gcsfs "),
        ("az://pool", "az://pool: needs a package that is not installed (Install adlfs "),
        *((address, f"{address!r}: is not an address; write it as s3://BUCKET/FOLDER") for address in (
            "", "pool", "/pool", "http:/pool", "s3:pool", "s3://", "s3:///pool", "://pool", " memory://pool", "ftp://"
        )),
        ("memory://pool/in/b.tar", "memory://pool/in/b.tar: is a shard; give the folder of the shard, memory://pool/in"),
        ("memory://pool/in/b.tar/", "memory://pool/in/b.tar/: is a shard; give the folder of the shard, memory://pool/in"),
        ("s3://b/x/{000..040}.tar", "s3://b/x/{000..040}.tar: is a shard; give the folder of the shard, s3://b/x"),
    ],
)  # fmt: skip
def test_an_address_without_shards(memory, address: str, reason: str) -> None:
    memory("/pool/a.txt", b"")
    memory("/pool/in/b.tar", b"b")
    with pytest.raises(SimgapError) as caught:
        list_shards(address)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


HEADER = b"address,size,etag\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not a manifest"),
        (HEADER, "lists 0 shards"),
        (b"address,size\ns3://b/a.tar,1\n", r"begins with \['address', 'size'\]"),
        (b"address,etag,size\ns3://b/a.tar,e,1\n", r"begins with \['address', 'etag', 'size'\]"),
        (b"s3://b/a.tar,1,e\n", r"begins with \['s3:"),
        (HEADER + b"s3://b/a.tar,1,e\ns3://b/b.tar,x,e\n", r"line 3: .*'x'.* should be"),
        (HEADER + b"s3://b/a.tar,,e\n", "line 2: .* should be"),
        (HEADER + b"s3://b/a.tar,1.0,e\n", "line 2: .* should be"),
        (HEADER + b"s3://b/a.tar,-1,e\n", "line 2: .* should be"),
        (HEADER + b"s3://b/a.tar,1_0,e\n", "line 2: .* should be"),
        (HEADER + b"s3://b/a.tar," + b"9" * 5000 + b",e\n", "line 2: .{,200} should be"),
        (HEADER + b"s3://b/a.tar,1,\n", "line 2: .* should be"),
        (HEADER + b"s3://b/a.tar,1\n", "line 2: .* should be"),
        (HEADER + b"s3://b/a.tar,1,e,f\n", "line 2: .* should be"),
        (HEADER + b"s3://b/a.tar,1,e\n\ns3://b/b.tar,1,e\n", r"line 3: \[\] should be"),
        (HEADER + b"/folder/a.tar,1,e\n", "line 2: .* should be"),
        (HEADER + b"s3://b/a.jpg,1,e\n", "line 2: .* should be"),
        (HEADER + b's3://b/a.tar,1,"e\ns3://b/b.tar,1,e\n', "is not a manifest"),
        (HEADER + b"s3://b/a.tar,1,e\ns3://c/a.tar,1,e\n", "'s3://b/a.tar' and 's3://c/a.tar'"),
        (HEADER + b"s3://b/a.tar,1,e\ns3://b/a.tar,1,e\n", "'s3://b/a.tar' and 's3://b/a.tar'"),
        (HEADER + b"\xff,1,e\n", "is not a manifest"),
        (HEADER + b's3://b/a.tar,1,"' + b"e" * 200_000 + b'"\n', "is not a manifest"),
        (b"PAR1" + bytes(range(256)) + b"PAR1", "is not a manifest"),
        (b'[{"address": "s3://b/a.tar", "size": 1, "etag": "e"}]', "begins with"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(SimgapError, match=f"^{tmp_path / MANIFEST}: .*{reason}") as caught:
        find_shards(tmp_path)
    assert "\n" not in str(caught.value)


FRAGMENTS = st.one_of(st.sampled_from([b"", b",", b"\n", b'"', b"-", b"0", b"s3://b/00002.tar"]), st.binary(max_size=4))
CHANGES = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 30), FRAGMENTS), min_size=1, max_size=3)


@settings(deadline=None)
@given(CHANGES)
def test_a_manifest_that_is_damaged_anywhere_is_refused_or_still_one(tmp_path_factory, changes: list) -> None:
    path = tmp_path_factory.getbasetemp() / MANIFEST
    content = bytearray(HEADER + b"".join(b"s3://b/0000%d.tar,%d000,%de-1\n" % (n, n, n) for n in range(4)))
    for start, length, fragment in changes:
        content[start : start + length] = fragment
    path.write_bytes(content)
    refusal, shards = "", [RemoteShard("s3://b/a.tar", 0, "e")]
    try:
        shards = read_manifest(path)
    except SimgapError as error:
        refusal = str(error)
    assert refusal == "" or refusal.startswith(f"{path}: ")
    assert len(refusal.splitlines()) <= 1
    assert len({shard.name for shard in shards}) == len(shards) > 0
    assert all("://" in shard.address and shard.size >= 0 and shard.etag for shard in shards)


def test_a_folder_of_shards_and_of_a_manifest(tmp_path: Path) -> None:
    write_pool(tmp_path, 1, 1)
    write_manifest([RemoteShard("s3://b/a.tar", 1, "e")], tmp_path / "listed")
    (tmp_path / "listed" / MANIFEST).rename(tmp_path / MANIFEST)
    with pytest.raises(SimgapError, match=r"holds manifest\.csv and 1 tars"):
        find_shards(tmp_path)


def test_the_state_of_a_manifest_is_its_content(tmp_path: Path) -> None:
    write_manifest([RemoteShard("s3://b/a.tar", 1, "e")], tmp_path / "listed")
    before = fingerprint(tmp_path / "listed")
    os.utime(tmp_path / "listed" / MANIFEST, (1, 1))
    assert fingerprint(tmp_path / "listed") == before
    write_manifest([RemoteShard("s3://b/a.tar", 1, "f")], tmp_path / "listed")
    assert fingerprint(tmp_path / "listed") != before


def everything(folder: Path) -> tuple[list, list, list, Accounting]:
    accounting = Accounting()
    shards = find_shards(folder)
    return (
        [sample for shard in shards for sample in read_shard(shard, accounting, caption=True, label=False)],
        [found for shard in shards for found in read_samples(shard)],
        [found for shard in shards for found in read_json_members(shard, Accounting())],
        accounting,
    )


def test_the_same_samples_as_from_a_folder(memory, tmp_path: Path) -> None:
    local, listed = put_pool(memory, tmp_path)
    expected = everything(local)
    assert len(expected[0]) == 11
    assert everything(listed) == expected


def test_files_on_disk_have_addresses_too(tmp_path: Path) -> None:
    local = write_pool(tmp_path / "local", 2, 5)
    write_manifest(list_shards(f"file://{local}"), tmp_path / "listed")
    assert everything(tmp_path / "listed") == everything(local)
    os.utime(local / "00001.tar", (1, 1))
    with pytest.raises(SimgapError, match=r"00001\.tar: has \d+ bytes and the etag 1\.0, but its manifest says"):
        everything(tmp_path / "listed")


FAULTS = [OSError("reset"), TimeoutError(), Unreachable("of the library's own"), "short", None, None]


@given(st.lists(st.sampled_from(FAULTS), max_size=30), st.lists(st.tuples(st.integers(0, 3000), st.integers(-1, 900))))
def test_every_byte_comes_once_whatever_fails(faults: list, steps: list[tuple[int, int]]) -> None:
    content = bytes(index * 7 % 251 for index in range(2500))
    MemoryFileSystem().pipe("/bytes/a.tar", content)
    (shard,) = list_shards("flaky://bytes")
    oracle = io.BytesIO(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "FIRST_DELAY", 0.0)
        patch.setattr(remote, "TRIES", len(faults) + 1)
        patch.setattr(remote, "BUFFER", 300)
        patch.setattr(Flaky, "plan", iter(faults))
        with stream(shard) as found:
            assert found.read() == oracle.read()
            for place, count in steps:
                assert found.seek(place) == oracle.seek(place)
                assert found.read(count) == oracle.read(count)
                assert found.tell() == oracle.tell()
            assert found.seek(-5, io.SEEK_END) == len(content) - 5
            assert found.read() == content[-5:]


def test_no_read_goes_over_the_end_of_a_block(memory, monkeypatch) -> None:
    """Otherwise the bytes of one block would be lost if the next block fails."""
    monkeypatch.setattr(remote, "BLOCK", 100)
    monkeypatch.setattr(remote, "BUFFER", 70)
    monkeypatch.setattr(Flaky, "asked", [])
    memory("/bytes/a.tar", bytes(1234))
    with stream(list_shards("flaky://bytes")[0]) as found:
        found.seek(30)
        assert len(found.read()) == 1204
    assert sum(size for _, size in Flaky.asked) == 1204
    assert all(start // 100 == (start + size - 1) // 100 for start, size in Flaky.asked)


def test_samples_come_once_whatever_fails(memory, tmp_path: Path, monkeypatch) -> None:
    local, listed = put_pool(memory, tmp_path)
    monkeypatch.setattr(remote, "BUFFER", 1000)
    plan = [OSError("reset"), None, "short", None, None, Unreachable("u"), TimeoutError("t")]
    monkeypatch.setattr(Flaky, "plan", iter(plan * 100))
    found = everything(listed)
    assert next(Flaky.plan, "none left") != "none left"
    assert found == everything(local)


@pytest.mark.parametrize("fault", [OSError("reset\nby peer"), EOFError(), Unreachable("reset"), "short"])
def test_a_shard_that_cannot_be_read_is_named_and_not_counted_as_damaged(memory, tmp_path, monkeypatch, fault) -> None:
    _, listed = put_pool(memory, tmp_path)
    shard = find_shards(listed)[1]
    monkeypatch.setattr(remote, "BUFFER", 1000)
    opened = Flaky.opened
    monkeypatch.setattr(Flaky, "plan", iter([None] * 3 + [fault] * 100))
    accounting = Accounting()
    with pytest.raises(SimgapError) as caught:
        list(read_shard(shard, accounting, caption=True, label=False))
    reason = {"short": "received 500 bytes instead of 1000"}.get(str(fault), str(fault).split("\n")[0] or "EOFError")
    assert (
        str(caught.value)
        == f"flaky://pool/00001.tar: could not be read in {remote.TRIES} tries ({reason}); check the connection and the server"
    )
    assert accounting.damaged_shards == 0
    assert Flaky.opened - opened == remote.TRIES


def test_what_no_further_try_can_mend_is_tried_once(memory, tmp_path: Path, monkeypatch) -> None:
    _, listed = put_pool(memory, tmp_path)
    opened = Flaky.opened
    monkeypatch.setattr(Flaky, "plan", iter([PermissionError("Access Denied")] * 100))
    with pytest.raises(
        SimgapError,
        match=r"^flaky://pool/00000\.tar: cannot be read \(Access Denied\); check the address and the credentials$",
    ):
        everything(listed)
    assert Flaky.opened - opened == 1


def test_waits_grow_and_are_random(memory, tmp_path: Path, monkeypatch) -> None:
    _, listed = put_pool(memory, tmp_path)
    waits: list[float] = []
    monkeypatch.setattr(remote, "FIRST_DELAY", 1.0)
    monkeypatch.setattr(remote, "LONGEST_DELAY", 5.0)
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    monkeypatch.setattr(Flaky, "plan", iter([OSError("reset")] * 100))
    with pytest.raises(SimgapError):
        everything(listed)
    assert len(set(waits)) == len(waits) == remote.TRIES - 1
    assert all(0 <= wait <= bound for wait, bound in zip(waits, [1, 2, 4, 5, 5], strict=True))


@pytest.mark.parametrize("content", [b"", b"another"])
def test_an_object_that_is_not_the_manifest_s(memory, tmp_path: Path, content: bytes) -> None:
    _, listed = put_pool(memory, tmp_path)
    memory("/pool/00001.tar", content)
    size, etag = find_shards(listed)[1].size, find_shards(listed)[1].etag
    with pytest.raises(SimgapError) as caught:
        everything(listed)
    line = str(caught.value)
    assert line.startswith(f"flaky://pool/00001.tar: has {len(content)} bytes and the etag ")
    assert f"its manifest says {size} and {etag};" in line


def test_an_empty_object_that_is_not_the_manifest_s(memory, tmp_path: Path) -> None:
    memory("/pool/00000.tar", b"")
    write_manifest(list_shards("flaky://pool"), tmp_path / "listed")
    assert everything(tmp_path / "listed")[3].damaged_shards == 1
    memory("/pool/00000.tar", b"another")
    with pytest.raises(SimgapError, match=r"^flaky://pool/00000\.tar: has 7 bytes and the etag .* says 0 and "):
        everything(tmp_path / "listed")


@pytest.mark.parametrize("content", [bytes(20_000), b"\1" * 512, b"", None])
def test_an_object_replaced_while_it_is_read(memory, tmp_path: Path, content: bytes | None) -> None:
    """The new object may look like the end of the tar, like damage, or like no tar at all: the store's answer decides."""
    path = tmp_path / "pool" / "00000.tar"
    write_pool(path.parent, 1, 40)
    whole = path.read_bytes()
    memory("/pool/00000.tar", whole)

    def in_memory(new: bytes) -> None:
        memory("/pool/00000.tar", new)

    def in_place(new: bytes) -> None:
        path.write_bytes(new)

    def renamed(new: bytes) -> None:
        path.with_suffix(".new").write_bytes(new)
        path.with_suffix(".new").replace(path)

    places = (("flaky://pool", in_memory), (f"file://{path.parent}", in_place), (f"file://{path.parent}", renamed))
    for address, replace in places:
        replace(whole)
        os.utime(path, (1, 1))
        (shard,) = list_shards(address)
        accounting = Accounting()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(remote, "BLOCK", 6000)
            patch.setattr(remote, "BUFFER", 1700)
            samples = read_shard(shard, accounting, caption=True, label=False)
            next(samples)
            replace(bytes([whole[0] ^ 1]) + whole[1:] if content is None else whole[:8192] + content)
            with pytest.raises(SimgapError, match=rf"^{shard}: has \d+ bytes and the etag .*, but its manifest says "):
                list(samples)
        assert accounting.damaged_shards == 0


def test_an_object_replaced_while_selected_samples_are_read(memory, tmp_path: Path) -> None:
    """The shard is checked after the last selected sample, though it is not read to its end."""
    local, listed = put_pool(memory, tmp_path)
    key = next(read_samples(local / "00000.tar")).key
    shard = find_shards(listed)[0]
    assert [sample.key for sample in select_samples(read_samples(shard), [key], shard)] == [key]
    selected = select_samples(read_samples(shard), [key], shard)
    next(selected)
    memory("/pool/00000.tar", b"another")
    with pytest.raises(SimgapError, match=r"^flaky://pool/00000\.tar: has 7 bytes and the etag "):
        next(selected)


def test_an_object_that_goes_while_it_is_read(memory, tmp_path: Path) -> None:
    _, listed = put_pool(memory, tmp_path)
    samples = read_shard(find_shards(listed)[0], Accounting(), caption=True, label=False)
    next(samples)
    MemoryFileSystem().rm("/pool/00000.tar")
    with pytest.raises(SimgapError, match=r"^flaky://pool/00000\.tar: cannot be read \("):
        list(samples)


def test_links_to_files_on_disk_are_listed_as_the_files(tmp_path: Path) -> None:
    local = write_pool(tmp_path / "local", 2, 5)
    os.utime(local / "00001.tar", (1, 1))
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in local.iterdir():
        (linked / path.name).symlink_to(path)
    (linked / "broken").symlink_to(tmp_path / "nowhere")
    write_manifest(list_shards(f"file://{linked}"), tmp_path / "listed")
    assert everything(tmp_path / "listed") == everything(local)


def test_an_object_that_is_gone(memory, tmp_path: Path) -> None:
    _, listed = put_pool(memory, tmp_path)
    MemoryFileSystem().rm("/pool/00001.tar")
    with pytest.raises(SimgapError, match=r"^flaky://pool/00001\.tar: cannot be read \("):
        everything(listed)


def test_a_tar_that_was_cut_off_before_it_was_listed_is_damaged_as_on_disk(memory, tmp_path: Path) -> None:
    local = write_pool(tmp_path / "local", 1, 5)
    (local / "00000.tar").write_bytes((local / "00000.tar").read_bytes()[:4000])
    memory("/pool/00000.tar", (local / "00000.tar").read_bytes())
    write_manifest(list_shards("memory://pool"), tmp_path / "listed")
    found = everything(tmp_path / "listed")
    assert found[3].damaged_shards == 1
    assert found == everything(local)
