"""Count the FLOP and the parameters of a CLIP model without loading weights."""

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
    """The size of a CLIP model.

    Attributes:
        image_flop: FLOP of the forward pass of one image. A multiplication and its addition count as two FLOP.
        text_flop: FLOP of the forward pass of one text.
        parameters: Number of parameters.
        dim: Number of dimensions of an embedding.
        image_size: Pixels along each side of an input image.
    """

    image_flop: int
    text_flop: int
    parameters: int
    dim: int
    image_size: int


@cache
def model_size(model: str, parameter: str = "train.model") -> ModelSize:
    """Count the FLOP and parameters of a model.

    Only the FLOP of matrix products count. The table of models in open_clip uses this convention too.

    Args:
        model: Path of an open_clip JSON config, or name of an open_clip model.
        parameter: Parameter that contains `model`, for error messages.

    Returns:
        The size of the model.

    Raises:
        SimgapError: The file is missing or incomplete, or the name is unknown.
    """
    config = dict(read_model_config(model, parameter)["model_cfg"])
    make: Any = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        clip = make(**config).eval()
        size = int(clip.visual.image_size[0] if isinstance(clip.visual.image_size, tuple) else clip.visual.image_size)
        image, text = torch.empty(1, 3, size, size), torch.zeros(1, clip.context_length, dtype=torch.long)
    flop = []
    # Gradients must stay enabled. Without gradients, PyTorch computes attention with a fast function whose FLOP the
    # counter cannot count.
    for encode, given in ((clip.encode_image, image), (clip.encode_text, text)):
        with FlopCounterMode(display=False) as counter:
            encode(given)
        flop.append(int(counter.get_total_flops()))
    parameters = sum(parameter.numel() for parameter in clip.parameters())
    return ModelSize(flop[0], flop[1], parameters, int(config["embed_dim"]), size)


def embedder_size(embedder: EmbedderParameters) -> ModelSize:
    """Count the FLOP and parameters of the embedder.

    The function accepts an embedder that the study trains, downloads or copies from a folder.

    Args:
        embedder: The block `embedder` of the params file.

    Returns:
        The size of the embedder.

    Raises:
        SimgapError: The config of the embedder is missing or incomplete, or the name of the model is unknown.
    """
    if embedder.train is not None:
        return model_size(embedder.train.model, "embedder.train.model")
    if embedder.pretrained is not None:
        return model_size(embedder.pretrained.model, "embedder.pretrained.model")
    return model_size(str(Path(str(embedder.directory)) / CONFIG_FILE), "embedder.directory")
