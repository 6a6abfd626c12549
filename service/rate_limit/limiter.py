"""The door before each route: who has asked too much, or guessed too often, has to wait before it."""

from collections.abc import Iterable, Iterator
from functools import wraps

from aiohttp import web
from prometheus_client import Counter

from service.api.client_address import ClientAddresses
from service.api.middleware import Handle
from service.auth.scopes import CALLER, Caller
from service.errors import RateLimited, ServiceError, SessionNotFound, Unauthorized
from service.rate_limit.buckets import Buckets
from service.rate_limit.limit import Allowance, Limit
from service.rate_limit.status import RATE_LIMIT_STATUS, RateLimitStatus
from service.rate_limit.subjects import subject_of_address, subject_of_caller
from service.sessions.keys import BucketKeys, Keys


class RateLimiter:
    """Counts requests by the address they come from and, once it is known, by their caller; and guesses among them.

    A guess is a session's id that is unknown, or a key or token that nobody has. Where none are left, whatever names a
    session waits without being looked at. So no more misses are ever told than are allowed; but what comes at once is
    looked at before the first miss is counted, and a hit among that is told.
    """

    def __init__(
        self,
        addresses: ClientAddresses,
        keys: Keys,
        buckets: Buckets,
        of_address: Allowance,
        of_caller: Allowance,
        limited: Counter,
    ) -> None:
        self._addresses = addresses
        self._keys = keys
        self._buckets = buckets
        self._of_address = of_address
        self._of_caller = of_caller
        self._limited = limited

    def before(self, handle: Handle, *, names_a_session: bool) -> Handle:
        """The handler, for what comes from addresses that may ask."""
        requests, failed_lookups = self._of_address
        bar = failed_lookups if names_a_session else None

        @wraps(handle)
        async def let_in(request: web.Request) -> web.StreamResponse:
            told = request[RATE_LIMIT_STATUS] = RateLimitStatus()
            await self._take(self._requests_from(request), requests, bar, told)
            try:
                response = await handle(request)
            except (SessionNotFound, Unauthorized) as refusal:
                await self._count_guess(request, refusal, told)
                raise
            response.headers.update(told.fields())
            return response

        return let_in

    def beside(self, handle: Handle) -> Handle:
        """A handler that is not limited, but for the keys that may be guessed at it."""

        @wraps(handle)
        async def look(request: web.Request) -> web.StreamResponse:
            try:
                return await handle(request)
            except Unauthorized as refusal:
                told = request[RATE_LIMIT_STATUS] = RateLimitStatus()
                await self._count_guess(request, refusal, told)
                raise

        return look

    async def admit(self, request: web.Request, caller: Caller) -> None:
        """Count the request by its caller, who is known by now. Raises RateLimited."""
        told = request.get(RATE_LIMIT_STATUS)
        if told is not None:  # else it is at a route that is not limited
            requests, failed_lookups = self._of_caller
            bar = failed_lookups if "session_id" in request.match_info else None
            await self._take(self._keys.requests("caller", subject_of_caller(caller)), requests, bar, told)

    async def _count_guess(self, request: web.Request, refusal: ServiceError, told: RateLimitStatus) -> None:
        """Raises RateLimited in the place of the refusal where one more may not be told."""
        if isinstance(refusal, Unauthorized) and not refusal.is_failed_lookup:
            return
        subject = subject_of_address(self._addresses.of(request))
        await self._take(self._keys.failed_lookups("address", subject), self._of_address.failed_lookups, None, told)
        caller = request.get(CALLER)
        if caller is not None:
            failed_lookups = self._keys.failed_lookups("caller", subject_of_caller(caller))
            await self._take(failed_lookups, self._of_caller.failed_lookups, None, told)

    async def _take(self, keys: BucketKeys, limit: Limit | None, bar: Limit | None, told: RateLimitStatus) -> None:
        try:
            await self._buckets.take(keys, limit, bar, told)
        except RateLimited as refusal:
            self._limited.labels(refusal.limit).inc()
            raise refusal from None

    def _requests_from(self, request: web.Request) -> BucketKeys:
        return self._keys.requests("address", subject_of_address(self._addresses.of(request)))


def limited(routes: Iterable[web.RouteDef], rate_limiter: RateLimiter | None) -> Iterator[web.RouteDef]:
    """The routes behind the door, if there is one."""
    for route in routes:
        names_a_session = "{session_id" in route.path
        yield (
            route
            if rate_limiter is None
            else _with(route, rate_limiter.before(route.handler, names_a_session=names_a_session))
        )


def beside_limits(routes: Iterable[web.RouteDef], rate_limiter: RateLimiter | None) -> Iterator[web.RouteDef]:
    """Routes that are not limited."""
    for route in routes:
        yield route if rate_limiter is None else _with(route, rate_limiter.beside(route.handler))


def _with(route: web.RouteDef, handle: Handle) -> web.RouteDef:
    return web.route(route.method, route.path, handle, **route.kwargs)
