"""What each stage instance of a study needs, from its params, the sizes of its data and the rates of a machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simgap.params import Params
from simgap.plan.inputs import Inputs
from simgap.plan.models import ModelSize, embedder_size, model_size
from simgap.plan.rates import Rates, training_flop, within_clusters_flop
from simgap.profile.certificate import BLOCK_ROWS as CERTIFICATE_ROWS
from simgap.profile.certificate import PAIRS
from simgap.similarity.scan import COLUMNS
from simgap.train.parameters import TrainParameters
from simgap.train.train import count_steps

# A process that has imported torch and open_clip.
PROCESS_BYTES = 500e6
# On disk, of a row's shard, key and caption; of a reference's and a benchmark's, which have no caption.
CAPTIONED_BYTES, LABELLED_BYTES = 80, 12
# In memory, of a kept key as an Arrow string.
KEY_BYTES = 16
COLUMN_BYTES = sum(np.dtype(dtype).itemsize for dtype in COLUMNS.values())
# A neighbour: similarity float64 and row int64 while it is worked at, fp32 and int64 in the table.
NEIGHBOUR_SCRATCH_BYTES, NEIGHBOUR_BYTES = 16, 12
# A query's vector: as stored, in fp32, and in the order of the rule.
QUERY_COMPONENT_BYTES = 10
# A rule holds which rows it keeps and of full, and a block of columns.
RULE_ROW_BYTES = 3
# Rows by cluster, clusters and what is a duplicate (see near_duplicates).
CLUSTER_ROW_BYTES = 17
# Weights, gradients and AdamW's two moments in fp32; a checkpoint has no gradients.
TRAINING_PARAMETER_BYTES, CHECKPOINT_PARAMETER_BYTES, PARAMETER_BYTES = 16, 12, 4
TEMPLATES = 80


@dataclass(frozen=True)
class Need:
    """What one stage instance needs.

    Attributes:
        stage: its name in dvc.yaml.
        name: of the instance.
        rows: samples or rows that it goes through; of a training, samples seen.
        disk_bytes: what it leaves.
        scratch_bytes: what it holds besides until it ends.
        read_bytes: what it reads.
        memory_bytes: of the host, at most; without mapped files, and without a model's activations.
        seconds: on one device; None where a rate is not known.
        bound: what takes so long.
        divides: whether more cards take less: seconds without those of starting are divided among them.
        start: the seconds of starting within `seconds`.
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
    divides: bool
    start: float

    def seconds_on(self, devices: int) -> float | None:
        """Give the seconds on so many devices, each with its own cores and its own share of the reading."""
        if self.seconds is None or not self.divides:
            return self.seconds
        return self.start + (self.seconds - self.start) / devices


@dataclass(frozen=True)
class _Work:
    """Some work of a stage, at `rates.find(work, flop)`; `amount` samples, FLOP, values or bytes."""

    work: str
    amount: float
    flop: float = 1.0


