"""An older and a newer release on the same data. The tests write what a newer release may add.

service/sessions/keys.py defines the changes that keep the schema version, and those that need a new one.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py
from redis.asyncio import Redis

from service.sessions.keys import Keys
from service.settings import Settings
from tests.aging import age
from tests.bad_input.helpers import SESSION_ROUTES, call_route
from tests.conftest import AGENT, USER, HttpClient
from tests.faults.conftest import urls_of
from tests.faults.load import Load
from tests.faults.scales import SCALES, Scale
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import MINUTE_MS, SESSIONS, open_session

KEYS = Keys("")
POLICY = f"/api/messaging/agents/{AGENT}/timeout"
NEW_FIELDS: dict[Any, Any] = {b"newField": b"1", b"metadataVersion": b"7"}


@pytest.fixture
def settings() -> Settings:
    return Settings(session_sweep_interval_seconds=0.05)


@pytest.fixture
async def session_id(client: HttpClient, redis: Redis) -> str:
    """A session with fields and a key that this release does not know."""
    session_id = await open_session(client)
    await redis.hset(KEYS.session(session_id), mapping=NEW_FIELDS)
    await redis.hset(KEYS.tombstone(session_id), mapping=NEW_FIELDS)
    await redis.set(new_key_of(session_id), "kept", px=60_000)
    return session_id


def new_key_of(session_id: str) -> str:
    return f"{KEYS.session(session_id)}:new"


async def new_fields_of(redis: Redis, key: str) -> dict[Any, Any]:
    fields = await redis.hgetall(key)
    return {name: fields[name] for name in NEW_FIELDS if name in fields}


async def wait_until_swept(redis: Redis, session_id: str) -> None:
    async with asyncio.timeout(30):
        while await redis.zscore(KEYS.expiry(session_id[:2]), session_id) is not None:
            continue


# Additions


@pytest.mark.parametrize(("method", "path"), [route for route in SESSION_ROUTES if route != ("DELETE", "")])
async def test_every_operation_keeps_unknown_fields(
    client: HttpClient, redis: Redis, session_id: str, method: str, path: str
) -> None:
    response = await call_route(client, method, session_id, path)

    assert response.status == 200
    assert await new_fields_of(redis, KEYS.session(session_id)) == NEW_FIELDS
    assert await new_fields_of(redis, KEYS.tombstone(session_id)) == NEW_FIELDS
    assert await redis.get(new_key_of(session_id)) == b"kept"


async def test_deletion_removes_unknown_fields(client: HttpClient, redis: Redis, session_id: str) -> None:
    response = await client.delete(f"{SESSIONS}/{session_id}")

    assert response.status == 200
    assert await redis.exists(KEYS.session(session_id), KEYS.tombstone(session_id)) == 0


async def test_the_sweeper_keeps_unknown_fields_of_a_tombstone(
    client: HttpClient, redis: Redis, session_id: str
) -> None:
    await age(redis, session_id, 31 * MINUTE_MS)
    await wait_until_swept(redis, session_id)

    assert (await client.get(f"{SESSIONS}/{session_id}")).status == 410
    assert await new_fields_of(redis, KEYS.tombstone(session_id)) == NEW_FIELDS


async def test_an_unknown_end_reason_is_returned(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await redis.hset(KEYS.tombstone(session_id), "reason", "new_reason")
    await age(redis, session_id, 31 * MINUTE_MS)
    await wait_until_swept(redis, session_id)

    response = await client.get(f"{SESSIONS}/{session_id}")

    assert response.status == 410
    assert (await response.json())["details"]["reason"] == "new_reason"


async def test_a_new_policy_keeps_unknown_fields(client: HttpClient, redis: Redis) -> None:
    await client.put(POLICY, json={"timeoutMinutes": 60})
    await redis.hset(KEYS.policy(AGENT), mapping=NEW_FIELDS)

    await client.put(POLICY, json={"timeoutMinutes": 45})

    assert await new_fields_of(redis, KEYS.policy(AGENT)) == NEW_FIELDS
    assert (await client.delete(POLICY)).status == 200


@SCALES
def test_load_continues_while_a_newer_release_adds_fields(
    own_redis: RedisServer, direct_replicas: list[Replica], scale: Scale
) -> None:
    with (
        redis_py.Redis.from_url(own_redis.admin_url) as admin,
        Load(urls_of(direct_replicas), clients=scale.clients) as load,
    ):
        for _ in range(scale.repetitions):
            add_field_to_all_sessions(admin)
            load.wait_for_successes(scale.requests)
            admin.script_flush()

    assert load.violations == []
    assert load.failures() == []


def add_field_to_all_sessions(admin: Any) -> None:
    add = admin.register_script("return redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HSET', KEYS[1], 'new', 1)")
    for key in admin.scan_iter("session:*", _type="hash"):
        add(keys=[key])


# Another schema version


@pytest.fixture
async def unsupported_version(client: HttpClient, redis: Redis) -> None:
    """The service has noticed that the data has schema version 2."""
    await redis.set(KEYS.layout, 2)
    await client.get("/readyz")


@pytest.mark.usefixtures("unsupported_version")
async def test_a_service_with_unsupported_data_is_not_ready(client: HttpClient) -> None:
    response = await client.get("/readyz")

    assert response.status == 503
    reason = (await response.json())["reason"]
    assert reason == "The data in Redis has schema version 2; this release supports 1."


@pytest.mark.parametrize(("method", "path"), SESSION_ROUTES)
@pytest.mark.usefixtures("unsupported_version")
async def test_requests_for_unsupported_data_fail(client: HttpClient, method: str, path: str) -> None:
    response = await call_route(client, method, AGENT, path)

    assert response.status == 503
    assert (await response.json())["code"] == "STORE_UNAVAILABLE"


@pytest.mark.usefixtures("unsupported_version")
async def test_nothing_is_created_in_unsupported_data(client: HttpClient, redis: Redis) -> None:
    before = await redis.dbsize()

    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    assert response.status == 503
    assert await redis.dbsize() <= before


async def test_unsupported_data_is_not_swept(
    client: HttpClient, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.set(KEYS.layout, 2)
    await redis.zadd(KEYS.expiry("ab"), {"expired": 1})

    async with asyncio.timeout(30):
        while "the sweeper" not in caplog.text:
            await client.get("/readyz")

    assert await redis.zscore(KEYS.expiry("ab"), "expired") == 1


@pytest.fixture
def restored_version(own_redis: RedisServer) -> Iterator[None]:
    yield
    own_redis.command("SET", KEYS.layout, 1)


@pytest.mark.usefixtures("restored_version")
def test_all_replicas_continue_when_the_data_is_supported_again(
    own_redis: RedisServer, direct_replicas: list[Replica]
) -> None:
    first, second = direct_replicas
    _, session = first.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})

    own_redis.command("SET", KEYS.layout, 2)
    unsupported = [replica.call("GET", "/readyz")[0] for replica in direct_replicas]
    own_redis.command("SET", KEYS.layout, 1)
    supported = [replica.call("GET", "/readyz")[0] for replica in direct_replicas]

    assert (unsupported, supported) == ([503, 503], [200, 200])
    assert second.call("GET", f"{SESSIONS}/{session['sessionId']}")[0] == 200
