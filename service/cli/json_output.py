"""What an operator is shown, as JSON for scripts: sessions by the API's names, instants in ISO 8601."""

import re
from typing import Any

import orjson

from service.api.responses import policy_document, session_json
from service.cli.inspection import INSTANTS, Found, Hash, Looked, Overview, Place, SessionTable
from service.sessions.session import Session
from service.timestamps import iso

_CONTROLS = re.compile(r"[\x7f-\x9f]")


def document(looked: Looked, url: str) -> str:
    """On one line, and without what a terminal would obey."""
    whole = orjson.dumps({**_members(looked), "redisCli": looked.redis_cli_lines(url)}).decode()
    return _CONTROLS.sub(lambda control: f"\\u{ord(control[0]):04x}", whole)


def _members(looked: Looked) -> dict[str, Any]:
    match looked:
        case Found():
            return _found(looked)
        case SessionTable():
            return _listing(looked)
        case Overview():
            return _overview(looked)


def _overview(overview: Overview) -> dict[str, Any]:
    oldest = None if overview.oldest_end_ms is None else overview.at_ms - overview.oldest_end_ms
    stats = {
        "activeSessions": overview.tally.active,
        "nearExpiration": overview.near,
        "expiredSessions": overview.tally.ended,
        "oldestUnsweptMs": oldest,
    }
    return {"server": overview.server, "stats": stats, **_listing(overview.listing)}


def _listing(listing: SessionTable) -> dict[str, Any]:
    sessions = [_session(session) for session in listing.sessions]
    members = {"sessions": sessions, "total": listing.total, "more": listing.more}
    agent_id, policy = listing.wanted.agent_id, listing.policy
    if agent_id is None:
        return members
    return {**members, "policy": policy and policy_document(agent_id, policy)}


def _session(session: Session) -> dict[str, Any]:
    """As the API has it, with the revision, and without the metadata."""
    members: dict[str, Any] = orjson.loads(session_json(session))
    del members["metadata"]
    return {**members, "revision": int(session.stored.revision)}


def _found(found: Found) -> dict[str, Any]:
    return {
        "sessionId": found.session_id,
        "logHash": found.log_hash,
        "state": found.state,
        "message": found.detail,
        "session": _hash(found.session),
        "tombstone": _hash(found.tombstone),
        "indexes": {place.name: _place(place) for place in found.places},
    }


def _hash(hash_: Hash) -> dict[str, Any] | None:
    """None where there is no such key; a `ttlMs` of None is a key without an end."""
    if not hash_.fields:
        return None
    ttl_ms = None if hash_.ttl_ms < 0 else hash_.ttl_ms
    fields = {field: _value(field, value) for field, value in hash_.fields.items()}
    return {"key": hash_.key, "ttlMs": ttl_ms, "fields": fields}


def _place(place: Place) -> dict[str, Any]:
    return {"key": place.key, "listedAt": None if place.listed_at_ms is None else iso(place.listed_at_ms)}


def _value(field: str, value: str) -> Any:
    """A number, a boolean or an object where it is one; an instant as the API writes it; else the text."""
    if field in INSTANTS and value.isdecimal():
        return iso(int(value))
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
