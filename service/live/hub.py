"""Pass changes of sessions to the listeners of this process.

A channel's message only announces a change. A feed then reads what follows its position in the history, so that
listeners miss nothing, even if the subscription is lost.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from service.errors import SessionExpired, SessionNotFound, StoreUnavailable
from service.live.events import Draining, HistoryGap, LiveEvent, SessionChanged, SessionEnded
from service.messages.history import MAX_CHUNKS, MessageHistory
from service.messages.message import Cancellation, Chunk
from service.observability.metrics import Metrics
from service.redis_client.subscriber import Subscriber
from service.sessions.keys import Keys
from service.sessions.session import Session
from service.sessions.store import SessionStore

MAX_QUEUED_EVENTS = 256
"""A listener that is further behind is dropped; it resumes from the history."""

_RETRY_SECONDS = 0.5
_EXPIRY_MARGIN_SECONDS = 0.005

_log = logging.getLogger(__name__)


class ListenerDropped(Exception):  # noqa: N818  (the client is too slow, which is no error of the service)
    """The listener is too far behind."""


class Listener:
    """The events of one session for one client, in order."""

    def __init__(self) -> None:
        self._events: deque[LiveEvent] = deque()
        self._max_events = MAX_QUEUED_EVENTS
        self._is_dropped = False
        self._waiter: asyncio.Future[None] | None = None

    async def next(self, timeout_seconds: float) -> LiveEvent | None:
        """Return the next event, or None after the timeout. Raises ListenerDropped."""
        if not self._events and not self._is_dropped:
            self._waiter = asyncio.get_running_loop().create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._waiter
            self._waiter = None
        if self._is_dropped:
            raise ListenerDropped
        return self._events.popleft() if self._events else None

    def begin(self, chunks: list[Chunk]) -> None:
        """Receive the parts of unfinished answers first, and no event from before."""
        self._events.clear()
        self._events.extend(chunks)
        self._max_events = MAX_QUEUED_EVENTS + len(chunks)

    def put(self, event: LiveEvent) -> bool:
        """Add an event. Return False if the listener is dropped instead."""
        if len(self._events) >= self._max_events:
            self._is_dropped = True
            self._events.clear()
        else:
            self._events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return not self._is_dropped


class Hub:
    """The feeds of all sessions that have listeners in this process."""

    def __init__(
        self, subscriber: Subscriber, keys: Keys, store: SessionStore, history: MessageHistory, metrics: Metrics
    ) -> None:
        self.subscriber = subscriber
        self.keys = keys
        self.store = store
        self.history = history
        self.metrics = metrics
        self._feeds: dict[str, Feed] = {}
        self._channels: dict[str, _ShardChannel] = {}
        self._is_draining = False

    @asynccontextmanager
    async def listening(self, session_id: str) -> AsyncIterator[Listener]:
        """Add a listener for the time of the context. Raises as `join` does."""
        listener = await self.join(session_id)
        try:
            yield listener
        finally:
            self.leave(session_id, listener)

    async def join(self, session_id: str) -> Listener:
        """Add a listener. It receives every event from now on. Raises StoreUnavailable.

        Read the session and the history after this call: then nothing is between them and the first event.
        """
        listener = Listener()
        feed = self._feeds.get(session_id)
        if feed is None:
            feed = self._feeds[session_id] = Feed(self, session_id)
        feed.listeners.add(listener)
        self.metrics.listeners.inc()
        try:
            await feed.start()
        except BaseException:
            self.leave(session_id, listener)
            raise
        listener.begin(feed.open_chunks)
        if self._is_draining:
            listener.put(Draining())
        return listener

    def leave(self, session_id: str, listener: Listener) -> None:
        feed = self._feeds.get(session_id)
        if feed is None or listener not in feed.listeners:
            return
        feed.listeners.discard(listener)
        self.metrics.listeners.dec()
        if not feed.listeners:
            del self._feeds[session_id]
            feed.stop()

    def drain(self) -> None:
        """End all streams, so that clients connect to another replica."""
        self._is_draining = True
        for feed in list(self._feeds.values()):  # a dropped listener may end its feed
            feed.publish(Draining())

    async def subscribe(self, feed: "Feed") -> None:
        """Subscribe to the channel of the feed's shard. Raises StoreUnavailable."""
        name = self.keys.channel(feed.session_id)
        channel = self._channels.setdefault(name, _ShardChannel())
        channel.feeds[feed.session_id] = feed
        await self.subscriber.subscribe(name, channel)

    def unsubscribe(self, feed: "Feed") -> None:
        name = self.keys.channel(feed.session_id)
        channel = self._channels.get(name)
        if channel is None or channel.feeds.get(feed.session_id) is not feed:
            return
        del channel.feeds[feed.session_id]
        if not channel.feeds:
            del self._channels[name]
            self.subscriber.unsubscribe(name, channel)


