"""Find fields that an OpenAPI schema does not name. PayPal's schemas allow such fields, so validation does not find them."""

from collections.abc import Iterator
from typing import Any

COMBINED = ("allOf", "anyOf", "oneOf")


def unknown_fields(document: Any, pointer: str, value: object) -> list[str]:
    """Return the paths of the fields of `value` that the schema at `pointer` does not name, such as `links[].rel`."""
    return sorted(set(_unknown(document, {"$ref": f"#{pointer}"}, value, "")))


def resolved(document: Any, found: Any) -> Any:
    """Follow `$ref` within the document until there is none."""
    while "$ref" in found:
        target = document
        for part in found["$ref"].removeprefix("#/").split("/"):
            key = part.replace("~1", "/").replace("~0", "~").replace("%7B", "{").replace("%7D", "}")
            target = target[key]
        found = target
    return found


def _unknown(document: Any, schema: Any, value: object, at: str) -> Iterator[str]:
    schema = resolved(document, schema)
    if isinstance(value, list):
        for item in value:
            yield from _unknown(document, schema.get("items", {}), item, at + "[]")
    elif isinstance(value, dict):
        properties = _properties(document, schema)
        for key, item in value.items() if properties else ():
            path = f"{at}.{key}".lstrip(".")
            if key in properties:
                yield from _unknown(document, properties[key], item, path)
            else:
                yield path


def _properties(document: Any, schema: Any) -> dict[str, Any]:
    """Return the named properties, also those of combined schemas. None named: any are allowed."""
    schema = resolved(document, schema)
    found: dict[str, Any] = {}
    for part in (part for word in COMBINED for part in schema.get(word, ())):
        found |= _properties(document, part)
    found |= schema.get("properties", {})
    return found
