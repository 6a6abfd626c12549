"""Read the operations, bodies and schemas of an OpenAPI document."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jsonschema_rs

from service.api.openapi import Document


class Content(NamedTuple):
    """A schema with its examples. `place` is an operation with a status, or a member of a schema."""

    place: str
    schema: Document
    examples: list[Any]


def operations(document: Document) -> Iterator[tuple[str, Document]]:
    """Return each operation with its method and path."""
    for path, item in document["paths"].items():
        for method in item.keys() - {"parameters"}:
            yield f"{method.upper()} {path}", item[method]


def bodies(document: Document) -> Iterator[Content]:
    """Return the bodies of all requests and responses."""
    for place, operation in operations(document):
        if "requestBody" in operation:
            yield from _contents(document, place, operation["requestBody"])
        for status, response in operation["responses"].items():
            yield from _contents(document, f"{place} {status}", resolve(document, response))


def members(document: Document) -> Iterator[Content]:
    """Return the members of all schemas, except members that are objects with members of their own."""
    for name, schema in document["components"]["schemas"].items():
        for member, member_schema in schema.get("properties", {}).items():
            resolved = resolve(document, member_schema)
            if "properties" not in resolved:
                yield Content(f"{name}.{member}", member_schema, resolved.get("examples", []))


def schema_errors(document: Document, content: Content) -> Iterator[str]:
    """Return the errors of examples that do not match their schema."""
    schema = {**content.schema, "components": document["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    for example in content.examples:
        for error in validator.iter_errors(example):
            yield f"{content.place}: {error.message}"


def resolve(document: Document, value: Document) -> Document:
    """Replace a reference by its target. Members beside the reference have precedence."""
    if "$ref" not in value:
        return value
    target: Any = document
    for name in value["$ref"].removeprefix("#/").split("/"):
        target = target[name]
    return {**target, **value}


def json_schema_of(document: Document, response: Document) -> Document:
    return resolve(document, resolve(document, response)["content"]["application/json"]["schema"])


def member_types(document: Document, schema: Document) -> Document:
    """Return the type and the format of each member of a schema."""
    resolved = {name: resolve(document, member) for name, member in schema["properties"].items()}
    return {
        name: {key: member[key] for key in ("type", "format") if key in member} for name, member in resolved.items()
    }


def _contents(document: Document, place: str, body: Document) -> Iterator[Content]:
    for content in body["content"].values():
        examples = [resolve(document, example)["value"] for example in content["examples"].values()]
        yield Content(place, content["schema"], examples)