class Feed:
    """The events of one session, read once for all its listeners."""

    def __init__(self, hub: Hub, session_id: str) -> None:
        self._hub = hub
        self.session_id = session_id
        self.listeners: set[Listener] = set()
        self._starting: asyncio.Task[None] | None = None
        self._after_ms = 0
        self._after_chunk = ""
        self._open_chunks: deque[Chunk] = deque(maxlen=MAX_CHUNKS)
        """The latest parts of answers that are not complete."""
        self._session: Session | None = None
        self._has_new_messages = False
        self._has_changed = False
        self._reading: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open_chunks(self) -> list[Chunk]:
        return list(self._open_chunks)

    async def start(self) -> None:
        """Subscribe, and begin at the end of the history. Concurrent calls share one start."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)

    def stop(self) -> None:
        self._hub.unsubscribe(self)
        for task in (self._starting, self._reading):
            if task is not None:
                task.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def changed(self, change: str) -> None:
        """Read new messages and parts of answers, or the session, soon."""
        if change == "session":
            self._has_changed = True
        else:
            self._has_new_messages = True
        if self._reading is None and self._session is not None:  # else the start reads the changes
            self._reading = asyncio.create_task(self._read_until_unchanged())

    def publish(self, event: LiveEvent) -> None:
        for listener in list(self.listeners):
            if not listener.put(event):
                self._hub.metrics.listeners_dropped.inc()
                self._hub.leave(self.session_id, listener)

    async def _start(self) -> None:
        await self._hub.subscribe(self)
        history = self._hub.history
        self._after_ms = await history.last_created_at(self.session_id)
        chunks, self._after_chunk = await history.open_chunks(self.session_id)
        self._open_chunks.extend(chunks)
        self._session = await self._hub.store.get(self.session_id)
        self._schedule_check(self._session)
        self.changed("message")

    async def _read_until_unchanged(self) -> None:
        try:
            while self._has_new_messages or self._has_changed:
                try:
                    await self._read_changes()
                except StoreUnavailable:
                    self._has_new_messages = self._has_changed = True
                    await asyncio.sleep(_RETRY_SECONDS)
        except (SessionExpired, SessionNotFound) as error:
            self.publish(SessionEnded(error))
        except Exception:
            _log.exception("the events of a session cannot be read")
            self._reading = asyncio.get_running_loop().create_task(self._read_later())
            return
        self._reading = None

    async def _read_later(self) -> None:
        await asyncio.sleep(_RETRY_SECONDS)
        self._has_new_messages = self._has_changed = True
        await self._read_until_unchanged()

    async def _read_changes(self) -> None:
        if self._has_new_messages:
            self._has_new_messages = False
            await self._read_messages()
        if self._has_changed and not self._has_new_messages:  # an end comes after all messages
            self._has_changed = False
            await self._read_session()

    async def _read_messages(self) -> None:
        messages, parts, may_have_gap = await self._hub.history.read_new(
            self.session_id, self._after_ms, self._after_chunk
        )
        if may_have_gap:
            self.publish(HistoryGap(self._after_ms))
        for position, part in parts:
            self._after_chunk = position
            match part:
                case Chunk():
                    self._open_chunks.append(part)
                case Cancellation():
                    self._close_answer(part.message_id)
            self.publish(part)
        for message in messages:
            self._close_answer(message.in_reply_to)
            self.publish(message)
        if messages:
            self._after_ms = messages[-1].created_at_ms
            self._has_new_messages = True  # there may be more than one page

    def _close_answer(self, message_id: str) -> None:
        if any(chunk.message_id == message_id for chunk in self._open_chunks):
            open_chunks = [chunk for chunk in self._open_chunks if chunk.message_id != message_id]
            self._open_chunks.clear()
            self._open_chunks.extend(open_chunks)

    async def _read_session(self) -> None:
        earlier, session = self._session, await self._hub.store.get(self.session_id)
        assert earlier is not None  # read at the start
        self._session = session
        self._schedule_check(session)
        if session.stored.renewal_count != earlier.stored.renewal_count:
            self.publish(SessionChanged("renewed", session))
        if session.stored.revision != earlier.stored.revision:
            self.publish(SessionChanged("updated", session))
        if session.is_near_expiration and not earlier.is_near_expiration:
            self.publish(SessionChanged("expiring", session))

    def _schedule_check(self, session: Session) -> None:
        """Read the session again when it comes near its expiration, and when it expires."""
        remaining = session.time_remaining_ms / 1000
        warning = float(session.stored.warning_threshold_minutes) * 60
        delay = remaining - warning if remaining > warning else remaining
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(delay, 0) + _EXPIRY_MARGIN_SECONDS, self.changed, "session")


class _ShardChannel:
    """Passes the messages of one shard's channel to feeds."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}

    def on_message(self, message: str) -> None:
        change, _, session_id = message.partition(" ")
        feed = self.feeds.get(session_id)
        if feed is not None:
            feed.changed(change)

    def on_gap(self) -> None:
        for feed in list(self.feeds.values()):
            feed.changed("message")
            feed.changed("session")
