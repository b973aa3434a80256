"""open_clip's configs: which are accepted, and what those of its model names lack.

Every stage reads them with its params, so that nothing here imports open_clip, which takes seconds.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from simgap.core.errors import SimgapError, nearest_first
from simgap.core.files import read_json

# open_clip's `PreprocessCfg`, whose fields a name's config leaves out.
PREPROCESS = {
    "size": 224,
    "mode": "RGB",
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
CHOICES = {
    "mode": ("RGB",),
    "interpolation": ("bicubic", "bilinear", "random"),
    "resize_mode": ("shortest", "longest", "squash"),
}
# What the towers take where a config does not say it (open_clip's `CLIPVisionCfg`), and the tokens of its own tokenizer.
IMAGE_SIZE, TOKENS = 224, 49408


def _shipped() -> dict[str, Path]:
    spec = find_spec("open_clip")
    # It is a requirement of this package.
    assert spec is not None
    assert spec.origin is not None
    return {path.stem: path for path in (Path(spec.origin).parent / "model_configs").glob("*.json")}


def _pair(size: Any) -> list[Any]:
    return list(size) if isinstance(size, list | tuple) else [size, size]


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _check_preprocessing(preprocess: Any, where: Path | str) -> None:
    if not isinstance(preprocess, dict):
        preprocess = {}
    for key in ("mean", "std", "interpolation", "resize_mode"):
        if key not in preprocess:
            raise SimgapError(f"{where}: preprocess_cfg.{key} is not recorded; it should say how images are prepared")
    for key, choices in CHOICES.items():
        if preprocess.get(key, choices[0]) not in choices:
            raise SimgapError(
                f"{where}: preprocess_cfg.{key}: {preprocess[key]!r} is unknown; choose from {', '.join(choices)}"
            )
    for key, least in (("mean", -math.inf), ("std", 0.0)):
        values = preprocess[key]
        numbers = isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values)
        if not numbers or len(values) != 3 or not all(least < value < math.inf for value in values):
            raise SimgapError(f"{where}: preprocess_cfg.{key}: {values!r} should be three numbers, one for each colour")


def check_config(config: Any, where: Path | str) -> None:
    """Refuse a config that leaves activation or preprocessing to guesswork, or that would fetch something by name.

    Raises:
        SimgapError: `quick_gelu` or `preprocess_cfg` is not recorded, images would be prepared in a way that open_clip does
            not know or for another size than the model's, or a tokenizer or text model is named.
    """
    model = config.get("model_cfg") if isinstance(config, dict) else None
    if not isinstance(model, dict) or "embed_dim" not in model:
        raise SimgapError(f"{where}: model_cfg.embed_dim is not recorded; it should be an open_clip config")
    if not _is_count(model["embed_dim"]):
        raise SimgapError(f"{where}: model_cfg.embed_dim: {model['embed_dim']!r} should be an integer above 0")
    for tower in ("vision_cfg", "text_cfg"):
        if not isinstance(model.get(tower), dict):
            raise SimgapError(f"{where}: model_cfg.{tower} is not recorded; it should be an open_clip config")
    if not isinstance(model.get("quick_gelu"), bool):
        raise SimgapError(f"{where}: model_cfg.quick_gelu is not recorded; it should be true or false")
    preprocess = config.get("preprocess_cfg")
    _check_preprocessing(preprocess, where)
    size = model["vision_cfg"].get("image_size", IMAGE_SIZE)
    if not all(_is_count(side) for side in _pair(size)):
        raise SimgapError(f"{where}: model_cfg.vision_cfg.image_size: {size!r} should be one or two integers above 0")
    # Where no size is recorded, open_clip prepares images for the model's.
    if _pair(preprocess.get("size", size)) != _pair(size):
        raise SimgapError(
            f"{where}: preprocess_cfg.size: {preprocess['size']} should be model_cfg.vision_cfg.image_size, {size}"
        )
    for key in ("hf_tokenizer_name", "hf_model_name", "hf_model_pretrained"):
        if model["text_cfg"].get(key):
            raise SimgapError(
                f"{where}: model_cfg.text_cfg.{key} names something to fetch; only local parts are loaded"
            )
    reduction = (model["text_cfg"].get("tokenizer_kwargs") or {}).get("reduction_mask", "simple")
    if reduction != "simple":
        # open_clip's others draw at random, or need data of nltk's.
        raise SimgapError(
            f"{where}: model_cfg.text_cfg.tokenizer_kwargs.reduction_mask: {reduction!r} should be simple, so that a caption's "
            "tokens are always the same"
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


def named_config(name: str, parameter: str) -> dict[str, Any]:
    """Give the config of an open_clip model name, checked, with activation and preprocessing as open_clip fills them in.

    Args:
        parameter: what named the model, for errors.

    Raises:
        SimgapError: the name is unknown, or its model would fetch something.
    """
    shipped = _shipped()
    # open_clip's own rule.
    path = shipped.get(name.replace("/", "-"))
    if path is None:
        raise SimgapError(f"{parameter}: {name!r} is unknown; choose from {nearest_first(name, shipped)}")
    model = {"quick_gelu": False, **read_json(path)}
    config = {"model_cfg": model, "preprocess_cfg": {**PREPROCESS, "size": model["vision_cfg"]["image_size"]}}
    check_config(config, f"{parameter}: {name}")
    return config


def read_model_config(model: str, parameter: str = "train.model") -> dict[str, Any]:
    """Give the config of a model to train, by the path of a JSON file or by an open_clip model name.

    Activation and preprocessing of a name, and the size of a file's images where it does not record it, are filled in.

    Args:
        parameter: what named the model, for errors.

    Raises:
        SimgapError: the file is missing or fails `check_config`, the name is unknown, or training by CLIP's contrastive
            loss on open_clip's own tokens is not for such a model.
    """
    where = f"{parameter}: {model}"
    if model.endswith(".json"):
        try:
            config: dict[str, Any] = read_json(Path(model))
        except SimgapError as error:
            raise SimgapError(f"{parameter}: {error}; name an open_clip JSON config or an open_clip model") from None
        check_config(config, where)
        size = config["model_cfg"]["vision_cfg"].get("image_size", IMAGE_SIZE)
        config = {**config, "preprocess_cfg": {"size": size, **config["preprocess_cfg"]}}
    else:
        config = named_config(model, parameter)
    _check_trainable(config, where)
    return config


def _check_trainable(config: dict[str, Any], where: str) -> None:
    model = config["model_cfg"]
    for key, kind in (("multimodal_cfg", "CoCa"), ("init_logit_bias", "SigLIP")):
        if model.get(key) is not None:
            raise SimgapError(
                f"{where}: model_cfg.{key} makes it a {kind} model; training has CLIP's contrastive loss alone, choose "
                "a model without it"
            )
    if model.get("output_dict") or any(model[tower].get("output_tokens") for tower in ("vision_cfg", "text_cfg")):
        raise SimgapError(f"{where}: output_dict and output_tokens should not be set; training takes features alone")
    tokens = model["text_cfg"].get("vocab_size", TOKENS)
    if not isinstance(tokens, int) or tokens < TOKENS:
        raise SimgapError(
            f"{where}: model_cfg.text_cfg.vocab_size: {tokens!r} should be {TOKENS} at least, the tokens of open_clip's "
            "tokenizer"
        )
    for key in config["preprocess_cfg"]:
        if key not in PREPROCESS:
            raise SimgapError(f"{where}: preprocess_cfg.{key} is unknown; choose from {', '.join(PREPROCESS)}")
