"""Define the block `leaks`, the parameters of the search for copies of benchmark images in the pool."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Cosine


@dataclass(frozen=True, config=STRICT)
class LeakParameters:
    """The rule by which simgap reports a benchmark image as copied."""

    threshold: Cosine | None
    """A benchmark image is reported as copied if its similarity to the pool exceeds this cosine. With null, simgap calibrates the
    threshold on the annotations of the pool."""

    false_positives: Annotated[float, Field(ge=0, lt=1)]
    """Largest false positive rate of a calibrated threshold: the share of images without an annotated copy that it reports."""
