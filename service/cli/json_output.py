"""Formats reports as JSON for scripts, with the API's names and ISO 8601 timestamps."""

import re
from typing import Any

import orjson

from service.api.response_bodies import policy_document, session_json
from service.cli.inspection import (
    TIMESTAMP_FIELDS,
    IndexEntry,
    ListReport,
    OverviewReport,
    Report,
    SessionReport,
    StoredHash,
)
from service.sessions.session import Session
from service.timestamps import iso

_CONTROL_CHARACTERS = re.compile(r"[\x7f-\x9f]")


def json_document(report: Report, url: str) -> str:
    """Return the report on one line. Control characters are escaped, because terminals interpret them."""
    text = orjson.dumps({**_members(report), "redisCli": report.redis_cli_lines(url)}).decode()
    return _CONTROL_CHARACTERS.sub(lambda control: f"\\u{ord(control[0]):04x}", text)


def _members(report: Report) -> dict[str, Any]:
    match report:
        case SessionReport():
            return _session_report(report)
        case ListReport():
            return _list_report(report)
        case OverviewReport():
            return _overview(report)


def _overview(report: OverviewReport) -> dict[str, Any]:
    oldest_ms = None if report.oldest_expiry_ms is None else report.now_ms - report.oldest_expiry_ms
    stats = {
        "activeSessions": report.counts.active,
        "nearExpiration": report.near_expiration,
        "expiredSessions": report.counts.expired,
        "oldestUnsweptMs": oldest_ms,
    }
    return {"server": report.server, "stats": stats, **_list_report(report.listing)}


def _list_report(report: ListReport) -> dict[str, Any]:
    sessions = [_session(session) for session in report.sessions]
    members = {"sessions": sessions, "total": report.total, "more": report.has_more}
    agent_id, policy = report.session_filter.agent_id, report.policy
    if agent_id is None:
        return members
    return {**members, "policy": policy and policy_document(agent_id, policy)}


def _session(session: Session) -> dict[str, Any]:
    """Return the session as the API does, with its revision and without its metadata."""
    members: dict[str, Any] = orjson.loads(session_json(session))
    del members["metadata"]
    return {**members, "revision": int(session.stored.revision)}


def _session_report(report: SessionReport) -> dict[str, Any]:
    return {
        "sessionId": report.session_id,
        "logHash": report.log_hash,
        "state": report.state,
        "message": report.detail,
        "session": _hash(report.session),
        "tombstone": _hash(report.tombstone),
        "indexes": {entry.name: _entry(entry) for entry in report.entries},
    }


def _hash(hash_: StoredHash) -> dict[str, Any] | None:
    if not hash_.fields:
        return None
    ttl_ms = None if hash_.ttl_ms < 0 else hash_.ttl_ms
    fields = {field: _value(field, value) for field, value in hash_.fields.items()}
    return {"key": hash_.key, "ttlMs": ttl_ms, "fields": fields}


def _entry(entry: IndexEntry) -> dict[str, Any]:
    return {"key": entry.key, "listedAt": None if entry.score_ms is None else iso(entry.score_ms)}


def _value(field: str, value: str) -> Any:
    """Return a timestamp in ISO 8601, a JSON value as its type, and anything else as text."""
    if field in TIMESTAMP_FIELDS and value.isdecimal():
        return iso(int(value))
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
