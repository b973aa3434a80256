"""Images into shards, shard by shard, with what a benchmark or a reference needs beside them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simgap.core.batches import batched
from simgap.core.code import code_fingerprint
from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output, link_or_copy, read_json, resumable_output
from simgap.core.progress import progress
from simgap.data.convert.image_set import ImageSet
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import MAXIMUM_MEMBER_BYTES, Accounting, add_member

SHARD_IMAGES = 1000
# Images in memory at a time.
GROUP = 64
TAR, LEFT_OUT = "shard.tar", "left_out.json"

Image = tuple[str, int]
Beside = Callable[[ImageSet, str, Image], dict[str, str]]


def check_out(source: Path, out: Path) -> None:
    """Refuse an output that exists or that would lie in the tree that is converted.

    Raises:
        SimgapError: it does.
    """
    if out.exists() or source.resolve() in out.resolve().parents:
        raise SimgapError(f"{out}: exists or lies in {source}; name a folder that does not exist yet")


def _beside_query(found: ImageSet, key: str, image: Image) -> dict[str, str]:
    return {"cls": str(image[1])}


def _beside_reference(found: ImageSet, key: str, image: Image) -> dict[str, str]:
    name, label = image
    caption = f"a photo of a {found.classnames[label]}"
    return {"txt": caption, "json": json.dumps({"key": key, "caption": caption, "path": name}), "cls": str(label)}


def _content(path: Path, border: int) -> bytes | str:
    """Give a file's bytes, those of a PNG without the border where there is one, or why the image is left out."""
    if path.stat().st_size > MAXIMUM_MEMBER_BYTES:
        return "member_too_large"
    content = path.read_bytes()
    try:
        picture = decode(content)
    except BrokenImage as reason:
        return str(reason)
    if not border:
        return content
    if min(picture.size) <= 2 * border:
        return "too_narrow"
    stream = io.BytesIO()
    inside = picture.crop((border, border, picture.width - border, picture.height - border))
    # Every level is lossless; this one takes less than half the time of the default.
    inside.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@dataclass(frozen=True)
class _Shard:
    """Some images of a set, one after the other, and how they are written."""

    found: ImageSet
    number: int
    beside: Beside

    def images(self) -> list[tuple[str, Image]]:
        """Give key and image; the key is img2dataset's: five digits for the shard, four for the place in it."""
        start = self.number * SHARD_IMAGES
        images = self.found.images[start : start + SHARD_IMAGES]
        return [(f"{self.number:05d}{place:04d}", image) for place, image in enumerate(images)]

    def identity(self, code: str) -> str:
        """Give a hash of all that the shard depends on: files' names, sizes and times, and what is written beside them."""
        digest = hashlib.sha256(json.dumps([code, str(self.found.root.resolve()), self.found.border]).encode())
        for key, image in self.images():
            state = (self.found.root / image[0]).stat()
            entry = [key, image[0], state.st_size, state.st_mtime_ns, self.beside(self.found, key, image)]
            digest.update(json.dumps(entry).encode())
        return digest.hexdigest()[:16]

    def write(self, out: Path, threads: ThreadPoolExecutor, seen: Callable[[int], None]) -> None:
        """Write the tar, and a list of the images that were left out of it, into a folder; `seen` gets numbers of images."""
        left_out: list[tuple[str, str]] = []
        with atomic_output(out) as partial:
            partial.mkdir()
            with tarfile.open(partial / TAR, "w") as tar:
                for group in batched(self.images(), GROUP):
                    contents = threads.map(self._content_of, group)
                    for (key, image), content in zip(group, contents, strict=True):
                        if isinstance(content, str):
                            left_out.append((image[0], content))
                        else:
                            self._add(tar, key, image, content)
                    seen(len(group))
            (partial / LEFT_OUT).write_text(json.dumps(left_out))

    def _content_of(self, keyed: tuple[str, Image]) -> bytes | str:
        return _content(self.found.root / keyed[1][0], self.found.border)

    def _add(self, tar: tarfile.TarFile, key: str, image: Image, content: bytes) -> None:
        suffix = "png" if self.found.border else Path(image[0]).suffix.lower().lstrip(".")
        add_member(tar, f"{key}.{suffix}", content)
        for kind, text in self.beside(self.found, key, image).items():
            add_member(tar, f"{key}.{kind}", text.encode())


