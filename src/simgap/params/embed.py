"""Parameters of the embedder and of embedding."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from simgap.core.errors import SimgapError
from simgap.params.train import TrainParameters

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class PretrainedParameters:
    """An open_clip model name and the tag of its weights, as `open_clip.list_pretrained()` gives them."""

    model: str
    tag: str


@dataclass(frozen=True)
class EmbedderParameters:
    """Where the embedder comes from: exactly one of the three is not null.

    Attributes:
        train: trained on the pool, with these parameters of its own: another `train` block does not touch the embedder.
        pretrained: fetched.
        directory: path of an open_clip local directory, copied.
        seed: seed of the training.
    """

    train: TrainParameters | None
    pretrained: PretrainedParameters | None
    directory: str | None
    seed: int

    def check(self) -> None:
        """Raise SimgapError where there is not exactly one source."""
        given = [name for name in ("train", "pretrained", "directory") if getattr(self, name) is not None]
        if len(given) != 1:
            raise SimgapError(
                f"embedder: {' and '.join(given) or 'none'} is set; exactly one of train, pretrained and directory should be"
            )
        if self.train is not None:
            try:
                self.train.check()
            except SimgapError as error:
                raise SimgapError(f"embedder.{error}") from None

    def identity(self) -> dict[str, Any]:
        """Give all that the state of making it depends on, see TrainParameters.identity."""
        return {**asdict(self), "train": self.train and self.train.identity()}


@dataclass(frozen=True)
class EmbedParameters:
    """How sets are embedded.

    Attributes:
        batch_size: images of every forward pass; the last one is padded to it.
        precision: of the forward pass: `fp32`, or `bf16` or `fp16` autocast. On a GPU fp16 is the choice: it rounds less than
            bf16, and as coarsely as embeddings are stored. Without one it is refused.
        decoders: threads that decode and preprocess; more than one pays where images are large.
        shards_per_part: shards whose rows make one part of the embeddings.
        drop_limit: largest share of samples that may be dropped, and of shards that may be damaged, in [0, 1].
    """

    batch_size: int
    precision: str
    decoders: int
    shards_per_part: int
    drop_limit: float

    def check(self) -> None:
        """Raise SimgapError where a value is unknown or out of range."""
        if self.precision not in PRECISIONS:
            raise SimgapError(f"embed.precision: {self.precision!r} is unknown; choose from {', '.join(PRECISIONS)}")
        for field in ("batch_size", "decoders", "shards_per_part"):
            if getattr(self, field) < 1:
                raise SimgapError(f"embed.{field}: {getattr(self, field)} is out of range; it should be at least 1")
        if not 0 <= self.drop_limit <= 1:
            raise SimgapError(f"embed.drop_limit: {self.drop_limit} is out of range; it should be in [0, 1]")
