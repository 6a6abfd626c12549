"""Parsing and validation of request bodies. An error names every invalid member."""

import json
import re
import zlib
from typing import Annotated, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from service.errors import InvalidRequest, MalformedRequest, PayloadTooLarge, UnsupportedEncoding, UnsupportedMediaType
from service.identifiers import parse_uuid
from service.sessions.metadata import MergePatch, encode_metadata
from service.settings import MAX_BODY_BYTES, Settings
from service.settings.sessions import Bounds

MAX_REPORTED_ERRORS = 20
"""An error names at most this many members: a body may contain thousands."""

MAX_GZIP_MEMBERS = 100
"""A gzip body consists of one or more members. Thousands of empty ones take 10 ms."""

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_UNCOMPRESSED = ("", "identity")
_GZIP_WINDOW, _ZLIB_WINDOW, _RAW_DEFLATE_WINDOW = 31, 15, -15
"""Values of zlib's `wbits`."""

_LONG_NUMBER = re.compile(rb"\d{19}")

_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is not a member of a timeout configuration",
    "model_type": "must be an object",
}


def _absent_if_null(value: object) -> object:
    """Replace null by an empty object: clients in Go and Python send it for an absent member."""
    return {} if value is None else value


def _metadata(value: object) -> bytes:
    return encode_metadata(_absent_if_null(value))


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _minutes(value: object, info: ValidationInfo) -> float:
    settings = info.context
    assert isinstance(settings, Settings)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number of minutes")
    bounds = _bounds(str(info.field_name), settings, info.data)
    minutes = bounds.clamp(value) if settings.session_out_of_range == "clamp" else value
    is_whole = minutes == int(minutes)
    if not bounds.contains(minutes) or (settings.whole_minutes and not is_whole):
        kind = "a whole number" if settings.whole_minutes else "a number"
        raise ValueError(f"must be {kind} {bounds} (got {value})")
    return int(minutes) if is_whole else minutes


def _bounds(member: str, settings: Settings, earlier_members: dict[str, object]) -> Bounds:
    match member:
        case "timeout_minutes":
            return settings.timeout_bounds
        case "max_duration_minutes":
            timeout_minutes = earlier_members.get("timeout_minutes")
            minimum, maximum = settings.max_duration_bounds
            return Bounds(timeout_minutes if isinstance(timeout_minutes, int | float) else minimum, maximum)
        case _:
            return settings.warning_threshold_bounds


class _IntegerBeyond64Bits(float):
    """An integer that JSON can express and the service cannot store exactly."""


Uuid = Annotated[str, BeforeValidator(parse_uuid)]
Minutes = Annotated[int | float | None, BeforeValidator(_minutes)]
Boolean = Annotated[bool | None, BeforeValidator(_boolean)]
Metadata = Annotated[bytes, BeforeValidator(_metadata)]
"""A JSON object as bytes."""


