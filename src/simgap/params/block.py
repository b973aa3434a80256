"""Define types and checks that several blocks of params.yaml use."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

# These settings make every mistake in a params file an error. Unknown keys and infinite numbers are errors, and
# pydantic converts no value to another type. The docstring below a field becomes the description of the field in
# presets/schema.json.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

NAME_PATTERN = "^[a-z][a-z0-9_-]*$"
# The pattern keeps DVC from removing other folders. DVC removes the folder with this name before a stage starts, and a
# name such as ../x would be another folder.
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(ge=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]


def _is_free(name: str) -> str:
    if name in ("pool", "reference"):
        raise ValueError("it must not be pool or reference, which are names of other sets")
    return name


SetName = Annotated[Name, AfterValidator(_is_free)]


def across_fields(message: str) -> PydanticCustomError:
    """Return the error that a check of several fields of one block raises.

    Args:
        message: Message that begins with the name of a field, for example "keep is 3; it must be at most 1".
    """
    return PydanticCustomError("across_fields", "{message}", {"message": message})


def unique(values: list[str] | list[int]) -> list[str] | list[int]:
    """Check that all items of a list are different, and return the list.

    Raises:
        ValueError: An item occurs twice.
    """
    if len(set(values)) < len(values):
        raise ValueError("it must contain each item only once")
    return values
