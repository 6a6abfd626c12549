"""What clients may ask: the bodies of requests, judged member by member, every fault named at once."""

import json
import re
from typing import Annotated, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from service.api.content_encoding import opened
from service.errors import InvalidRequest, MalformedRequest, UnsupportedMediaType
from service.identifiers import parse_uuid
from service.sessions.metadata import Patch, storable
from service.settings import Settings
from service.settings.sessions import Bounds

MAX_FAULTS_SAID = 20
"""More than a person could have made; a body may hold thousands."""

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"

_LONG_NUMBER = re.compile(rb"\d{19}")

_SAID_OF = {
    "missing": "is required",
    "extra_forbidden": "is not a member of a timeout configuration",
    "model_type": "must be an object",
}


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
    if settings.session_out_of_range == "clamp":
        value = bounds.clamp(value)
    is_whole = value == int(value)
    if not bounds.contains(value) or (settings.whole_minutes and not is_whole):
        raise ValueError(f"must be {'a whole number' if settings.whole_minutes else 'a number'} {bounds}")
    return int(value) if is_whole else value


def _bounds(member: str, settings: Settings, before: dict[str, object]) -> Bounds:
    match member:
        case "timeout_minutes":
            return settings.timeout_bounds
        case "max_duration_minutes":
            timeout_minutes = before.get("timeout_minutes")
            minimum, maximum = settings.max_duration_bounds
            return Bounds(timeout_minutes if isinstance(timeout_minutes, int | float) else minimum, maximum)
        case _:
            return settings.warning_threshold_bounds


class _BeyondSixtyFourBits(float):
    """An integer that JSON can write and this service cannot keep exactly."""


Uuid = Annotated[str, BeforeValidator(parse_uuid)]
Minutes = Annotated[int | float | None, BeforeValidator(_minutes)]
Boolean = Annotated[bool | None, BeforeValidator(_boolean)]
Metadata = Annotated[bytes, BeforeValidator(storable)]


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class TimeoutBody(_Body):
    """Some members of a timeout configuration."""

    model_config = ConfigDict(extra="forbid")

    timeout_minutes: Minutes = None
    auto_renew: Boolean = None
    max_duration_minutes: Minutes = None
    warning_threshold_minutes: Minutes = None

    def changes(self) -> dict[str, float | bool]:
        """The members that were given, by their names in TimeoutConfig."""
        return self.model_dump(exclude_none=True) if self.model_fields_set else {}


class CreateSessionBody(_Body):
    """What a session is made of; members that are not named here are ignored."""

    agent_id: Uuid
    user_id: Uuid
    timeout_config: TimeoutBody = Field(default_factory=TimeoutBody)
    metadata: Metadata = b"{}"


_Model = TypeVar("_Model", bound=_Body)


async def read_body(request: web.Request, model: type[_Model], settings: Settings) -> _Model:
    """The body as a `model`. Raises InvalidRequest naming every bad member, UnsupportedMediaType, and aiohttp's 413."""
    _require_sent_as(request, _JSON)
    body = _parsed(await _arrived(request))
    try:
        return model.model_validate(body, context=settings)
    except ValidationError as error:
        faults = error.errors(include_url=False)[:MAX_FAULTS_SAID]
        raise InvalidRequest({_name(fault): _said(fault) for fault in faults}) from None


async def read_merge_patch(request: web.Request) -> Patch:
    """The body as a JSON Merge Patch that makes an object of an object. Raises as `read_body` does."""
    _require_sent_as(request, _JSON, _MERGE_PATCH)
    patch = _parsed(await _arrived(request))
    if not isinstance(patch, dict):
        raise InvalidRequest({"body": "must be an object"})
    return patch


def agent_id_of(request: web.Request) -> str:
    """The agent that the path names. Raises InvalidRequest."""
    try:
        return parse_uuid(request.match_info["agent_id"])
    except ValueError as fault:
        raise InvalidRequest({"agentId": str(fault)}) from None


def _require_sent_as(request: web.Request, *media_types: str) -> None:
    if request.content_type not in media_types:
        raise UnsupportedMediaType(_in_ascii(request.headers.get("Content-Type", "none")), *media_types)


def _in_ascii(header: str) -> str:
    """As it was sent; what is not ASCII could not be said back in JSON."""
    return header.encode("ascii", "replace").decode()


async def _arrived(request: web.Request) -> bytes:
    try:
        body = await request.read()
    except (web.RequestPayloadError, ConnectionError) as error:
        raise MalformedRequest("The body did not arrive whole, or not as its headers say.") from error
    encoding = request.headers.get("Content-Encoding")
    return body if encoding is None else opened(body, _in_ascii(encoding))


def _parsed(body: bytes) -> object:
    try:
        parsed: object = orjson.loads(body)
        if _LONG_NUMBER.search(body):  # orjson would round what is beyond 64 bits
            parsed = json.loads(body, parse_int=_integer)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest({"body": f"is not JSON: {error}"}) from None
    except RecursionError:
        raise InvalidRequest({"body": "is nested too deeply"}) from None
    return parsed


def _integer(digits: str) -> float:
    if len(digits) <= 20 and -(2**63) <= int(digits) < 2**64:
        return int(digits)
    return _BeyondSixtyFourBits(digits)


def _name(fault: ErrorDetails) -> str:
    return ".".join(str(part) for part in fault["loc"]) or "body"


def _said(fault: ErrorDetails) -> str:
    return _SAID_OF.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