class Planner:
    """Gives the needs of a study.

    Args:
        rates: of one device: a card with its cores, or the machine.
    """

    def __init__(self, params: Params, inputs: Inputs, rates: Rates) -> None:
        self.params, self.inputs, self.rates = params, inputs, rates
        self.embedder: ModelSize = embedder_size(params.embedder)
        self.queries = sum(inputs.queries.values())
        self.pool_bytes = inputs.samples * inputs.sample_bytes
        self.vectors_bytes = inputs.rows * self.embedder.dim * 2.0
        self.parts = math.ceil(inputs.shards / params.embed.shards_per_part)

    def needs(self) -> list[Need]:
        """Give what each stage instance needs, in the order of the graph."""
        return [
            *self._draw(),
            self._embedder(),
            *self._embed(),
            self._deduplicate(),
            *(self._similarity(name) for name in self.params.benchmarks.names),
            *self._prune(),
            *(self._profile(name) for name in ["full", *self._rules()]),
            *self._train_and_evaluate(),
            self._need("compare", "compare", self.queries, [], read=self._evaluation_bytes() * self._runs()),
        ]

    def kept(self, split: str) -> float:
        """Give the rows that a split keeps: as it was made, as its parameters say, or all of full where only data can tell."""
        if split in self.inputs.kept:
            return self.inputs.kept[split]
        prune = self.params.prune
        if split in prune.random:
            control = prune.random[split]
            return self._count(control.keep, self.kept(control.size_of))
        if split in prune.matched:
            return self.kept(prune.matched[split].size_of)
        ranked = {**prune.dissimilar, **prune.similar}
        return self._count(ranked[split].keep, self.inputs.full) if split in ranked else self.inputs.full

    def too_large(self) -> list[str]:
        """Give the splits whose rule keeps more rows than full has: their stage will refuse to."""
        prune = self.params.prune
        keeps: dict[str, int | float] = {}
        for splits in (prune.dissimilar, prune.similar):
            keeps |= {name: split.keep for name, split in splits.items()}
        keeps |= {name: split.keep for name, split in prune.random.items()}
        return [name for name, keep in keeps.items() if isinstance(keep, int) and keep > self.inputs.full]

    @staticmethod
    def _count(keep: int | float, of: float) -> float:
        return round(keep * of) if isinstance(keep, float) else min(keep, of)

    def _rules(self) -> dict[str, str]:
        return {name: rule for rule, splits in self.params.prune.rules().items() for name in splits}

    def _runs(self) -> int:
        return len(self.params.runs) * len(self.params.repeats.seeds)

    def _need(
        self,
        stage: str,
        name: str,
        rows: float,
        work: list[_Work] | None,
        *,
        disk: float = 0.0,
        scratch: float = 0.0,
        read: float = 0.0,
        memory: float = 0.0,
        divides: bool = False,
        beside: list[_Work] | None = None,
    ) -> Need:
        """Put a need together: `work` is done one after the other, `beside` and reading at the same time; None is unknown."""
        start = self._seconds([_Work("start", 1.0)]) or 0.0
        ways = {"work": self._seconds(work), "reading": self._seconds([_Work("read", read)])}
        for other in beside or []:
            ways[other.work] = self._seconds([other])
        known = {way: seconds for way, seconds in ways.items() if seconds is not None}
        bound = max(known, key=known.__getitem__) if known and max(known.values()) > start else "starting"
        return Need(
            stage,
            name,
            rows,
            disk,
            scratch,
            read,
            PROCESS_BYTES + memory,
            None if ways["work"] is None else start + max(known.values()),
            bound,
            divides,
            start,
        )

    def _seconds(self, work: list[_Work] | None) -> float | None:
        if work is None:
            return None
        total = 0.0
        for one in work:
            rate = self.rates.find(one.work, one.flop)
            if rate is None:
                return None
            # Starting is known in seconds.
            total += rate.per_second if one.work == "start" else one.amount / rate.per_second
        return total

    def _decoding(self, images: float) -> list[_Work]:
        """Decoding goes on beside a card; what was measured of a machine has it in."""
        return [_Work("decode", images)] if self.rates.card else []

    def _draw(self) -> Iterator[Need]:
        for name, world in self.params.draw.items():
            images = world.pool + world.reference + world.queries * len(self.inputs.queries)
            yield self._need("draw", name, images, None, disk=self.pool_bytes + self.inputs.reference_bytes)

    def _embedder(self) -> Need:
        disk = self.embedder.parameters * PARAMETER_BYTES
        training = self.params.embedder.train
        if training is None:
            return self._need("embedder", "embedder", 0, None, disk=disk, memory=disk)
        return self._training("embedder", "embedder", training, self.inputs.rows, 0, disk)

    def _embed(self) -> Iterator[Need]:
        dim, batch = self.embedder.dim, self.params.embed.batch_size
        pixels = 3 * self.embedder.image_size**2 * 4.0
        sets = {
            "pool": (self.inputs.samples, self.pool_bytes, self.inputs.shards, CAPTIONED_BYTES),
            "reference": (self.inputs.reference, self.inputs.reference_bytes, None, LABELLED_BYTES),
            **{
                name: (count, self.inputs.query_bytes * count / self.queries, None, LABELLED_BYTES)
                for name, count in self.inputs.queries.items()
            },
        }
        for name, (count, size, shards, metadata) in sets.items():
            # The converter puts a thousand images into a shard.
            share = min(1.0, self.params.embed.shards_per_part / (shards or max(1.0, count / 1000)))
            # A part's rows wait until it is written; a batch is decoded while one is in the model.
            memory = (
                share * count * (dim * 4.0 + metadata) + 3 * batch * pixels + self.embedder.parameters * PARAMETER_BYTES
            )
            yield self._need(
                "embed" if name in ("pool", "reference") else "embed-benchmark",
                name,
                count,
                [_Work("embed", count, self.embedder.image_flop)],
                disk=count * (dim * 2 + metadata),
                read=size,
                memory=memory,
                divides=True,
                beside=self._decoding(count),
            )

    def _deduplicate(self) -> Need:
        of, rows, dim = self.params.deduplicate, self.inputs.rows, self.embedder.dim
        sample = min(of.sample, rows)
        work: list[_Work] = []
        if of.clusters > 1:
            work.append(_Work("k-means", 2.0 * sample * of.clusters * dim * of.iterations))
        fitting, read, scratch = sample * dim * 8.0, sample * dim * 2.0, 0.0
        if of.eps is not None:
            work.append(_Work("similarity", 2.0 * rows * of.clusters * dim))
            work.append(_Work("near-duplicates", within_clusters_flop(rows, of.clusters, dim)))
            read += 2 * self.vectors_bytes
            # The nearest centroid comes with all columns, and each centroid's nearest row in every part.
            scratch = rows * (COLUMN_BYTES + 1.0) + self.parts * of.clusters * NEIGHBOUR_SCRATCH_BYTES
        blocks = 2 * of.block_rows * dim * 4.0
        return self._need(
            "deduplicate",
            "full",
            rows,
            work,
            disk=rows / 8 + of.clusters * dim * 2,
            scratch=scratch,
            read=read,
            memory=max(fitting, rows * CLUSTER_ROW_BYTES + blocks + of.clusters * dim * QUERY_COMPONENT_BYTES),
        )

    def _similarity(self, name: str) -> Need:
        queries, rows, dim = self.inputs.queries[name], self.inputs.rows, self.embedder.dim
        neighbours = self.params.similarity.neighbours
        part = rows / self.parts
        return self._need(
            "similarity",
            name,
            rows,
            [_Work("similarity", 2.0 * (rows + self.inputs.reference) * queries * dim)],
            disk=rows * COLUMN_BYTES + queries * (neighbours * NEIGHBOUR_BYTES + 25),
            scratch=rows * COLUMN_BYTES + self.parts * queries * neighbours * NEIGHBOUR_SCRATCH_BYTES,
            read=self.vectors_bytes + self.inputs.reference * dim * 2,
            memory=queries * (dim * QUERY_COMPONENT_BYTES + 4 * neighbours * NEIGHBOUR_SCRATCH_BYTES)
            + part * COLUMN_BYTES,
            divides=True,
        )

    def _prune(self) -> Iterator[Need]:
        rows = self.inputs.rows
        for split, rule in self._rules().items():
            columns = len(getattr(self.params.prune.rules()[rule][split], "benchmarks", ()))
            yield self._need(
                f"prune-{rule}",
                split,
                self.inputs.full,
                [_Work("prune", rows * max(columns, 1.0))],
                disk=rows / 8,
                read=rows * columns * 4.0 + rows / 8,
                memory=rows * RULE_ROW_BYTES,
            )

    def _profile(self, split: str) -> Need:
        """Give a profile's needs; of rules that part with nearest rows, where every query may have to be looked up anew."""
        rule = self._rules().get(split, "full")
        kept, dim, of = self.kept(split), self.embedder.dim, self.params
        share = kept / self.inputs.rows if self.inputs.rows else 0.0
        if not kept:
            missing = 0.0
        elif rule in ("imagenet-like", "similar"):
            missing = 1.0
        elif rule == "dissimilar":
            missing = 0.0
        else:
            missing = (1 - share) ** of.similarity.neighbours
        passes = {name: missing * count for name, count in self.inputs.queries.items()}
        work = [_Work("similarity", 2.0 * kept * sum(passes.values()) * dim)]
        # Where hardly a query misses, a pass over the rows may still be needed.
        read = self.vectors_bytes * sum(1 for count in passes.values() if count >= 1)
        memory = max(passes.values()) * dim * QUERY_COMPONENT_BYTES
        if rule == "imagenet-like":
            for name in of.prune.imagenet_like[split].benchmarks:
                asked = max(1.0, self.inputs.queries[name] * of.benchmarks.query_fraction)
                checked = min(asked, max(1.0, PAIRS // max(kept, 1.0))) if asked * kept > PAIRS else asked
                work.append(_Work("certificate", 2.0 * checked * (kept + self.inputs.reference) * dim))
                read += self.vectors_bytes + self.inputs.reference * dim * 2
                memory = max(memory, checked * (dim + CERTIFICATE_ROWS) * 8.0)
        return self._need(
            f"profile-{rule}",
            split,
            kept,
            work,
            disk=self.queries * 12.0,
            read=read,
            memory=2.0 * self.inputs.rows + memory,
            divides=len(work) == 1,
        )

    def _train_and_evaluate(self) -> Iterator[Need]:
        runs = [(run, seed) for run in self.params.runs for seed in self.params.repeats.seeds]
        for run, seed in runs:
            parameters = self.params.train_parameters(self.params.runs[run], f"runs.{run}")
            kept = self.kept(run)
            joins = self.inputs.reference if self.params.reference.add_to_pool or not kept else 0
            disk = model_size(parameters.model).parameters * PARAMETER_BYTES
            yield self._training("train", f"{run}-{seed}", parameters, kept, joins, disk)
        for run, seed in runs:
            parameters = self.params.train_parameters(self.params.runs[run], f"runs.{run}")
            yield self._evaluation(f"{run}-{seed}", model_size(parameters.model))

    def _training(self, stage: str, name: str, of: TrainParameters, rows: float, reference: float, disk: float) -> Need:
        size = model_size(of.model)
        samples = rows + reference
        seen = float(count_steps(of, int(samples)) * of.batch_size)
        flop = training_flop(size.image_flop, size.text_flop)
        forward = size.image_flop + size.text_flop
        micro_batches, _ = of.micro_batches(of.processes)
        # Several micro-batches: features of all come first. Checkpointing: activations are computed anew.
        flop += forward * (int(micro_batches > 1) + int(of.grad_checkpointing))
        # A reader keeps what fits its buffer, and goes through whole shards for what does not.
        held = samples <= of.shuffle_buffer * of.readers
        passes = min(1.0, seen / samples) if held else seen / samples
        read = passes * ((self.pool_bytes if rows else 0.0) + (self.inputs.reference_bytes if reference else 0.0))
        buffered = min(samples, of.shuffle_buffer * of.readers) * self.inputs.sample_bytes
        processes = of.processes * (1 + of.workers)
        on_host = 0.0 if self.rates.card else size.parameters * TRAINING_PARAMETER_BYTES
        return self._need(
            stage,
            name,
            seen,
            [_Work("train", seen, flop)],
            disk=disk,
            scratch=size.parameters * CHECKPOINT_PARAMETER_BYTES,
            read=read,
            memory=(processes - 1) * PROCESS_BYTES + on_host + buffered + self.inputs.rows + rows * KEY_BYTES,
            divides=True,
            beside=self._decoding(seen),
        )

    def _evaluation_bytes(self) -> float:
        return 10.0 * self.queries

    def _evaluation(self, name: str, size: ModelSize) -> Need:
        few_shot = self.params.evaluate.few_shot
        shots = min(self.inputs.reference, max(few_shot.shots, default=0) * few_shot.draws * self.inputs.classes)
        images = self.queries + shots
        # Class names of every benchmark under every template, in images of as much arithmetic.
        texts = len(self.inputs.queries) * self.inputs.classes * TEMPLATES * size.text_flop / size.image_flop
        return self._need(
            "evaluate",
            name,
            images,
            [_Work("embed", images + texts, size.image_flop)],
            disk=self._evaluation_bytes(),
            read=self.inputs.query_bytes + (self.inputs.reference_bytes if shots else 0.0),
            memory=size.parameters * PARAMETER_BYTES + images * size.dim * 4.0,
            divides=True,
            beside=self._decoding(images),
        )
