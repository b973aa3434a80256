"""Write the JSON schema of params files, which editors use: `python -m simgap.params.json_schema > presets/schema.json`."""

from __future__ import annotations

import json

from pydantic import TypeAdapter

from simgap.params.schema import Params


def json_schema() -> str:
    """Return the JSON schema of a params file, as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TypeAdapter(Params).json_schema()}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
