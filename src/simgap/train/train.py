"""Train a CLIP model on the shards of a split."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from open_clip.transform import AugmentationCfg, PreprocessCfg, image_transform_v2

from simgap.clip.config import read_model_config
from simgap.clip.model import CONFIG_FILE, create, save
from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output
from simgap.core.progress import progress
from simgap.params.resources import TrainResources
from simgap.params.train import TrainParameters
from simgap.train.checkpoint import TrainingState
from simgap.train.data import MicroBatches, TrainingShard
from simgap.train.process import Process
from simgap.train.step import Batch, ContrastiveStep


def build(config: dict[str, Any], seed: int, scratch: Path, where: str = "config") -> tuple[torch.nn.Module, Any]:
    """Create a model with random initial weights and a tokenizer, with open_clip's model factory.

    Args:
        config: A checked open_clip config.
        seed: Seed of the initial weights.
        scratch: Folder to which the config is written, because open_clip reads configs from files.
        where: The file or the parameter of the config. Error messages begin with it.

    Returns:
        The open_clip model in evaluation mode on the CPU, in the memory format channels_last, and the tokenizer.

    Raises:
        SimgapError: open_clip cannot build the model.
    """
    folder = scratch / "config"
    with atomic_output(folder) as partial:
        partial.mkdir(parents=True)
        (partial / CONFIG_FILE).write_text(json.dumps(config))
    torch.manual_seed(seed)
    clip, tokenizer = create(folder, where)
    return clip.to(memory_format=torch.channels_last), tokenizer


def parameter_groups(clip: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters of a model into two groups, as open_clip does.

    Args:
        clip: The model.
        weight_decay: Weight decay of the second group.

    Returns:
        Two groups for a torch optimizer. The first group has no weight decay: gains, biases, norms and the logit scale. The
        second group contains all other parameters. Frozen parameters are in neither group.
    """
    named = [(name, parameter) for name, parameter in clip.named_parameters() if parameter.requires_grad]
    undecayed = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
    chosen = {id(parameter) for parameter in undecayed}
    return [
        {"params": undecayed, "weight_decay": 0.0},
        {"params": [p for _, p in named if id(p) not in chosen], "weight_decay": weight_decay},
    ]


def learning_rate(step: int, steps: int, parameters: TrainParameters) -> float:
    """Return the learning rate of a step, after linear warm-up and cosine decay to zero (open_clip's `cosine_lr`)."""
    warmup = round(parameters.warmup_fraction * steps)
    if step < warmup:
        return parameters.learning_rate * (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) * parameters.learning_rate


