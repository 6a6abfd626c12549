"""Compare sample JSON in a document with a real response."""

from typing import Any


def shape(value: Any) -> Any:
    """Return the member names and types of a JSON value."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return list
    return type(value)
