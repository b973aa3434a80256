"""Load and save CLIP models as open_clip local directories. This is the only format in which a study stores models."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors import SafetensorError
from safetensors.torch import save_file

from simgap.clip.config import check_config
from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output, read_json

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
# These errors mean that a config is wrong. open_clip, timm and torch raise them if a config has unknown keys, values of a
# wrong type or contradictory sizes.
BUILD_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Model:
    """A CLIP model that is ready to embed images and texts.

    Attributes:
        clip: The open_clip model in evaluation mode, fp32, on `device`.
        preprocess: Function from an RGB PIL image to a float tensor [3, height, width]. The function preprocesses an image as
            the model's config says. It does not augment images.
        tokenizer: Function from a list of texts to an int64 tensor [texts, context length].
        dim: Number of dimensions of an embedding.
        device: The device of the model: a GPU if there is one, otherwise the CPU.
    """

    clip: Any
    preprocess: Any
    tokenizer: Any
    dim: int
    device: torch.device


def create(folder: Path, where: Path | str) -> tuple[Any, Any]:
    """Create a model with initial weights and a tokenizer from the config of an open_clip local directory.

    Args:
        folder: An open_clip local directory. The function reads only the config of this folder.
        where: The file or the parameter of the config. Error messages begin with it.

    Returns:
        The open_clip model in evaluation mode on the CPU, and the tokenizer.

    Raises:
        SimgapError: open_clip cannot build the model.
    """
    name = f"local-dir:{folder.resolve()}"
    # This function wants initial weights, so it hides open_clip's warning that no weights are loaded.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        clip, tokenizer = open_clip.create_model(name, load_weights=False), open_clip.get_tokenizer(name)
        # Some timm towers reject images of the configured size, but only in a forward pass. One forward pass runs here to find
        # this error.
        size = clip.visual.image_size
        with torch.no_grad():
            clip.eval().encode_image(torch.zeros(1, 3, *(size if isinstance(size, tuple | list) else (size, size))))
        return clip, tokenizer
    except BUILD_ERRORS as error:
        reason = " ".join(str(error).split())
        raise SimgapError(
            f"{where}: open_clip cannot build this model ({type(error).__name__}: {reason}); correct its config"
        ) from None
    finally:
        logging.disable(before)


def _read_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = read_json(folder / CONFIG_FILE)
    check_config(config, folder / CONFIG_FILE)
    return config


def read_dim(folder: Path) -> int:
    """Return the number of dimensions of a model's embeddings.

    The function reads only the config of the open_clip local directory, so it needs little time and memory.

    Raises:
        SimgapError: The folder is not an open_clip local directory.
    """
    return int(_read_config(folder)["model_cfg"]["embed_dim"])


def load(folder: Path) -> Model:
    """Load the model of an open_clip local directory onto a GPU, or onto the CPU if there is no GPU.

    The weights file must contain every weight of the model.

    Raises:
        SimgapError: A file is missing, or the config fails `check_config`. open_clip cannot build the model, or the weights
            do not fit the config.
    """
    config = _read_config(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise SimgapError(f"{folder / WEIGHTS_FILE}: no such file; an open_clip local directory must contain it")
    clip, tokenizer = create(folder, folder / CONFIG_FILE)
    try:
        open_clip.load_checkpoint(clip, str(folder / WEIGHTS_FILE))
    except (*BUILD_ERRORS, StopIteration, SafetensorError) as error:
        reason = " ".join(" ".join(str(error).split()).split(" ", 60)[:60])
        raise SimgapError(
            f"{folder}: the weights do not fit the config ({type(error).__name__}: {reason}); both must be of the same model"
        ) from None
    preprocess = image_transform_v2(PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Model(clip.eval().to(device), preprocess, tokenizer, int(config["model_cfg"]["embed_dim"]), device)


def save(clip: torch.nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write a model as an open_clip local directory.

    Raises:
        SimgapError: The config fails `check_config`.
    """
    check_config(config, folder / CONFIG_FILE)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in clip.state_dict().items()}
    with atomic_output(folder) as partial:
        partial.mkdir()
        (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        save_file(state, partial / WEIGHTS_FILE)
