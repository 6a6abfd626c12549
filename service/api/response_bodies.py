"""The JSON responses of the API."""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic.alias_generators import to_camel

from service.api.server.json_response import JsonResponse
from service.errors import ServiceError
from service.sessions.listing import Page
from service.sessions.policies import Policy
from service.sessions.revocation import Revoked
from service.sessions.session import CreatedSession, Session
from service.timestamps import iso, iso_bytes

_SESSION = (
    b'{"sessionId":"%b","channelId":"%b","agentId":"%b","userId":"%b","createdAt":"%b","lastActivity":"%b","expiresAt":"%b"'
    b',"timeoutConfig":{"timeoutMinutes":%b,"autoRenew":%b,"maxDurationMinutes":%b,"warningThresholdMinutes":%b}'
    b',"renewalCount":%b,"timeRemaining":%d,"isNearExpiration":%b,"metadata":%b}'
)


def session_json(session: Session) -> bytes:
    """Return a session in the format of the API. Most values are copied as Redis stores them."""
    stored, session_id = session.stored, session.id.encode()
    return _SESSION % (
        session_id,
        session_id,
        stored.agent_id,
        stored.user_id,
        iso_bytes(stored.created_at),
        iso_bytes(stored.last_activity),
        iso_bytes(stored.expires_at),
        stored.timeout_minutes,
        stored.auto_renew,
        stored.max_duration_minutes,
        stored.warning_threshold_minutes,
        stored.renewal_count,
        session.time_remaining_ms,
        b"true" if session.is_near_expiration else b"false",
        stored.metadata,
    )


def session_response(session: Session) -> JsonResponse:
    return JsonResponse(session_json(session), etag=session.stored.revision)


def created_response(created: CreatedSession, location: str) -> JsonResponse:
    response = session_response(created.session)
    response.status = 201
    response.headers["Location"] = location
    if created.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def deleted_response(session_id: str) -> JsonResponse:
    message = f"Session {session_id} deleted successfully"
    return json_response({"success": True, "message": message, "data": {"success": True, "message": message}})


def page_response(page: Page, next_cursor: str | None) -> JsonResponse:
    sessions = b",".join([session_json(session) for session in page.sessions])
    stats = {
        "totalSessions": page.stats.total,
        "activeSessions": page.stats.active,
        "expiredSessions": page.stats.expired,
    }
    other_members = orjson.dumps({"total": page.total, "stats": stats, "nextCursor": next_cursor})[1:]
    return JsonResponse(b'{"sessions":[%b],%b' % (sessions, other_members))


def revoked_response(revoked: Revoked, next_cursor: str | None) -> JsonResponse:
    more = next_cursor is not None
    return json_response({"revoked": revoked.number, "more": more, "nextCursor": next_cursor})


def policy_response(agent_id: str, policy: Policy) -> JsonResponse:
    return json_response(policy_document(agent_id, policy))


def policy_document(agent_id: str, policy: Policy) -> dict[str, object]:
    timeout = {to_camel(member): orjson.Fragment(value) for member, value in policy.timeout.items()}
    assert policy.updated_at is not None
    updated_at = iso(int(policy.updated_at))
    return {"agentId": agent_id, "timeoutConfig": timeout, "updatedAt": updated_at}


def policy_deleted_response(agent_id: str) -> JsonResponse:
    return json_response({"success": True, "message": f"Policy of agent {agent_id} deleted successfully"})


def error_response(error: ServiceError, error_format: str) -> JsonResponse:
    """Return an error in the format `schema` or `flat` (SESSION_ERROR_FORMAT)."""
    body: dict[str, Any] = {"code": error.code, "details": error.facts}
    if error_format == "flat":
        body = {"error": error.message, **body}
    else:
        members = {"code": error.code, "message": error.message, "details": error.detail}
        body = {"success": False, "error": members, **body}
    response = JsonResponse(orjson.dumps(body), error.status, error.headers)
    response.code = error.code
    return response


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> JsonResponse:
    return JsonResponse(orjson.dumps(body), status, headers)
