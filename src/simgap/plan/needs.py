"""Predict the time, memory and disk space that each stage instance needs.

The prediction uses the params, the sizes of the data and the rates of a machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simgap.params.schema import Params
from simgap.params.train import TrainParameters
from simgap.plan.models import embedder_size, model_size
from simgap.plan.rates import Rate, Rates, extra_forward_passes, training_flop
from simgap.plan.sizes import Sizes
from simgap.similarity.search.scan import COLUMNS
from simgap.train.overrides import train_parameters
from simgap.train.train import count_steps

# The plan adds this many seconds to every instance. DVC needs them to check the stage, and Python needs them to import
# the packages.
START_SECONDS = 8.0
# Every process needs this many bytes of memory after it has imported torch and open_clip.
PROCESS_BYTES = 500e6
# The metadata of a row takes this many bytes on disk. A row of the reference or a benchmark has a label instead of a
# caption.
CAPTIONED_BYTES, LABELLED_BYTES = 80, 12
# Training keeps the key of each row of the split in memory. Each key is an Arrow string of this many bytes.
KEY_BYTES = 16
# While an import reads a part, each row of the part takes this many bytes of memory. The import needs Python strings
# for the names and a set of these strings.
IMPORTED_ROW_BYTES = 400
# An import keeps a hash of each row in memory to detect repeated rows. A hash takes this many bytes.
HASHED_ROW_BYTES = 9
COLUMN_BYTES = sum(np.dtype(dtype).itemsize for dtype in COLUMNS.values())
# Each neighbour takes this many bytes, first during the search and then in the table. A neighbour has an int64 row and
# a similarity, which is float64 during the search and fp32 in the table.
NEIGHBOUR_SCRATCH_BYTES, NEIGHBOUR_BYTES = 16, 12
# Each dimension of a query takes this many bytes, because the search keeps three arrays of the queries in memory. One
# is as stored, one is fp32, and one is in the order of the rule.
QUERY_COMPONENT_BYTES = 10
# Each model parameter takes this many bytes during training, in a checkpoint and in a finished model. Training keeps
# four fp32 values: the weight, the gradient and two moments of AdamW. Checkpoints have no gradients, and finished
# models have only weights.
TRAINING_PARAMETER_BYTES, CHECKPOINT_PARAMETER_BYTES, PARAMETER_BYTES = 16, 12, 4
# The plan assumes this many zero-shot templates. Evaluation encodes one text for each class and template.
TEMPLATES = 80


@dataclass(frozen=True)
class Need:
    """The predicted need of one stage instance.

    Attributes:
        stage: Name of the stage in dvc.yaml.
        name: Name of the instance.
        rows: Number of samples or rows that the instance processes. If the instance trains a model, a sample counts
            each time that the model sees it.
        disk_bytes: Size of the output.
        scratch_bytes: Size of the temporary files. The instance deletes them at the end.
        read_bytes: Number of bytes that the instance reads.
        memory_bytes: Peak memory of the host. It does not include memory-mapped files or the activations of a model.
        seconds: Seconds that the instance takes on one device. None if a rate is unknown.
        bound: Kind of work that takes the longest time, for example `read` or `decode`.
        shared: Whether all devices share the work. Otherwise one device does all work.
        rate: Pair (kind of work, source of the rate for this work).
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
        """Return the seconds that the instance takes on several devices.

        The function assumes that each device has its own cores and reads an equal share of the data. The result is None
        if a rate is unknown.
        """
        if self.seconds is None:
            return None
        return START_SECONDS + (self.seconds - START_SECONDS) / (devices if self.shared else 1)


