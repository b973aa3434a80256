"""Define the numbers of a study: metrics, and estimates with confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number in a metrics file.

    Attributes:
        value: The number.
        file: The name of the metrics file, for messages and pages.
        key: The name of the number in the file.
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
        file: The name of the metrics file with the three numbers. It is empty until a file is written.
        key: The name of the value in the file. The names of the ends are `key/low` and `key/high`.
    """

    value: float
    low: float
    high: float
    file: str = ""
    key: str = ""

    @property
    def metrics(self) -> tuple[Metric, Metric, Metric]:
        """The value, the lower end and the upper end, each with the file and the key that it comes from."""
        return (
            Metric(self.value, self.file, self.key),
            Metric(self.low, self.file, f"{self.key}/low"),
            Metric(self.high, self.file, f"{self.key}/high"),
        )
