"""Cursors: where a walk through a listing goes on, in a form that clients pass back and need not understand."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import orjson

from service.directory import Position, Wanted

_FORM = re.compile(r"[A-Za-z0-9_-]{1,400}")
_SCORE = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-][0-9]{1,3})?")


def written(wanted: Wanted, position: Position) -> str:
    return urlsafe_b64encode(orjson.dumps([*wanted, *position])).rstrip(b"=").decode()


def read(cursor: str) -> tuple[Wanted, Position]:
    """What was written. Raises ValueError for what was not."""
    match _unfolded(cursor):
        case [agent_id, user_id, near_expiration, int(part), str(score), str(session_id)]:
            wanted, position = Wanted(agent_id, user_id, near_expiration), Position(part, score, session_id)
        case _:
            raise ValueError("is of another form")
    if isinstance(part, bool) or not (
        0 <= part < wanted.indexes and _SCORE.fullmatch(score) and written(wanted, position) == cursor
    ):
        raise ValueError("holds what was never written")
    return wanted, position


def _unfolded(cursor: str) -> Any:
    if not _FORM.fullmatch(cursor):
        raise ValueError("is of another form")
    return orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
