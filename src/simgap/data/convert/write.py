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

# A shard has this many images. A killed conversion keeps the finished shards, so the next conversion repeats at most one
# shard.
SHARD_IMAGES = 1000
# Threads read this many images at a time. Memory grows with this number.
GROUP = 64
TAR, LEFT_OUT = "shard.tar", "left_out.json"

Image = tuple[str, int]
# A function of this type makes the text members of a sample. It takes the image set, the key of the sample, and the
# name and label of the image. It returns the content of each text member by suffix.
TextMembers = Callable[[ImageSet, str, Image], dict[str, str]]


def check_out(source: Path, out: Path) -> None:
    """Check that the output of a conversion does not exist, and that it does not lie in the source folder.

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
    """Read an image file, cut off its border, and return the encoded image.

    If `border` is 0, the function returns the bytes of the file. Otherwise, it encodes the cut image as PNG.

    Returns:
        The encoded image. If the image cannot be used, the result is a text that names the reason.
    """
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
    # Every compression level is lossless. Level 1 takes less than half the time of the default level.
    inside.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@dataclass(frozen=True)
class _Shard:
    """One shard of a converted set.

    Attributes:
        found: All images of the set. The shard contains consecutive images of it.
        number: Number of the shard.
        text_members: Function that makes the text members of each sample.
    """

    found: ImageSet
    number: int
    text_members: TextMembers

    def images(self) -> list[tuple[str, Image]]:
        """Return the key and the image of each sample.

        As in img2dataset, the first five digits of a key are the number of the shard. The last four digits number the samples
        of the shard.
        """
        start = self.number * SHARD_IMAGES
        images = self.found.images[start : start + SHARD_IMAGES]
        return [(f"{self.number:05d}{place:04d}", image) for place, image in enumerate(images)]

    def cache_key(self, code: str) -> str:
        """Return a hash of everything that the shard depends on.

        The hash covers the code, the text members, and the name, size and modification time of each image file.
        """
        digest = hashlib.sha256(json.dumps([code, str(self.found.root.resolve()), self.found.border]).encode())
        for key, image in self.images():
            state = (self.found.root / image[0]).stat()
            entry = [key, image[0], state.st_size, state.st_mtime_ns, self.text_members(self.found, key, image)]
            digest.update(json.dumps(entry).encode())
        return digest.hexdigest()[:16]

    def write(self, out: Path, threads: ThreadPoolExecutor, advance: Callable[[int], None]) -> None:
        """Write a folder with the tar of the shard and a list of the images that were left out.

        Args:
            out: The folder to write.
            threads: Number of threads that read and decode the images.
            advance: Function that is called after each group of images with the number of images in the group.
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
    """Write each missing shard into a subfolder of `folder`. Return the subfolders of all shards in order."""
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
            f"{found.root / name}: {reason}; {len(left_out)} of {len(found.images)} images cannot be used; replace these "
            "images, or leave them out with --allow-incomplete; finished shards are used again"
        )
    return accounting


@contextmanager
def _shards(
    found: ImageSet, text_members: TextMembers, out: Path, allow_incomplete: bool
) -> Iterator[tuple[list[Path], Accounting]]:
    """Write the shards of a set beside `out`, and remove them if the block ends without an error.

    Yields:
        A pair. The first part lists the tars of the shards in order. The second part counts the images that were left out.
    """
    with resumable_output(out, "converting") as folder:
        folders = _write_shards(found, text_members, folder)
        accounting = _account(found, folders, allow_incomplete)
        yield [shard / TAR for shard in folders], accounting


def _write_lines(path: Path, lines: tuple[str, ...]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_benchmark(found: ImageSet, out: Path, *, allow_incomplete: bool) -> Accounting:
    """Write a benchmark in the layout of CLIP_benchmark.

    Each shard has 1000 images, in the order of `found.images`. The function copies the bytes of an image, unless it has to cut
    off a border. Finished shards lie beside `out` until `out` is complete. If a conversion is killed, the next one continues
    from the finished shards and writes the same bytes.

    Args:
        found: The images and classes.
        out: Folder of the benchmark.
        allow_incomplete: Whether images that cannot be used are left out.

    Returns:
        Counts of the images. `read` counts all images, and `dropped` counts the images that were left out, by reason.

    Raises:
        SimgapError: An image cannot be used, and `allow_incomplete` is false. Or no image can be used, or another process is
            writing `out`.
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
    """Write a reference as img2dataset shards with labels.

    The images are sorted by the hash of their names. Training needs shards with mixed classes, and this order mixes the
    classes. As in `write_benchmark`, each shard has 1000 images, and the bytes of images are copied if no border is cut off.
    A killed conversion continues in the same way, too.

    Args:
        found: The images and classes.
        out: Folder of the reference.
        allow_incomplete: Whether images that cannot be used are left out.

    Returns:
        Counts of the images. `read` counts all images, and `dropped` counts the images that were left out, by reason.

    Raises:
        SimgapError: An image cannot be used, and `allow_incomplete` is false. Or no image can be used, or another process is
            writing `out`.
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
