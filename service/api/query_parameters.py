"""What clients may ask in the query of a URL: judged parameter by parameter, every fault named at once."""

import re
from collections import Counter
from typing import Annotated, ClassVar, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo
from pydantic.alias_generators import to_camel

from service.api.request_bodies import MAX_FAULTS_SAID, Uuid
from service.errors import InvalidRequest
from service.sessions import cursors
from service.sessions.listing import START, Position, SessionFilter
from service.sessions.revocation import OwnerFilter, Remainder

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

_WHOLE = re.compile(r"[0-9]{1,4}")


def _boolean(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value == "true"


def _limit(value: str) -> int:
    if not _WHOLE.fullmatch(value) or not 1 <= int(value) <= MAX_LIMIT:
        raise ValueError(f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(value)


def _position(value: str, info: ValidationInfo) -> Position:
    try:
        wanted, position = cursors.read(value)
    except ValueError:
        raise ValueError("must be the nextCursor of a page") from None
    if not _has_filters(info, wanted):
        raise ValueError("belongs to a listing with other filters")
    return position


def _rest(value: str, info: ValidationInfo) -> Remainder:
    try:
        whose, rest = cursors.read_rest(value)
    except ValueError:
        raise ValueError("must be the nextCursor of a revocation") from None
    if not _has_filters(info, whose):
        raise ValueError("belongs to a revocation with other filters")
    return rest


def _has_filters(info: ValidationInfo, filters: SessionFilter | OwnerFilter) -> bool:
    """Whether the query has these; where one of its own is wrong, that is said and nothing of the cursor."""
    return not info.data.keys() >= set(filters._fields) or filters == tuple(map(info.data.get, filters._fields))


class _Query(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="forbid")

    one_of: ClassVar[tuple[str, ...]] = ()
    """Parameters of which at least one must be given."""


class ListingQuery(_Query):
    """A page of sessions: whose, how many, and from where on."""

    agent_id: Uuid | None = None
    user_id: Uuid | None = None
    near_expiration: Annotated[bool | None, BeforeValidator(_boolean)] = None
    limit: Annotated[int, BeforeValidator(_limit)] = DEFAULT_LIMIT
    cursor: Annotated[Position, BeforeValidator(_position)] = START

    @property
    def wanted(self) -> SessionFilter:
        return SessionFilter(self.agent_id, self.user_id, self.near_expiration)


class RevocationQuery(_Query):
    """Whose sessions are to be ended: a user's, an agent's, or those between the two; and from where on."""

    one_of = ("agentId", "userId")

    agent_id: Uuid | None = None
    user_id: Uuid | None = None
    cursor: Annotated[Remainder | None, BeforeValidator(_rest)] = None

    @property
    def whose(self) -> OwnerFilter:
        return OwnerFilter(self.agent_id, self.user_id)


_Model = TypeVar("_Model", bound=_Query)


def read_query(request: web.Request, model: type[_Model], user_id: str | None = None) -> _Model:
    """The query as a `model`. Raises InvalidRequest naming all that is wrong, unknown, missing or repeated in it.

    Where it does not say which user is meant, that is `user_id`, if one is given.
    """
    faults = _repeated(request) | _missing(request, model)
    meant = {} if user_id is None else {"userId": user_id}
    try:
        query = model.model_validate(meant | dict(request.query))
    except ValidationError as error:
        faults = {str(fault["loc"][0]): _said(fault["type"], fault["msg"]) for fault in error.errors()} | faults
    if faults:
        raise InvalidRequest(dict(list(faults.items())[:MAX_FAULTS_SAID]))
    return query


def _repeated(request: web.Request) -> dict[str, str]:
    times = Counter([name for name, _ in request.query.items()])
    return {name: "is given more than once" for name in times if times[name] > 1}


def _missing(request: web.Request, model: type[_Query]) -> dict[str, str]:
    if not model.one_of or any(name in request.query for name in model.one_of):
        return {}
    return dict.fromkeys(model.one_of, f"is required, or the other of {' and '.join(model.one_of)}")


def _said(kind: str, message: str) -> str:
    return "is not a parameter of this call" if kind == "extra_forbidden" else message.removeprefix("Value error, ")
