"""One tree of refusals: each class carries its status, its code and its facts, and knows nothing of HTTP frameworks."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from service.timestamps import iso


class ServiceError(Exception):
    """An answer other than success. `sentence` says it for a person, `details` for a program."""

    status: ClassVar[int]
    code: ClassVar[str]
    message: ClassVar[str]
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str, **details: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.details = details


class InvalidRequest(ServiceError):
    """The request says something that cannot be; `fields` names every member at fault and what is wrong with it."""

    status, code, message = 400, "VALIDATION_ERROR", "The request is not valid"

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {fault}" for name, fault in fields.items()), fields=dict(fields))


class MalformedRequest(ServiceError):
    """What arrived is not HTTP, or not HTTP that this service reads."""

    status, code, message = 400, "BAD_REQUEST", "The request could not be read"


class Unauthorized(ServiceError):
    """Nobody knows who asks. `reason` is `missing`, `unknown` or `expired`."""

    status, code, message = 401, "UNAUTHORIZED", "A key or token is needed"

    def __init__(self, detail: str, *, reason: str) -> None:
        super().__init__(detail, reason=reason)
        self.headers = {"WWW-Authenticate": "Bearer" if reason == "missing" else 'Bearer error="invalid_token"'}

    @property
    def is_of_a_guess(self) -> bool:
        """Whether what came may have been made up: not where nothing came, or what was good once."""
        return bool(self.details["reason"] == "unknown")

    @classmethod
    def unknown(cls) -> Self:
        return cls("The key or token is not one that this service takes.", reason="unknown")


class Forbidden(ServiceError):
    """It is known who asks, and they may not; with a `scope` where one would let them."""

    status, code, message = 403, "FORBIDDEN", "This is not allowed"

    def __init__(self, detail: str, *, scope: str | None = None) -> None:
        super().__init__(detail, **({} if scope is None else {"scope": scope}))
        wanted = "" if scope is None else f', scope="{scope}"'
        self.headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope"{wanted}'}


class RouteNotFound(ServiceError):
    status, code, message = 404, "NOT_FOUND", "There is nothing at this path"


class SessionNotFound(ServiceError):
    """The session never was, was deleted, or ended longer ago than its tombstone is kept."""

    status, code, message = 404, "SESSION_NOT_FOUND", "Session not found"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"There is no session with the id {session_id!r}.", sessionId=session_id)


class AgentNotFound(ServiceError):
    """Agents must be known (SESSION_REQUIRE_KNOWN_AGENT), and this one has no policy."""

    status, code, message = 404, "AGENT_NOT_FOUND", "Agent not found"

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"There is no agent with the id {agent_id!r}: it has no policy.", agentId=agent_id)


class AgentPolicyNotFound(ServiceError):
    status, code, message = 404, "AGENT_POLICY_NOT_FOUND", "Agent has no policy"

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"The agent {agent_id!r} has no policy.", agentId=agent_id)


class MethodNotAllowed(ServiceError):
    status, code, message = 405, "METHOD_NOT_ALLOWED", "The method is not allowed here"

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"{method} is not allowed here; {allowed} would be.", allowed=allowed.split(", "))
        self.headers = {"Allow": allowed}


class RequestTimedOut(ServiceError):
    """The request was not whole in time; nothing was done, and the connection is closed."""

    status, code, message = 408, "REQUEST_TIMEOUT", "The request did not arrive in time"
    headers: Mapping[str, str] = {"Connection": "close"}

    def __init__(self) -> None:
        super().__init__("The request was not whole in the time that it had; nothing was done.")


class SessionRevoked(ServiceError):
    """It was ended while it was being created, and does not live.

    That was a bulk revocation. Where the session had to be taken back (see Store.create), it may also have been someone
    who found it in a list: Redis keeps no trace of either, and the answer must not be false of the first.
    """

    status, code, message = 409, "SESSION_REVOKED", "Session was revoked while it was created"

    def __init__(self, agent_id: str, user_id: str) -> None:
        super().__init__(
            "Others ended this session, or all of its user or agent, while it was created; create it again.",
            agentId=agent_id,
            userId=user_id,
        )


class SessionLimitReached(ServiceError):
    """As many sessions of its user, or of its agent, live as may (SESSION_MAX_PER_USER, SESSION_MAX_PER_AGENT).

    `limit` is `user` or `agent`.
    """

    status, code, message = 409, "SESSION_LIMIT_REACHED", "No more sessions may be open"

    def __init__(self, limit: str, owner_id: str, most: int) -> None:
        super().__init__(
            f"The {limit} {owner_id!r} has as many sessions as may be open at once: {most}.",
            **{"limit": limit, "max": most, f"{limit}Id": owner_id},
        )


class SessionExpired(ServiceError):
    """The session lived and has ended; its tombstone says when and why."""

    status, code, message = 410, "SESSION_EXPIRED", "Session has expired"

    def __init__(self, session_id: str, expires_at_ms: int, reason: str) -> None:
        expires_at = iso(expires_at_ms)
        known = {"inactivity": " for want of activity", "max_duration": " at its maximum duration"}
        why = known.get(reason, "")  # a newer version beside this one may write others
        super().__init__(
            f"The session ended at {expires_at}{why}.", sessionId=session_id, expiresAt=expires_at, reason=reason
        )


class PreconditionFailed(ServiceError):
    """The session is at another revision than those over which it was to be changed; nothing was changed."""

    status, code, message = 412, "PRECONDITION_FAILED", "Session was changed meanwhile"

    def __init__(self, session_id: str, revision: int) -> None:
        etag = f'"{revision}"'
        super().__init__(
            f"The session is at {etag}, which If-Match does not name; nothing was changed.",
            sessionId=session_id,
            etag=etag,
        )
        self.headers = {"ETag": etag}


class PayloadTooLarge(ServiceError):
    status, code, message = 413, "PAYLOAD_TOO_LARGE", "The request body is too large"

    def __init__(self, max_body_bytes: int) -> None:
        super().__init__(f"A request body may hold {max_body_bytes} bytes.", maxBytes=max_body_bytes)


class UriTooLong(ServiceError):
    status, code, message = 414, "URI_TOO_LONG", "The URL is too long"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"A URL may have {max_bytes} bytes.", maxBytes=max_bytes)


class UnsupportedMediaType(ServiceError):
    status, code, message = 415, "UNSUPPORTED_MEDIA_TYPE", "The request body must be JSON"

    def __init__(self, content_type: str, *media_types: str) -> None:
        accepted = " or ".join(media_types)
        super().__init__(f"Send Content-Type: {accepted}, not {content_type}.", contentType=content_type)


class UnsupportedEncoding(ServiceError):
    """The body is compressed in a way that this service does not open."""

    status, code, message = 415, "UNSUPPORTED_ENCODING", "The request body cannot be opened"
    headers: Mapping[str, str] = {"Accept-Encoding": "gzip, deflate"}

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"Send the body as it is, or with Content-Encoding: gzip or deflate, not {encoding}.",
            contentEncoding=encoding,
        )


class RenewalFailed(ServiceError):
    """The session already ends at its maximum duration: nothing is left to extend."""

    status, code, message = 422, "SESSION_RENEWAL_FAILED", "Session cannot be renewed"

    def __init__(self, session_id: str, *, created_at_ms: int, max_duration_minutes: float, expires_at_ms: int) -> None:
        super().__init__(
            f"The session already ends at its maximum duration of {max_duration_minutes} minutes.",
            sessionId=session_id,
            maxDurationMinutes=max_duration_minutes,
            createdAt=iso(created_at_ms),
            expiresAt=iso(expires_at_ms),
        )


class TimeoutInThePast(ServiceError):
    """With the changed configuration the session would have ended already; nothing was changed."""

    status, code, message = 422, "INVALID_TIMEOUT_CONFIG", "Session would have ended already"

    def __init__(self, session_id: str, expires_at_ms: int) -> None:
        expires_at = iso(expires_at_ms)
        super().__init__(
            f"With this configuration the session would have ended at {expires_at}.",
            sessionId=session_id,
            expiresAt=expires_at,
        )


class IdempotencyKeyReused(ServiceError):
    """The caller gave the same key to another creation before. Nothing was created."""

    status, code, message = 422, "IDEMPOTENCY_KEY_REUSED", "Key was used for another request"

    def __init__(self) -> None:
        super().__init__("The Idempotency-Key came with another request before; each creation needs its own.")


class RateLimited(ServiceError):
    """None is left of what may be asked, or guessed, from one address or by one caller. Nothing was done."""

    status, code, message = 429, "RATE_LIMITED", "Too many requests"

    def __init__(self, limit: str, seconds: int) -> None:
        super().__init__(f"Nothing is left of the limit {limit!r}; try again in {seconds} s.", limit=limit)
        self.limit = limit
        self.headers = {"Retry-After": str(seconds)}


class HeaderFieldsTooLarge(ServiceError):
    """One header, or all of them: in number or in bytes."""

    status, code, message = 431, "REQUEST_HEADER_FIELDS_TOO_LARGE", "The request's headers are too large"

    def __init__(self, *, fields: int, field_bytes: int, bytes_in_all: int) -> None:
        super().__init__(
            f"There may be {fields} headers, of {field_bytes} bytes each and {bytes_in_all} in all.",
            maxFields=fields,
            maxFieldBytes=field_bytes,
            maxBytes=bytes_in_all,
        )


class InternalError(ServiceError):
    """A fault of ours. It is logged; the client learns only that it happened."""

    status, code, message = 500, "INTERNAL_ERROR", "Internal server error"

    def __init__(self) -> None:
        super().__init__("Something went wrong on our side.")


class StoreUnavailable(ServiceError):
    """Redis did not do what was asked. A change may or may not have happened. `why` is for the log."""

    status, code, message = 503, "STORE_UNAVAILABLE", "The session store is not available"
    headers: Mapping[str, str] = {"Retry-After": "1"}

    def __init__(self, why: str) -> None:
        super().__init__("The session store cannot do this at the moment; try again.")
        self.why = why


class TooManyConnections(ServiceError):
    """This process serves as many clients as it may. Nothing was read, and the connection is closed."""

    status, code, message = 503, "TOO_MANY_CONNECTIONS", "There are too many connections"
    headers: Mapping[str, str] = {"Retry-After": "1", "Connection": "close"}

    def __init__(self) -> None:
        super().__init__("As many clients are connected as can be served; nothing was done, try again.")


class IssuerUnavailable(ServiceError):
    """What tokens are signed with cannot be had from their issuer, so it is not known who asks. Nothing was done."""

    status, code, message = 503, "ISSUER_UNAVAILABLE", "The issuer of tokens does not answer"
    headers: Mapping[str, str] = {"Retry-After": "10"}

    def __init__(self) -> None:
        super().__init__("The token cannot be judged, for its issuer does not answer; nothing was done, try again.")


class Contention(ServiceError):
    """So many change this session at once that a change had no turn. Nothing was changed, and Redis is well."""

    status, code, message = 503, "CONTENTION", "Session is changed by too many at once"
    headers: Mapping[str, str] = {"Retry-After": "1"}

    def __init__(self, session_id: str) -> None:
        super().__init__("Others kept changing this session; nothing was changed, try again.", sessionId=session_id)


class CreationContention(ServiceError):
    """So many create sessions of one user or agent at once that one had no turn: it was not created. Redis is well."""

    status, code, message = 503, "CONTENTION", "Too many create sessions at once"
    headers: Mapping[str, str] = {"Retry-After": "1"}

    def __init__(self, limit: str, owner_id: str) -> None:
        super().__init__(
            f"Others kept creating sessions of this {limit}; none was created, try again.",
            **{"limit": limit, f"{limit}Id": owner_id},
        )


class OtherHTTPError(ServiceError):
    """A refusal of the HTTP layer that has no class of its own."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{reason}.")
        self.status = status  # type: ignore[misc]
        self.code = reason.upper().replace(" ", "_").replace("-", "_")  # type: ignore[misc]
        self.message = reason  # type: ignore[misc]
