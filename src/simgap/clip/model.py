"""open_clip local directories: the one form in which models are kept."""

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
# What open_clip, timm and torch raise at keys that they do not know, values of other types, and sizes that do not fit.
BUILDING = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Model:
    """A CLIP model ready to embed.

    Attributes:
        clip: open_clip's model in evaluation mode, fp32, on `device`.
        preprocess: RGB PIL image to float tensor [3, height, width], by the model's own config, without augmentation.
        tokenizer: list of texts to int64 tensor [texts, context length].
        dim: width of the embeddings.
        device: where it computes: a GPU where there is one.
    """

    clip: Any
    preprocess: Any
    tokenizer: Any
    dim: int
    device: torch.device


def create(folder: Path, where: Path | str) -> tuple[Any, Any]:
    """Make the model of an open_clip local directory, freshly initialised, and its tokenizer.

    Args:
        where: what gave the config, for errors.

    Raises:
        SimgapError: open_clip cannot build such a model.
    """
    name = f"local-dir:{folder.resolve()}"
    # open_clip warns that no weights are loaded, which is what is wanted.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        clip, tokenizer = open_clip.create_model(name, load_weights=False), open_clip.get_tokenizer(name)
        # timm builds towers that do not take the images that the config names.
        size = clip.visual.image_size
        with torch.no_grad():
            clip.eval().encode_image(torch.zeros(1, 3, *(size if isinstance(size, tuple | list) else (size, size))))
        return clip, tokenizer
    except BUILDING as error:
        reason = " ".join(str(error).split())
        raise SimgapError(f"{where}: open_clip cannot build it ({type(error).__name__}: {reason})") from None
    finally:
        logging.disable(before)


def read_dim(folder: Path) -> int:
    """Read the width of a model's embeddings.

    Raises:
        SimgapError: the folder is no open_clip local directory.
    """
    config = read_json(folder / CONFIG_FILE)
    check_config(config, folder / CONFIG_FILE)
    return int(config["model_cfg"]["embed_dim"])


def load(folder: Path) -> Model:
    """Load an open_clip local directory, every weight of it, onto a GPU where there is one.

    Raises:
        SimgapError: a file is missing, the config fails `check_config` or cannot be built, or the weights are not those of
            the config.
    """
    config = read_json(folder / CONFIG_FILE)
    check_config(config, folder / CONFIG_FILE)
    if not (folder / WEIGHTS_FILE).is_file():
        raise SimgapError(f"{folder / WEIGHTS_FILE}: no such file")
    clip, tokenizer = create(folder, folder / CONFIG_FILE)
    try:
        open_clip.load_checkpoint(clip, str(folder / WEIGHTS_FILE))
    except (*BUILDING, StopIteration, SafetensorError) as error:
        reason = " ".join(" ".join(str(error).split()).split(" ", 60)[:60])
        raise SimgapError(f"{folder}: its weights do not fit its config ({type(error).__name__}: {reason})") from None
    preprocess = image_transform_v2(PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Model(clip.eval().to(device), preprocess, tokenizer, int(config["model_cfg"]["embed_dim"]), device)


def save(clip: torch.nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write a model as an open_clip local directory.

    Raises:
        SimgapError: the config fails `check_config`.
    """
    check_config(config, folder / CONFIG_FILE)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in clip.state_dict().items()}
    with atomic_output(folder) as partial:
        partial.mkdir()
        (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        save_file(state, partial / WEIGHTS_FILE)
