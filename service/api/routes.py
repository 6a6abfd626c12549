"""The route type, the table in which modules declare their routes, and redirects to routes."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from service.auth.scopes import Permission

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROBE_PATHS = frozenset(("/livez", "/readyz", "/metrics"))
"""Called every few seconds. Successful requests are logged at debug level and not traced."""


class Route(NamedTuple):
    """A handler and the requirements that middleware enforces before it."""

    method: str
    path: str
    handler: Handler
    permission: Permission | None
    """None: requires no authentication."""
    serves_sessions: bool = False
    """Whether the route uses stored sessions. It then requires a supported schema version and is rate limited."""
    is_audited: bool = False
    returns_page: bool = False
    """Whether the response can be large. The process then limits concurrent and unread responses."""

    @property
    def names_session(self) -> bool:
        return "{session_id" in self.path


class RouteTable(list[Route]):
    """The routes of one module. Its methods are decorators for handlers."""

    def __init__(self, *, serve_sessions: bool) -> None:
        super().__init__()
        self._serve_sessions = serve_sessions

    def get(
        self, path: str, *, permission: Permission | None, returns_page: bool = False
    ) -> Callable[[Handler], Handler]:
        return self._route("GET", path, permission, returns_page=returns_page)

    def post(self, path: str, *, permission: Permission, is_audited: bool = False) -> Callable[[Handler], Handler]:
        return self._route("POST", path, permission, is_audited)

    def put(self, path: str, *, permission: Permission, is_audited: bool = False) -> Callable[[Handler], Handler]:
        return self._route("PUT", path, permission, is_audited)

    def patch(self, path: str, *, permission: Permission, is_audited: bool = False) -> Callable[[Handler], Handler]:
        return self._route("PATCH", path, permission, is_audited)

    def delete(self, path: str, *, permission: Permission, is_audited: bool = False) -> Callable[[Handler], Handler]:
        return self._route("DELETE", path, permission, is_audited)

    def _route(
        self,
        method: str,
        path: str,
        permission: Permission | None,
        is_audited: bool = False,
        returns_page: bool = False,
    ) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            self.append(Route(method, path, handler, permission, self._serve_sessions, is_audited, returns_page))
            return handler

        return add


def path_template_of(request: web.Request) -> str | None:
    """Return the path template of the matched route, or None without a match."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else None


async def redirect_for(request: web.Request) -> web.StreamResponse | None:
    """Redirect `/` to the documentation, and a path with a trailing slash to the route without it.

    Locations are relative, for proxies that remove a prefix. Raises HTTPMethodNotAllowed as the route without it does.
    """
    path = request.rel_url.raw_path
    if path == "/":
        return _redirect(302, "docs")
    if not path.endswith("/"):
        return None
    url = request.rel_url.with_path(path[:-1], encoded=True)
    match = await request.app.router.resolve(request.clone(rel_url=url))
    if isinstance(match.http_exception, web.HTTPMethodNotAllowed):
        raise match.http_exception
    if match.http_exception is not None:
        return None
    query = request.rel_url.raw_query_string
    return _redirect(308, f"../{url.raw_name}?{query}" if query else f"../{url.raw_name}")


def _redirect(status: int, location: str) -> web.Response:
    return web.Response(status=status, headers={"Location": location, "Cache-Control": "no-store"})
