"""open_clip local directories: the one form in which models are kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from simgap.errors import SimgapError
from simgap.files import complete, read_json

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"


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


def check_config(config: Any, where: Path | str) -> None:
    """Refuse a config that leaves activation or preprocessing to guesswork, or that would fetch something by name.

    Raises:
        SimgapError: `quick_gelu` or `preprocess_cfg` is not recorded, or a tokenizer or text model is named.
    """
    model = config.get("model_cfg") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("embed_dim"), int):
        raise SimgapError(f"{where}: model_cfg.embed_dim is not recorded; it should be an open_clip config")
    for tower in ("vision_cfg", "text_cfg"):
        if not isinstance(model.get(tower), dict):
            raise SimgapError(f"{where}: model_cfg.{tower} is not recorded; it should be an open_clip config")
    if not isinstance(model.get("quick_gelu"), bool):
        raise SimgapError(f"{where}: model_cfg.quick_gelu is not recorded; it should be true or false")
    preprocess = config.get("preprocess_cfg") or {}
    for key in ("mean", "std", "interpolation", "resize_mode"):
        if key not in preprocess:
            raise SimgapError(f"{where}: preprocess_cfg.{key} is not recorded; it should say how images are prepared")
    for key in ("hf_tokenizer_name", "hf_model_name", "hf_model_pretrained"):
        if model["text_cfg"].get(key):
            raise SimgapError(
                f"{where}: model_cfg.text_cfg.{key} names something to fetch; only local parts are loaded"
            )
    if ":" in str(model["vision_cfg"].get("timm_model_name")):
        raise SimgapError(
            f"{where}: model_cfg.vision_cfg.timm_model_name {model['vision_cfg']['timm_model_name']!r} names something to "
            "fetch; it should be a plain timm name"
        )
    if model["vision_cfg"].get("timm_model_pretrained"):
        raise SimgapError(
            f"{where}: model_cfg.vision_cfg.timm_model_pretrained would fetch weights; it should be false"
        )


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
        SimgapError: a file is missing, the config fails `check_config`, or the weights are not those of the config.
    """
    config = read_json(folder / CONFIG_FILE)
    check_config(config, folder / CONFIG_FILE)
    if not (folder / WEIGHTS_FILE).is_file():
        raise SimgapError(f"{folder / WEIGHTS_FILE}: no such file")
    name = f"local-dir:{folder.resolve()}"
    try:
        clip, _, preprocess = open_clip.create_model_and_transforms(name)
    except (RuntimeError, SafetensorError) as error:
        raise SimgapError(f"{folder}: its weights do not fit its config ({str(error).splitlines()[0]})") from None
    tokenizer = open_clip.get_tokenizer(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Model(clip.eval().to(device), preprocess, tokenizer, int(config["model_cfg"]["embed_dim"]), device)


def save(clip: torch.nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write a model as an open_clip local directory.

    Raises:
        SimgapError: the config fails `check_config`.
    """
    check_config(config, folder / CONFIG_FILE)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in clip.state_dict().items()}
    with complete(folder) as partial:
        partial.mkdir()
        (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        save_file(state, partial / WEIGHTS_FILE)
