"""One server of several away: what lies on it is passed over, what lies on the others is done."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

from service.errors import StoreUnavailable
from service.redis_client.client import Reply
from service.redis_client.scripts import Command


class PartialFailure:
    """Met on the way through work on many servers: passed over `with` this, and raised at the end."""

    def __init__(self) -> None:
        self._first: StoreUnavailable | None = None

    def __bool__(self) -> bool:
        return self._first is not None

    def __enter__(self) -> None:
        """What is done within may be put off by a server that is away."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if isinstance(error, StoreUnavailable):
            self._first = self._first or error
        return isinstance(error, StoreUnavailable)

    def tell(self) -> None:
        """Raises StoreUnavailable where any was met."""
        if self._first is not None:
            raise self._first


async def run_all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all at once; what one raises is raised when the others are done."""
    parts = list(work)
    if len(parts) == 1:  # which needs no task of its own
        await parts[0]
        return
    for error in await asyncio.gather(*parts, return_exceptions=True):
        if error is not None:
            raise error


async def replies_or_none(
    call: Callable[..., Awaitable[list[Reply]]], commands: Sequence[Command], failures: PartialFailure
) -> list[Reply]:
    """The reply to each command, None where its server did not do it. What is said twice must do no harm.

    All go in one call, which costs least; each in one of its own only where an outage was met, which in one call would
    take with it what other servers answered.
    """
    if commands and not failures:
        try:
            return await call(*commands)
        except StoreUnavailable:
            pass
    replies: list[Reply] = [None] * len(commands)

    async def ask(place: int) -> None:
        with failures:
            (replies[place],) = await call(commands[place])

    await run_all(ask(place) for place in range(len(commands)))
    return replies
