"""Read and write long tables as CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from simgap.store.estimates import Estimate

Row = dict[str, Any]


def write_table(rows: Iterable[Mapping[str, object]], path: Path) -> None:
    """Write rows to a CSV file. Floats get nine significant digits. No file is written if there are no rows."""
    texts = [{key: f"{value:.9g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    if texts:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, texts[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(texts)


def read_table(path: Path) -> list[Row]:
    """Return the rows of a CSV file. All values are text. The list is empty if the file does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def estimate_of(row: Row) -> Estimate:
    """Return the estimate in the columns `value`, `low` and `high` of a row. The values may be numbers or text."""
    return Estimate(float(row["value"]), float(row["low"]), float(row["high"]))
