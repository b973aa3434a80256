"""Print the JSON schema of params files. Editors use the schema to check and complete keys.

Run `python -m simgap.params.json_schema > presets/schema.json` after every change of the schema.
"""

from __future__ import annotations

import json

from pydantic import TypeAdapter

from simgap.params.schema import Params


def json_schema() -> str:
    """Return the JSON schema of a params file as JSON text that ends with a newline."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TypeAdapter(Params).json_schema()}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
