"""Write converted images as a benchmark or a reference, shard by shard."""

from __future__ import annotations

import hashlib
import io
import json
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
from simgap.data.shards import MAXIMUM_MEMBER_BYTES, Accounting, open_writer, write_sample

SHARD_IMAGES = 1000
# Number of images that are in memory at a time.
GROUP = 64
TAR, LEFT_OUT = "shard.tar", "left_out.json"

Image = tuple[str, int]
# Returns the text members of a sample by suffix, given its key and image.
TextMembers = Callable[[ImageSet, str, Image], dict[str, str]]


def check_out(source: Path, out: Path) -> None:
    """Check that an output does not exist, and does not lie in the tree that is converted.

    Raises:
        SimgapError: `out` exists or lies in `source`.
    """
    if out.exists() or source.resolve() in out.resolve().parents:
        raise SimgapError(f"{out}: exists or lies in {source}; name a folder that does not exist yet")


def _benchmark_members(found: ImageSet, key: str, image: Image) -> dict[str, str]:
    return {"cls": str(image[1])}


def _reference_members(found: ImageSet, key: str, image: Image) -> dict[str, str]:
    name, label = image
    caption = f"a photo of a {found.classnames[label]}"
    return {"txt": caption, "json": json.dumps({"key": key, "caption": caption, "path": name}), "cls": str(label)}


def _read_image(path: Path, border: int) -> bytes | str:
    """Read an encoded image, without its border if it has one, or return the reason why it is left out."""
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
    # All levels are lossless. This one takes less than half the time of the default.
    inside.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@dataclass(frozen=True)
class _Shard:
    """One shard of a set: consecutive images, and how their text members are written."""

    found: ImageSet
    number: int
    text_members: TextMembers

    def images(self) -> list[tuple[str, Image]]:
        """Return key and image of each sample. As in img2dataset, five digits of a key number the shard and four the sample."""
        start = self.number * SHARD_IMAGES
        images = self.found.images[start : start + SHARD_IMAGES]
        return [(f"{self.number:05d}{place:04d}", image) for place, image in enumerate(images)]

    def cache_key(self, code: str) -> str:
        """Return a hash of all that the shard depends on.

        It covers the code, the text members, and the name, size and time of each image file.
        """
        digest = hashlib.sha256(json.dumps([code, str(self.found.root.resolve()), self.found.border]).encode())
        for key, image in self.images():
            state = (self.found.root / image[0]).stat()
            entry = [key, image[0], state.st_size, state.st_mtime_ns, self.text_members(self.found, key, image)]
            digest.update(json.dumps(entry).encode())
        return digest.hexdigest()[:16]

    def write(self, out: Path, threads: ThreadPoolExecutor, advance: Callable[[int], None]) -> None:
        """Write a folder with the tar and a list of the images that were left out.

        Args:
            out: the folder.
            threads: threads that read and decode the images.
            advance: called with the number of images of each group that is done.
        """
        left_out: list[tuple[str, str]] = []
        with atomic_output(out) as partial:
            partial.mkdir()
            with open_writer(partial / TAR) as writer:
                for group in batched(self.images(), GROUP):
                    contents = threads.map(self._read, group)
                    for (key, image), content in zip(group, contents, strict=True):
                        if isinstance(content, str):
                            left_out.append((image[0], content))
                        else:
                            write_sample(writer, key, self._members(key, image, content))
                    advance(len(group))
            (partial / LEFT_OUT).write_text(json.dumps(left_out))

    def _read(self, keyed: tuple[str, Image]) -> bytes | str:
        return _read_image(self.found.root / keyed[1][0], self.found.border)

    def _members(self, key: str, image: Image, content: bytes) -> dict[str, bytes]:
        suffix = "png" if self.found.border else Path(image[0]).suffix.lower().lstrip(".")
        texts = self.text_members(self.found, key, image)
        return {suffix: content} | {kind: text.encode() for kind, text in texts.items()}


def _write_shards(found: ImageSet, text_members: TextMembers, folder: Path) -> list[Path]:
    """Write the shards that do not exist yet into subfolders of `folder`, and return the subfolders of all shards."""
    code = code_fingerprint(__file__)
    shards = [_Shard(found, number, text_members) for number in range(-(-len(found.images) // SHARD_IMAGES))]
    written: list[Path] = []
    bar: Any = progress(None, len(found.images), "convert", "image")
    with ThreadPoolExecutor() as threads, bar:
        for shard in shards:
            path = folder / f"{shard.number:05d}-{shard.cache_key(code)}"
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
            f"{found.root / name}: {reason}; {len(left_out)} of {len(found.images)} images cannot be used; replace them, "
            "or leave them out with --allow-incomplete, which continues from the shards that are done"
        )
    return accounting


@contextmanager
def _shards(
    found: ImageSet, text_members: TextMembers, out: Path, allow_incomplete: bool
) -> Iterator[tuple[list[Path], Accounting]]:
    """Write the shards and yield their tars. They are removed only if the block ends without an error."""
    with resumable_output(out, "converting") as folder:
        folders = _write_shards(found, text_members, folder)
        accounting = _account(found, folders, allow_incomplete)
        yield [shard / TAR for shard in folders], accounting


def _write_lines(path: Path, lines: tuple[str, ...]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_benchmark(found: ImageSet, out: Path, *, allow_incomplete: bool) -> Accounting:
    """Write a benchmark in the layout of CLIP_benchmark.

    Images are copied byte for byte, 1000 to a shard, in their order. Finished shards are kept beside `out` until it is
    complete. A conversion that was killed continues from them, and ends with the same bytes.

    Args:
        found: the images and classes.
        out: folder of the benchmark.
        allow_incomplete: whether images that cannot be decoded are left out.

    Returns:
        How many images were read, and how many were left out by reason.

    Raises:
        SimgapError: An image cannot be used and `allow_incomplete` is false, no image can be used, or another
            process writes `out`.
        OSError: A file cannot be read or written.
    """
    with (
        _shards(found, _benchmark_members, out, allow_incomplete) as (shards, accounting),
        atomic_output(out) as partial,
    ):
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
    """Write a reference as img2dataset shards with labels. All else is as in `write_benchmark`.

    Images are ordered by the hash of their name. Each shard then holds images of all classes, which training needs.

    Args:
        found: the images and classes.
        out: folder of the reference.
        allow_incomplete: whether images that cannot be decoded are left out.

    Returns:
        How many images were read, and how many were left out by reason.

    Raises:
        SimgapError: An image cannot be used and `allow_incomplete` is false, no image can be used, or another
            process writes `out`.
        OSError: A file cannot be read or written.
    """
    mixed = sorted(found.images, key=lambda image: hashlib.sha256(image[0].encode("utf-8", "surrogateescape")).digest())
    found = replace(found, images=mixed)
    with (
        _shards(found, _reference_members, out, allow_incomplete) as (shards, accounting),
        atomic_output(out) as partial,
    ):
        partial.mkdir()
        for number, shard in enumerate(shards):
            link_or_copy(shard, partial / f"{number:05d}.tar")
        _write_lines(partial / "classnames.txt", found.classnames)
    return accounting
