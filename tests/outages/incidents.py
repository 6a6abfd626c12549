"""Ways in which Redis fails, and calls to a service that uses it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
import redis as redis_py
from aiohttp import ClientResponse

from service.redis_client.factory import redis_py_client
from service.settings import Settings
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.redis_server import RedisServer
from tests.test_walkthrough import SESSIONS

PAUSE_TIMEOUT_SECONDS = 2
"""The store timeout in tests that pause Redis. No other failure needs a timeout."""
SOON_SECONDS = 30
"""The time limit of every wait in these tests."""
VERBS = {
    "read": ("GET", ""),
    "heartbeat": ("POST", "/heartbeat"),
    "renew": ("POST", "/renew"),
    "update timeout": ("PATCH", "/timeout"),
    "update metadata": ("PATCH", "/metadata"),
    "delete": ("DELETE", ""),
}
CHANGES = {name: verb for name, verb in VERBS.items() if name != "read"}
POLICY = f"/api/messaging/agents/{AGENT}/timeout"


def server_over(redis: RedisServer, store_timeout_seconds: float, **settings: Any) -> ServiceServer:
    return ServiceServer(
        Settings(session_store_timeout_seconds=store_timeout_seconds, **settings),
        redis_py_client(redis.url, store_timeout_seconds),
    )


async def call(service: HttpClient, session_id: str, method: str = "GET", verb: str = "") -> ClientResponse:
    body = {"timeoutMinutes": 60} if method == "PATCH" else None
    async with asyncio.timeout(SOON_SECONDS):
        return await service.request(method, f"{SESSIONS}/{session_id}{verb}", json=body)


async def create(service: HttpClient) -> ClientResponse:
    async with asyncio.timeout(SOON_SECONDS):
        return await service.post(SESSIONS, json={"agentId": AGENT, "userId": USER})


async def call_for_user(service: HttpClient, method: str) -> ClientResponse:
    """List the user's sessions with GET, or end them with DELETE."""
    async with asyncio.timeout(SOON_SECONDS):
        return await service.request(method, SESSIONS, params={"userId": USER})


async def call_policy(service: HttpClient, method: str, minutes: int = 60) -> ClientResponse:
    async with asyncio.timeout(SOON_SECONDS):
        return await service.request(method, POLICY, json={"timeoutMinutes": minutes} if method == "PUT" else None)


async def status_of(answer: Awaitable[ClientResponse]) -> int:
    return (await answer).status


async def renewal_count(service: HttpClient, session_id: str) -> int:
    count: int = (await (await call(service, session_id)).json())["renewalCount"]
    return count


async def until_ready(service: HttpClient) -> None:
    async with asyncio.timeout(SOON_SECONDS):
        while (await service.get("/readyz")).status != 200:
            continue


def keys_without_ttl(server: RedisServer) -> list[bytes]:
    """Sessions, tombstones and owner indexes without a TTL."""
    with redis_py.Redis.from_url(server.admin_url) as client:
        patterns = ("session:*", "sessions:user:*", "sessions:agent:*")
        keys = [key for pattern in patterns for key in client.scan_iter(pattern) if not key.endswith(b":policy")]
        return [key for key in keys if client.ttl(key) == -1]


def connections_to(server: RedisServer) -> set[object]:
    with redis_py.Redis.from_url(server.admin_url) as client:
        return {connection["id"] for connection in client.client_list()}


def content_of(server: RedisServer, session_id: str) -> object:
    return server.command("HGETALL", f"session:{{{session_id[:2]}}}:{session_id}")


class StatusPoller:
    """Requests a session repeatedly and records the status codes."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self._has_status = asyncio.Event()

    async def poll(self, service: HttpClient, session_id: str) -> None:
        while True:
            self.statuses.append(await status_of(call(service, session_id)))
            self._has_status.set()

    async def wait_for(self, status: int) -> None:
        """Wait until a later response has this status."""
        before = len(self.statuses)
        async with asyncio.timeout(SOON_SECONDS):
            while status not in self.statuses[before:]:
                self._has_status.clear()
                await self._has_status.wait()


@asynccontextmanager
async def polling(service: HttpClient, session_id: str) -> AsyncIterator[StatusPoller]:
    poller = StatusPoller()
    polling_task = asyncio.create_task(poller.poll(service, session_id))
    yield poller
    polling_task.cancel()
    with suppress(asyncio.CancelledError):
        await polling_task


# Redis is unavailable


@contextmanager
def killed(server: RedisServer) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def paused(server: RedisServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def busy(server: RedisServer) -> Iterator[None]:
    """A script that does not end blocks the server: other clients get BUSY."""
    server.command("CONFIG", "SET", "busy-reply-threshold", 1)
    with redis_py.Redis.from_url(server.admin_url, socket_timeout=None) as client:  # the script runs for long
        looping = threading.Thread(target=_run_until_killed, args=(client,))
        looping.start()
        _wait_until_busy(server)
        try:
            yield
        finally:
            server.command("SCRIPT", "KILL")
            looping.join()
            server.command("CONFIG", "SET", "busy-reply-threshold", 5000)


def _run_until_killed(client: "redis_py.Redis") -> None:
    with suppress(redis_py.ResponseError):
        client.eval("while true do end", 0)


def _wait_until_busy(server: RedisServer) -> None:
    with suppress(redis_py.ResponseError):
        while server.command("PING"):
            continue


@contextmanager
def demoted_without_data(server: RedisServer) -> Iterator[None]:
    """Demoted to a replica of an unreachable primary, and configured not to serve stale data."""
    server.command("CONFIG", "SET", "replica-serve-stale-data", "no")
    server.command("REPLICAOF", "127.0.0.1", 1)
    try:
        yield
    finally:
        server.command("REPLICAOF", "NO", "ONE")
        server.command("CONFIG", "SET", "replica-serve-stale-data", "yes")


# Redis rejects changes


@contextmanager
def out_of_memory(server: RedisServer) -> Iterator[None]:
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", 1)
    try:
        yield
    finally:
        server.command("CONFIG", "SET", "maxmemory", 0)


@contextmanager
def demoted(server: RedisServer) -> Iterator[None]:
    server.command("REPLICAOF", "127.0.0.1", 1)
    try:
        yield
    finally:
        server.command("REPLICAOF", "NO", "ONE")


@contextmanager
def without_replicas(server: RedisServer) -> Iterator[None]:
    server.command("CONFIG", "SET", "min-replicas-to-write", 1)
    try:
        yield
    finally:
        server.command("CONFIG", "SET", "min-replicas-to-write", 0)


UNAVAILABLE = pytest.mark.parametrize(
    ("unavailable", "store_timeout_seconds"),
    [(killed, 30), (paused, PAUSE_TIMEOUT_SECONDS), (busy, 30), (demoted_without_data, 30)],
)
READ_ONLY = pytest.mark.parametrize("read_only", [out_of_memory, demoted, without_replicas])
Incident = Callable[[RedisServer], AbstractContextManager[None]]
