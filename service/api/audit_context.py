"""Who makes a request and from where, for the audit: found out only once there is something to tell."""

from collections.abc import Iterable, Iterator
from functools import partial, wraps

from aiohttp import web

from service.api.app_keys import CLIENT_ADDRESSES
from service.api.middleware import Handle
from service.auth.scopes import CALLER
from service.observability.audit import ORIGIN, Origin


def origin_of(request: web.Request) -> Origin:
    """Whoever has not been let in is `anonymous`, and so is everybody where nobody is asked."""
    address = request.app[CLIENT_ADDRESSES].of(request)
    caller = request.get(CALLER)
    if caller is None:
        return Origin("anonymous", address=address)
    return Origin(caller.kind, caller.name, address)


def audited(routes: Iterable[web.RouteDef], *, is_on: bool) -> Iterator[web.RouteDef]:
    """The routes, those that are `audited` with their requests' origins at hand, where there is an audit."""
    for route in routes:
        options = {name: value for name, value in route.kwargs.items() if name != "audited"}
        is_told = is_on and route.kwargs.get("audited", False)
        yield web.route(route.method, route.path, _with_origin(route.handler) if is_told else route.handler, **options)


def _with_origin(handle: Handle) -> Handle:
    @wraps(handle)
    async def answer(request: web.Request) -> web.StreamResponse:
        ORIGIN.set(partial(origin_of, request))
        return await handle(request)

    return answer
