"""Read and check open_clip configs without importing open_clip.

Every stage checks the model configs that its params file names, and importing open_clip would take seconds.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from simgap.core.errors import SimgapError, nearest_first
from simgap.core.files import read_json

# The configs that open_clip ships do not contain these fields, so simgap adds them. The values are the defaults of open_clip's
# `PreprocessCfg`.
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
# A config may omit the image size. The image size is then IMAGE_SIZE, the default of open_clip's `CLIPVisionCfg`. TOKENS is
# the vocabulary size of open_clip's own tokenizer. A model with a smaller vocabulary could not embed every token.
IMAGE_SIZE, TOKENS = 224, 49408


def _shipped_configs() -> dict[str, Path]:
    spec = find_spec("open_clip")
    # simgap requires open_clip, so Python always finds the files of open_clip.
    assert spec is not None
    assert spec.origin is not None
    return {path.stem: path for path in (Path(spec.origin).parent / "model_configs").glob("*.json")}


def _pair(size: Any) -> list[Any]:
    return list(size) if isinstance(size, list | tuple) else [size, size]


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _check_towers(model: Any, where: Path | str) -> None:
    if not isinstance(model, dict) or "embed_dim" not in model:
        raise SimgapError(f"{where}: model_cfg.embed_dim is missing; the file must be an open_clip config")
    if not _is_count(model["embed_dim"]):
        raise SimgapError(f"{where}: model_cfg.embed_dim is {model['embed_dim']!r}; it must be a positive integer")
    for tower in ("vision_cfg", "text_cfg"):
        if not isinstance(model.get(tower), dict):
            raise SimgapError(f"{where}: model_cfg.{tower} is missing; the file must be an open_clip config")
    if not isinstance(model.get("quick_gelu"), bool):
        raise SimgapError(f"{where}: model_cfg.quick_gelu is missing; it must be true or false")


def _check_preprocessing(preprocess: Any, where: Path | str) -> None:
    if not isinstance(preprocess, dict):
        preprocess = {}
    for key in ("mean", "std", "interpolation", "resize_mode"):
        if key not in preprocess:
            raise SimgapError(f"{where}: preprocess_cfg.{key} is missing; it must say how images are preprocessed")
    for key, choices in CHOICES.items():
        if preprocess.get(key, choices[0]) not in choices:
            raise SimgapError(
                f"{where}: preprocess_cfg.{key}: {preprocess[key]!r} is unknown; choose from {', '.join(choices)}"
            )
    for key, lower in (("mean", -math.inf), ("std", 0.0)):
        values = preprocess[key]
        numbers = isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values)
        if not numbers or len(values) != 3 or not all(lower < value < math.inf for value in values):
            kind = "finite numbers" if key == "mean" else "positive numbers"
            raise SimgapError(f"{where}: preprocess_cfg.{key} is {values!r}; it must be three {kind} (R, G, B)")


def _check_image_size(model: dict[str, Any], preprocess: dict[str, Any], where: Path | str) -> None:
    size = model["vision_cfg"].get("image_size", IMAGE_SIZE)
    if not all(_is_count(side) for side in _pair(size)):
        raise SimgapError(
            f"{where}: model_cfg.vision_cfg.image_size is {size!r}; it must be one or two positive integers"
        )
    # A config without a preprocessing size is valid, because open_clip then uses the image size of the model.
    if _pair(preprocess.get("size", size)) != _pair(size):
        raise SimgapError(
            f"{where}: preprocess_cfg.size is {preprocess['size']}; it must equal model_cfg.vision_cfg.image_size, {size}"
        )


def _check_local(model: dict[str, Any], where: Path | str) -> None:
    """Raise an error if open_clip would download a part of the model, or if the tokenizer is not deterministic."""
    downloads = [("text_cfg", key) for key in ("hf_tokenizer_name", "hf_model_name", "hf_model_pretrained")]
    for tower, key in [*downloads, ("vision_cfg", "timm_model_pretrained")]:
        if model[tower].get(key):
            raise SimgapError(f"{where}: model_cfg.{tower}.{key} would download a part of the model; remove it")
    reduction = (model["text_cfg"].get("tokenizer_kwargs") or {}).get("reduction_mask", "simple")
    if reduction != "simple":
        # This option says how to shorten a caption that has too many tokens. Only 'simple' is valid, because the other values
        # choose tokens at random or need data of the package nltk.
        raise SimgapError(
            f"{where}: model_cfg.text_cfg.tokenizer_kwargs.reduction_mask is {reduction!r}; it must be 'simple', so that a "
            "caption always has the same tokens"
        )
    name = str(model["vision_cfg"].get("timm_model_name"))
    if ":" in name:
        raise SimgapError(
            f"{where}: model_cfg.vision_cfg.timm_model_name is {name!r}, which timm would download; it must be a plain timm name"
        )


def check_config(config: Any, where: Path | str) -> None:
    """Check that an open_clip config is complete, and that open_clip can load the model without a download.

    Args:
        config: The content of an open_clip config file.
        where: The file or the parameter of the config. Error messages begin with it.

    Raises:
        SimgapError: `quick_gelu`, `preprocess_cfg` or another required key is missing or invalid. The preprocessing size
            differs from the model's image size. open_clip would download a tokenizer, a text model or weights. The tokenizer
            would choose tokens at random.
    """
    model = config.get("model_cfg") if isinstance(config, dict) else None
    _check_towers(model, where)
    _check_preprocessing(config.get("preprocess_cfg"), where)
    _check_image_size(config["model_cfg"], config["preprocess_cfg"], where)
    _check_local(config["model_cfg"], where)


def named_config(name: str, parameter: str) -> dict[str, Any]:
    """Return the checked config of an open_clip model name.

    The configs that open_clip ships lack preprocessing and often lack `quick_gelu`. This function adds open_clip's defaults.

    Args:
        name: An open_clip model name, such as `ViT-B-32`.
        parameter: The parameter that contains the name. Error messages begin with it.

    Returns:
        A config with the keys `model_cfg` and `preprocess_cfg`, as in the file `open_clip_config.json` of a model.

    Raises:
        SimgapError: The name is unknown, or the config fails `check_config`.
    """
    shipped = _shipped_configs()
    # open_clip accepts the name ViT-B/32 for the config ViT-B-32, so this line replaces each slash with a dash.
    path = shipped.get(name.replace("/", "-"))
    if path is None:
        raise SimgapError(f"{parameter}: {name!r} is unknown; choose from {nearest_first(name, shipped)}")
    model = {"quick_gelu": False, **read_json(path)}
    config = {"model_cfg": model, "preprocess_cfg": {**PREPROCESS, "size": model["vision_cfg"]["image_size"]}}
    check_config(config, f"{parameter}: {name}")
    return config


def read_model_config(model: str, parameter: str = "train.model") -> dict[str, Any]:
    """Return the checked config of a model to train.

    If `model` is a name, `named_config` adds the missing keys. If `model` is a file, this function adds at most one key, the
    preprocessing size. If the file has no preprocessing size, the function adds the model's image size.

    Args:
        model: The path of an open_clip JSON config (`*.json`), or an open_clip model name.
        parameter: The parameter that contains the path or name. Error messages begin with it.

    Returns:
        A config with the keys `model_cfg` and `preprocess_cfg`, as in the file `open_clip_config.json` of a model.

    Raises:
        SimgapError: The file is missing, the name is unknown, or the config fails `check_config`. CLIP's contrastive loss or
            open_clip's own tokenizer does not fit the model.
    """
    where = f"{parameter}: {model}"
    if model.endswith(".json"):
        try:
            config: dict[str, Any] = read_json(Path(model))
        except SimgapError as error:
            raise SimgapError(
                f"{parameter}: {error}; set it to an open_clip JSON config or an open_clip model name"
            ) from None
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
                f"{where}: model_cfg.{key} makes this a {kind} model; choose a CLIP model, which does not have this key"
            )
    if model.get("output_dict") or any(model[tower].get("output_tokens") for tower in ("vision_cfg", "text_cfg")):
        raise SimgapError(
            f"{where}: output_dict or output_tokens is set; remove it, because training needs plain features"
        )
    tokens = model["text_cfg"].get("vocab_size", TOKENS)
    if not isinstance(tokens, int) or tokens < TOKENS:
        raise SimgapError(
            f"{where}: model_cfg.text_cfg.vocab_size is {tokens!r}; it must be at least {TOKENS}, the vocabulary size of "
            "open_clip's tokenizer"
        )
    for key in config["preprocess_cfg"]:
        if key not in PREPROCESS:
            raise SimgapError(f"{where}: preprocess_cfg.{key} is unknown; choose from {', '.join(PREPROCESS)}")
