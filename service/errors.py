"""The errors of the service. Each class defines the status, the code and the facts of one error response."""

from collections.abc import Mapping
from typing import Any, Self

from service.end_reasons import CAUSES_OF_EXPIRY
from service.timestamps import iso

RETRY_AFTER_SECONDS = 1
"""Retry-After of errors that usually last for seconds, such as a failover of Redis."""

ISSUER_RETRY_AFTER_SECONDS = 10
"""Retry-After while the public keys of the token issuer cannot be fetched."""

_RETRY_AFTER = {"Retry-After": str(RETRY_AFTER_SECONDS)}
_CLOSE = {"Connection": "close"}


class StartupError(Exception):
    """The service or a command cannot start. The message has a line for each invalid setting or other cause."""


class ServiceError(Exception):
    """An error response. `detail` explains it in a sentence, `facts` are its members for programs."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class InvalidRequest(ServiceError):
    """Members, parameters or headers of the request are invalid. `fields` maps the name of each to its error."""

    status, code, message = 400, "VALIDATION_ERROR", "Invalid request"

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {error}" for name, error in fields.items()), fields=dict(fields))


class MalformedRequest(ServiceError):
    """The request is not HTTP, or not a version of HTTP that the service supports."""

    status, code, message = 400, "BAD_REQUEST", "Malformed request"


class Unauthorized(ServiceError):
    """The caller is not authenticated. `reason` is `missing`, `unknown` or `expired`."""

    status, code, message = 401, "UNAUTHORIZED", "Authentication is required"

    def __init__(self, detail: str, *, reason: str) -> None:
        super().__init__(detail, reason=reason)
        self.headers = {"WWW-Authenticate": "Bearer" if reason == "missing" else 'Bearer error="invalid_token"'}

    @property
    def is_failed_lookup(self) -> bool:
        """Whether the key or token is unknown, and not missing or expired."""
        return bool(self.facts["reason"] == "unknown")

    @classmethod
    def missing(cls, detail: str) -> Self:
        return cls(detail, reason="missing")

    @classmethod
    def unknown(cls) -> Self:
        return cls("The key or token is not valid for this service.", reason="unknown")

    @classmethod
    def expired(cls) -> Self:
        return cls("The token has expired.", reason="expired")


class Forbidden(ServiceError):
    """The caller lacks a permission. `scope` names the scope that would grant it, if there is one."""

    status, code, message = 403, "FORBIDDEN", "Permission denied"

    def __init__(self, detail: str, *, scope: str | None = None) -> None:
        super().__init__(detail, **({} if scope is None else {"scope": scope}))
        parameter = "" if scope is None else f', scope="{scope}"'
        self.headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope"{parameter}'}


class ForeignOrigin(ServiceError):
    """A web page of another origin sent a change to a service without authentication. Nothing was changed."""

    status, code, message = 403, "FOREIGN_ORIGIN", "Origin is not allowed"

    def __init__(self, origin: str) -> None:
        super().__init__(
            "SESSION_CORS_ORIGINS must contain the Origin, because the service has no authentication.", origin=origin
        )


class RouteNotFound(ServiceError):
    status, code, message = 404, "NOT_FOUND", "Path not found"


class SessionNotFound(ServiceError):
    """The session never existed, was deleted, or expired so long ago that its retention is over."""

    status, code, message = 404, "SESSION_NOT_FOUND", "Session not found"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"There is no session with the id {session_id!r}.", sessionId=session_id)


class AgentNotFound(ServiceError):
    """The agent has no policy, and SESSION_REQUIRE_KNOWN_AGENT is true."""

    status, code, message = 404, "AGENT_NOT_FOUND", "Agent not found"

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"The agent {agent_id!r} is unknown: it has no timeout policy.", agentId=agent_id)


class AgentPolicyNotFound(ServiceError):
    status, code, message = 404, "AGENT_POLICY_NOT_FOUND", "Agent has no policy"

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"The agent {agent_id!r} has no timeout policy.", agentId=agent_id)


class MethodNotAllowed(ServiceError):
    status, code, message = 405, "METHOD_NOT_ALLOWED", "Method not allowed"

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"The method must be one of {allowed} (got {method}).", allowed=allowed.split(", "))
        self.headers = {"Allow": allowed}


class RequestTimeout(ServiceError):
    """The request was not received completely in time. Nothing was done, and the connection is closed."""

    status, code, message = 408, "REQUEST_TIMEOUT", "Request timeout"
    headers: Mapping[str, str] = _CLOSE

    def __init__(self) -> None:
        super().__init__("The request did not arrive completely in time. Send it again.")


class SessionRevoked(ServiceError):
    """The session was ended while it was being created: usually by a bulk revocation, rarely by a deletion."""

    status, code, message = 409, "SESSION_REVOKED", "Session was revoked during its creation"

    def __init__(self, agent_id: str, user_id: str) -> None:
        super().__init__(
            "Another request ended this session, or all sessions of its user or agent. Create it again.",
            agentId=agent_id,
            userId=user_id,
        )


class SessionLimitReached(ServiceError):
    """The user or the agent has as many active sessions as its cap allows. `limit` is `user` or `agent`."""

    status, code, message = 409, "SESSION_LIMIT_REACHED", "Session limit reached"

    def __init__(self, limit: str, owner_id: str, cap: int) -> None:
        super().__init__(
            f"The {limit} {owner_id!r} already has the maximum of {cap} active sessions. End one of them first.",
            **{"limit": limit, "max": cap, f"{limit}Id": owner_id},
        )


class SessionExpired(ServiceError):
    """The session expired less than the retention period ago."""

    status, code, message = 410, "SESSION_EXPIRED", "Session has expired"

    def __init__(self, session_id: str, expires_at_ms: int, reason: str) -> None:
        expires_at = iso(expires_at_ms)
        cause = CAUSES_OF_EXPIRY.get(reason, "")  # a replica of a newer version may write other reasons
        super().__init__(
            f"The session expired at {expires_at}{cause}.", sessionId=session_id, expiresAt=expires_at, reason=reason
        )


class PreconditionFailed(ServiceError):
    """The session has another revision than If-Match. Nothing was changed."""

    status, code, message = 412, "PRECONDITION_FAILED", "Session has changed"

    def __init__(self, session_id: str, revision: int) -> None:
        etag = f'"{revision}"'
        super().__init__(
            f"If-Match must be the current ETag {etag}. Read the session and apply the change again.",
            sessionId=session_id,
            etag=etag,
        )
        self.headers = {"ETag": etag}


class PayloadTooLarge(ServiceError):
    status, code, message = 413, "PAYLOAD_TOO_LARGE", "Request body is too large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The request body must not exceed {max_bytes} bytes.", maxBytes=max_bytes)


class UriTooLong(ServiceError):
    status, code, message = 414, "URI_TOO_LONG", "URL is too long"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The URL must not exceed {max_bytes} bytes.", maxBytes=max_bytes)


class UnsupportedMediaType(ServiceError):
    status, code, message = 415, "UNSUPPORTED_MEDIA_TYPE", "Content type is not supported"

    def __init__(self, content_type: str, *media_types: str) -> None:
        accepted = " or ".join(media_types)
        super().__init__(f"Content-Type must be {accepted} (got {content_type}).", contentType=content_type)


class UnsupportedEncoding(ServiceError):
    status, code, message = 415, "UNSUPPORTED_ENCODING", "Content encoding is not supported"
    headers: Mapping[str, str] = {"Accept-Encoding": "gzip, deflate"}

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"Content-Encoding must be gzip or deflate, or absent (got {encoding}).", contentEncoding=encoding
        )


class MisdirectedRequest(ServiceError):
    """The Host is not a name of this service, which has no authentication. DNS rebinding sends these requests."""

    status, code, message = 421, "MISDIRECTED_REQUEST", "Host is not allowed"

    def __init__(self, host: str) -> None:
        super().__init__(
            "SESSION_ALLOWED_HOSTS must contain the Host, because the service has no authentication.", host=host
        )


class RenewalFailed(ServiceError):
    """The session already expires at its maximum duration."""

    status, code, message = 422, "SESSION_RENEWAL_FAILED", "Session cannot be renewed"

    def __init__(self, session_id: str, *, created_at_ms: int, max_duration_minutes: float, expires_at_ms: int) -> None:
        super().__init__(
            f"The session already expires at its maximum duration of {max_duration_minutes} minutes.",
            sessionId=session_id,
            maxDurationMinutes=max_duration_minutes,
            createdAt=iso(created_at_ms),
            expiresAt=iso(expires_at_ms),
        )


class InvalidTimeoutConfig(ServiceError):
    """With the changed configuration, the session would already be expired. Nothing was changed."""

    status, code, message = 422, "INVALID_TIMEOUT_CONFIG", "Timeout would expire the session"

    def __init__(self, session_id: str, expires_at_ms: int) -> None:
        expires_at = iso(expires_at_ms)
        super().__init__(
            f"With this configuration, the session would have expired at {expires_at}. Choose longer timeouts.",
            sessionId=session_id,
            expiresAt=expires_at,
        )


class IdempotencyKeyReused(ServiceError):
    """The caller used the same key for another creation. Nothing was created."""

    status, code, message = 422, "IDEMPOTENCY_KEY_REUSED", "Idempotency key was used for another request"

    def __init__(self) -> None:
        super().__init__("The Idempotency-Key belongs to another request. Use a new key for each creation.")


class RateLimited(ServiceError):
    """The address or the caller exceeded a rate limit. Nothing was done."""

    status, code, message = 429, "RATE_LIMITED", "Too many requests"

    def __init__(self, limit: str, retry_after_seconds: int) -> None:
        super().__init__(f"The rate limit {limit!r} is exceeded. Try again in {retry_after_seconds} s.", limit=limit)
        self.limit = limit
        self.headers = {"Retry-After": str(retry_after_seconds)}


class HeaderFieldsTooLarge(ServiceError):
    """A header, or all headers together, are too large, or there are too many."""

    status, code, message = 431, "REQUEST_HEADER_FIELDS_TOO_LARGE", "Request headers are too large"

    def __init__(self, *, max_fields: int, max_field_bytes: int, max_bytes: int) -> None:
        super().__init__(
            f"A request must not exceed {max_fields} headers, {max_field_bytes} bytes in one header, "
            f"and {max_bytes} bytes in all headers.",
            maxFields=max_fields,
            maxFieldBytes=max_field_bytes,
            maxBytes=max_bytes,
        )


class InternalError(ServiceError):
    """A bug in the service. Only the log contains its cause."""

    status, code, message = 500, "INTERNAL_ERROR", "Internal server error"

    def __init__(self) -> None:
        super().__init__("The service failed to handle the request. Its log contains the cause.")


class StoreUnavailable(ServiceError):
    """Redis failed. A change may or may not have been applied. `cause` is for the log."""

    status, code, message = 503, "STORE_UNAVAILABLE", "Session store is unavailable"
    headers: Mapping[str, str] = _RETRY_AFTER

    def __init__(self, cause: str) -> None:
        super().__init__("The session store is unavailable at the moment. Try again.")
        self.cause = cause


class TooManyConnections(ServiceError):
    """The process has the maximum number of connections. It closes this one without reading a request."""

    status, code, message = 503, "TOO_MANY_CONNECTIONS", "Too many connections"
    headers: Mapping[str, str] = _RETRY_AFTER | _CLOSE

    def __init__(self) -> None:
        super().__init__("The service has the maximum number of connections. Nothing was done. Try again.")


class TooManyUnreadPages(ServiceError):
    """Clients have not read too many bytes of earlier pages. Nothing was read."""

    status, code, message = 503, "TOO_MANY_UNREAD_PAGES", "Too many unread pages"
    headers: Mapping[str, str] = _RETRY_AFTER

    def __init__(self) -> None:
        super().__init__("Clients have not yet received the pages of earlier requests. Try again.")


class IssuerUnavailable(ServiceError):
    """The public keys of the token issuer cannot be fetched, so the token cannot be verified. Nothing was done."""

    status, code, message = 503, "ISSUER_UNAVAILABLE", "Token issuer is unavailable"
    headers: Mapping[str, str] = {"Retry-After": str(ISSUER_RETRY_AFTER_SECONDS)}

    def __init__(self) -> None:
        super().__init__("The token cannot be verified: its issuer does not respond. Nothing was done. Try again.")


class Contention(ServiceError):
    """Too many concurrent changes of one session. Nothing was changed, and Redis is available."""

    status, code, message = 503, "CONTENTION", "Too many concurrent changes"
    headers: Mapping[str, str] = _RETRY_AFTER

    def __init__(self, session_id: str) -> None:
        super().__init__(
            "Other requests kept changing this session. Nothing was changed. Try again.", sessionId=session_id
        )


class CreationContention(ServiceError):
    """Too many concurrent creations for one user or agent. Nothing was created, and Redis is available."""

    status, code, message = 503, "CONTENTION", "Too many concurrent creations"
    headers: Mapping[str, str] = _RETRY_AFTER

    def __init__(self, limit: str, owner_id: str) -> None:
        super().__init__(
            f"Other requests kept creating sessions of this {limit}. Nothing was created. Try again.",
            **{"limit": limit, f"{limit}Id": owner_id},
        )


class OtherHTTPError(ServiceError):
    """An error of the HTTP library without a class of its own."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{reason}.")
        self.status = status
        self.code = reason.upper().replace(" ", "_").replace("-", "_")
        self.message = reason
