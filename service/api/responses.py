"""What clients are told: sessions and refusals as JSON responses."""

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
    b'{"sessionId":"%b","agentId":"%b","userId":"%b","createdAt":"%b","lastActivity":"%b","expiresAt":"%b"'
    b',"timeoutConfig":{"timeoutMinutes":%b,"autoRenew":%b,"maxDurationMinutes":%b,"warningThresholdMinutes":%b}'
    b',"renewalCount":%b,"timeRemaining":%d,"isNearExpiration":%b,"metadata":%b}'
)


def session_json(session: Session) -> bytes:
    """The whole object of the contract, for the most part in the bytes that Redis holds."""
    stored = session.stored
    return _SESSION % (
        session.id.encode(),
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
    return JsonResponse(session_json(session), tag=session.stored.revision)


def created_response(created: CreatedSession, location: str) -> JsonResponse:
    response = session_response(created.session)
    response.status = 201
    response.headers["Location"] = location
    if created.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def deleted_response(session_id: str) -> JsonResponse:
    return json_response({"success": True, "message": f"Session {session_id} deleted successfully"})


def page_response(page: Page, next_cursor: str | None) -> JsonResponse:
    sessions = b",".join([session_json(session) for session in page.sessions])
    stats = {
        "totalSessions": page.stats.listed,
        "activeSessions": page.stats.active,
        "expiredSessions": page.stats.ended,
    }
    rest = orjson.dumps({"total": page.total, "stats": stats, "nextCursor": next_cursor})
    return JsonResponse(b'{"sessions":[%b],%b' % (sessions, rest[1:]))


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


def error_response(refusal: ServiceError, error_format: str) -> JsonResponse:
    """A refusal in one of the contract's two shapes: `flat` is its example, `schema` its OpenAPI schema and more."""
    body: dict[str, Any] = {"code": refusal.code, "details": refusal.facts}
    if error_format == "flat":
        body = {"error": refusal.message, **body}
    else:
        error = {"code": refusal.code, "message": refusal.message, "details": refusal.detail}
        body = {"success": False, "error": error, **body}
    response = JsonResponse(orjson.dumps(body), refusal.status, refusal.headers)
    response.code = refusal.code
    return response


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> JsonResponse:
    return JsonResponse(orjson.dumps(body), status, headers)
