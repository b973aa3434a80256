"""Train CLIP with open_clip's model factory, loss and preprocessing."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import AugmentationCfg, PreprocessCfg, image_transform_v2

from simgap.embed.model import check_config, save
from simgap.errors import SimgapError
from simgap.files import complete, read_json
from simgap.progress import progress
from simgap.train.data import Samples, TrainingShard
from simgap.train.parameters import TrainParameters

CHECKPOINT = "checkpoint.pt"


def read_model_config(model: str) -> dict[str, Any]:
    """Give the open_clip config of a JSON file or of a model name, activation and preprocessing filled in.

    Raises:
        SimgapError: the file is missing or incomplete, or the name is unknown.
    """
    if model.endswith(".json"):
        config: dict[str, Any] = read_json(Path(model))
        check_config(config, model)
        return config
    if model not in open_clip.list_models():
        raise SimgapError(f"train.model: {model!r} is unknown; choose from {', '.join(open_clip.list_models())}")
    model_config = dict(open_clip.get_model_config(model))
    model_config.setdefault("quick_gelu", False)
    preprocess = asdict(PreprocessCfg(size=model_config["vision_cfg"]["image_size"]))
    config = {"model_cfg": model_config, "preprocess_cfg": preprocess}
    check_config(config, f"train.model {model}")
    return config


def build(config: dict[str, Any], seed: int, scratch: Path) -> tuple[torch.nn.Module, Any]:
    """Make a freshly initialised model and its tokenizer by open_clip's factory; the weights depend on the seed."""
    folder = scratch / "config"
    with complete(folder) as partial:
        partial.mkdir(parents=True)
        (partial / "open_clip_config.json").write_text(json.dumps(config))
    name = f"local-dir:{folder.resolve()}"
    torch.manual_seed(seed)
    # open_clip warns that no weights are loaded, which is what is wanted.
    logging.disable(logging.WARNING)
    try:
        clip = open_clip.create_model(name, load_weights=False).to(memory_format=torch.channels_last)
    finally:
        logging.disable(logging.NOTSET)
    return clip, open_clip.get_tokenizer(name)


def parameter_groups(clip: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters as open_clip does: gains, biases, norms and the logit scale are not decayed."""
    named = [(name, parameter) for name, parameter in clip.named_parameters() if parameter.requires_grad]
    plain = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
    chosen = {id(parameter) for parameter in plain}
    return [
        {"params": plain, "weight_decay": 0.0},
        {"params": [p for _, p in named if id(p) not in chosen], "weight_decay": weight_decay},
    ]


def learning_rate(step: int, steps: int, parameters: TrainParameters) -> float:
    """Linear warm-up, then cosine decay to zero (open_clip's `cosine_lr`)."""
    warmup = round(parameters.warmup_fraction * steps)
    if step < warmup:
        return parameters.learning_rate * (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) * parameters.learning_rate


def count_steps(parameters: TrainParameters, samples: int) -> int:
    """Give the number of steps that the budget allows, at least one."""
    seen = parameters.samples_seen if parameters.budget == "samples_seen" else parameters.epochs * samples
    return max(1, int(seen // parameters.batch_size))


def train(
    parameters: TrainParameters, seed: int, shards: list[TrainingShard], samples: int, out: Path, scratch: Path
) -> dict[str, Any]:
    """Train a model, save it as an open_clip local directory at `out`, and give the metrics.

    A checkpoint in `scratch` every `checkpoint_steps` lets a killed training go on; on one CPU, with the same number of
    threads, it ends with the weights of an uninterrupted one.

    Args:
        samples: how many samples the shards hold, for a budget in epochs.

    Raises:
        SimgapError: there is nothing to train on, the model is unknown, or the loss is not finite.
    """
    if not shards or samples == 0:
        raise SimgapError(
            f"{out.name}: the split keeps no pool rows and no reference joins it; there is nothing to train on"
        )
    torch.set_num_threads(parameters.threads)
    config = read_model_config(parameters.model)
    clip, tokenizer = build(config, seed, scratch)
    clip.train()
    preprocess = image_transform_v2(
        PreprocessCfg(**config["preprocess_cfg"]),
        is_train=True,
        aug_cfg=AugmentationCfg(scale=(parameters.crop_scale, 1.0)),
    )
    optimizer = torch.optim.AdamW(
        parameter_groups(clip, parameters.weight_decay),
        lr=parameters.learning_rate,
        betas=(parameters.beta1, parameters.beta2),
        eps=parameters.epsilon,
        fused=True,
    )
    loss_function = open_clip.ClipLoss()
    steps = count_steps(parameters, samples)
    losses: list[float] = []
    checkpoint = scratch / CHECKPOINT
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        clip.load_state_dict(state["clip"])
        optimizer.load_state_dict(state["optimizer"])
        losses = state["losses"]

    stream = Samples(shards, preprocess, tokenizer, seed, parameters.shuffle_buffer, parameters.batch_size, len(losses))
    loader = iter(torch.utils.data.DataLoader(stream, batch_size=parameters.batch_size, num_workers=parameters.workers))
    bar = progress(range(len(losses), steps), steps, f"train {out.name}", "step")
    for step in bar:
        images, texts = next(loader)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, parameters)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=parameters.precision == "bf16"):
            image_features, text_features, logit_scale = clip(images, texts)
        loss = loss_function(image_features.float(), text_features.float(), logit_scale)
        if not torch.isfinite(loss):
            raise SimgapError(f"{out.name}: the loss is {loss.item()} at step {step}; lower train.learning_rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(0, math.log(100))  # type: ignore[operator]
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
        if (step + 1) % parameters.checkpoint_steps == 0 and step + 1 < steps:
            with complete(checkpoint) as partial:
                torch.save({"clip": clip.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}, partial)

    save(clip, config, out)
    tail = losses[-max(1, len(losses) // 10) :]
    every = max(1, len(losses) // 100)
    return {
        "steps": steps,
        "samples_seen": steps * parameters.batch_size,
        "epochs": steps * parameters.batch_size / samples,
        "samples": samples,
        "loss_final": sum(tail) / len(tail),
        "loss": [[step, losses[step]] for step in range(0, len(losses), every)],
    }
