"""Put the embedder on disk as an open_clip local directory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from simgap.embed.parameters import EmbedderParameters
from simgap.errors import SimgapError
from simgap.files import complete


def _train(
    parameters: EmbedderParameters, train_parameters: Any, pool: Path, out: Path, scratch: Path
) -> dict[str, Any]:
    from simgap.train.data import readable_shards
    from simgap.train.train import train

    shards = readable_shards(pool)
    samples = sum(len(shard.keys) for shard in shards)
    return train(train_parameters, parameters.seed, shards, samples, out, scratch)


def _fetch(model: str, tag: str, out: Path) -> dict[str, Any]:
    import open_clip
    from open_clip.transform import PreprocessCfg

    from simgap.embed.model import save

    if (model, tag) not in open_clip.list_pretrained():
        known = ", ".join(t for m, t in open_clip.list_pretrained() if m == model) or "none"
        raise SimgapError(f"embedder.pretrained: {model} has no weights {tag!r}; choose from {known}")
    clip = open_clip.create_model(model, pretrained=tag)
    fields = PreprocessCfg.__dataclass_fields__
    preprocess = {key: value for key, value in clip.visual.preprocess_cfg.items() if key in fields}
    config = dict(open_clip.get_model_config(model))
    # OpenAI's weights and those of a -quickgelu model name were trained with QuickGELU (open_clip's own rule).
    config["quick_gelu"] = bool(config.get("quick_gelu", False)) or tag == "openai"
    save(clip, {"model_cfg": config, "preprocess_cfg": preprocess}, out)
    return {}


def make_embedder(
    parameters: EmbedderParameters, train_parameters: Any, pool: Path, out: Path, scratch: Path
) -> dict[str, Any]:
    """Train, fetch or copy the embedder, and give its metrics.

    Raises:
        SimgapError: the pretrained tag is unknown, or the directory is not a complete open_clip local directory.
    """
    if parameters.source == "train":
        metrics = _train(parameters, train_parameters, pool, out, scratch)
    elif parameters.source == "pretrained":
        metrics = _fetch(str(parameters.model), str(parameters.pretrained), out)
    else:
        from simgap.embed.model import load

        directory = Path(str(parameters.directory))
        load(directory)
        with complete(out) as partial:
            shutil.copytree(directory, partial)
        metrics = {}
    return {"source": parameters.source, **metrics}
