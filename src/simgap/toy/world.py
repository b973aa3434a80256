"""Generate a toy world, and write its datasets in the file layouts of real pools and benchmarks."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simgap.core.files import atomic_output
from simgap.core.progress import progress
from simgap.params.draw import DrawParameters
from simgap.toy.objects import KINDS
from simgap.toy.render import render, render_off_topic
from simgap.toy.scene import OFF_TOPIC, describe, draw_scene, web_caption

BENCHMARKS = {"val": "photo", "sketch": "sketch", "r": "rendition", "a": "hard", "v2": "v2", "objectnet": "objectnet"}
# Three benchmarks have fewer classes than the reference, as in the paper.
CLASSES = {"r": KINDS[:8], "a": KINDS[2:], "objectnet": KINDS[1:9]}
POOL_STYLES = {"photo": 0.5, "sketch": 0.13, "rendition": 0.17, "hard": 0.06, "objectnet": 0.06, "off_topic": 0.08}
REFERENCE_STYLES = {"photo": 0.92, "sketch": 0.02, "rendition": 0.02, "hard": 0.02, "objectnet": 0.02}
TEMPLATES = (
    "a photo of a {c}",
    "a {c}",
    "photo of a {c}",
    "a picture of one {c}",
    "a sketch of a {c}",
    "a drawing of a {c}",
    "a painting of a {c}",
)
PLANTED = ("exact", "near", "sibling")
SETS = ("pool", "reference", *BENCHMARKS)
SHARD_ROWS = 500


@dataclass(frozen=True)
class Planted:
    """The original of a planted sample. A planted sample is a pool sample that repeats another sample, its original.

    Attributes:
        how: `exact` for the same bytes, `near` for a near-duplicate, or `sibling` for the same scene painted again.
        source: Dataset of the original.
        index: Index of the original in its dataset.
    """

    how: str
    source: str
    index: int


@dataclass(frozen=True)
class Drawn:
    """A generated sample.

    Attributes:
        image: The image as JPEG bytes.
        caption: Caption of the image.
        kind: Index of the class in `KINDS`. None for an off-topic image.
        style: Style of the image.
    """

    image: bytes
    caption: str
    kind: int | None
    style: str


def _jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _kinds(source: str) -> tuple[int, ...]:
    return tuple(KINDS.index(name) for name in CLASSES.get(source, KINDS))


def draw_sample(parameters: DrawParameters, source: str, index: int, variant: int = 0) -> Drawn:
    """Generate a sample of a dataset.

    The same arguments always give the same bytes. Variants of a sample show the same scene with other random details.

    Args:
        parameters: Parameters of the toy world.
        source: Name of the dataset.
        index: Index of the sample in the dataset.
        variant: Number of the variant.

    Returns:
        The sample.
    """
    random = np.random.default_rng([parameters.seed, SETS.index(source), index])
    styles = {"pool": POOL_STYLES, "reference": REFERENCE_STYLES}.get(source) or {BENCHMARKS[source]: 1.0}
    style = str(random.choice(list(styles), p=list(styles.values())))
    kind = int(random.choice(_kinds(source)))
    scene = draw_scene(random, kind, "photo" if style == "off_topic" else style)
    strokes = np.random.default_rng([parameters.seed, SETS.index(source), index, 1 + variant])
    if style == "off_topic":
        image = render_off_topic(strokes, parameters.image_size)
        return Drawn(_jpeg(image, 90), str(random.choice(OFF_TOPIC)), None, style)
    caption = describe(scene, random) if source == "reference" else web_caption(scene, random)
    return Drawn(_jpeg(render(scene, strokes, parameters.image_size), 90), caption, kind, style)


def _near_copy(image: bytes, random: np.random.Generator) -> bytes:
    """Create a near-duplicate of an image, and return its JPEG bytes.

    The function changes the colours by a few per cent, shifts the image by up to half a pixel, or leaves the image
    unchanged. Then it encodes the image again with a lower quality.
    """
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    alteration = random.integers(3)
    if alteration == 0:
        pixels = np.asarray(picture, np.float32) * random.normal(1, 0.02, 3)
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    elif alteration == 1:
        dx, dy = random.uniform(-0.5, 0.5, 2)
        # The frame repeats the edge pixels. Without the frame, the shift would bring black pixels into the image.
        framed = Image.fromarray(np.pad(np.asarray(picture), ((1, 1), (1, 1), (0, 0)), mode="edge"))
        shifted = framed.transform(framed.size, Image.Transform.AFFINE, (1, 0, dx, 0, 1, dy), Image.Resampling.BICUBIC)
        picture = shifted.crop((1, 1, picture.width + 1, picture.height + 1))
    return _jpeg(picture, 75)


def plan_planted(parameters: DrawParameters) -> dict[int, Planted]:
    """Choose the planted samples of the pool and their originals; see `Planted`.

    Each original is repeated at most once. No original is a planted sample.

    Args:
        parameters: Parameters of the toy world.

    Returns:
        A dictionary. Each key is the index of a planted sample in the pool. Each value is the original of this sample.
    """
    random = np.random.default_rng([parameters.seed, len(SETS)])
    sizes = {"reference": parameters.reference, **dict.fromkeys(BENCHMARKS, parameters.queries)}
    order = random.permutation(parameters.pool).tolist()
    originals = {source: random.permutation(size).tolist() for source, size in sizes.items()}
    count = parameters.planted * len(PLANTED) * (len(sizes) + 1)
    originals["pool"] = order[count:]
    plan: dict[int, Planted] = {}
    for source in (*sizes, "pool"):
        for how in PLANTED:
            for _ in range(parameters.planted):
                plan[order[len(plan)]] = Planted(how, source, originals[source].pop())
    return plan


def _pool_sample(parameters: DrawParameters, index: int, planted: Planted) -> Drawn:
    original = draw_sample(parameters, planted.source, planted.index, variant=1 if planted.how == "sibling" else 0)
    if planted.how != "near":
        return original
    random = np.random.default_rng([parameters.seed, len(SETS), index])
    return Drawn(_near_copy(original.image, random), original.caption, original.kind, original.style)


def key_of(index: int) -> str:
    """Return the key of a sample in the format of img2dataset.

    The key has five digits for the shard and four digits for the position in the shard.
    """
    return f"{index // SHARD_ROWS:05d}{index % SHARD_ROWS:04d}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _write_shard(parameters: DrawParameters, source: str, shard: int, rows: int, out: Path) -> Counter[str]:
    """Write one shard of a dataset.

    Args:
        parameters: Parameters of the toy world.
        source: Name of the dataset.
        shard: Number of the shard.
        rows: Number of samples of the whole dataset.
        out: File to write.

    Returns:
        The metrics by name. They count the samples of each style, the planted samples of each kind, and the broken
        samples.
    """
    counts: Counter[str] = Counter()
    plan = plan_planted(parameters) if source == "pool" else {}
    # Broken images are spread evenly over the pool. A planted image is never broken, because a broken image could not
    # be compared with its original.
    step = parameters.pool // parameters.broken if source == "pool" and parameters.broken else 0
    with tarfile.open(out, "w") as tar:
        for index in range(shard * SHARD_ROWS, min(rows, (shard + 1) * SHARD_ROWS)):
            planted = plan.get(index)
            drawn = _pool_sample(parameters, index, planted) if planted else draw_sample(parameters, source, index)
            image, key = drawn.image, key_of(index)
            if step and index % step == 0 and index // step < parameters.broken and planted is None:
                image = image[: len(image) // 3]
                counts["broken"] += 1
            _add(tar, f"{key}.jpg", image)
            counts[f"style/{drawn.style}"] += 1
            if source in BENCHMARKS:
                _add(tar, f"{key}.cls", str(_kinds(source).index(drawn.kind or 0)).encode())
                continue
            _add(tar, f"{key}.txt", drawn.caption.encode())
            annotation: dict[str, Any] = {
                "key": key,
                "caption": drawn.caption,
                "class": None if drawn.kind is None else KINDS[drawn.kind],
                "style": drawn.style,
                "planted": planted.how if planted else None,
                "copy_of": f"{planted.source}/{key_of(planted.index)}" if planted else None,
            }
            _add(tar, f"{key}.json", json.dumps(annotation).encode())
            if source == "reference":
                _add(tar, f"{key}.cls", str(drawn.kind).encode())
            if planted:
                counts[f"planted/{planted.how}"] += 1
    return counts


def _shards(rows: int) -> int:
    return -(-rows // SHARD_ROWS)


def draw_world(parameters: DrawParameters, out: Path) -> dict[str, Any]:
    """Generate the pool, the reference and the benchmarks, and write them to a folder.

    Each sample has its own seed, so the bytes do not depend on the number of processes. Each pool sample has a JSON file with
    an annotation (class, style, planted, copy_of). Scores, leaks and matched controls use annotations. Models are never
    trained on annotations.

    Args:
        parameters: Parameters of the toy world.
        out: Folder to write.

    Returns:
        The metrics by name. They count the samples of each dataset, and the samples of each kind in each dataset.
    """
    sizes = {
        "pool": parameters.pool,
        "reference": parameters.reference,
        **dict.fromkeys(BENCHMARKS, parameters.queries),
    }
    metrics: dict[str, Any] = {}
    with atomic_output(out) as partial, ProcessPoolExecutor() as processes:
        (partial / "pool").mkdir(parents=True)
        (partial / "reference").mkdir()
        (partial / "reference" / "classnames.txt").write_text("\n".join(KINDS) + "\n")
        tasks: list[tuple[str, int, Path]] = []
        for source, rows in sizes.items():
            folder = partial / source
            if source in BENCHMARKS:
                folder = partial / "benchmarks" / source / "test"
                folder.mkdir(parents=True)
                (folder / "nshards.txt").write_text(f"{_shards(rows)}\n")
                names = CLASSES.get(source, KINDS)
                (folder.parent / "classnames.txt").write_text("\n".join(names) + "\n")
                (folder.parent / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
                if source == "objectnet":
                    indices = [[KINDS.index(name)] for name in names]
                    (folder.parent / "reference_classes.json").write_text(json.dumps(indices))
            pattern = "{}.tar" if source in BENCHMARKS else "{:05d}.tar"
            tasks += [(source, shard, folder / pattern.format(shard)) for shard in range(_shards(rows))]
        write = functools.partial(_write_task, parameters, sizes)
        for (source, _, _), counts in zip(
            tasks, progress(processes.map(write, tasks), len(tasks), "draw", "shard"), strict=True
        ):
            for name, count in counts.items():
                metrics[f"{source}/{name}"] = metrics.get(f"{source}/{name}", 0) + count
    return {**{f"{source}/samples": rows for source, rows in sizes.items()}, **metrics}


def _write_task(parameters: DrawParameters, sizes: dict[str, int], task: tuple[str, int, Path]) -> Counter[str]:
    source, shard, path = task
    return _write_shard(parameters, source, shard, sizes[source], path)
