"""Compare the embedding speed of simgap, clip-retrieval, a plain open_clip loop and the forward pass alone."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import webdataset
from numpy.typing import NDArray

from perf import clip_retrieval
from perf.evaluate import REPOSITORY, make_model
from perf.machine import report
from perf.timing import clocked, interleaved
from simgap.clip.model import Model, load
from simgap.data.decode import decode_samples
from simgap.data.shards import Accounting, read_shard
from simgap.embed.embed import embed
from simgap.params.draw import DrawParameters
from simgap.params.embed import EmbedParameters
from simgap.stage.command import PATH, reports_errors
from simgap.store.embeddings import Embeddings
from simgap.toy.world import draw_sample

SHARDS = 4
CLIP_RETRIEVAL = "clip-retrieval"
LIMIT = "bare forward pass"
Vectors = dict[str, NDArray[np.float16]]


@dataclass(frozen=True)
class Case:
    """A model with random initial weights, and the synthetic images that it embeds.

    Attributes:
        model: Name of the model, as in params.yaml.
        image_size: Width and height of the images in pixels.
        images: Number of images.
        batch_size: Number of images in a forward pass. All methods use the same number.
    """

    model: str
    image_size: int
    images: int
    batch_size: int


def draw_shards(case: Case, folder: Path) -> list[Path]:
    """Write synthetic images to shards of equal size, and return the paths of the shards.

    With at least as many shards as decoders, no worker of a data loader is idle.
    """
    size = DrawParameters(
        seed=0, pool=case.images, reference=1, queries=1, image_size=case.image_size, planted=0, broken=0
    )
    folder.mkdir()
    paths = [folder / f"{number:05d}.tar" for number in range(SHARDS)]
    for number, path in enumerate(paths):
        with webdataset.TarWriter(str(path)) as tar:
            for index in range(number, case.images, SHARDS):
                drawn = draw_sample(size, "pool", index)
                tar.write({"__key__": f"{index:09d}", "jpg": drawn.image, "txt": drawn.caption.encode()})
    return paths


def by_simgap(model: Model, shards: list[Path], batch_size: int, decoders: int, folder: Path) -> Vectors:
    """Embed images and write the results as the embed stage does.

    Returns:
        The embedding of each key, fp16 [dim].
    """
    parameters = EmbedParameters(batch_size=batch_size, precision="fp32", shards_per_part=len(shards))
    out, scratch = folder / "out", folder / "scratch"
    scratch.mkdir(parents=True)
    embed(
        parameters, lambda: model, "", tuple(shards), out, scratch,
        classes=None, captioned=True, decoders=decoders, drop_limit=0.0,
    )  # fmt: skip
    found = Embeddings(out)
    return dict(zip(found.metadata(["key"]).column("key").to_pylist(), found.read(), strict=True))


@torch.inference_mode()
def by_loader(model: Model, shards: list[Path], batch_size: int, workers: int) -> None:
    """Embed images with a typical open_clip loop, which reads a webdataset.

    The workers of a data loader decode the images. The function writes no files.
    """
    dataset = (
        webdataset.WebDataset([str(path) for path in shards], shardshuffle=False)
        .decode("pilrgb")
        .to_tuple("jpg")
        .map_tuple(model.preprocess)
        .batched(batch_size)
    )
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=workers, pin_memory=model.device.type == "cuda"
    )
    features = [
        model.clip.encode_image(images.to(model.device, non_blocking=True), normalize=True).cpu()
        for (images,) in loader
    ]
    torch.cat(features).half().numpy()


def preprocess(model: Model, shards: list[Path], batch_size: int, decoders: int) -> torch.Tensor:
    """Decode and preprocess images in simgap's threads.

    Returns:
        The preprocessed images, float [images, 3, height, width].
    """
    samples = (sample for path in shards for sample in read_shard(path, Accounting(), caption=True, label=False))
    images = decode_samples(samples, model.preprocess, decoders, batch_size, Accounting())
    return torch.stack([image for _, image in images])


@torch.inference_mode()
def by_forward_pass(model: Model, images: torch.Tensor, batch_size: int) -> None:
    """Embed preprocessed images. The function does not read or decode images.

    Args:
        model: The CLIP model.
        images: The preprocessed images, float [images, 3, height, width].
        batch_size: Number of images in a forward pass.
    """
    for batch in torch.split(images, batch_size):
        model.clip.encode_image(batch.to(model.device)).cpu()


def measure(
    case: Case, decoders: int, repeats: int, python: Path, folder: Path
) -> tuple[dict[str, list[float]], float]:
    """Time all methods in turn. Each method runs `repeats` times.

    Args:
        case: The model and the images.
        decoders: Threads of simgap, and workers of the data loaders.
        repeats: Number of repeats of each method.
        python: Path of the Python in clip-retrieval's environment.
        folder: Folder to write. It must not exist yet.

    Returns:
        The seconds of each repeat for each method, and the smallest cosine over all images. The cosine of an image compares
        simgap's embedding of the image with clip-retrieval's embedding.
    """
    folder.mkdir()
    path, shards = make_model(case.model, folder), draw_shards(case, folder / "shards")
    model, batch_size = load(path), case.batch_size
    images = preprocess(model, shards, batch_size, decoders)
    # The first pass includes set-up time, so one pass runs before the measurement.
    by_forward_pass(model, images[:batch_size], batch_size)
    vectors: dict[str, Vectors] = {}

    def new_folder() -> Path:
        return Path(tempfile.mkdtemp(dir=folder)) / "vectors"

    def simgap() -> None:
        vectors["simgap"] = by_simgap(model, shards, batch_size, decoders, new_folder())

    def retrieval() -> float:
        seconds, vectors[CLIP_RETRIEVAL] = clip_retrieval.embed(
            python, path, shards, batch_size, decoders, new_folder()
        )
        return seconds

    methods: dict[str, Callable[[], float]] = {
        "simgap": clocked(simgap),
        CLIP_RETRIEVAL: retrieval,
        "open_clip and a data loader": clocked(lambda: by_loader(model, shards, batch_size, decoders)),
        LIMIT: clocked(lambda: by_forward_pass(model, images, batch_size)),
        "simgap's decoding alone": clocked(lambda: preprocess(model, shards, batch_size, decoders)),
    }
    seconds = interleaved(methods, repeats)
    ours, theirs = vectors["simgap"], vectors[CLIP_RETRIEVAL]
    cosine = min(float(ours[key].astype(np.float64) @ theirs[key].astype(np.float64)) for key in ours)
    return seconds, cosine


@click.command()
@click.option("--images", default=128, show_default=True, help="Number of images of 256 pixels to embed with ViT-B-32.")
@click.option(
    "--small-images", default=2048, show_default=True, help="Number of images of 40 pixels to embed with the toy model."
)
@click.option(
    "--decoders", default=len(os.sched_getaffinity(0)), show_default="the number of cores",
    help="Number of simgap's decoding threads, and number of workers in the other data loaders.",
)  # fmt: skip
@click.option("--repeats", default=3, show_default=True, help="Number of repeats. The program reports medians.")
@click.option(
    "--environment", type=PATH, default="scratch/clip_retrieval", show_default=True,
    help="Folder of clip-retrieval's virtual environment. The program creates a missing environment.",
)  # fmt: skip
@click.option("--json", "out", type=PATH, help="JSON file to write the results to.")
@reports_errors
def main(images: int, small_images: int, decoders: int, repeats: int, environment: Path, out: Path | None) -> None:
    """Measure how many images per second each method embeds from shards on disk. The model is already loaded."""
    python = clip_retrieval.install(environment)
    cases = {
        "ViT-B-32": Case("ViT-B-32", 256, images, 32),
        "toy": Case(str(REPOSITORY / "presets" / "models" / "toy.json"), 40, small_images, 256),
    }
    table: list[tuple[str, ...]] = [("model", "method", "images/s", "share of the limit", "ratio to clip-retrieval")]
    content: dict[str, Any] = {"decoders": decoders, "models": {}}
    with tempfile.TemporaryDirectory() as place:
        for name, case in cases.items():
            seconds, cosine = measure(case, decoders, repeats, python, Path(place) / name)
            rates = {method: case.images / statistics.median(values) for method, values in seconds.items()}
            table += [
                (name, method, f"{rate:.1f}", f"{rate / rates[LIMIT]:.2f}", f"{rate / rates[CLIP_RETRIEVAL]:.2f}")
                for method, rate in rates.items()
            ]
            content["models"][name] = {
                "images": case.images,
                "batch_size": case.batch_size,
                "seconds": seconds,
                "images_per_second": rates,
                "of_the_limit": rates["simgap"] / rates[LIMIT],
                "of_clip_retrieval": rates["simgap"] / rates[CLIP_RETRIEVAL],
                "smallest_cosine": cosine,
            }
            print(f"{name}: the smallest cosine between embeddings of simgap and clip-retrieval is {cosine:.4f}")
    report(table, content, out)


if __name__ == "__main__":
    main()
