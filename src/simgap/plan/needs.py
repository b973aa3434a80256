"""What each stage instance of a study needs, from its params, the sizes of its data and the rates of a machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simgap.galleries.galleries import DUPLICATES, PRUNED, QUERIES
from simgap.params.schema import Params
from simgap.params.train import TrainParameters
from simgap.plan.inputs import Inputs
from simgap.plan.models import ModelSize, embedder_size, model_size
from simgap.plan.rates import Rates, forward_again_of, training_flop, within_clusters_flop
from simgap.profile.certificate import BLOCK_ROWS as CERTIFICATE_ROWS
from simgap.profile.certificate import PAIRS
from simgap.similarity.search.scan import COLUMNS
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
# Of an imported row while its part is read: its names in Python, and a set of them; and of every row, its hash, by which
# repeated samples are found where rows name their shards.
IMPORTED_ROW_BYTES, HASHED_ROW_BYTES = 400, 9
# Of a sample's marks in memory; of a shard's line in a manifest, a picture of a gallery and a figure of the report on disk.
MARK_BYTES, MANIFEST_BYTES, PICTURE_BYTES, FIGURE_BYTES = 400, 120, 8e3, 60e3
# Figures of the report for a benchmark, about.
FIGURES = 8


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
        devices: the most devices that share it, without `alone` of its seconds; None: as many as there are.
        alone: within `seconds`, those that one device takes however many share the rest, of starting above all.
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
    devices: int | None
    alone: float

    def seconds_on(self, devices: int) -> float | None:
        """Give the seconds on so many devices, each with its own cores and its own share of the reading."""
        if self.seconds is None:
            return None
        sharing = devices if self.devices is None else min(devices, self.devices)
        return self.alone + (self.seconds - self.alone) / sharing


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
        self.parts = inputs.imported_parts or math.ceil(inputs.shards / params.embed.shards_per_part)
        # By work, where the rates come from that were looked up, in the order in which they were.
        self.sources: dict[str, dict[str, None]] = {}
        # Who shares a stage in parts: the machines or cards of a Ray cluster, or nobody.
        self.sharing = None if params.parts.run_by == "ray" else 1

    def needs(self) -> list[Need]:
        """Give what each stage instance of dvc.yaml needs, in the order of the graph."""
        return [
            *self._worlds(),
            self._embedder(),
            *self._embed(),
            self._deduplicate(),
            *(self._similarity(name) for name in self.params.benchmarks.names),
            *self._prune(),
            *(self._profile(name) for name in ["full", *self._rules()]),
            *self._train_and_evaluate(),
            *(self._ground_truth(name) for name in self.params.ground_truth),
            self._leaks(),
            self._need("compare", "compare", self.queries, [], read=self._evaluation_bytes() * self._runs()),
            self._galleries(),
            self._report(),
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
        devices: int | None = 1,
        beside: list[_Work] | None = None,
        alone: list[_Work] | None = None,
    ) -> Need:
        """Put a need together: `work` is done one after the other, `beside` and reading at the same time; None is unknown.

        Of what is done before, `alone`, devices have no share.
        """
        start = (self._seconds([_Work("start", 1.0)]) or 0.0) + (self._seconds(alone or []) or 0.0)
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
            devices,
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
            self.sources.setdefault(one.work, {})[rate.source] = None
            # Starting is known in seconds.
            total += rate.per_second if one.work == "start" else one.amount / rate.per_second
        return total

    def _decoding(self, images: float) -> list[_Work]:
        """Decoding goes on beside a card; what was measured of a machine has it in."""
        return [_Work("decode", images)] if self.rates.card else []

    def _worlds(self) -> Iterator[Need]:
        """Give the needs of what brings data: drawn, copied, or listed where they stay."""
        for name, world in self.params.draw.items():
            images = world.pool + world.reference + world.queries * len(self.inputs.queries)
            yield self._need("draw", name, images, [_Work("draw", images)], disk=self._world_bytes(name))
        for name in self.params.copy:
            size = self._world_bytes(name)
            # Once to copy, once for its checksum.
            yield self._need("copy", name, 0, [], disk=size, read=2 * size)
        for name in self.params.manifest:
            yield self._need("manifest", name, self.inputs.shards, [], disk=self.inputs.shards * MANIFEST_BYTES)

    def _world_bytes(self, world: str) -> float:
        """Give the bytes of those sets that lie in a world."""
        sets = {
            self.params.pool.path: self.pool_bytes,
            self.params.reference.path: self.inputs.reference_bytes,
            self.params.benchmarks.path: self.inputs.query_bytes,
        }
        return sum(size for path, size in sets.items() if Path(path).is_relative_to(Path("data/worlds") / world))

    def _embedder(self) -> Need:
        disk = self.embedder.parameters * PARAMETER_BYTES
        training = self.params.embedder.train
        if training is not None:
            return self._training("embedder", "embedder", training, self.inputs.rows, 0, disk)
        # How fast one is fetched is not known.
        work: list[_Work] | None = [] if self.params.embedder.pretrained is None else None
        return self._need("embedder", "embedder", 0, work, disk=disk, read=disk, memory=disk)

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
            if name == "pool" and self.inputs.imported_parts:
                yield self._import()
                continue
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
                devices=self.sharing,
                beside=self._decoding(count),
            )

    def _import(self) -> Need:
        """Give the needs of embeddings of the pool that were made elsewhere: no image is read and no model is run."""
        rows, dim = self.inputs.rows, self.embedder.dim
        size = rows * (dim * 2.0 + CAPTIONED_BYTES)
        return self._need(
            "embed",
            "pool",
            rows,
            [_Work("import", rows, dim)],
            disk=size,
            read=size,
            memory=rows / self.parts * (dim * 2 + CAPTIONED_BYTES + IMPORTED_ROW_BYTES) + rows * HASHED_ROW_BYTES,
        )

    def _deduplicate(self) -> Need:
        of, rows, dim = self.params.deduplicate, self.inputs.rows, self.embedder.dim
        sample = min(of.sample, rows)
        work: list[_Work] = []
        alone: list[_Work] = []
        if of.clusters > 1:
            alone.append(_Work("k-means", 2.0 * sample * of.clusters * dim * of.iterations))
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
            devices=self.sharing,
            alone=alone,
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
            devices=self.sharing,
        )

    def _prune(self) -> Iterator[Need]:
        rows = self.inputs.rows
        for split, rule in self._rules().items():
            columns = len(getattr(self.params.prune.rules()[rule][split], "benchmarks", ()))
            # Classes and styles are marks, which lie in the pool's shards; a row's is an int32.
            marks, marked_bytes, number = (self._marks(), self.pool_bytes, 4) if rule == "matched" else ([], 0.0, 0)
            yield self._need(
                f"prune-{rule}",
                split,
                self.inputs.full,
                [_Work("prune", rows * max(columns, 1.0)), *marks],
                disk=rows / 8,
                read=rows * columns * 4.0 + rows / 8 + marked_bytes,
                memory=rows * (RULE_ROW_BYTES + number),
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
            disk=self._profile_bytes(),
            read=read,
            memory=2.0 * self.inputs.rows + memory,
        )

    def _profile_bytes(self) -> float:
        # Row and two similarities, and the nearest rows.
        return self.queries * (12.0 + self.params.similarity.neighbours * NEIGHBOUR_BYTES)

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
        flop = training_flop(size.image_flop, size.text_flop, forward_again_of(of))
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
            # A card has a process; processors of a machine may have several, and there may be several machines.
            devices=of.processes if self.rates.card else None,
            beside=self._decoding(seen),
        )

    def _evaluation_bytes(self) -> float:
        # Row, label and prediction, and a bit for every way in which it may be correct.
        few_shot = self.params.evaluate.few_shot
        return self.queries * (12 + (2 + len(few_shot.shots) * few_shot.draws) / 8)

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
            beside=self._decoding(images),
        )

    def _marks(self) -> list[_Work]:
        """Give the work of reading the marks of the pool's samples, from all of its shards."""
        return [_Work("marks", self.inputs.samples)]

    def _ground_truth(self, name: str) -> Need:
        """Give the needs of scoring against marks: deduplication anew at every eps, and the rank of every marked copy."""
        rows, dim, eps = self.inputs.rows, self.embedder.dim, self.params.ground_truth[name].eps
        clusters = self.params.deduplicate.clusters
        world = self.params.draw.get(name)
        # Exact, near and sibling; where the world is not drawn, a copy of every test image at most.
        copies = 3 * world.planted * (len(self.inputs.queries) + 2) if world else self.queries
        work = [
            *self._marks(),
            _Work("similarity", 2.0 * rows * clusters * dim),
            *[_Work("near-duplicates", within_clusters_flop(rows, clusters, dim))] * len(eps),
            _Work("certificate", 2.0 * rows * copies * dim),
        ]
        passes = 1 + len(eps) + len(self.inputs.queries) + 2
        return self._need(
            "ground-truth",
            name,
            rows,
            work,
            read=self.pool_bytes + passes * self.vectors_bytes + len(self._rules()) * rows / 8,
            memory=self.inputs.samples * MARK_BYTES + rows * (CLUSTER_ROW_BYTES + KEY_BYTES),
        )

    def _leaks(self) -> Need:
        read = memory = self.queries * 4.0
        if not self.params.ground_truth:
            return self._need("leaks", "leaks", self.queries, [], read=read, memory=memory)
        memory += self.inputs.samples * MARK_BYTES + self.inputs.rows * KEY_BYTES
        return self._need("leaks", "leaks", self.queries, self._marks(), read=read + self.pool_bytes, memory=memory)

    def _galleries(self) -> Need:
        """Give the needs of the galleries: each picture may lie in a shard of its own, read to where it lies."""
        benchmarks = len(self.inputs.queries)
        # Of three kinds of queries, each beside a row of the reference and two of the pool; pruned rows; duplicates.
        of_queries = 3 * QUERIES * benchmarks
        of_pool = 2 * of_queries + PRUNED * benchmarks + 2 * DUPLICATES
        read = self.pool_bytes * min(1.0, of_pool / self.inputs.shards)
        read += self.inputs.reference_bytes * min(1.0, of_queries * 1000 / self.inputs.reference)
        read += self.inputs.query_bytes + benchmarks * self.inputs.rows * 4.0
        picture_bytes = min(PICTURE_BYTES, self.inputs.sample_bytes)
        pictures = of_pool + 2 * of_queries + PRUNED * benchmarks
        return self._need("galleries", "galleries", pictures, [], disk=pictures * picture_bytes, read=read)

    def _report(self) -> Need:
        figures = FIGURES * len(self.inputs.queries)
        tables = (1 + len(self._rules())) * self._profile_bytes()
        return self._need(
            "report", "report", figures, [_Work("figure", figures)], disk=figures * FIGURE_BYTES, read=tables
        )
