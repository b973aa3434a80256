"""Predict what each stage instance needs, from the params, the sizes of the data and the rates of a machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simgap.params.load import train_parameters
from simgap.params.schema import Params
from simgap.params.train import TrainParameters
from simgap.plan.models import embedder_size, model_size
from simgap.plan.rates import Rate, Rates, extra_forward_passes, training_flop
from simgap.plan.sizes import Sizes
from simgap.similarity.search.scan import COLUMNS
from simgap.train.train import count_steps

# Seconds until a stage's command works, with DVC's own time between stages.
START_SECONDS = 8.0
# Memory of a process that has imported torch and open_clip.
PROCESS_BYTES = 500e6
# Shard, key and caption of a row on disk; the reference and the benchmarks have no captions.
CAPTIONED_BYTES, LABELLED_BYTES = 80, 12
# A kept key in memory, as an Arrow string.
KEY_BYTES = 16
# An imported row while its part is read: its names as Python strings, and a set of them.
IMPORTED_ROW_BYTES = 400
# The hash of an imported row, by which repeated samples are found.
HASHED_ROW_BYTES = 9
COLUMN_BYTES = sum(np.dtype(dtype).itemsize for dtype in COLUMNS.values())
# A neighbour: similarity in float64 and row in int64 during the search, fp32 and int64 in the table.
NEIGHBOUR_SCRATCH_BYTES, NEIGHBOUR_BYTES = 16, 12
# A component of a query: as stored, in fp32, and in the order of the rule.
QUERY_COMPONENT_BYTES = 10
# Weights, gradients and AdamW's two moments in fp32; a checkpoint has no gradients.
TRAINING_PARAMETER_BYTES, CHECKPOINT_PARAMETER_BYTES, PARAMETER_BYTES = 16, 12, 4
# Zero-shot templates of a class.
TEMPLATES = 80


@dataclass(frozen=True)
class Need:
    """What one stage instance needs.

    Attributes:
        stage: Name of the stage in dvc.yaml.
        name: Name of the instance.
        rows: Samples or rows that pass through it; of a training, samples seen.
        disk_bytes: Size of its output.
        scratch_bytes: Size of further files that it holds until it ends.
        read_bytes: Bytes that it reads.
        memory_bytes: Largest memory of the host, without mapped files and activations of a model.
        seconds: Seconds on one device; None if a rate is unknown.
        bound: What takes the longest.
        shared: Whether all devices share it; else one device does it.
        rate: Work and source of its rate.
    """

    stage: str
    name: str
    rows: float
    disk_bytes: float
    scratch_bytes: float
    read_bytes: float
    memory_bytes: float
    seconds: float | None
    bound: str
    shared: bool
    rate: tuple[str, str]

    def seconds_on(self, devices: int) -> float | None:
        """Return the seconds on several devices, each with its own cores and an equal share of the reading."""
        if self.seconds is None:
            return None
        return START_SECONDS + (self.seconds - START_SECONDS) / (devices if self.shared else 1)


class Planner:
    """Predicts the needs of a study."""

    def __init__(self, params: Params, sizes: Sizes, rates: Rates, devices: int = 1) -> None:
        """Prepare a plan.

        Args:
            params: The params file.
            sizes: Sizes of the data.
            rates: Rates of one device: a card with its cores, or a machine.
            devices: Number of devices.
        """
        self.params, self.sizes, self.rates, self.devices = params, sizes, rates, devices
        self.rules = {name: rule for splits in params.prune.rules().values() for name, rule in splits.items()}
        self.embedder = embedder_size(params.embedder)
        self.queries = sum(sizes.queries.values())
        self.pool_bytes = sizes.samples * sizes.sample_bytes
        self.parts = sizes.imported_parts or math.ceil(sizes.shards / params.embed.shards_per_part)
        # A Ray cluster shares the parts of a stage among its machines.
        self.parts_are_shared = params.resources.executor == "ray"

    def needs(self) -> list[Need]:
        """Return the need of each instance of the planned stages, in the order of the graph.

        Raises:
            SimgapError: A training's batch cannot be divided among the cards.
        """
        return [*self._embedder(), *self._embed(), *self._similarity(), *self._train(), *self._evaluate()]

    def kept(self, split: str) -> float:
        """Return the pool rows of a split: counted, or computed from its parameters.

        Only data can tell how many rows an imagenet-like rule keeps; until then it counts as keeping all rows of full.
        """
        if split in self.sizes.kept:
            return self.sizes.kept[split]
        rule = self.rules.get(split)
        size_of = getattr(rule, "size_of", None)
        of = self.kept(size_of) if size_of is not None else self.sizes.full
        keep = getattr(rule, "keep", 1.0)
        return round(keep * of) if isinstance(keep, float) else min(keep, of)

    def too_large(self) -> list[str]:
        """Return the splits that should keep more rows than full has; `simgap` refuses to make them."""
        keeps = {name: getattr(rule, "keep", None) for name, rule in self.rules.items()}
        return [name for name, keep in keeps.items() if isinstance(keep, int) and keep > self.sizes.full]

    def _need(
        self,
        stage: str,
        name: str,
        rows: float,
        work: tuple[str, float, float],
        *,
        disk: float,
        read: float,
        memory: float,
        scratch: float = 0.0,
        shared: bool = False,
    ) -> Need:
        """Put a need together. The work, reading and decoding go on at the same time, so the slowest counts.

        `work` is the kind of work, how many things are done, and the FLOP of each. `memory` is beyond that of a process.
        """
        kind, amount, flop = work
        # Processors decode beside a card. A rate measured on a machine includes decoding.
        decoded = rows if self.rates.card and kind in ("embed", "train") else 0.0
        amounts = {"read": (read, 1.0), "decode": (decoded, 1.0), kind: (amount, flop)}
        found = {other: self.rates.find(other, work_amount) for other, (_, work_amount) in amounts.items()}
        seconds = {other: amounts[other][0] / rate.per_second for other, rate in found.items() if rate is not None}
        rate: Rate | None = found[kind]
        slowest = max(seconds, key=seconds.__getitem__, default="")
        return Need(
            stage=stage,
            name=name,
            rows=rows,
            disk_bytes=disk,
            scratch_bytes=scratch,
            read_bytes=read,
            memory_bytes=PROCESS_BYTES + memory,
            seconds=START_SECONDS + seconds[slowest] if rate else None,
            bound="no rate" if rate is None else slowest if seconds[slowest] > START_SECONDS else "start",
            shared=shared,
            rate=(kind, rate.source if rate else "unknown"),
        )

    def _embedder(self) -> Iterator[Need]:
        """Yield the need of training the embedder; fetching or copying one is not planned."""
        if self.params.embedder.train is not None:
            yield self._training("embedder", "embedder", self.params.embedder.train, self.sizes.rows, 0)

    def _embed(self) -> Iterator[Need]:
        sizes, shards_per_part = self.sizes, self.params.embed.shards_per_part
        if sizes.imported_parts:
            yield self._import()
        else:
            part = min(1.0, shards_per_part / sizes.shards)
            yield self._embedding("embed", "pool", sizes.samples, self.pool_bytes, CAPTIONED_BYTES, part)
        others = {"reference": (sizes.reference, sizes.reference_bytes)}
        others |= {name: (n, sizes.query_bytes * n / self.queries) for name, n in sizes.queries.items()}
        for name, (count, size) in others.items():
            stage = "embed" if name == "reference" else "embed-benchmark"
            # The converter puts a thousand images into a shard.
            part = min(1.0, shards_per_part * 1000 / count)
            yield self._embedding(stage, name, count, size, LABELLED_BYTES, part)

    def _embedding(self, stage: str, name: str, count: float, size: float, metadata: int, part: float) -> Need:
        """Return the need of embedding a set whose parts have a share `part` of its rows."""
        dim, pixels = self.embedder.dim, 3 * self.embedder.image_size**2 * 4.0
        # A part's rows are held until it is written; two batches are decoded while one is in the model.
        batches = 3 * self.params.embed.batch_size * pixels
        return self._need(
            stage,
            name,
            count,
            ("embed", count, self.embedder.image_flop),
            disk=count * (dim * 2 + metadata),
            read=size,
            memory=part * count * (dim * 4 + metadata) + batches + self.embedder.parameters * PARAMETER_BYTES,
            shared=self.parts_are_shared,
        )

    def _import(self) -> Need:
        """Return the need of importing the pool's embeddings: no image is read and no model runs."""
        rows, row_bytes = self.sizes.rows, self.embedder.dim * 2 + CAPTIONED_BYTES
        return self._need(
            "embed",
            "pool",
            rows,
            ("import", rows, self.embedder.dim),
            disk=rows * row_bytes,
            read=rows * row_bytes,
            memory=rows / self.parts * (row_bytes + IMPORTED_ROW_BYTES) + rows * HASHED_ROW_BYTES,
        )

    def _similarity(self) -> Iterator[Need]:
        rows, dim, reference = self.sizes.rows, self.embedder.dim, self.sizes.reference
        neighbours = self.params.similarity.neighbours
        for name, queries in self.sizes.queries.items():
            query_bytes = dim * QUERY_COMPONENT_BYTES + 4 * neighbours * NEIGHBOUR_SCRATCH_BYTES
            yield self._need(
                "similarity",
                name,
                rows,
                ("similarity", 2.0 * (rows + reference) * queries * dim, 1.0),
                disk=rows * COLUMN_BYTES + queries * (neighbours * NEIGHBOUR_BYTES + 25),
                scratch=rows * COLUMN_BYTES + self.parts * queries * neighbours * NEIGHBOUR_SCRATCH_BYTES,
                read=(rows + reference) * dim * 2,
                memory=queries * query_bytes + rows / self.parts * COLUMN_BYTES,
                shared=self.parts_are_shared,
            )

    def _runs(self) -> Iterator[tuple[str, str, TrainParameters]]:
        """Yield split, instance and parameters of each trained model."""
        for split in self.params.runs:
            parameters = train_parameters(self.params, split)
            yield from ((split, f"{split}-{seed}", parameters) for seed in self.params.repeats.seeds)

    def _train(self) -> Iterator[Need]:
        for split, name, parameters in self._runs():
            kept = self.kept(split)
            joins = self.params.reference.add_to_pool or not kept
            yield self._training("train", name, parameters, kept, self.sizes.reference if joins else 0)

    def _training(self, stage: str, name: str, parameters: TrainParameters, rows: float, reference: float) -> Need:
        """Return the need of a training on pool rows and reference rows, with one process on each card."""
        sizes, size, card = self.sizes, model_size(parameters.model), self.rates.card
        samples = rows + reference
        seen = float(count_steps(parameters, int(samples)) * parameters.batch_size)
        processes = self.devices if card else parameters.processes
        extra = extra_forward_passes(parameters, processes)
        buffer = parameters.shuffle_buffer * parameters.readers
        # Samples that fit the buffer are read once; else every epoch reads the whole shards.
        passes = seen / samples if samples > buffer else min(1.0, seen / samples)
        buffered = min(samples, buffer) * sizes.sample_bytes
        others = processes * (1 + self.params.resources.train.workers) - 1
        weights = 0.0 if card else size.parameters * TRAINING_PARAMETER_BYTES
        return self._need(
            stage,
            name,
            seen,
            ("train", seen, training_flop(size.image_flop, size.text_flop, extra)),
            disk=size.parameters * PARAMETER_BYTES,
            scratch=size.parameters * CHECKPOINT_PARAMETER_BYTES,
            read=passes * ((self.pool_bytes if rows else 0.0) + (sizes.reference_bytes if reference else 0.0)),
            memory=others * PROCESS_BYTES + weights + buffered + sizes.rows + rows * KEY_BYTES,
            shared=True,
        )

    def _evaluate(self) -> Iterator[Need]:
        few_shot, sizes = self.params.evaluate.few_shot, self.sizes
        shots = min(sizes.reference, max(few_shot.shots, default=0) * few_shot.draws * sizes.classes)
        images = self.queries + shots
        texts = len(sizes.queries) * sizes.classes * TEMPLATES
        # Row, label and prediction, and one bit for each way in which the prediction may be correct.
        row_bytes = 12 + (2 + len(few_shot.shots) * few_shot.draws) / 8
        for _, name, parameters in self._runs():
            size = model_size(parameters.model)
            yield self._need(
                "evaluate",
                name,
                images,
                # Texts count as images of equal FLOP.
                ("embed", images + texts * size.text_flop / size.image_flop, size.image_flop),
                disk=self.queries * row_bytes,
                read=sizes.query_bytes + (sizes.reference_bytes if shots else 0.0),
                memory=size.parameters * PARAMETER_BYTES + images * size.dim * 4.0,
            )
