"""Authenticate callers and check their permissions before a route's handler runs."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial, wraps
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from service.api.audit_context import origin_of
from service.api.middleware import Handle, route_of
from service.auth.scopes import CALLER, Caller, Permission
from service.errors import Forbidden, Unauthorized
from service.observability.audit import Audit

if TYPE_CHECKING:
    from service.auth.tokens import Tokens

Admit = Callable[[web.Request, Caller], Awaitable[None]]

_BEARER = "bearer"


class KeyRing(Protocol):
    def caller(self, key: str) -> Caller | None: ...


class Authenticator:
    """Lets in those who have a key, where there are keys, or bear a token, where there are tokens.

    Who is known has to be admitted too, where that is asked for: before any session is looked at.
    """

    def __init__(
        self,
        keys: KeyRing | None,
        tokens: "Tokens | None",
        admit: Admit | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._admit = admit
        self._audit = audit

    def before(self, handle: Handle, need: Permission) -> Handle:
        """Return the handler behind authentication and the permission that it needs."""

        @wraps(handle)
        async def let_in(request: web.Request) -> web.StreamResponse:
            try:
                presented = _presented(request)
                caller = self._caller_by_key(presented) or await self._caller_by_token(presented)
                request[CALLER] = caller
                need.require_met_by(caller)
                if self._admit is not None:
                    await self._admit(request, caller)
                return await handle(request)
            except (Unauthorized, Forbidden) as refusal:
                self._tell(request, refusal)
                raise

        return let_in

    async def aclose(self) -> None:
        if self._tokens is not None:
            await self._tokens.aclose()

    def _tell(self, request: web.Request, refusal: Unauthorized | Forbidden) -> None:
        if self._audit is not None:
            self._audit.tell(
                "access",
                outcome="refused",
                origin=partial(origin_of, request),
                session=request.match_info.get("session_id"),
                method=request.method,
                route=route_of(request),
                status=refusal.status,
                **refusal.facts,
            )

    def _caller_by_key(self, presented: str) -> Caller | None:
        return None if self._keys is None else self._keys.caller(presented)

    async def _caller_by_token(self, presented: str) -> Caller:
        if self._tokens is None:
            raise Unauthorized.unknown()
        return await self._tokens.caller(presented)


def with_authentication(routes: Iterable[web.RouteDef], authenticator: Authenticator | None) -> Iterator[web.RouteDef]:
    """The routes behind the guard, if there is one. Each says what it `needs`: KeyError where one does not."""
    for route in routes:
        need: Permission | None = route.kwargs["needs"]
        handle = route.handler if authenticator is None or need is None else authenticator.before(route.handler, need)
        options = {name: value for name, value in route.kwargs.items() if name != "needs"}
        yield web.route(route.method, route.path, handle, **options)


def _presented(request: web.Request) -> str:
    """The key or token that came with a request. Raises Unauthorized."""
    headers = request.headers
    key = headers.get("X-API-KEY")
    if key is not None:
        return key
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != _BEARER:
        raise Unauthorized("Give a key in X-API-KEY, or a key or token as Authorization: Bearer.", reason="missing")
    return token.strip()
