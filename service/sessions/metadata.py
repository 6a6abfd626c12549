"""Validate metadata and apply JSON Merge Patches (RFC 7396) to it."""

from typing import Any

import orjson

from service.errors import InvalidRequest
from service.settings import MAX_METADATA_BYTES

MergePatch = dict[str, Any]


def encode_metadata(metadata: object) -> bytes:
    """Encode a JSON object. Raises ValueError if it is not an object, too large or not representable exactly."""
    if not isinstance(metadata, dict):
        raise ValueError("must be an object")
    try:
        encoded = orjson.dumps(metadata, default=_reject)
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error.__cause__ or "is nested too deeply")) from None
    if len(encoded) > MAX_METADATA_BYTES:
        raise ValueError(f"must be at most {MAX_METADATA_BYTES} bytes as JSON, not {len(encoded)}")
    return encoded


def apply_patch(metadata: bytes, patch: MergePatch) -> bytes:
    """Merge a patch into stored metadata. Raises InvalidRequest if the result is not valid metadata."""
    try:
        return encode_metadata(merge(orjson.loads(metadata), patch))
    except RecursionError:
        raise InvalidRequest({"metadata": "is nested too deeply"}) from None
    except ValueError as error:
        raise InvalidRequest({"metadata": str(error)}) from None


def merge(target: object, patch: object) -> object:
    """Merge as RFC 7396 defines: null removes a member, objects merge, any other value replaces the member."""
    if not isinstance(patch, dict):
        return patch
    before = target if isinstance(target, dict) else {}
    removed = {name for name, value in patch.items() if value is None}
    changed = {name: merge(before.get(name), value) for name, value in patch.items() if name not in removed}
    return {name: value for name, value in {**before, **changed}.items() if name not in removed}


def _reject(value: object) -> object:
    raise ValueError(f"holds an integer beyond 64 bits, near {value}")
