"""What Sentinels say: which server is the primary, and without delay when it is another one."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.settings.redis_url import Host

_CHANNELS = ("+promoted-slave", "+switch-master")
"""Where the Sentinel that leads a failover, and then each other one, says that there is another primary."""

_LOOK_SECONDS = 1
"""How often each is asked besides: what is said on a channel reaches only those who listen at that moment."""

_log = logging.getLogger(__name__)


class Said(NamedTuple):
    epoch: int
    """Grows with each failover: who says a greater one knows more."""
    host: Host


class Sentinels:
    """All are asked at once, for one may be silent and another not have heard yet of a failover: the newest counts.

    `on_primary` is told who it is whenever it may be another. From the first question on they are listened to, since a
    server that was replaced goes on as a primary until it is told, which is seconds after the others.
    """

    def __init__(self, clients: Sequence[Redis], master: str, on_primary: Callable[[Host], None]) -> None:
        self._clients = clients
        self._master = master
        self._on_primary = on_primary
        self._newest: Said | None = None
        self._listening: list[asyncio.Task[None]] = []
        self._closed = False

    async def primary(self) -> Host:
        """Raises ConnectionError where none of them knows."""
        self._listen()
        answers = await asyncio.gather(*map(self._asked, self._clients), return_exceptions=True)
        said = [answer for answer in answers if isinstance(answer, Said)]
        if not said:
            raise ConnectionError(f"no Sentinel says which server is the primary: {'; '.join(map(_why, answers))}")
        newest = max(said)
        self._is_primary(newest)
        return newest.host

    async def aclose(self) -> None:
        self._closed = True
        for task in self._listening:
            task.cancel()
        if self._listening:
            await asyncio.wait(self._listening)
        for client in self._clients:
            await client.aclose()

    def _listen(self) -> None:
        if not self._listening and not self._closed:
            self._listening = [asyncio.create_task(self._listen_to(client)) for client in self._clients]

    async def _listen_to(self, client: Redis) -> None:
        while not self._closed:  # redis-py may swallow that the task was cancelled
            with suppress(RedisError, OSError, TimeoutError):
                self._heed(await self._asked(client))
                await self._heed_while_connected(client)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _heed_while_connected(self, client: Redis) -> None:
        async with client.pubsub() as channels:
            await channels.subscribe(*_CHANNELS)
            while not self._closed:
                self._heed(await self._asked(client))
                await channels.get_message(timeout=_LOOK_SECONDS)

    async def _asked(self, client: Redis) -> Said:
        async with client.pipeline(transaction=False) as questions:
            questions.execute_command("SENTINEL MASTER", self._master)
            questions.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self._master)
            state, (host, port) = await questions.execute()
        return Said(state["config-epoch"], (host.decode(), int(port)))

    def _heed(self, said: Said) -> None:
        """One alone is believed what is newer; the rest is for all of them to say."""
        if self._newest is None or (said.epoch >= self._newest.epoch and said.host != self._newest.host):
            self._is_primary(said)

    def _is_primary(self, said: Said) -> None:
        if self._newest is not None and said.host != self._newest.host:
            _log.info("the primary of the session store is now %s:%d", *said.host)
        self._newest = said
        self._on_primary(said.host)


def _why(failure: object) -> str:
    """A server that does not know a command repeats what it was told with it: the password, if that was AUTH."""
    return "it does not know the command" if "unknown command" in str(failure).lower() else str(failure)
