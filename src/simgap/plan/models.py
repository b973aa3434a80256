"""How much arithmetic a CLIP model is, counted on a model without memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch.utils.flop_counter import FlopCounterMode

from simgap.clip.config import read_model_config
from simgap.clip.model import CONFIG_FILE
from simgap.params.embed import EmbedderParameters


@dataclass(frozen=True)
class ModelSize:
    """A model's FLOP for an image and for a text, forward, two a multiply-add; its parameters, dim and pixels a side."""

    image_flop: int
    text_flop: int
    parameters: int
    dim: int
    image_size: int


def size_of(model_cfg: dict[str, Any]) -> ModelSize:
    """Count the model of an open_clip `model_cfg`; matrix products count, as in open_clip's own table of models."""
    config = dict(model_cfg)
    make: Any = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        clip = make(**config).eval()
        size = int(clip.visual.image_size[0] if isinstance(clip.visual.image_size, tuple) else clip.visual.image_size)
        image, text = torch.empty(1, 3, size, size), torch.zeros(1, clip.context_length, dtype=torch.long)
    # With gradients: without them attention takes a path that the counter does not see.
    flop = []
    for encode, given in ((clip.encode_image, image), (clip.encode_text, text)):
        with FlopCounterMode(display=False) as counter:
            encode(given)
        flop.append(int(counter.get_total_flops()))
    parameters = sum(parameter.numel() for parameter in clip.parameters())
    return ModelSize(flop[0], flop[1], parameters, int(config["embed_dim"]), size)


@cache
def model_size(model: str, parameter: str = "train.model") -> ModelSize:
    """Count the model of a JSON config or of an open_clip name.

    Raises:
        SimgapError: the file is missing or incomplete, or the name is unknown.
    """
    return size_of(read_model_config(model, parameter)["model_cfg"])


def embedder_size(embedder: EmbedderParameters) -> ModelSize:
    """Count the embedder, wherever it comes from.

    Raises:
        SimgapError: see `model_size`.
    """
    if embedder.train is not None:
        return model_size(embedder.train.model, "embedder.train.model")
    if embedder.pretrained is not None:
        return model_size(embedder.pretrained.model, "embedder.pretrained.model")
    return model_size(str(Path(str(embedder.directory)) / CONFIG_FILE), "embedder.directory")
