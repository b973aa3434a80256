from __future__ import annotations

import pytest

from simgap.core.text import format_number, markdown_table, terminal_table


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.0925, "percent", "9.2"),
        # The same number with the rounding error of a subtraction, as it is before it is written to a file.
        (0.09250000000000003, "percent", "9.2"),
        (-0.051, "points", "-5.1"),
        (0.051, "points", "+5.1"),
        (1.375, "share", "138"),
        (1234567890123, "count", "1,234,567,890,123"),
        (0.5, "similarity", "0.500"),
        (0.02, "number", "0.02"),
    ],
)
def test_numbers(value: float, form: str, text: str) -> None:
    assert format_number(value, form) == text


def test_tables() -> None:
    rows = [["a", "1.0*"], ["long", "22.5 "]]
    assert terminal_table(["split", "val "], rows, left=1).splitlines() == [
        "split      val",
        "a          1.0*",
        "long      22.5",
    ]
    assert markdown_table(["split", "val"], [["a", "1.0"]]).splitlines() == [
        "| split   | val   |",
        "|:--------|:------|",
        "| a       | 1.0   |",
    ]