class Planner:
    """Predict the needs of all stage instances of a study."""

    def __init__(self, params: Params, sizes: Sizes, rates: Rates, devices: int = 1) -> None:
        """Prepare a plan.

        Args:
            params: The params file.
            sizes: Sizes of the data.
            rates: Rates of one device. A device is a card with its cores, or a machine.
            devices: Number of devices.
        """
        self.params, self.sizes, self.rates, self.devices = params, sizes, rates, devices
        self.rules = {name: rule for splits in params.prune.rules().values() for name, rule in splits.items()}
        self.embedder = embedder_size(params.embedder)
        self.queries = sum(sizes.queries.values())
        self.pool_bytes = sizes.samples * sizes.sample_bytes
        self.parts = sizes.imported_parts or math.ceil(sizes.shards / params.embed.shards_per_part)
        # More machines shorten a stage only on a Ray cluster, where different machines compute different parts of the
        # stage.
        self.parts_are_shared = params.resources.executor == "ray"

    def needs(self) -> list[Need]:
        """Return the need of each instance of the planned stages, in the order of the graph.

        Raises:
            SimgapError: The batch of a training program cannot be divided equally among the cards.
        """
        return [*self._embedder(), *self._embed(), *self._similarity(), *self._train(), *self._evaluate()]

    def kept(self, split: str) -> float:
        """Return the number of pool rows that a split keeps.

        If the split exists, the function returns the counted number. Otherwise it computes the number from the
        parameters of the split. These parameters do not determine the size of an imagenet-like split. The plan
        therefore assumes that an imagenet-like split keeps all rows of `full`.
        """
        if split in self.sizes.kept:
            return self.sizes.kept[split]
        rule = self.rules.get(split)
        size_of = getattr(rule, "size_of", None)
        of = self.kept(size_of) if size_of is not None else self.sizes.full
        keep = getattr(rule, "keep", 1.0)
        return round(keep * of) if isinstance(keep, float) else min(keep, of)

    def too_large(self) -> list[str]:
        """Return the names of the splits whose parameter `keep` exceeds the rows of `full`. Pruning fails for these splits."""
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
        """Predict the need of one instance.

        Computing, reading and decoding happen at the same time. The slowest of the three determines the duration.

        Args:
            stage: Name of the stage in dvc.yaml.
            name: Name of the instance.
            rows: Number of samples or rows that the instance processes.
            work: Tuple (kind of work, number of units of work, FLOP of each unit).
            disk: Size of the output in bytes.
            read: Number of bytes that the instance reads.
            memory: Peak memory in bytes, without the memory that every process needs.
            scratch: Size of temporary files in bytes.
            shared: Whether all devices share the work.
        """
        kind, amount, flop = work
        # With a card, processors decode images while the card computes, so decoding counts separately. Rates that were
        # measured on a machine already include decoding.
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
        """Yield the need of training the embedder. If the study downloads or copies the embedder, yield nothing."""
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
            # The plan assumes one shard for each thousand images, because simgap's converter writes shards of this
            # size.
            part = min(1.0, shards_per_part * 1000 / count)
            yield self._embedding(stage, name, count, size, LABELLED_BYTES, part)

    def _embedding(self, stage: str, name: str, count: float, size: float, metadata: int, part: float) -> Need:
        """Return the need of embedding a set.

        Args:
            stage: Name of the stage in dvc.yaml.
            name: Name of the set.
            count: Number of images.
            size: Size of all shards in bytes.
            metadata: Bytes that the metadata of one image take.
            part: Share of the images whose embeddings are stored in one part.
        """
        dim, pixels = self.embedder.dim, 3 * self.embedder.image_size**2 * 4.0
        # The embedding of a part stays in memory until all rows of the part are written. Three batches of images are in
        # memory too, because the model processes one batch while two batches are decoded.
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
        """Return the need of importing the embeddings of the pool. An import neither reads images nor runs a model."""
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
        """Yield a tuple (split, instance name, training parameters) for each trained model."""
        for split in self.params.runs:
            parameters = train_parameters(self.params, split)
            yield from ((split, f"{split}-{seed}", parameters) for seed in self.params.repeats.seeds)

    def _train(self) -> Iterator[Need]:
        for split, name, parameters in self._runs():
            kept = self.kept(split)
            joins = self.params.reference.add_to_pool or not kept
            yield self._training("train", name, parameters, kept, self.sizes.reference if joins else 0)

    def _training(self, stage: str, name: str, parameters: TrainParameters, rows: float, reference: float) -> Need:
        """Return the need of an instance that trains a model.

        If the plan is for cards, it assumes that one process trains on each card.

        Args:
            stage: Name of the stage in dvc.yaml.
            name: Name of the instance.
            parameters: Parameters of the training.
            rows: Number of pool rows in the training data.
            reference: Number of reference images in the training data.
        """
        sizes, size, card = self.sizes, model_size(parameters.model), self.rates.card
        samples = rows + reference
        seen = float(count_steps(parameters, int(samples)) * parameters.batch_size)
        processes = self.devices if card else parameters.processes
        extra = extra_forward_passes(parameters, processes)
        buffer = parameters.shuffle_buffer * parameters.readers
        # If all samples fit into the shuffle buffer, training reads the shards only once. Otherwise every epoch reads
        # all shards.
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
        # For each image, the table of predictions has a row, a label and a prediction. It also has one bit for each
        # accuracy, which says whether the prediction is correct.
        row_bytes = 12 + (2 + len(few_shot.shots) * few_shot.draws) / 8
        for _, name, parameters in self._runs():
            size = model_size(parameters.model)
            yield self._need(
                "evaluate",
                name,
                images,
                # Texts count as the number of images that need the same FLOP, because no rate for texts is known.
                ("embed", images + texts * size.text_flop / size.image_flop, size.image_flop),
                disk=self.queries * row_bytes,
                read=sizes.query_bytes + (sizes.reference_bytes if shots else 0.0),
                memory=size.parameters * PARAMETER_BYTES + images * size.dim * 4.0,
            )
