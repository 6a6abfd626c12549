"""Sharded pub/sub: one connection per server, opened while a channel has listeners.

Messages only announce that data changed. After a lost connection, listeners learn that they may have missed messages.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from service.errors import StoreUnavailable
from service.redis_client.monitor import Incident
from service.settings.redis_url import Host

PING_SECONDS = 5
"""A connection that receives nothing for twice this time is lost."""

_MAX_PAUSE_SECONDS = 2

_log = logging.getLogger(__name__)

Locate = Callable[[str], Awaitable[Host | None]]
"""Returns the server of a channel. None: there is only one server."""
ConnectTo = Callable[[Host | None], Awaitable[AbstractConnection]]
"""Returns a redis-py connection to a server that is not open."""


class ChannelListener(Protocol):
    """Receives the messages of channels. Its methods must not wait."""

    def on_message(self, message: str) -> None: ...

    def on_gap(self) -> None:
        """Messages may have been missed."""


class Subscriber:
    """Subscribes to sharded channels, again after every failure, until the last listener leaves."""

    def __init__(self, locate: Locate, connect_to: ConnectTo, timeout_seconds: float) -> None:
        self._locate = locate
        self._connect_to = connect_to
        self._timeout_seconds = timeout_seconds
        self._listeners: dict[str, set[ChannelListener]] = {}
        self._links: dict[Host | None, _Link] = {}
        self._ready: dict[str, asyncio.Event] = {}
        self._moving: set[asyncio.Task[None]] = set()
        self._outage = Incident("live updates are delayed by the session store", "live updates continue")
        self._is_closed = False

    async def subscribe(self, channel: str, listener: ChannelListener) -> None:
        """Return when messages reach the listener. Raises StoreUnavailable. Call `unsubscribe` in any case."""
        if self._is_closed:
            raise StoreUnavailable("the service is stopping")
        listeners = self._listeners.setdefault(channel, set())
        listeners.add(listener)
        ready = self._ready.get(channel)
        if ready is None:
            ready = self._ready[channel] = asyncio.Event()
            self._move(channel)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await ready.wait()
        except TimeoutError:
            raise StoreUnavailable(f"no subscription within {self._timeout_seconds:g} s") from None

    def unsubscribe(self, channel: str, listener: ChannelListener) -> None:
        listeners = self._listeners.get(channel, set())
        listeners.discard(listener)
        if not listeners and channel in self._ready:
            del self._listeners[channel], self._ready[channel]
            for link in self._links.values():
                link.remove(channel)

    def leave_other_servers(self, host: Host) -> None:
        """Subscribe again on the server that is the primary now."""
        for location, link in list(self._links.items()):
            if location != host:
                link.fail(ConnectionAbortedError("another server is the primary now"))

    async def aclose(self) -> None:
        self._is_closed = True
        tasks = [*self._moving, *[link.task for link in self._links.values()]]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def subscribed(self, channel: str) -> None:
        """The server confirmed a subscription."""
        ready = self._ready.get(channel)
        if ready is None:
            return
        self._outage.record_success()
        is_first = not ready.is_set()
        ready.set()
        if not is_first:
            for listener in list(self._listeners[channel]):
                listener.on_gap()

    def received(self, channel: str, message: str) -> None:
        for listener in list(self._listeners.get(channel, ())):
            listener.on_message(message)

    def lost(self, location: Host | None, channels: set[str], error: Exception) -> None:
        """The link failed: find the servers of its channels and subscribe again."""
        self._links.pop(location, None)
        if self._is_closed:
            return
        if channels:
            self._outage.record_failure(error)
        for channel in channels:
            self._move(channel)

    def _move(self, channel: str) -> None:
        task = asyncio.create_task(self._subscribe(channel))
        self._moving.add(task)
        task.add_done_callback(self._moving.discard)

    async def _subscribe(self, channel: str) -> None:
        pause = 0.05
        while channel in self._listeners:
            try:
                location = await self._locate(channel)
            except (StoreUnavailable, RedisError, OSError, TimeoutError) as error:
                self._outage.record_failure(error)
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
                continue
            if channel not in self._listeners:
                return
            link = self._links.get(location)
            if link is None:
                link = self._links[location] = _Link(self, location, self._connect_to, self._timeout_seconds)
            link.add(channel)
            return


class _Link:
    """One connection in subscriber mode."""

    def __init__(
        self, subscriber: Subscriber, location: Host | None, connect_to: ConnectTo, timeout_seconds: float
    ) -> None:
        self._subscriber = subscriber
        self._location = location
        self._connect_to = connect_to
        self._connection: AbstractConnection | None = None
        self._timeout_seconds = timeout_seconds
        self._channels: set[str] = set()
        self._leaving: Counter[str] = Counter()
        """Replies to SUNSUBSCRIBE that have not arrived. Others mean that the slot moved."""
        self._commands: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
        self._error: Exception | None = None
        self.task = asyncio.create_task(self._communicate())
        self.task.add_done_callback(self._end)

    def add(self, channel: str) -> None:
        self._channels.add(channel)
        self._commands.put_nowait(("SSUBSCRIBE", channel))

    def remove(self, channel: str) -> None:
        if channel in self._channels:
            self._channels.discard(channel)
            self._leaving[channel] += 1
            self._commands.put_nowait(("SUNSUBSCRIBE", channel))

    def fail(self, error: Exception) -> None:
        if self._error is None:  # a second cancellation would interrupt the cleanup
            self._error = error
            self.task.cancel()

    def _end(self, task: asyncio.Task[Exception]) -> None:
        """Also called if the task was cancelled before it began."""
        error = self._error or ConnectionAbortedError("the service is stopping") if task.cancelled() else task.result()
        self._subscriber.lost(self._location, self._channels, error)

    async def _communicate(self) -> Exception:
        """Return the error that ended the connection, after a pause."""
        error: Exception = ConnectionResetError("Redis closed the connection")
        parts: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = self._connection = await self._connect_to(self._location)
                connection.client_name = None  # would require the permission for CLIENT SETNAME
                # not connect(), which queries a Sentinel with a command that accounts need no permission for
                await connection.connect_check_health(check_health=False, retry_socket_connect=False)
            parts = [asyncio.create_task(self._send(connection)), asyncio.create_task(self._receive(connection))]
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        except (RedisError, OSError, TimeoutError) as failure:
            error = failure
            await asyncio.sleep(random.uniform(0.1, 0.5))
        except Exception as failure:
            _log.exception("a subscription failed and is repeated")
            error = failure
            await asyncio.sleep(_MAX_PAUSE_SECONDS)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            if self._connection is not None:
                await self._connection.disconnect(nowait=True)
        return error

    async def _send(self, connection: AbstractConnection) -> None:
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    command = await self._commands.get()
            except TimeoutError:
                command = ("PING",)
            await connection.send_command(*command, check_health=False)

    async def _receive(self, connection: AbstractConnection) -> None:
        while True:
            reply: Any = await connection.read_response(timeout=2 * PING_SECONDS, push_request=True)
            match reply:
                case [b"smessage", channel, message]:
                    self._subscriber.received(channel.decode(), message.decode())
                case [b"ssubscribe", channel, _]:
                    self._subscriber.subscribed(channel.decode())
                case [b"sunsubscribe", channel, _]:
                    self._left(channel.decode())
                case None:
                    raise TimeoutError("the server does not respond")
                case _:
                    pass

    def _left(self, channel: str) -> None:
        if self._leaving[channel]:
            self._leaving[channel] -= 1
        else:
            raise ConnectionAbortedError("the slot of a channel moved to another server")
