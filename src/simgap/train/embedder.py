"""Train, download or copy the embedder, and write it as an open_clip local directory."""

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
from simgap.train.data import readable_shards
from simgap.train.process import Process
from simgap.train.train import train


def _download(wanted: PretrainedParameters, out: Path) -> None:
    config = named_config(wanted.model, "embedder.pretrained.model")["model_cfg"]
    name = wanted.model.replace("/", "-")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if wanted.tag not in tags:
        choices = f"choose from {nearest_first(wanted.tag, tags)}" if tags else "choose another model"
        raise SimgapError(f"embedder.pretrained.tag: {name} has no pretrained weights {wanted.tag!r}; {choices}")
    clip = open_clip.create_model(name, pretrained=wanted.tag)
    fields = PreprocessCfg.__dataclass_fields__
    preprocess = {key: value for key, value in clip.visual.preprocess_cfg.items() if key in fields}
    # The config must name the activation that the weights were trained with. Some weights were trained with QuickGELU although
    # the name of the model does not say so. In this case, open_clip only prints a warning and does not correct the activation.
    pretrained = open_clip.get_pretrained_cfg(name, wanted.tag)
    config["quick_gelu"] = config["quick_gelu"] or bool(pretrained.get("quick_gelu"))
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
    """Train, download or copy the embedder, and write it to `out` as an open_clip local directory.

    Args:
        parameters: The `embedder` parameters.
        resources: The `resources.train` parameters.
        pool: Folder of the shards to train on.
        out: Folder to write.
        scratch: Folder for checkpoints.
        process: This process, if several processes train the embedder together. If None, this process trains alone.

    Returns:
        A dictionary with the `source` of the embedder: `train`, `pretrained` or `directory`. For `train`, the dictionary also
        contains the training metrics.

    Raises:
        SimgapError: The pretrained model or tag is unknown, or the directory is not a complete open_clip local directory. The
            training fails.
    """
    if parameters.train is not None:
        shards = readable_shards(pool)
        samples = sum(len(shard.keys) for shard in shards)
        metrics, _ = train(parameters.train, resources, parameters.seed, shards, samples, out, scratch, process)
        return {"source": "train", **metrics}
    if parameters.pretrained is not None:
        _download(parameters.pretrained, out)
        return {"source": "pretrained"}
    _copy(Path(str(parameters.directory)), out)
    return {"source": "directory"}
