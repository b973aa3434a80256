"""Draw a contact sheet. It is one image with an example of each class of each benchmark."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from PIL import Image, ImageDraw

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output
from simgap.data.benchmarks import Benchmark, load_benchmark
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import Accounting, read_shard

TILE = 96
MARGIN = 100


def _first_of_each_class(benchmark: Benchmark) -> dict[str, Image.Image]:
    found: dict[str, Image.Image] = {}
    for shard in benchmark.shards:
        for sample in read_shard(shard, Accounting(), caption=False, label=True):
            label = sample.label or 0
            if label >= len(benchmark.classnames):
                raise SimgapError(
                    f"{shard}: label {label} is outside the class list; it must be below {len(benchmark.classnames)}"
                )
            if benchmark.classnames[label] not in found:
                with suppress(BrokenImage):
                    found[benchmark.classnames[label]] = decode(sample.image)
    return found


def draw_contact_sheet(benchmarks: Path, out: Path) -> None:
    """Write a PNG with a row for each benchmark and a column for each class.

    Each cell shows the first image of the class that can be decoded. If the class has no such image, the cell stays
    white.

    Args:
        benchmarks: Folder that contains a folder for each benchmark.
        out: The PNG file to write.

    Raises:
        SimgapError: There is no benchmark, `out` is a folder, a benchmark is incomplete, or a label is not in the class
            list.
    """
    if out.is_dir():
        raise SimgapError(f"{out}: is a folder; name a PNG file")
    entries = benchmarks.iterdir() if benchmarks.is_dir() else ()
    # Hidden folders are skipped, because they belong to conversions that are not finished yet.
    folders = sorted(path for path in entries if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise SimgapError(f"{benchmarks}: holds no benchmark folder; it must hold at least one")
    loaded = [load_benchmark(folder) for folder in folders]
    names = sorted({name for benchmark in loaded for name in benchmark.classnames})
    sheet = Image.new("RGB", (MARGIN + len(names) * TILE, 20 + len(loaded) * TILE), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        draw.text((MARGIN + column * TILE + 4, 4), name, fill="black")
    for row, benchmark in enumerate(loaded):
        draw.text((4, 20 + row * TILE + TILE // 2), benchmark.name, fill="black")
        for name, image in _first_of_each_class(benchmark).items():
            tile = image.resize((TILE - 4, TILE - 4), Image.Resampling.LANCZOS)
            sheet.paste(tile, (MARGIN + names.index(name) * TILE + 2, 20 + row * TILE + 2))
    with atomic_output(out) as partial, partial.open("wb") as stream:
        sheet.save(stream, "PNG")
