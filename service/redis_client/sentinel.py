"""Find the primary through Sentinels, and notice a failover at once."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.settings.redis_url import Host

_CHANNELS = ("+promoted-slave", "+switch-master")
"""The leading Sentinel publishes the first one during a failover; the other Sentinels publish the second one."""

_POLL_SECONDS = 1
"""Sentinels are polled as well: a message reaches only the clients that are connected when it is published."""

_MAX_PAUSE_SECONDS = 16
"""The longest pause after unexpected replies of a Sentinel."""

_CANCEL_SECONDS = 0.05
"""redis-py may swallow a cancellation: the task is cancelled again after this time."""

_log = logging.getLogger(__name__)


class Primary(NamedTuple):
    """The primary according to one Sentinel. The configuration epoch grows with each failover."""

    epoch: int
    host: Host


class Sentinels:
    """Queries all Sentinels at once and uses the newest reply: some may be down, or not know of a failover yet.

    Calls `on_primary` whenever the primary may have changed. Subscribes to all Sentinels after the first query: a
    replaced server continues as a primary for seconds, until a Sentinel demotes it.
    """

    def __init__(self, clients: Sequence[Redis], master: str, on_primary: Callable[[Host], None]) -> None:
        self._clients = clients
        self._master = master
        self._on_primary = on_primary
        self._newest: Primary | None = None
        self._subscriptions: list[asyncio.Task[None]] = []
        self._is_closed = False

    async def primary(self) -> Host:
        """Raises ConnectionError if no Sentinel names a primary."""
        self._subscribe()
        replies = await asyncio.gather(*map(self._query, self._clients), return_exceptions=True)
        primaries = [reply for reply in replies if isinstance(reply, Primary)]
        if not primaries:
            raise ConnectionError(f"no Sentinel names a primary: {'; '.join(map(_message_of, replies))}")
        newest = max(primaries)
        self._set_newest(newest)
        return newest.host

    async def aclose(self) -> None:
        self._is_closed = True
        pending = set(self._subscriptions)
        while pending:
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=_CANCEL_SECONDS)
        for client in self._clients:
            await client.aclose()

    def _subscribe(self) -> None:
        if not self._subscriptions and not self._is_closed:
            self._subscriptions = [asyncio.create_task(self._follow(client)) for client in self._clients]

    async def _follow(self, client: Redis) -> None:
        pause_seconds: float = _POLL_SECONDS
        while not self._is_closed:
            try:
                self._accept_if_newer(await self._query(client))
                pause_seconds = _POLL_SECONDS
                await self._follow_while_connected(client)
            except (RedisError, OSError, TimeoutError):
                pass
            except Exception as error:  # a Sentinel may reply anything, for example nil to an unknown master
                _log.warning("a Sentinel is queried again after an error: %s: %s", type(error).__name__, error)
                pause_seconds = min(2 * pause_seconds, _MAX_PAUSE_SECONDS)
            await asyncio.sleep(pause_seconds)

    async def _follow_while_connected(self, client: Redis) -> None:
        async with client.pubsub() as channels:
            await channels.subscribe(*_CHANNELS)
            while not self._is_closed:
                self._accept_if_newer(await self._query(client))
                await channels.get_message(timeout=_POLL_SECONDS)

    async def _query(self, client: Redis) -> Primary:
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("SENTINEL MASTER", self._master)
            pipeline.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self._master)
            state, (host, port) = await pipeline.execute()
        return Primary(state["config-epoch"], (host.decode(), int(port)))

    def _accept_if_newer(self, primary: Primary) -> None:
        if self._newest is None or (primary.epoch >= self._newest.epoch and primary.host != self._newest.host):
            self._set_newest(primary)

    def _set_newest(self, primary: Primary) -> None:
        if self._newest is not None and primary.host != self._newest.host:
            _log.info("the Redis primary is now %s:%d", *primary.host)
        self._newest = primary
        self._on_primary(primary.host)


def _message_of(error: object) -> str:
    """An error message without credentials: a server that does not support AUTH repeats the password."""
    return "it does not support the command" if "unknown command" in str(error).lower() else str(error)
