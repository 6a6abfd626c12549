"""Opaque cursors of listings and bulk revocations. A cursor contains the filter that it belongs to."""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hmac import compare_digest
from typing import Any

from service.sessions.index_scan import Entry
from service.sessions.listing import Position, SessionFilter
from service.sessions.revocation import OwnerFilter, Remainder
from service.shared_secret import SharedSecret

_MAC_HEX_DIGITS = 32
_CURSOR = re.compile(rf"([0-9a-f]{{{_MAC_HEX_DIGITS}}})([A-Za-z0-9_-]{{1,400}})")
_PURPOSE = b"cursor"


class Cursors:
    """The cursors of a user, or of all callers that have access to all sessions if `user_id` is None.

    Every replica with the same shared secret accepts them. Methods raise StoreUnavailable until it is loaded.
    """

    def __init__(self, secret: SharedSecret, user_id: str | None) -> None:
        self._secret = secret
        self._user_id = user_id

    def encode_position(self, filter_: SessionFilter, position: Position) -> str:
        return self._encode(*filter_, *position)

    def decode_position(self, cursor: str) -> tuple[SessionFilter, Position]:
        """Decode the cursor of a listing. Raises ValueError unless `encode_position` created it for this user."""
        match self._decode(cursor):
            case [agent_id, user_id, near_expiration, int(number), str(score), str(session_id)]:
                return SessionFilter(agent_id, user_id, near_expiration), Position(number, score, session_id)
            case _:
                raise ValueError("has another form")

    def encode_remainder(self, filter_: OwnerFilter, remainder: Remainder) -> str:
        return self._encode(*filter_, remainder.index_number, *remainder.after, *remainder.last)

    def decode_remainder(self, cursor: str) -> tuple[OwnerFilter, Remainder]:
        """Decode the cursor of a revocation. Raises ValueError unless `encode_remainder` created it for this user."""
        match self._decode(cursor):
            case [agent_id, user_id, int(number), str(score), str(session_id), str(last_score), str(last_id)]:
                remainder = Remainder(number, Entry(score, session_id), Entry(last_score, last_id))
                return OwnerFilter(agent_id, user_id), remainder
            case _:
                raise ValueError("has another form")

    def _encode(self, *parts: object) -> str:
        payload = urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).rstrip(b"=").decode()
        return self._mac(payload) + payload

    def _decode(self, cursor: str) -> Any:
        found = _CURSOR.fullmatch(cursor)
        if found is None or not compare_digest(found[1], self._mac(found[2])):
            raise ValueError("is not authentic")
        return json.loads(urlsafe_b64decode(found[2] + "=" * (-len(found[2]) % 4)))

    def _mac(self, payload: str) -> str:
        return self._secret.digest(f"{self._user_id or ''} {payload}", purpose=_PURPOSE)[:_MAC_HEX_DIGITS]
