"""What clients are told: sessions and refusals as JSON responses."""

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from service.errors import Refusal
from service.instants import iso
from service.sessions import Session

_NOT_STORED = {"Cache-Control": "no-store"}


def session_json(session: Session) -> bytes:
    """The whole object of the contract."""
    timeout = session.timeout
    return (
        (
            f'{{"sessionId":"{session.id}","agentId":"{session.agent_id}","userId":"{session.user_id}"'
            f',"createdAt":"{iso(session.created_at_ms)}","lastActivity":"{iso(session.last_activity_ms)}"'
            f',"expiresAt":"{iso(session.expires_at_ms)}"'
            f',"timeoutConfig":{{"timeoutMinutes":{timeout.timeout_minutes},"autoRenew":{_json(timeout.auto_renew)}'
            f',"maxDurationMinutes":{timeout.max_duration_minutes}'
            f',"warningThresholdMinutes":{timeout.warning_threshold_minutes}}}'
            f',"renewalCount":{session.renewal_count},"timeRemaining":{session.time_remaining_ms}'
            f',"isNearExpiration":{_json(session.is_near_expiration)},"metadata":'
        ).encode()
        + session.metadata
        + b"}"
    )


def session_response(session: Session) -> web.Response:
    return web.Response(body=session_json(session), content_type="application/json", headers=_NOT_STORED)


def created_response(session: Session, location: str) -> web.Response:
    response = session_response(session)
    response.set_status(201)
    response.headers["Location"] = location
    return response


def deleted_response(session_id: str) -> web.Response:
    return json_response({"success": True, "message": f"Session {session_id} deleted successfully"})


def refusal_response(refusal: Refusal, error_format: str) -> web.Response:
    """A refusal in one of the contract's two shapes: `flat` is its example, `schema` its OpenAPI schema and more."""
    body: dict[str, Any] = {"code": refusal.code, "details": refusal.details}
    if error_format == "flat":
        body = {"error": refusal.message, **body}
    else:
        error = {"code": refusal.code, "message": refusal.message, "details": refusal.sentence}
        body = {"success": False, "error": error, **body}
    return json_response(body, status=refusal.status, headers=refusal.headers)


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(body),
        status=status,
        content_type="application/json",
        headers={**_NOT_STORED, **(headers or {})},
    )


def _json(value: bool) -> str:
    return "true" if value else "false"