def count_steps(parameters: TrainParameters, samples: int) -> int:
    """Return the number of training steps: the whole batches in the training budget, at least 1.

    If the budget is a number of epochs, each epoch has `samples` samples.
    """
    seen = parameters.samples_seen if parameters.budget == "samples_seen" else parameters.epochs * samples
    return max(1, int(seen // parameters.batch_size))


def micro_batches(parameters: TrainParameters, processes: int) -> tuple[int, int]:
    """Divide the batch of a step into micro-batches.

    Returns:
        The number of micro-batches that each process computes in a step, and the number of samples in a micro-batch.

    Raises:
        SimgapError: The batch cannot be divided into the same number of whole micro-batches for every process.
    """
    size = parameters.micro_batch_size or parameters.batch_size // processes
    if size == 0 or parameters.batch_size % (size * processes):
        raise SimgapError(
            f"train.batch_size is {parameters.batch_size}; it must be a multiple of {(size or 1) * processes}: {processes} "
            f"processes times micro-batches of {size or 1}"
        )
    return parameters.batch_size // (size * processes), size


def _optimizer(clip: torch.nn.Module, parameters: TrainParameters) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameter_groups(clip, parameters.weight_decay),
        lr=parameters.learning_rate,
        betas=(parameters.beta1, parameters.beta2),
        eps=parameters.epsilon,
        fused=True,
    )


def _loader(
    parameters: TrainParameters,
    seed: int,
    shards: list[TrainingShard],
    process: Process,
    config: dict[str, Any],
    tokenizer: Any,
    size: int,
    done: int,
    workers: int,
) -> Iterator[Batch | SimgapError]:
    preprocess = image_transform_v2(
        PreprocessCfg(**config["preprocess_cfg"]),
        is_train=True,
        aug_cfg=AugmentationCfg(scale=(parameters.crop_scale, 1.0)),
    )
    batches = MicroBatches(
        shards,
        preprocess,
        tokenizer,
        seed=seed,
        buffer=parameters.shuffle_buffer,
        micro_batch=size,
        block=parameters.micro_batch_size or parameters.batch_size,
        readers=parameters.readers,
        rank=process.rank,
        world_size=process.world_size,
        done=done,
    )
    return iter(
        torch.utils.data.DataLoader(
            batches,
            batch_size=None,
            num_workers=workers,
            pin_memory=process.device.type == "cuda",
            # The loader has its own random generator. Without this generator, the loader would change the random numbers of
            # the model.
            generator=torch.Generator(),
        )
    )


def _next_batch(loader: Iterator[Batch | SimgapError]) -> Batch:
    batch = next(loader)
    if isinstance(batch, SimgapError):
        raise batch
    return batch


def _wrap(clip: torch.nn.Module, parameters: TrainParameters, process: Process) -> torch.nn.Module:
    """Put a model into training mode, and return the model that the training steps use.

    With several processes, DistributedDataParallel wraps the model. The parameters determine whether the model uses activation
    checkpointing and whether it is compiled.
    """
    clip.train()
    if parameters.grad_checkpointing:
        clip.set_grad_checkpointing()  # type: ignore[operator]
    wrapped: torch.nn.Module = clip
    if process.world_size > 1:
        wrapped = torch.nn.parallel.DistributedDataParallel(
            clip, device_ids=[process.device.index] if process.device.type == "cuda" else None
        )
    if parameters.compile:
        wrapped.compile()
    return wrapped


def train(
    parameters: TrainParameters,
    resources: TrainResources,
    seed: int,
    shards: list[TrainingShard],
    samples: int,
    out: Path,
    scratch: Path,
    process: Process | None = None,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Train a model and write it to `out` as an open_clip local directory.

    The function writes a checkpoint to `scratch` every `resources.checkpoint_steps` steps and after every epoch. A killed
    training run resumes from the checkpoint. If a single process trains on a CPU and the number of threads stays the same, the
    interruption does not change any bit of the final weights.

    Args:
        parameters: The `train` parameters.
        resources: The `resources.train` parameters.
        seed: Seed of the initial weights, of the order of samples and of the augmentation.
        shards: The shards to train on.
        samples: Number of samples in the shards.
        out: Folder to write.
        scratch: Folder for checkpoints.
        process: This process, if several processes train together. If None, this process trains alone.

    Returns:
        A tuple of two dictionaries:

        - The training metrics. They include the loss curve, a list of [step, loss].
        - The speed of this run: `samples_per_second` and `seconds`.

    Raises:
        SimgapError: There are no samples, or open_clip does not know the model or cannot build it. The batch cannot be divided
            among the processes. A shard changed after it was embedded. A loss, gradient or weight is not finite.
    """
    if not shards or samples == 0:
        raise SimgapError(
            f"{out.name}: there is nothing to train on; the split must keep pool rows, or the reference must be added"
        )
    process = process or Process(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    torch.set_num_threads(parameters.threads)
    per_step, size = micro_batches(parameters, process.world_size)
    config = read_model_config(parameters.model)
    clip, tokenizer = build(config, seed, scratch / f"process-{process.rank}", parameters.model)
    clip.to(process.device)
    state = TrainingState(clip, _optimizer(clip, parameters), [])
    state.restore(scratch)
    if not process.agree(len(state.losses)):
        raise SimgapError(
            f"{scratch}: the processes read different checkpoints; put the folder on a file system that all machines share"
        )
    contrastive = ContrastiveStep(_wrap(clip, parameters, process), process, parameters.precision)
    steps = count_steps(parameters, samples)
    begun, begun_at = len(state.losses), time.perf_counter()
    loader = _loader(parameters, seed, shards, process, config, tokenizer, size, begun * per_step, resources.workers)
    bar = progress(range(begun, steps), steps, f"train {out.name}", "step", initial=begun, silent=not process.writes)
    for step in bar:
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, parameters)
        state.optimizer.zero_grad()
        loss = process.mean(contrastive.backward([_next_batch(loader) for _ in range(per_step)]))
        gradient = float(torch.nn.utils.get_total_norm([p.grad for p in clip.parameters() if p.grad is not None]))
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            raise SimgapError(
                f"{out.name}: at step {step} the loss is {loss} and the gradient norm is {gradient}; lower train.learning_rate"
            )
        state.optimizer.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(0, math.log(100))  # type: ignore[operator]
        state.losses.append(loss)
        rate = (bar.format_dict["rate"] or 0) * parameters.batch_size
        bar.set_postfix(loss=f"{loss:.3f}", samples_per_second=f"{rate:.0f}", refresh=False)
        seen = (step + 1) * parameters.batch_size
        epoch_ends = seen // samples > (seen - parameters.batch_size) // samples
        if process.writes and step + 1 < steps and ((step + 1) % resources.checkpoint_steps == 0 or epoch_ends):
            state.save(scratch)

    seconds = time.perf_counter() - begun_at
    if process.writes:
        state.check()
        save(clip, config, out)
    process.wait()
    losses = state.losses
    tail = losses[-max(1, len(losses) // 10) :]
    every = max(1, len(losses) // 100)
    metrics = {
        "steps": steps,
        "samples_seen": steps * parameters.batch_size,
        "epochs": steps * parameters.batch_size / samples,
        "samples": samples,
        "loss_final": sum(tail) / len(tail),
        "loss": [[step, losses[step]] for step in range(0, len(losses), every)],
    }
    # The rate counts only the steps of this run. An earlier, interrupted run may have done some steps, and the time of this
    # run excludes these steps.
    return metrics, {"samples_per_second": (steps - begun) * parameters.batch_size / seconds, "seconds": seconds}
