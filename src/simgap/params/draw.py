"""Parameters of a toy world."""

from __future__ import annotations

from dataclasses import dataclass

from simgap.core.errors import SimgapError


@dataclass(frozen=True)
class DrawParameters:
    """The size of a toy world.

    Attributes:
        seed: decides every image and caption.
        pool: samples of the pool, planted and broken ones among them.
        reference: samples of the reference.
        queries: images of each benchmark.
        image_size: width and height of every image, in pixels.
        planted: planted rows of each kind (exact, near, sibling) for each benchmark, for the reference and for the pool itself.
        broken: pool samples whose image is cut off.
    """

    seed: int
    pool: int
    reference: int
    queries: int
    image_size: int
    planted: int
    broken: int

    def check(self) -> None:
        """Raise SimgapError where a value is out of range."""
        for field in ("pool", "reference", "queries"):
            if getattr(self, field) < 1:
                raise SimgapError(f"draw: {field} is {getattr(self, field)}; it should be at least 1")
        for field in ("planted", "broken"):
            if getattr(self, field) < 0:
                raise SimgapError(f"draw: {field} is {getattr(self, field)}; it should be at least 0")
        if self.broken > self.pool:
            raise SimgapError(f"draw: broken is {self.broken}; it should be at most pool, {self.pool}")
        # Each kind of planted row repeats each of eight sets, and the pool's own need originals besides.
        if 8 * 3 * self.planted + 3 * self.planted > self.pool:
            raise SimgapError(f"draw: planted is {self.planted}; a pool of {self.pool} has room for {self.pool // 27}")
        if self.image_size < 16:
            raise SimgapError(f"draw: image_size is {self.image_size}; it should be at least 16")
        if self.planted > min(self.queries, self.reference) // 3:
            raise SimgapError(
                f"draw: planted is {self.planted}; it should be at most a third of queries and of reference"
            )
