"""Cursors: where a walk goes on, in a form that clients pass back and need not understand.

Each carries the filters that it belongs to. Those of a listing and those of a revocation are no use to one another.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import orjson

from service.sessions.index_scan import Entry
from service.sessions.listing import Position, SessionFilter
from service.sessions.revocation import OwnerFilter, Remainder

_FORM = re.compile(r"[A-Za-z0-9_-]{1,400}")
_SCORE = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-][0-9]{1,3})?")


def written(wanted: SessionFilter, position: Position) -> str:
    return _folded(*wanted, *position)


def read(cursor: str) -> tuple[SessionFilter, Position]:
    """What was written of a listing. Raises ValueError for what was not."""
    match _unfolded(cursor):
        case [agent_id, user_id, near_expiration, int(part), str(score), str(session_id)]:
            wanted, position = SessionFilter(agent_id, user_id, near_expiration), Position(part, score, session_id)
        case _:
            raise ValueError("is of another form")
    _require_a_place(part, wanted.indexes, score)
    _require_written(cursor, written(wanted, position))
    return wanted, position


def written_of_rest(whose: OwnerFilter, rest: Remainder) -> str:
    return _folded(*whose, rest.part, *rest.place, *rest.end)


def read_rest(cursor: str) -> tuple[OwnerFilter, Remainder]:
    """What was written of a revocation. Raises ValueError for what was not."""
    match _unfolded(cursor):
        case [agent_id, user_id, int(part), str(score), str(session_id), str(end), str(end_id)]:
            whose, rest = OwnerFilter(agent_id, user_id), Remainder(part, Entry(score, session_id), Entry(end, end_id))
        case _:
            raise ValueError("is of another form")
    _require_a_place(part, whose.owner_indexes, score, end)
    _require_written(cursor, written_of_rest(whose, rest))
    return whose, rest


def _folded(*parts: object) -> str:
    return urlsafe_b64encode(orjson.dumps(parts)).rstrip(b"=").decode()


def _unfolded(cursor: str) -> Any:
    if not _FORM.fullmatch(cursor):
        raise ValueError("is of another form")
    return orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))


def _require_a_place(part: int, parts: int, *scores: str) -> None:
    if isinstance(part, bool) or not 0 <= part < parts or not all(map(_SCORE.fullmatch, scores)):
        raise ValueError("is of no place")


def _require_written(cursor: str, anew: str) -> None:
    """There is one way to write what it holds."""
    if cursor != anew:
        raise ValueError("holds what was never written")
