"""Metadata: what can be kept of it, and how a JSON Merge Patch (RFC 7396) changes it."""

from typing import Any

import orjson

from service.errors import InvalidRequest
from service.settings import MAX_METADATA_BYTES

Patch = dict[str, Any]


def storable(metadata: object) -> bytes:
    """A JSON object as it is stored. Raises ValueError for what is none, is too large or cannot be kept exactly."""
    if not isinstance(metadata, dict):
        raise ValueError("must be an object")
    try:
        stored = orjson.dumps(metadata, default=_no_exact_form)
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error.__cause__ or "is nested too deeply")) from None
    if len(stored) > MAX_METADATA_BYTES:
        raise ValueError(f"must be at most {MAX_METADATA_BYTES} bytes as JSON, not {len(stored)}")
    return stored


def patched(stored: bytes, patch: Patch) -> bytes:
    """Stored metadata with `patch` merged in. Raises InvalidRequest where the outcome cannot be stored."""
    metadata = orjson.loads(stored)
    try:
        return storable(merged(metadata, patch))
    except RecursionError:
        raise InvalidRequest({"metadata": "is nested too deeply"}) from None
    except ValueError as fault:
        raise InvalidRequest({"metadata": str(fault)}) from None


def merged(target: object, patch: object) -> object:
    """RFC 7396: null removes a member, objects merge, everything else replaces what was there."""
    if not isinstance(patch, dict):
        return patch
    before = target if isinstance(target, dict) else {}
    removed = {name for name, value in patch.items() if value is None}
    changed = {name: merged(before.get(name), value) for name, value in patch.items() if name not in removed}
    return {name: value for name, value in {**before, **changed}.items() if name not in removed}


def _no_exact_form(value: object) -> object:
    raise ValueError(f"holds an integer beyond 64 bits, near {value}")
