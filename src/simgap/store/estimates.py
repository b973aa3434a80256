"""The numbers of a study: a metric with its place, and an estimate with its interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number in a metrics file.

    Attributes:
        value: The number.
        file: The file that holds it, as messages and pages name it.
        key: Its name in the file.
    """

    value: float
    file: str
    key: str


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% confidence interval.

    Attributes:
        value: The value over all images and seeds.
        low, high: The ends of the interval.
        file: The metrics file that holds the three numbers; empty before they are written.
        key: The name of the value in the file. The ends are `key/low` and `key/high`.
    """

    value: float
    low: float
    high: float
    file: str = ""
    key: str = ""

    @property
    def metrics(self) -> tuple[Metric, Metric, Metric]:
        """The value, the lower end and the upper end, each with its place."""
        return (
            Metric(self.value, self.file, self.key),
            Metric(self.low, self.file, f"{self.key}/low"),
            Metric(self.high, self.file, f"{self.key}/high"),
        )
