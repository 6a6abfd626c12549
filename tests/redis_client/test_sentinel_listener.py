"""The listener to a Sentinel continues after errors and unexpected replies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service.redis_client.sentinel import Sentinels
from service.settings.redis_url import Host

OLD_PRIMARY, NEW_PRIMARY = ("old", 6379), ("new", 6379)


def replies_for(host: Host, epoch: int) -> list[Any]:
    return [{"config-epoch": epoch}, (host[0].encode(), host[1])]


class FakeSentinel:
    """Gives each of `replies` once, and then repeats the last one. Raises those that are exceptions."""

    def __init__(self, *replies: Any) -> None:
        self._replies = list(replies)

    @asynccontextmanager
    async def pipeline(self, **_: object) -> AsyncIterator["FakeSentinel"]:
        yield self

    @asynccontextmanager
    async def pubsub(self) -> AsyncIterator["FakeSentinel"]:
        yield self

    def execute_command(self, *_: object) -> None: ...

    async def subscribe(self, *_: object) -> None: ...

    async def get_message(self, **_: object) -> None:
        await asyncio.sleep(0)

    async def execute(self) -> Any:
        await asyncio.sleep(0)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def aclose(self) -> None: ...


@pytest.mark.parametrize(
    "reply",
    [[None, None], [{}, (b"old", 6379)], [{"config-epoch": 1}, (b"\xff", 6379)], RedisConnectionError("away")],
    ids=["unknown master", "no epoch", "not text", "no connection"],
)
async def test_a_failover_is_noticed_after_an_unexpected_reply(reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.redis_client.sentinel._POLL_SECONDS", 0.001)
    first = replies_for(OLD_PRIMARY, 1)
    sentinel = FakeSentinel(first, first, reply, reply, replies_for(NEW_PRIMARY, 2))
    primaries: asyncio.Queue[Host] = asyncio.Queue()
    sentinels = Sentinels([cast(Redis, sentinel)], "primary", primaries.put_nowait)

    assert await sentinels.primary() == OLD_PRIMARY
    while await primaries.get() != NEW_PRIMARY:
        continue
    await sentinels.aclose()