class RequestBody(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class TimeoutBody(RequestBody):
    """Some members of a timeout configuration."""

    model_config = ConfigDict(extra="forbid")

    timeout_minutes: Minutes = None
    auto_renew: Boolean = None
    max_duration_minutes: Minutes = None
    warning_threshold_minutes: Minutes = None

    def changes(self) -> dict[str, float | bool]:
        """Return the given members by their names in TimeoutConfig."""
        return self.model_dump(exclude_none=True) if self.model_fields_set else {}


class CreateSessionBody(RequestBody):
    """A new session. Unknown members are ignored."""

    agent_id: Uuid
    user_id: Uuid
    timeout_config: Annotated[TimeoutBody, BeforeValidator(_absent_if_null)] = Field(default_factory=TimeoutBody)
    metadata: Metadata = b"{}"


_Model = TypeVar("_Model", bound=RequestBody)


async def read_body(request: web.Request, model: type[_Model], settings: Settings) -> _Model:
    """Return the body as a `model`. Raises InvalidRequest, UnsupportedMediaType and other errors of `_read`."""
    _require_content_type(request, _JSON)
    body = _parse_json(await _read(request))
    try:
        return model.model_validate(body, context=settings)
    except ValidationError as error:
        errors = error.errors(include_url=False)[:MAX_REPORTED_ERRORS]
        raise InvalidRequest({_name(details): _message(details) for details in errors}) from None


async def read_merge_patch(request: web.Request) -> MergePatch:
    """Return the body as a JSON Merge Patch of an object. Raises the errors of `read_body`.

    As plain JSON, an object with the single member `metadata` is an error: clients often wrap the patch by mistake.
    """
    _require_content_type(request, _JSON, _MERGE_PATCH)
    patch = _parse_json(await _read(request))
    if not isinstance(patch, dict):
        raise InvalidRequest({"body": "must be an object"})
    if request.content_type == _JSON and patch.keys() == {"metadata"} and isinstance(patch["metadata"], dict):
        raise InvalidRequest({"metadata": f"must not wrap the members; for a member of this name, send {_MERGE_PATCH}"})
    return patch


def _require_content_type(request: web.Request, *media_types: str) -> None:
    if request.content_type not in media_types:
        raise UnsupportedMediaType(_to_ascii(request.headers.get("Content-Type", "none")), *media_types)


def _to_ascii(header: str) -> str:
    """Replace other characters: headers may contain surrogates, which JSON cannot."""
    return header.encode("ascii", "replace").decode()


async def _read(request: web.Request) -> bytes:
    """Return the decompressed body. Raises MalformedRequest, UnsupportedEncoding and PayloadTooLarge."""
    try:
        body = await request.read()
    except (web.RequestPayloadError, ConnectionError) as error:
        raise MalformedRequest("The body is incomplete or does not match its headers.") from error
    encodings = request.headers.getall("Content-Encoding", None)
    return body if encodings is None else decompress(body, _to_ascii(", ".join(encodings)))


def decompress(body: bytes, encoding: str) -> bytes:
    """Decompress a complete body up to MAX_BODY_BYTES.

    aiohttp's own decompression is off: it has no limit, and a few bodies of 200 KB that expand to 200 MB delay all
    other requests for seconds. Raises UnsupportedEncoding, MalformedRequest and PayloadTooLarge.
    """
    match [coding for word in encoding.lower().split(",") if (coding := word.strip()) not in _UNCOMPRESSED]:
        case []:
            return body
        case ["gzip" | "x-gzip"]:
            return _decompress_members(body, encoding, _GZIP_WINDOW, MAX_GZIP_MEMBERS)
        case ["deflate"]:  # some clients omit the zlib header
            window = _ZLIB_WINDOW if body[:1] and body[0] & 0xF == 8 else _RAW_DEFLATE_WINDOW
            return _decompress_members(body, encoding, window, 1)
        case _:
            raise UnsupportedEncoding(encoding)


def _decompress_members(body: bytes, encoding: str, window_bits: int, max_members: int) -> bytes:
    data, rest = b"", body
    for _ in range(max_members):
        decompressor = zlib.decompressobj(window_bits)
        try:
            data += decompressor.decompress(rest, MAX_BODY_BYTES + 1 - len(data))
        except zlib.error:
            raise MalformedRequest(f"The body is not valid {encoding}.") from None
        if len(data) > MAX_BODY_BYTES:
            raise PayloadTooLarge(MAX_BODY_BYTES)
        if not decompressor.eof:
            break
        rest = decompressor.unused_data
        if not rest:
            return data
    raise MalformedRequest(f"The body is incomplete {encoding}, or continues after its end.")


def _parse_json(body: bytes) -> object:
    try:
        parsed: object = orjson.loads(body)
        if _LONG_NUMBER.search(body):  # orjson rounds integers beyond 64 bits
            orjson.dumps(parsed)  # rejects a depth beyond 254: that of json.loads depends on the version of Python
            parsed = json.loads(body, parse_int=_parse_integer)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest({"body": f"must be JSON: {error}"}) from None
    except orjson.JSONEncodeError:
        raise InvalidRequest({"body": "is nested too deeply"}) from None
    return parsed


def _parse_integer(digits: str) -> float:
    if len(digits) <= 20 and -(2**63) <= int(digits) < 2**64:
        return int(digits)
    return _IntegerBeyond64Bits(digits)


def _name(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"]) or "body"


def _message(error: ErrorDetails) -> str:
    return _MESSAGES.get(error["type"]) or error["msg"].removeprefix("Value error, ")
