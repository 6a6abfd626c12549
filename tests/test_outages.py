"""Redis goes away and comes back: what clients are told meanwhile, and that no session is harmed by it."""

import asyncio
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from aiohttp import ClientResponse
from pytest_aiohttp.plugin import AiohttpClient

from service.redis_client.factory import redis_py_client
from service.settings import Settings
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.redis_server import ADMIN, RedisServer, free_port
from tests.test_walkthrough import MINUTE_MS, SESSIONS, open_session

STORE_TIMEOUT_SECONDS = 0.3
SOON = 10
"""Seconds; nothing in this file may take longer."""

VERBS = {
    "read": ("GET", ""),
    "heartbeat": ("POST", "/heartbeat"),
    "renew": ("POST", "/renew"),
    "configure": ("PATCH", "/timeout"),
    "annotate": ("PATCH", "/metadata"),
    "delete": ("DELETE", ""),
}
CHANGES = {name: verb for name, verb in VERBS.items() if name != "read"}


@pytest.fixture(scope="module")
def lasting_redis() -> Iterator[RedisServer]:
    """A server that keeps its data over a restart."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), append_only=True)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def own_redis(lasting_redis: RedisServer) -> RedisServer:
    """A server that a test may ill-treat, emptied of data and scripts."""
    lasting_redis.command("FLUSHALL")
    lasting_redis.command("SCRIPT", "FLUSH")
    return lasting_redis


@pytest.fixture
async def service(own_redis: RedisServer, aiohttp_client: AiohttpClient) -> HttpClient:
    return await aiohttp_client(server_over(own_redis))


def patient(**settings: Any) -> Settings:
    """Settings under which an outage is noticed after a third of a second."""
    return Settings(session_store_timeout_seconds=STORE_TIMEOUT_SECONDS, **settings)


def server_over(redis: RedisServer, **settings: Any) -> ServiceServer:
    return ServiceServer(patient(**settings), redis_py_client(redis.url, STORE_TIMEOUT_SECONDS))


async def call(service: HttpClient, session_id: str, method: str = "GET", verb: str = "") -> ClientResponse:
    body = {"timeoutMinutes": 60} if method == "PATCH" else None
    async with asyncio.timeout(SOON):
        return await service.request(method, f"{SESSIONS}/{session_id}{verb}", json=body)


async def create(service: HttpClient) -> ClientResponse:
    async with asyncio.timeout(SOON):
        return await service.post(SESSIONS, json={"agentId": AGENT, "userId": USER})


async def of_the_user(service: HttpClient, method: str) -> ClientResponse:
    """All of the user's sessions: listed by GET, ended by DELETE."""
    async with asyncio.timeout(SOON):
        return await service.request(method, SESSIONS, params={"userId": USER})


async def status_of(answer: Awaitable[ClientResponse]) -> int:
    return (await answer).status


async def renewals(service: HttpClient, session_id: str) -> int:
    count: int = (await (await call(service, session_id)).json())["renewalCount"]
    return count


async def until_ready(service: HttpClient) -> None:
    async with asyncio.timeout(SOON):
        while (await service.get("/readyz")).status != 200:
            continue


def endless_sessions(server: RedisServer) -> list[bytes]:
    """Sessions, tombstones and lookups that would stay for ever."""
    with redis_py.Redis.from_url(server.admin_url) as client:
        patterns = ("session:*", "sessions:user:*", "sessions:agent:*")
        keys = [key for pattern in patterns for key in client.scan_iter(pattern) if not key.endswith(b":policy")]
        return [key for key in keys if client.ttl(key) == -1]


def connections_to(server: RedisServer) -> set[object]:
    with redis_py.Redis.from_url(server.admin_url) as client:
        return {connection["id"] for connection in client.client_list()}


def content_of(server: RedisServer, session_id: str) -> object:
    return server.command("HGETALL", f"session:{{{session_id[:2]}}}:{session_id}")


