"""What every block of params.yaml shares."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

# Unknown keys are errors, nothing is converted silently, and no number is infinite. The text below a field describes it in
# presets/schema.json.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

NAME_PATTERN = "^[a-z][a-z0-9_-]*$"
# Names become folders, and DVC removes the folder of an output before its stage starts.
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(ge=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]


def _is_free(name: str) -> str:
    if name in ("pool", "reference"):
        raise ValueError("it must not be the name of another set (pool, reference)")
    return name


SetName = Annotated[Name, AfterValidator(_is_free)]


def across_fields(message: str) -> PydanticCustomError:
    """Return the error of a check that compares several fields of one block.

    Args:
        message: begins with the name of the field, for example "keep is 3; it must be at most 1".
    """
    return PydanticCustomError("across_fields", "{message}", {"message": message})


def unique(values: list[str] | list[int]) -> list[str] | list[int]:
    """Check that the items of a list differ.

    Raises:
        ValueError: A value occurs twice.
    """
    if len(set(values)) < len(values):
        raise ValueError("it must name each item once")
    return values
