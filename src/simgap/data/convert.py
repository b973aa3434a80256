"""Benchmarks made from an ImageFolder tree."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

from simgap.data.shards import IMAGE_SUFFIXES
from simgap.errors import SimgapError
from simgap.files import complete


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which numbers count as numbers: 0, 1, 2, 10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def convert_image_folder(
    tree: Path, templates: tuple[str, ...], out: Path, shard_images: int = 1000
) -> tuple[int, int]:
    """Write the benchmark `out` from a folder with one folder a class; give the numbers of classes and of images.

    Class indices follow the folders' names in natural order, underscores in names become spaces; images are copied as
    they are, in natural order.

    Raises:
        SimgapError: there are fewer than two class folders, one has no image, or something stands at `out`.
    """
    if out.exists() or tree.resolve() in out.resolve().parents:
        raise SimgapError(f"{out}: exists or lies in {tree}; name a folder that does not exist yet")
    if not tree.is_dir():
        raise SimgapError(f"{tree}: no such folder; it should hold a folder for each class")
    folders = sorted((path for path in tree.iterdir() if path.is_dir()), key=lambda path: natural_order(path.name))
    if len(folders) < 2:
        raise SimgapError(f"{tree}: holds {len(folders)} class folders; a benchmark needs at least 2")
    images: list[tuple[int, Path]] = []
    for label, folder in enumerate(folders):
        found = [path for path in folder.iterdir() if path.suffix.lower().lstrip(".") in IMAGE_SUFFIXES]
        if not found:
            raise SimgapError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
        images += [(label, path) for path in sorted(found, key=lambda path: natural_order(path.name))]
    with complete(out) as partial:
        (partial / "test").mkdir(parents=True)
        names = [folder.name.replace("_", " ") for folder in folders]
        (partial / "classnames.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        (partial / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n", encoding="utf-8")
        shards = range(0, len(images), shard_images)
        (partial / "test" / "nshards.txt").write_text(f"{len(shards)}\n")
        for number, start in enumerate(shards):
            with tarfile.open(partial / "test" / f"{number}.tar", "w") as tar:
                for position, (label, path) in enumerate(images[start : start + shard_images], start):
                    for suffix, content in ((path.suffix.lower(), path.read_bytes()), (".cls", str(label).encode())):
                        member = tarfile.TarInfo(f"{position:09d}{suffix}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
    return len(folders), len(images)
