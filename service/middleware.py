"""The one place where what a handler raises becomes a response."""

import logging

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from service.errors import (
    InternalError,
    MethodNotAllowed,
    OtherHTTPError,
    PayloadTooLarge,
    Refusal,
    RouteNotFound,
)
from service.settings import MAX_BODY_BYTES
from service.wire import refusal_response

_log = logging.getLogger(__name__)


def refusals(error_format: str) -> Middleware:
    """Map every refusal to its body; anything else is logged and answered 500, empty-handed."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refusal_response(refusal, error_format)
        except web.HTTPException as error:
            return refusal_response(_refusal_of(request, error), error_format)
        except Exception:
            _log.exception("a request failed: %s %s", request.method, request.rel_url.path)
            return refusal_response(InternalError(), error_format)

    return answer


def _refusal_of(request: web.Request, error: web.HTTPException) -> Refusal:
    match error:
        case web.HTTPNotFound():
            return RouteNotFound(f"There is nothing at {request.rel_url.path}.")
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(error.method, ", ".join(sorted(error.allowed_methods)))
        case web.HTTPRequestEntityTooLarge():
            return PayloadTooLarge(MAX_BODY_BYTES)
        case _:
            return OtherHTTPError(error.status, error.reason)