class AccessLog:
    """What a client is told that asks for a session again and again."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self._told = asyncio.Event()

    async def resume(self, service: HttpClient, session_id: str) -> None:
        while True:
            self.statuses.append(await status_of(call(service, session_id)))
            self._told.set()

    async def sees(self, status: int) -> None:
        """Wait until the client is told this from now on."""
        before = len(self.statuses)
        async with asyncio.timeout(SOON):
            while status not in self.statuses[before:]:
                self._told.clear()
                await self._told.wait()


@asynccontextmanager
async def watched(service: HttpClient, session_id: str) -> AsyncIterator[AccessLog]:
    watch = AccessLog()
    watching = asyncio.create_task(watch.resume(service, session_id))
    yield watch
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


# Ways for Redis to be gone, each with its way back


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
    """A script that does not end holds the server; it answers BUSY to everyone else."""
    server.command("CONFIG", "SET", "busy-reply-threshold", 1)
    with redis_py.Redis.from_url(server.admin_url) as client:
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
def orphaned(server: RedisServer) -> Iterator[None]:
    """Demoted under a master that cannot be reached, and unwilling to answer from old data."""
    server.command("CONFIG", "SET", "replica-serve-stale-data", "no")
    server.command("REPLICAOF", "127.0.0.1", 1)
    try:
        yield
    finally:
        server.command("REPLICAOF", "NO", "ONE")
        server.command("CONFIG", "SET", "replica-serve-stale-data", "yes")


# Ways for Redis to take no changes


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


GONE = pytest.mark.parametrize("gone", [killed, paused, busy, orphaned])
UNCHANGEABLE = pytest.mark.parametrize("unchangeable", [out_of_memory, demoted, without_replicas])
Incident = Callable[[RedisServer], AbstractContextManager[None]]


POLICY = f"/api/messaging/agents/{AGENT}/timeout"


async def policy(service: HttpClient, method: str, minutes: int = 60) -> ClientResponse:
    async with asyncio.timeout(SOON):
        return await service.request(method, POLICY, json={"timeoutMinutes": minutes} if method == "PUT" else None)


# Redis is gone


@GONE
@pytest.mark.parametrize(("method", "verb"), VERBS.values(), ids=VERBS)
async def test_every_call_is_told_to_try_again(
    service: HttpClient, own_redis: RedisServer, gone: Incident, method: str, verb: str
) -> None:
    session_id = await open_session(service)

    with gone(own_redis):
        response = await call(service, session_id, method, verb)

    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert (await response.json())["code"] == "STORE_UNAVAILABLE"


@GONE
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
async def test_every_call_about_a_policy_is_told_to_try_again(
    service: HttpClient, own_redis: RedisServer, gone: Incident, method: str
) -> None:
    await policy(service, "PUT")

    with gone(own_redis):
        response = await policy(service, method)

    assert response.status == 503
    assert response.headers["Retry-After"] == "1"


@GONE
async def test_an_agent_that_cannot_be_looked_for_is_not_said_to_be_unknown(
    own_redis: RedisServer, aiohttp_client: AiohttpClient, gone: Incident
) -> None:
    service: HttpClient = await aiohttp_client(server_over(own_redis, session_require_known_agent=True))
    await until_ready(service)

    with gone(own_redis):
        response = await create(service)

    assert response.status == 503


@GONE
async def test_what_cannot_be_counted_is_let_through_and_fails_by_itself(
    own_redis: RedisServer, aiohttp_client: AiohttpClient, gone: Incident
) -> None:
    service: HttpClient = await aiohttp_client(server_over(own_redis, session_rate_per_address="1/hour"))
    session_id = await open_session(service)

    with gone(own_redis):
        statuses = [(await call(service, session_id)).status for _ in range(3)]

    assert statuses == [503] * 3
    async with watched(service, session_id) as watch:
        await watch.sees(429)


@GONE
async def test_creations_are_told_to_try_again(service: HttpClient, own_redis: RedisServer, gone: Incident) -> None:
    with gone(own_redis):
        response = await create(service)

    assert response.status == 503
    assert response.headers["Retry-After"] == "1"


@GONE
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_listings_and_revocations_are_told_to_try_again(
    service: HttpClient, own_redis: RedisServer, gone: Incident, method: str
) -> None:
    session_id = await open_session(service)

    with gone(own_redis):
        response = await of_the_user(service, method)

    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert (await call(service, session_id)).status == 200


@GONE
async def test_the_very_next_listing_works_when_redis_is_back(
    service: HttpClient, own_redis: RedisServer, gone: Incident
) -> None:
    session_id = await open_session(service)
    await of_the_user(service, "GET")

    with gone(own_redis):
        await of_the_user(service, "GET")
    await until_ready(service)

    (listed,) = (await (await of_the_user(service, "GET")).json())["sessions"]
    assert listed["sessionId"] == session_id


@GONE
async def test_the_service_lives_on_but_is_not_ready(
    service: HttpClient, own_redis: RedisServer, gone: Incident
) -> None:
    with gone(own_redis):
        alive, ready = await service.get("/livez"), await service.get("/readyz")

    assert (alive.status, ready.status) == (200, 503)


@GONE
async def test_nobody_knows_how_many_sessions_there_are(
    service: HttpClient, own_redis: RedisServer, gone: Incident
) -> None:
    with gone(own_redis):
        response = await service.get(f"{SESSIONS}/health")

    report = await response.json()
    assert response.status == 503
    assert (report["activeSessions"], report["expiringSoon"]) == (None, None)


@GONE
async def test_the_very_next_call_works_when_redis_is_back(
    service: HttpClient, own_redis: RedisServer, gone: Incident
) -> None:
    session_id = await open_session(service)
    with gone(own_redis):
        await call(service, session_id)

    response = await call(service, session_id, "POST", "/heartbeat")

    assert response.status == 200


@GONE
async def test_it_is_ready_as_soon_as_redis_is_back(
    service: HttpClient, own_redis: RedisServer, gone: Incident
) -> None:
    with gone(own_redis):
        await service.get("/readyz")

    response = await service.get("/readyz")

    assert response.status == 200


@GONE
async def test_a_live_session_is_never_said_to_be_gone(
    service: HttpClient, own_redis: RedisServer, gone: Incident
) -> None:
    session_id = await open_session(service)

    async with watched(service, session_id) as watch:
        await watch.sees(200)
        with gone(own_redis):
            await watch.sees(503)
        await watch.sees(200)

    assert set(watch.statuses) == {200, 503}


@GONE
async def test_of_two_hundred_calls_none_hangs(service: HttpClient, own_redis: RedisServer, gone: Incident) -> None:
    session_id = await open_session(service)

    with gone(own_redis):
        async with asyncio.timeout(SOON):
            answers = await asyncio.gather(*(status_of(call(service, session_id)) for _ in range(200)))

    assert Counter(answers) == {503: 200}


async def test_of_two_hundred_calls_at_once_none_is_refused_while_redis_is_well(service: HttpClient) -> None:
    session_id = await open_session(service)

    answers = await asyncio.gather(*(status_of(call(service, session_id)) for _ in range(200)))

    assert Counter(answers) == {200: 200}


async def test_of_two_hundred_calls_at_once_none_is_refused_once_redis_is_back(
    service: HttpClient, own_redis: RedisServer
) -> None:
    session_id = await open_session(service)
    await asyncio.gather(*(call(service, session_id) for _ in range(200)))
    with killed(own_redis):
        await call(service, session_id)

    answers = await asyncio.gather(*(status_of(call(service, session_id)) for _ in range(200)))

    assert Counter(answers) == {200: 200}


@pytest.mark.parametrize("verb", ["/heartbeat", "/renew"])
async def test_a_renewal_across_a_pause_counts_at_most_once(
    service: HttpClient, own_redis: RedisServer, verb: str
) -> None:
    session_id = await open_session(service)
    await call(service, session_id, "POST", verb)

    with paused(own_redis):
        renewing = asyncio.create_task(status_of(call(service, session_id, "POST", verb)))
        await asyncio.wait([renewing], timeout=1.5 * STORE_TIMEOUT_SECONDS)

    assert await renewing == 503
    assert await renewals(service, session_id) in (1, 2)


async def test_renewals_across_a_restart_count_at_most_once(service: HttpClient, own_redis: RedisServer) -> None:
    session_id = await open_session(service)
    calls = [asyncio.create_task(status_of(call(service, session_id, "POST", "/heartbeat"))) for _ in range(50)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)

    with killed(own_redis):
        answers = Counter(await asyncio.gather(*calls))

    assert set(answers) <= {200, 503}
    assert answers[200] <= await renewals(service, session_id) <= 50


async def test_what_was_written_is_there_after_a_restart(service: HttpClient, own_redis: RedisServer) -> None:
    session_id = await open_session(service, metadata={"a": 18446744073709551615})
    before = content_of(own_redis, session_id)

    with killed(own_redis):
        pass

    assert content_of(own_redis, session_id) == before
    assert (await call(service, session_id)).status == 200


@pytest.fixture
def forgetful(data_dir: Path) -> Iterator[RedisServer]:
    """A server that keeps only what it is told to save."""
    server = RedisServer(data_dir)
    server.start()
    yield server
    server.stop()


async def test_while_redis_loads_its_data_nothing_is_said_to_be_gone(
    forgetful: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    service: HttpClient = await aiohttp_client(server_over(forgetful))
    session_id = await open_session(service)
    forgetful.command("EVAL", "for i = 1, 5000 do redis.call('SET', 'filling:' .. i, i, 'EX', 60) end", 0)
    forgetful.command("SAVE")
    forgetful.kill()
    forgetful.start_loading(microseconds_per_key=200)

    script_load_commands = await call(service, session_id)
    ready = await service.get("/readyz")
    await until_ready(service)

    assert (script_load_commands.status, ready.status) == (503, 503)
    assert (await call(service, session_id)).status == 200


async def test_what_redis_lost_is_unknown_and_new_sessions_can_be_opened(
    forgetful: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    service: HttpClient = await aiohttp_client(server_over(forgetful))
    session_id = await open_session(service)

    with killed(forgetful):
        await call(service, session_id)

    assert (await call(service, session_id)).status == 404
    assert (await create(service)).status == 201


# Redis is there, but something was taken from it


@pytest.mark.parametrize("loss", [("SCRIPT", "FLUSH"), ("CLIENT", "KILL", "TYPE", "normal")], ids=" ".join)
@pytest.mark.parametrize(("method", "verb"), VERBS.values(), ids=VERBS)
async def test_the_very_next_call_makes_up_for_it(
    service: HttpClient, own_redis: RedisServer, loss: tuple[str, ...], method: str, verb: str
) -> None:
    session_id = await open_session(service)
    await asyncio.gather(*(call(service, session_id) for _ in range(20)))
    own_redis.command(*loss)

    response = await call(service, session_id, method, verb)

    assert response.status == 200


async def test_a_creation_makes_up_for_lost_scripts(service: HttpClient, own_redis: RedisServer) -> None:
    await create(service)
    own_redis.command("SCRIPT", "FLUSH")

    response = await create(service)

    assert response.status == 201


async def test_a_heartbeat_that_met_lost_scripts_counts_once(service: HttpClient, own_redis: RedisServer) -> None:
    session_id = await open_session(service)
    own_redis.command("SCRIPT", "FLUSH")

    await asyncio.gather(*(call(service, session_id, "POST", "/heartbeat") for _ in range(20)))

    assert await renewals(service, session_id) == 20


# Redis takes no changes


@UNCHANGEABLE
@pytest.mark.parametrize("verb", ["heartbeat", "renew", "configure", "annotate"])
async def test_changes_are_told_to_try_again_and_change_nothing(
    service: HttpClient, own_redis: RedisServer, unchangeable: Incident, verb: str
) -> None:
    session_id = await open_session(service)
    before = content_of(own_redis, session_id)

    with unchangeable(own_redis):
        response = await call(service, session_id, *VERBS[verb])

    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert content_of(own_redis, session_id) == before


@UNCHANGEABLE
async def test_a_refused_creation_leaves_nothing_behind(
    service: HttpClient, own_redis: RedisServer, unchangeable: Incident
) -> None:
    await until_ready(service)

    with unchangeable(own_redis):
        response = await create(service)

    assert response.status == 503
    assert own_redis.command("KEYS", "session*{*") == []


@UNCHANGEABLE
async def test_a_refused_policy_leaves_the_one_before(
    service: HttpClient, own_redis: RedisServer, unchangeable: Incident
) -> None:
    before = await (await policy(service, "PUT")).json()

    with unchangeable(own_redis):
        refused, read = await policy(service, "PUT", minutes=45), await policy(service, "GET")

    assert (refused.status, read.status) == (503, 200)
    assert await read.json() == before


@UNCHANGEABLE
async def test_nothing_is_left_without_its_end(
    service: HttpClient, own_redis: RedisServer, unchangeable: Incident
) -> None:
    session_id = await open_session(service)

    with unchangeable(own_redis):
        await asyncio.gather(create(service), *(call(service, session_id, *verb) for verb in CHANGES.values()))

    assert endless_sessions(own_redis) == []


@pytest.mark.parametrize("unchangeable", [demoted, without_replicas])
async def test_a_session_cannot_be_deleted(service: HttpClient, own_redis: RedisServer, unchangeable: Incident) -> None:
    session_id = await open_session(service)

    with unchangeable(own_redis):
        response = await call(service, session_id, "DELETE")

    assert response.status == 503
    assert (await call(service, session_id)).status == 200


async def test_out_of_memory_a_session_can_still_be_deleted(service: HttpClient, own_redis: RedisServer) -> None:
    session_id = await open_session(service)

    with out_of_memory(own_redis):
        response = await call(service, session_id, "DELETE")

    assert response.status == 200


@UNCHANGEABLE
async def test_reads_that_cannot_be_counted_go_on(
    own_redis: RedisServer, aiohttp_client: AiohttpClient, unchangeable: Incident
) -> None:
    service: HttpClient = await aiohttp_client(server_over(own_redis, session_rate_per_address="2/hour"))
    session_id = await open_session(service)

    with unchangeable(own_redis):
        statuses = [(await call(service, session_id)).status for _ in range(5)]

    assert statuses == [200] * 5


@UNCHANGEABLE
async def test_a_limit_that_is_used_up_holds(
    own_redis: RedisServer, aiohttp_client: AiohttpClient, unchangeable: Incident
) -> None:
    service: HttpClient = await aiohttp_client(server_over(own_redis, session_rate_per_address="1/hour"))
    session_id = await open_session(service)

    with unchangeable(own_redis):
        statuses = [(await call(service, session_id)).status for _ in range(3)]

    assert statuses == [429] * 3


@UNCHANGEABLE
async def test_reads_go_on(service: HttpClient, own_redis: RedisServer, unchangeable: Incident) -> None:
    session_id = await open_session(service)

    with unchangeable(own_redis):
        await call(service, session_id, "POST", "/heartbeat")
        response = await call(service, session_id)

    assert response.status == 200


@UNCHANGEABLE
async def test_it_stays_ready(service: HttpClient, own_redis: RedisServer, unchangeable: Incident) -> None:
    with unchangeable(own_redis):
        await create(service)
        response = await service.get("/readyz")

    assert response.status == 200


@UNCHANGEABLE
async def test_the_very_next_change_works_when_it_is_over(
    service: HttpClient, own_redis: RedisServer, unchangeable: Incident
) -> None:
    session_id = await open_session(service)
    with unchangeable(own_redis):
        await call(service, session_id, "POST", "/heartbeat")

    response = await call(service, session_id, "POST", "/heartbeat")

    assert (await response.json())["renewalCount"] == 1


async def test_connections_to_a_demoted_server_are_not_kept(service: HttpClient, own_redis: RedisServer) -> None:
    session_id = await open_session(service)
    await asyncio.gather(*(call(service, session_id) for _ in range(30)))
    before = connections_to(own_redis)

    with demoted(own_redis):
        await call(service, session_id, "POST", "/heartbeat")
        kept = before & connections_to(own_redis)

    assert kept < before


async def test_on_a_demoted_server_reads_beside_refused_changes_go_on(
    service: HttpClient, own_redis: RedisServer
) -> None:
    session_id = await open_session(service)

    with demoted(own_redis):
        changes = asyncio.gather(*(status_of(call(service, session_id, "POST", "/renew")) for _ in range(25)))
        reads = asyncio.gather(*(status_of(call(service, session_id)) for _ in range(25)))
        answers = Counter(await changes), Counter(await reads)

    assert answers == ({503: 25}, {200: 25})


# Redis has a follower


@pytest.fixture
def pair(data_dir: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two servers, the second of which follows the first."""
    login = {"masteruser": ADMIN.user, "masterauth": ADMIN.password}
    first, second = (RedisServer(folder_in(data_dir, name), port=free_port(), settings=login) for name in ("1", "2"))
    first.start()
    first.command("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    second.start()
    second.command("REPLICAOF", "127.0.0.1", first.port)
    yield first, second
    first.stop()
    second.stop()


def folder_in(data_dir: Path, name: str) -> Path:
    folder = data_dir / name
    folder.mkdir()
    return folder


def fail_over(old: RedisServer, new: RedisServer) -> None:
    """Promote the follower, once it has everything, and have the other follow it."""
    latest = time.monotonic() + SOON
    while "'master_link_status': 'up'" not in str(new.command("INFO", "replication")):
        assert time.monotonic() < latest
    new.command("REPLICAOF", "NO", "ONE")
    old.command("REPLICAOF", "127.0.0.1", new.port)


async def test_a_session_survives_a_failover_and_the_way_back(
    pair: tuple[RedisServer, RedisServer], aiohttp_client: AiohttpClient
) -> None:
    first, second = pair
    service: HttpClient = await aiohttp_client(server_over(first))
    session_id = await open_session(service)

    async with watched(service, session_id) as watch:
        await asyncio.to_thread(fail_over, first, second)
        change = await call(service, session_id, "POST", "/heartbeat")
        await asyncio.to_thread(fail_over, second, first)
        await watch.sees(200)

    assert change.status == 503
    assert set(watch.statuses) <= {200, 503}
    assert (await call(service, session_id, "POST", "/heartbeat")).status == 200


# Clocks and last moments


@pytest.fixture(params=[-600, 600], ids=["ten minutes slow", "ten minutes fast"])
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replica's clock is off, not Redis's."""
    right, offset = time.time, request.param
    monkeypatch.setattr("time.time", lambda: right() + offset)
    monkeypatch.setattr("time.time_ns", lambda: int((right() + offset) * 1e9))


@pytest.mark.usefixtures("wrong_clock")
async def test_a_replicas_wrong_clock_does_not_shift_a_session(service: HttpClient, own_redis: RedisServer) -> None:
    before_ms = now_ms(own_redis)
    session_id = await open_session(service)

    session = await (await call(service, session_id, "POST", "/heartbeat")).json()

    assert before_ms <= milliseconds(session["createdAt"]) <= now_ms(own_redis)
    assert milliseconds(session["expiresAt"]) - milliseconds(session["lastActivity"]) == 30 * MINUTE_MS
    assert session["timeRemaining"] == 30 * MINUTE_MS


@pytest.mark.usefixtures("wrong_clock")
async def test_a_replicas_wrong_clock_ends_no_session_and_revives_none(
    own_redis: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    service: HttpClient = await aiohttp_client(server_over(own_redis, session_min_timeout_minutes=0.001))
    lasting = await open_session(service, timeoutConfig={"timeoutMinutes": 5})
    brief = await open_session(service, timeoutConfig={"timeoutMinutes": 0.001})

    async with watched(service, brief) as watch:
        await watch.sees(410)

    assert (await call(service, lasting)).status == 200


@pytest.mark.parametrize(("method", "verb"), [("GET", ""), ("POST", "/heartbeat")])
async def test_in_its_last_milliseconds_a_session_lives_and_then_has_ended(
    own_redis: RedisServer, aiohttp_client: AiohttpClient, method: str, verb: str
) -> None:
    service: HttpClient = await aiohttp_client(server_over(own_redis, session_min_timeout_minutes=0.001))
    brief = {"timeoutMinutes": 0.0015, "autoRenew": False}
    sessions = [await open_session(service, timeoutConfig=brief) for _ in range(5)]

    lives = await asyncio.gather(*(life_of(service, session_id, method, verb) for session_id in sessions * 4))

    assert set(lives) <= {(200, 410), (410,)}


async def life_of(service: HttpClient, session_id: str, method: str, verb: str) -> tuple[int, ...]:
    """What a client is told until it was told ten times that it is over; the same twice counts once."""
    statuses: list[int] = []
    while statuses.count(410) + statuses.count(404) < 10:
        statuses.append(await status_of(call(service, session_id, method, verb)))
    return tuple(status for status, _ in groupby(statuses))


def now_ms(server: RedisServer) -> int:
    with redis_py.Redis.from_url(server.admin_url) as client:
        seconds, microseconds = client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000


def milliseconds(instant: str) -> int:
    return round(datetime.fromisoformat(instant).timestamp() * 1000)
