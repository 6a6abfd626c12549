"""Opaque cursors of listings and bulk revocations. A cursor contains the filter that it belongs to."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import orjson

from service.sessions.index_scan import Entry
from service.sessions.listing import Position, SessionFilter
from service.sessions.revocation import OwnerFilter, Remainder

_CURSOR = re.compile(r"[A-Za-z0-9_-]{1,400}")
_SCORE = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-][0-9]{1,3})?")


def encode_position(filter_: SessionFilter, position: Position) -> str:
    return _encode(*filter_, *position)


def decode_position(cursor: str) -> tuple[SessionFilter, Position]:
    """Decode the cursor of a listing. Raises ValueError if `encode_position` did not create it."""
    match _decode(cursor):
        case [agent_id, user_id, near_expiration, int(number), str(score), str(session_id)]:
            filter_ = SessionFilter(agent_id, user_id, near_expiration)
            position = Position(number, score, session_id)
        case _:
            raise ValueError("has another form")
    _require_position(number, filter_.index_count, score)
    _require_canonical(cursor, encode_position(filter_, position))
    return filter_, position


def encode_remainder(filter_: OwnerFilter, remainder: Remainder) -> str:
    return _encode(*filter_, remainder.index_number, *remainder.after, *remainder.last)


def decode_remainder(cursor: str) -> tuple[OwnerFilter, Remainder]:
    """Decode the cursor of a revocation. Raises ValueError if `encode_remainder` did not create it."""
    match _decode(cursor):
        case [agent_id, user_id, int(number), str(score), str(session_id), str(last_score), str(last_id)]:
            filter_ = OwnerFilter(agent_id, user_id)
            remainder = Remainder(number, Entry(score, session_id), Entry(last_score, last_id))
        case _:
            raise ValueError("has another form")
    _require_position(number, filter_.index_count, score, last_score)
    _require_canonical(cursor, encode_remainder(filter_, remainder))
    return filter_, remainder


def _encode(*parts: object) -> str:
    return urlsafe_b64encode(orjson.dumps(parts)).rstrip(b"=").decode()


def _decode(cursor: str) -> Any:
    if not _CURSOR.fullmatch(cursor):
        raise ValueError("has another form")
    return orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))


def _require_position(number: int, count: int, *scores: str) -> None:
    if isinstance(number, bool) or not 0 <= number < count or not all(map(_SCORE.fullmatch, scores)):
        raise ValueError("is not a position")


def _require_canonical(cursor: str, canonical: str) -> None:
    if cursor != canonical:
        raise ValueError("is not canonical")