def _write_shards(found: ImageSet, beside: Beside, folder: Path) -> list[Path]:
    """Write all shards into folders of `folder`, but for those that are there already, and give their folders."""
    code = code_fingerprint(__file__)
    shards = [_Shard(found, number, beside) for number in range(-(-len(found.images) // SHARD_IMAGES))]
    written: list[Path] = []
    bar: Any = progress(None, len(found.images), "convert", "image")
    with ThreadPoolExecutor() as threads, bar:
        for shard in shards:
            path = folder / f"{shard.number:05d}-{shard.identity(code)}"
            if path.is_dir():
                bar.update(len(shard.images()))
            else:
                shard.write(path, threads, bar.update)
            written.append(path)
    return written


def _account(found: ImageSet, folders: list[Path], allow_incomplete: bool) -> Accounting:
    left_out = [entry for folder in folders for entry in read_json(folder / LEFT_OUT)]
    accounting = Accounting(len(found.images), Counter(reason for _, reason in left_out))
    if left_out and (len(left_out) == len(found.images) or not allow_incomplete):
        name, reason = left_out[0]
        raise SimgapError(
            f"{found.root / name}: {reason}; {len(left_out)} of {len(found.images)} images cannot be used, replace them "
            "or leave them out with --allow-incomplete; what is done so far is kept for that"
        )
    return accounting


@contextmanager
def _shards(
    found: ImageSet, beside: Beside, out: Path, allow_incomplete: bool
) -> Iterator[tuple[list[Path], Accounting]]:
    """Give the shards' tars, and remove them when the block ends well; until then they outlive the process."""
    with resumable_output(out, "converting") as folder:
        folders = _write_shards(found, beside, folder)
        accounting = _account(found, folders, allow_incomplete)
        yield [shard / TAR for shard in folders], accounting


def _write_lines(path: Path, lines: tuple[str, ...]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_benchmark(found: ImageSet, out: Path, *, allow_incomplete: bool) -> Accounting:
    """Write the benchmark `out`, in CLIP_benchmark's layout, and give what became of the images.

    Images are copied as they are, 1000 a shard, in their order. Finished shards wait beside `out` until it is complete: a
    conversion that was killed goes on from them and ends with the same bytes.

    Raises:
        SimgapError: an image cannot be used and `allow_incomplete` is not set, none can, or another process writes `out`.
        OSError: a file cannot be read or written.
    """
    with _shards(found, _beside_query, out, allow_incomplete) as (shards, accounting), atomic_output(out) as partial:
        (partial / "test").mkdir(parents=True)
        for number, shard in enumerate(shards):
            link_or_copy(shard, partial / "test" / f"{number}.tar")
        (partial / "test" / "nshards.txt").write_text(f"{len(shards)}\n")
        _write_lines(partial / "classnames.txt", found.classnames)
        _write_lines(partial / "zeroshot_classification_templates.txt", found.templates)
        if found.reference_classes is not None:
            (partial / "reference_classes.json").write_text(json.dumps(found.reference_classes) + "\n")
    return accounting


def write_reference(found: ImageSet, out: Path, *, allow_incomplete: bool) -> Accounting:
    """Write the reference `out` as img2dataset shards with labels, otherwise as `write_benchmark`.

    The order of the images is that of hashes of their names: each shard holds images of all classes, as training on
    shards expects.

    Raises:
        SimgapError, OSError: as `write_benchmark`.
    """
    mixed = sorted(found.images, key=lambda image: hashlib.sha256(image[0].encode("utf-8", "surrogateescape")).digest())
    found = replace(found, images=mixed)
    with (
        _shards(found, _beside_reference, out, allow_incomplete) as (shards, accounting),
        atomic_output(out) as partial,
    ):
        partial.mkdir()
        for number, shard in enumerate(shards):
            link_or_copy(shard, partial / f"{number:05d}.tar")
        _write_lines(partial / "classnames.txt", found.classnames)
    return accounting
