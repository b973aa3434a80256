"""Put the embedder on disk as an open_clip local directory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import open_clip
from open_clip.transform import PreprocessCfg

from simgap.clip.config import named_config
from simgap.clip.model import load, save
from simgap.core.errors import SimgapError, nearest_first
from simgap.core.files import atomic_output
from simgap.params.embed import EmbedderParameters, PretrainedParameters
from simgap.params.resources import TrainResources
from simgap.params.train import TrainParameters
from simgap.train.data import readable_shards
from simgap.train.process import Process
from simgap.train.train import train


def _train(
    parameters: TrainParameters,
    resources: TrainResources,
    seed: int,
    pool: Path,
    out: Path,
    scratch: Path,
    process: Process | None,
) -> dict[str, Any]:
    shards = readable_shards(pool)
    samples = sum(len(shard.keys) for shard in shards)
    metrics, _ = train(parameters, resources, seed, shards, samples, out, scratch, process)
    return metrics


def _fetch(wanted: PretrainedParameters, out: Path) -> None:
    config = named_config(wanted.model, "embedder.pretrained.model")["model_cfg"]
    name = wanted.model.replace("/", "-")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if wanted.tag not in tags:
        choices = nearest_first(wanted.tag, tags) if tags else "another model"
        raise SimgapError(f"embedder.pretrained.tag: {name} has no weights {wanted.tag!r}; choose from {choices}")
    clip = open_clip.create_model(name, pretrained=wanted.tag)
    fields = PreprocessCfg.__dataclass_fields__
    preprocess = {key: value for key, value in clip.visual.preprocess_cfg.items() if key in fields}
    # Many weights under plain names were trained with QuickGELU: open_clip knows, and only warns.
    of_tag = open_clip.get_pretrained_cfg(name, wanted.tag)
    config["quick_gelu"] = config["quick_gelu"] or bool(of_tag.get("quick_gelu"))
    save(clip, {"model_cfg": config, "preprocess_cfg": preprocess}, out)


def _copy(directory: Path, out: Path) -> None:
    load(directory)
    with atomic_output(out) as partial:
        shutil.copytree(directory, partial)


def make_embedder(
    parameters: EmbedderParameters,
    resources: TrainResources,
    pool: Path,
    out: Path,
    scratch: Path,
    process: Process | None = None,
) -> dict[str, Any]:
    """Train, fetch or copy the embedder, and give its metrics.

    Args:
        process: this process among those that train it together; alone where it is not given.

    Raises:
        SimgapError: the pretrained model or tag is unknown, or the directory is not a complete open_clip local directory.
    """
    if parameters.train is not None:
        return {"source": "train", **_train(parameters.train, resources, parameters.seed, pool, out, scratch, process)}
    if parameters.pretrained is not None:
        _fetch(parameters.pretrained, out)
        return {"source": "pretrained"}
    _copy(Path(str(parameters.directory)), out)
    return {"source": "directory"}
