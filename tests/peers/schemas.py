"""The JSON schemas of the specification's authors (tests/schemas, image-spec v1.1.1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import referencing
from referencing.jsonschema import DRAFT4

_SCHEMAS = Path(__file__).parents[1] / "schemas"
_BASE = "https://opencontainers.org/schema/"


def _without_id(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name != "id" or not isinstance(value, str)}


def _registry() -> referencing.Registry[Any]:
    resources = []
    for path in _SCHEMAS.glob("*.json"):
        # the files refer to each other by their names, which their ids, also those within, would change
        contents = json.loads(path.read_text(), object_hook=_without_id)
        resources.append((f"{_BASE}{path.name}", referencing.Resource(contents=contents, specification=DRAFT4)))
    return referencing.Registry().with_resources(resources)


_REGISTRY = _registry()


def valid(name: str, data: bytes) -> None:
    """The document is one of this schema; ValidationError names the member when it is not."""
    schema = {"$ref": f"{_BASE}{name}.json"}
    jsonschema.Draft4Validator(schema, registry=_REGISTRY).validate(json.loads(data))
