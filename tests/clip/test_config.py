"""Configs of open_clip are read and checked without importing open_clip."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import pytest
from conftest import MODEL_CONFIG
from open_clip.transform import PreprocessCfg

from simgap.clip import config as module
from simgap.clip.config import PREPROCESS, TOKENS, check_config, named_config, read_model_config
from simgap.core.errors import SimgapError, nearest_first


def changed(block: str, **keys: Any) -> dict[str, Any]:
    """Return the tiny model's config with keys of one block changed; a key whose value is None is removed."""
    config = copy.deepcopy(MODEL_CONFIG)
    place: Any = config
    for name in block.split("."):
        place = place[name]
    place.update(keys)
    for key in [key for key, value in keys.items() if value is None]:
        del place[key]
    return config


def test_names_and_configs_are_those_of_open_clip() -> None:
    assert sorted(module._shipped_configs()) == sorted(open_clip.list_models())
    for name in ("ViT-B-32", "RN50", "convnext_base"):
        model = {"quick_gelu": False, **open_clip.get_model_config(name)}
        preprocess = asdict(PreprocessCfg(size=model["vision_cfg"]["image_size"]))
        expected = {"model_cfg": model, "preprocess_cfg": preprocess}
        assert read_model_config(name) == json.loads(json.dumps(expected))
    assert asdict(PreprocessCfg()) == {**PREPROCESS, "mean": tuple(PREPROCESS["mean"]), "std": tuple(PREPROCESS["std"])}
    assert open_clip.get_tokenizer("ViT-B-32").vocab_size == TOKENS
    assert open_clip.model.CLIPVisionCfg().image_size == module.IMAGE_SIZE


def test_a_slash_in_a_name_is_read_as_a_dash() -> None:
    assert read_model_config("ViT-B/32") == read_model_config("ViT-B-32")


def test_reading_imports_neither_torch_nor_open_clip() -> None:
    code = (
        "import sys; from simgap.clip.config import read_model_config; read_model_config('RN50'); "
        "print({'torch', 'open_clip', 'timm'} & set(sys.modules))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "set()\n"


def test_activation_of_a_name() -> None:
    assert read_model_config("ViT-B-32-quickgelu")["model_cfg"]["quick_gelu"] is True
    assert read_model_config("ViT-B-32")["model_cfg"]["quick_gelu"] is False


def test_every_model_of_open_clip_is_accepted_or_refused_for_a_reason() -> None:
    accepted, refused = [], {}
    for name in open_clip.list_models():
        try:
            read_model_config(name)
            accepted.append(name)
        except SimgapError as error:
            refused[name] = str(error)
    for name, reason in refused.items():
        assert reason.startswith(f"train.model: {name}: model_cfg."), name
        assert any(word in reason for word in ("hf_", "CoCa", "SigLIP", "vocab_size")), name
    for name in accepted:
        assert "hf_model_name" not in open_clip.get_model_config(name)["text_cfg"], name
        assert "siglip" not in name.lower(), name
        assert "coca" not in name, name
    assert {"RN50", "ViT-B-32", "ViT-B-16-plus-240", "convnext_base", "EVA02-B-16", "MobileCLIP-S1"} <= set(accepted)


def test_an_unknown_name_gets_the_nearest_ten() -> None:
    with pytest.raises(SimgapError, match=r"train\.model: 'ViT-B-23' is unknown; choose from ViT-B-32, ") as raised:
        read_model_config("ViT-B-23")
    assert str(raised.value).count(",") == 9
    assert str(raised.value).endswith(f" and {len(open_clip.list_models()) - 10} more")
    for schema in ("hf-hub:someone/model", "local-dir:model"):
        with pytest.raises(SimgapError, match="is unknown"):
            read_model_config(schema)
    assert nearest_first("b", ["a", "b"]) == "b, a"
    assert nearest_first("b", "abcdefghij") == "b, a, c, d, e, f, g, h, i, j"


def test_a_file_is_read_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(MODEL_CONFIG))
    assert read_model_config(str(path)) == MODEL_CONFIG
    path.write_text(json.dumps(changed("preprocess_cfg", size=None)))
    assert read_model_config(str(path)) == MODEL_CONFIG
    path.write_text(json.dumps(changed("preprocess_cfg", size=[16, 16])))
    assert read_model_config(str(path))["preprocess_cfg"]["size"] == [16, 16]


