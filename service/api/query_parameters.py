"""Parsing and validation of query parameters. An error names every invalid parameter."""

import re
from collections import Counter
from typing import Annotated, ClassVar, TypeVar, cast

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo
from pydantic.alias_generators import to_camel

from service.api.request_bodies import MAX_REPORTED_ERRORS, Uuid
from service.errors import InvalidRequest
from service.sessions.cursors import Cursors
from service.sessions.listing import START, Position, SessionFilter
from service.sessions.revocation import OwnerFilter, Remainder

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

_WHOLE_NUMBER = re.compile(r"[0-9]{1,4}")


def _boolean(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value == "true"


def _limit(value: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(value) or not 1 <= int(value) <= MAX_LIMIT:
        raise ValueError(f"must be a whole number between 1 and {MAX_LIMIT}")
    return int(value)


def _listing_cursor(value: str, info: ValidationInfo) -> Position:
    try:
        session_filter, position = cast(Cursors, info.context).decode_position(value)
    except ValueError:
        raise ValueError("must be the nextCursor of a page") from None
    if not _has_filters(info, session_filter):
        raise ValueError("belongs to a listing with other filters")
    return position


def _revocation_cursor(value: str, info: ValidationInfo) -> Remainder:
    try:
        owner_filter, remainder = cast(Cursors, info.context).decode_remainder(value)
    except ValueError:
        raise ValueError("must be the nextCursor of a revocation") from None
    if not _has_filters(info, owner_filter):
        raise ValueError("belongs to a revocation with other filters")
    return remainder


def _has_filters(info: ValidationInfo, filters: SessionFilter | OwnerFilter) -> bool:
    """Return whether the query has these filters. If a filter is invalid, return True: only the filter is reported."""
    return not info.data.keys() >= set(filters._fields) or filters == tuple(map(info.data.get, filters._fields))


class _Query(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="forbid")

    one_of: ClassVar[tuple[str, ...]] = ()
    """At least one of these parameters is required."""


class ListingQuery(_Query):
    """The parameters of a listing."""

    agent_id: Uuid | None = None
    user_id: Uuid | None = None
    near_expiration: Annotated[bool | None, BeforeValidator(_boolean)] = None
    limit: Annotated[int, BeforeValidator(_limit)] = DEFAULT_LIMIT
    cursor: Annotated[Position, BeforeValidator(_listing_cursor)] = START

    @property
    def session_filter(self) -> SessionFilter:
        return SessionFilter(self.agent_id, self.user_id, self.near_expiration)


class RevocationQuery(_Query):
    """The parameters of a bulk revocation: a user, an agent, or both."""

    one_of = ("agentId", "userId")

    agent_id: Uuid | None = None
    user_id: Uuid | None = None
    cursor: Annotated[Remainder | None, BeforeValidator(_revocation_cursor)] = None

    @property
    def owner_filter(self) -> OwnerFilter:
        return OwnerFilter(self.agent_id, self.user_id)


_Model = TypeVar("_Model", bound=_Query)


def read_query(
    request: web.Request, model: type[_Model], cursors: Cursors, default_user_id: str | None = None
) -> _Model:
    """Return the query as a `model`.

    Raises InvalidRequest for invalid, unknown, missing and repeated parameters, and StoreUnavailable for a cursor that
    cannot be verified yet.
    """
    errors = _repeated(request) | _missing(request, model)
    defaults = {} if default_user_id is None else {"userId": default_user_id}
    try:
        query = model.model_validate(defaults | dict(request.query), context=cursors)
    except ValidationError as error:
        invalid = {str(details["loc"][0]): _message(details["type"], details["msg"]) for details in error.errors()}
        errors = invalid | errors
    if errors:
        raise InvalidRequest(dict(list(errors.items())[:MAX_REPORTED_ERRORS]))
    return query


def _repeated(request: web.Request) -> dict[str, str]:
    counts = Counter([name for name, _ in request.query.items()])
    return {name: "must not be repeated" for name in counts if counts[name] > 1}


def _missing(request: web.Request, model: type[_Query]) -> dict[str, str]:
    if not model.one_of or any(name in request.query for name in model.one_of):
        return {}
    return dict.fromkeys(model.one_of, f"at least one of {' and '.join(model.one_of)} is required")


def _message(error_type: str, message: str) -> str:
    if error_type == "extra_forbidden":
        return "is not a parameter of this request"
    return message.removeprefix("Value error, ")
