"""What goes around every request: whatever is raised in answering it becomes a response here.

It wraps the whole application and is no aiohttp middleware: those cost more, and do not see what aiohttp refuses itself
before it has found a handler.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import ClientConnectionResetError, HttpVersion10, HttpVersion11, web
from aiohttp.web_urldispatcher import MatchInfoError

from service.api.responses import error_response
from service.errors import (
    InternalError,
    MalformedRequest,
    MethodNotAllowed,
    OtherHTTPError,
    PayloadTooLarge,
    RouteNotFound,
    ServiceError,
)
from service.rate_limit.status import RATE_LIMIT_STATUS
from service.settings import MAX_BODY_BYTES

Handle = Callable[[Any], Awaitable[web.StreamResponse]]

PROBES = frozenset(("/livez", "/readyz", "/metrics"))
"""What machines ask every few seconds: worth no line of the log and no trace."""

_EXPECTATION_FAILED = OtherHTTPError(417, "Expectation Failed")
_LEFT = MalformedRequest("The client left before it was told to go on.")

_log = logging.getLogger(__name__)


def errors_middleware(handle: Handle, error_format: str) -> Handle:
    """Map every refusal to its body; anything else is logged and answered 500, empty-handed."""

    async def answer(request: Any) -> web.StreamResponse:
        try:
            if request._version is not HttpVersion11:
                _require_spoken(request)
            return await handle(request)
        except ServiceError as refusal:
            return _response(request, refusal)
        except web.HTTPException as error:
            return _response(request, _refusal_of(request, error))
        except ClientConnectionResetError:
            return error_response(_LEFT, error_format)  # to nobody, but in the log
        except Exception:
            if not request.headers.get("Expect", "").isascii():
                return error_response(_EXPECTATION_FAILED, error_format)  # aiohttp, before it asked a handler
            _log.exception("a request failed")  # its line, which has the same request_id, says which
            return _response(request, InternalError())

    def _response(request: Any, refusal: ServiceError) -> web.StreamResponse:
        response = error_response(refusal, error_format)
        told = request.get(RATE_LIMIT_STATUS)
        if told is not None:
            response.headers.update(told.fields())
        return response

    return answer


def route_of(request: web.Request) -> str | None:
    """The template of the route that a request took; None where there was none."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else None


def _require_spoken(request: Any) -> None:
    """Raises MalformedRequest for HTTP/0.9 and HTTP/2.0, which aiohttp's parser lets pass as if they were HTTP/1."""
    major, minor = request._version
    if (major, minor) not in (HttpVersion10, HttpVersion11):
        request._version = HttpVersion10  # of the answer
        request._match_info = MatchInfoError(web.HTTPBadRequest())  # no route is looked for any more
        raise MalformedRequest(f"HTTP/{major}.{minor} is not spoken here; HTTP/1.1 is.")


def _refusal_of(request: web.BaseRequest, error: web.HTTPException) -> ServiceError:
    match error:
        case web.HTTPNotFound():
            return RouteNotFound(f"There is nothing at {request.rel_url.path}.")
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(error.method, ", ".join(sorted(error.allowed_methods)))
        case web.HTTPRequestEntityTooLarge():
            return PayloadTooLarge(MAX_BODY_BYTES)
        case _:
            return OtherHTTPError(error.status, error.reason)