@pytest.mark.parametrize(
    ("block", "keys", "words"),
    [
        ("model_cfg", {"quick_gelu": None}, "quick_gelu is missing"),
        ("model_cfg", {"vision_cfg": [1]}, "vision_cfg is missing"),
        ("model_cfg.text_cfg", {"hf_tokenizer_name": "x"}, "hf_tokenizer_name would download a part"),
        ("model_cfg.text_cfg", {"hf_model_name": "x"}, "hf_model_name would download a part"),
        ("model_cfg.vision_cfg", {"timm_model_name": "hf-hub:a/b"}, "'hf-hub:a/b', which timm would download"),
        ("model_cfg.vision_cfg", {"timm_model_pretrained": True}, "timm_model_pretrained would download a part"),
        ("preprocess_cfg", {"mean": None}, "mean is missing"),
        ("preprocess_cfg", {"interpolation": "cubic"}, "'cubic' is unknown; choose from bicubic, bilinear, random"),
        ("preprocess_cfg", {"resize_mode": "crop"}, "'crop' is unknown; choose from shortest, longest, squash"),
        ("preprocess_cfg", {"mode": "L"}, "'L' is unknown; choose from RGB"),
        ("preprocess_cfg", {"mean": [0.5]}, "mean is [0.5]; it must be three finite numbers (R, G, B)"),
        ("preprocess_cfg", {"mean": "0.5"}, "mean is '0.5'; it must be three finite numbers (R, G, B)"),
        ("preprocess_cfg", {"std": [0.0, 1, 1]}, "std is [0.0, 1, 1]; it must be three positive numbers (R, G, B)"),
        (
            "preprocess_cfg",
            {"size": 32},
            "preprocess_cfg.size is 32; it must equal model_cfg.vision_cfg.image_size, 16",
        ),
        ("preprocess_cfg", {"size": [16, 24]}, "[16, 24]; it must equal model_cfg.vision_cfg.image_size, 16"),
        ("model_cfg", {"embed_dim": True}, "embed_dim is True; it must be a positive integer"),
        ("model_cfg", {"embed_dim": 0}, "embed_dim is 0; it must be a positive integer"),
        ("model_cfg.vision_cfg", {"image_size": "16"}, "image_size is '16'; it must be one or two positive integers"),
        ("model_cfg.vision_cfg", {"image_size": 0}, "image_size is 0; it must be one or two positive integers"),
        ("model_cfg.text_cfg", {"tokenizer_kwargs": {"reduction_mask": "random"}}, "'random'; it must be 'simple'"),
        ("model_cfg.vision_cfg", {"image_size": None}, "16; it must equal model_cfg.vision_cfg.image_size, 224"),
    ],
)
def test_configs_that_are_always_refused(tmp_path: Path, block: str, keys: dict[str, Any], words: str) -> None:
    config = changed(block, **keys)
    with pytest.raises(SimgapError) as raised:
        check_config(config, "here")
    assert str(raised.value).startswith("here: ")
    assert words in str(raised.value)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(config))
    with pytest.raises(SimgapError) as raised:
        read_model_config(str(path), "runs.full.model")
    assert str(raised.value).startswith(f"runs.full.model: {path}: ")
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("block", "keys", "words"),
    [
        ("model_cfg", {"multimodal_cfg": {"layers": 1}}, "model_cfg.multimodal_cfg makes this a CoCa model"),
        ("model_cfg", {"init_logit_bias": -10}, "model_cfg.init_logit_bias makes this a SigLIP model"),
        ("model_cfg", {"output_dict": True}, "output_dict or output_tokens is set"),
        ("model_cfg.vision_cfg", {"output_tokens": True}, "output_dict or output_tokens is set"),
        ("model_cfg.text_cfg", {"vocab_size": 1000}, "vocab_size is 1000; it must be at least 49408"),
        ("preprocess_cfg", {"colour": 1}, "preprocess_cfg.colour is unknown; choose from size, mode"),
    ],
)
def test_configs_that_cannot_be_trained(tmp_path: Path, block: str, keys: dict[str, Any], words: str) -> None:
    config = changed(block, **keys)
    check_config(config, "here")
    path = tmp_path / "model.json"
    path.write_text(json.dumps(config))
    with pytest.raises(SimgapError, match=words):
        read_model_config(str(path))


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no such file"), ("{", "not JSON"), ("[1]", "embed_dim is missing")]
)
def test_a_file_that_is_not_a_config(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "model.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SimgapError, match=words) as raised:
        read_model_config(str(path))
    assert str(raised.value).startswith(f"train.model: {path}: ")
    assert "\n" not in str(raised.value)


def test_a_pretrained_model_may_have_another_loss_but_downloads_no_other_part() -> None:
    assert "multimodal_cfg" in named_config("coca_ViT-B-32", "embedder.pretrained.model")["model_cfg"]
    with pytest.raises(SimgapError, match=r"embedder\.pretrained\.model: ViT-B-16-SigLIP: .*hf_tokenizer_name"):
        named_config("ViT-B-16-SigLIP", "embedder.pretrained.model")
