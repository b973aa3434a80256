"""Load a params file and check all values."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from simgap.core.errors import SimgapError
from simgap.params.checks import check_across_blocks
from simgap.params.schema import Params
from simgap.params.train import TrainParameters

PARAMS_FILE = Path("params.yaml")
Schema = TypeVar("Schema")

UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
UNION_ERRORS = ("int_type", "int_from_float", "float_type", "finite_number")
MISSING = ("missing", "missing_argument")
# This table has a requirement for each type of pydantic error, because pydantic's own messages do not say what to do.
# pydantic provides the values in braces.
REQUIREMENTS = {
    "greater_than_equal": "it must be at least {ge:g}",
    "greater_than": "it must be above {gt:g}",
    "less_than_equal": "it must be at most {le:g}",
    "less_than": "it must be below {lt:g}",
    "finite_number": "it must be a finite number",
    "int_type": "it must be an integer",
    "int_from_float": "it must be an integer",
    "float_type": "it must be a number",
    "string_type": "it must be text",
    "bool_type": "it must be true or false",
    "list_type": "it must be a list",
    "dict_type": "it must be a mapping",
    "dataclass_type": "it must be a mapping",
    "too_short": "it must not be empty",
    "string_pattern_mismatch": "it must be a name that matches {pattern}",
    "value_error": "{error}",
}


def load_params(path: Path) -> Params:
    """Load a params file and check all values.

    Raises:
        SimgapError: The file cannot be read, or a value is not valid. The message is one line with the file, the parameter, the
            value and the requirement.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SimgapError(f"{path}: no such file; run the command in the repository's root") from None
    except OSError as error:
        raise SimgapError(f"{path}: cannot be read ({error.strerror}); it must be a readable file") from None
    except UnicodeDecodeError as error:
        raise SimgapError(f"{path}: not YAML ({' '.join(str(error).split())}); save it as UTF-8") from None
    return parse_params(text, str(path))


def parse_params(text: str, where: str) -> Params:
    """Parse and check the text of a params file.

    Args:
        text: The content of the file.
        where: Name of the file. Error messages begin with it.

    Returns:
        The checked params.

    Raises:
        SimgapError: The text is not YAML, or a value is not valid. The message is one line with the file, the parameter, the
            value and the requirement.
    """
    content = _parse_yaml(text, where)
    if not isinstance(content, dict):
        raise SimgapError(f"{where}: contains {content!r}; it must be a mapping with the keys of presets/toy.yaml")
    params = validate(Params, content, where)
    check_across_blocks(params, where)
    for run, overrides in params.runs.items():
        validate(TrainParameters, {**asdict(params.train), **overrides}, where, f"runs.{run}")
    return params


def _parse_yaml(text: str, where: str) -> Any:
    """Parse text as YAML 1.2, as DVC does.

    In YAML 1.2, `1e-3` is a number and `010` is ten. A repeated key is an error.
    """
    try:
        content = YAML(typ="safe").load(text)
        _check_keys(content, where)
    except MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise SimgapError(f"{where}: not YAML ({line}{error.problem}); correct the file") from None
    except YAMLError as error:
        raise SimgapError(f"{where}: not YAML ({' '.join(str(error).split())}); correct the file") from None
    except ValueError:
        raise SimgapError(f"{where}: has a number that is too long; write it with fewer digits") from None
    except RecursionError:
        raise SimgapError(f"{where}: is nested too deeply; a params file has at most five levels") from None
    return content


def _check_keys(content: Any, where: str) -> None:
    """Raise an error if a key is not text, because the content is later validated as JSON. JSON keys are text."""
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        _check_keys(value, where)
    for key in content if isinstance(content, dict) else ():
        if not isinstance(key, str):
            raise SimgapError(f"{where}: the key {key!r} must be text; put it in quotes")


def validate(schema: type[Schema], content: dict[str, Any], where: str, prefix: str = "") -> Schema:
    """Create an instance of a pydantic dataclass from the content of a params file, and check the values.

    Args:
        schema: The dataclass.
        content: The value of each field of the dataclass, as the YAML parser returned it.
        where: Name of the file. Error messages begin with it.
        prefix: Keys that lead to the content in the file, for example "runs.full".

    Returns:
        An instance of the dataclass.

    Raises:
        SimgapError: A value is not valid. The message is one line about the first such value.
    """
    try:
        # The content is converted to JSON. In strict mode, pydantic creates a dataclass from a JSON object, but not
        # from a Python dictionary.
        return TypeAdapter(schema).validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        # An unknown key is reported first. A misspelt key causes two errors, an unknown key and a missing key, and the
        # first one is more helpful.
        first = min(error.errors(), key=lambda found: found["type"] not in UNKNOWN)
        raise SimgapError(f"{where}: {_describe(first, schema, prefix)}") from None


def _describe(error: Any, schema: type, prefix: str) -> str:
    kind, context = error["type"], error.get("ctx", {})
    location = [str(part) for part in error["loc"]]
    # For an error in a union or in a key of a mapping, pydantic adds a part to the place that is no key of the file.
    if location and (location[-1] == "[key]" or (kind in UNION_ERRORS and location[-1] in ("int", "float"))):
        location.pop()
    place = ".".join(filter(None, [prefix, *location]))
    if kind in UNKNOWN:
        known = _known_keys(schema, location[:-1])
        close = difflib.get_close_matches(location[-1], known, 1)
        return f"{place} is unknown; " + (f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}")
    if kind in MISSING:
        return f"{place} is missing; add it as in presets/toy.yaml"
    if kind == "across_fields":
        return f"{place}.{context['message']}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        return f"{place} is {error['input']!r}; choose from {', '.join(choices)}"
    requirement = REQUIREMENTS.get(kind, f"{error['msg'][0].lower()}{error['msg'][1:]}").format(**context)
    return f"{place} is {error['input']!r}; {requirement}"


def _known_keys(schema: Any, location: list[str]) -> list[str]:
    """Return the allowed keys of the block at a place in the file, sorted."""
    for part in location:
        if is_dataclass(schema):
            schema = get_type_hints(schema)[part.replace("-", "_")]
            if type(None) in get_args(schema):
                # The type is a union if the block may be null. Only the dataclass in the union has keys.
                schema = next(filter(is_dataclass, get_args(schema)))
        else:
            # The type is a mapping from names to blocks. It accepts any name, so the search continues in the type of
            # the blocks.
            schema = get_args(schema)[1]
    return sorted(field.name.replace("imagenet_like", "imagenet-like") for field in fields(schema))
