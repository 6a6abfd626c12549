"""While Redis rejects changes, reads succeed and changes return 503."""

import asyncio
from collections import Counter

import pytest
from pytest_aiohttp.plugin import AiohttpClient

from tests.conftest import HttpClient
from tests.outages.incidents import (
    CHANGES,
    READ_ONLY,
    VERBS,
    Incident,
    call,
    call_policy,
    connections_to,
    content_of,
    create,
    demoted,
    keys_without_ttl,
    out_of_memory,
    server_over,
    status_of,
    until_ready,
    without_replicas,
)
from tests.redis_server import RedisServer
from tests.test_walkthrough import open_session


@READ_ONLY
@pytest.mark.parametrize("verb", ["heartbeat", "renew", "update timeout", "update metadata"])
async def test_rejected_changes_return_503_and_change_nothing(
    service: HttpClient, own_redis: RedisServer, read_only: Incident, verb: str
) -> None:
    session_id = await open_session(service)
    before = content_of(own_redis, session_id)

    with read_only(own_redis):
        response = await call(service, session_id, *VERBS[verb])

    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert content_of(own_redis, session_id) == before


@READ_ONLY
async def test_a_rejected_creation_leaves_no_keys(
    service: HttpClient, own_redis: RedisServer, read_only: Incident
) -> None:
    await until_ready(service)

    with read_only(own_redis):
        response = await create(service)

    assert response.status == 503
    assert own_redis.command("KEYS", "session*{*") == []


@READ_ONLY
async def test_a_rejected_policy_change_keeps_the_old_policy(
    service: HttpClient, own_redis: RedisServer, read_only: Incident
) -> None:
    before = await (await call_policy(service, "PUT")).json()

    with read_only(own_redis):
        refused, read = await call_policy(service, "PUT", minutes=45), await call_policy(service, "GET")

    assert (refused.status, read.status) == (503, 200)
    assert await read.json() == before


@READ_ONLY
async def test_rejected_changes_leave_no_key_without_a_ttl(
    service: HttpClient, own_redis: RedisServer, read_only: Incident
) -> None:
    session_id = await open_session(service)

    with read_only(own_redis):
        await asyncio.gather(create(service), *(call(service, session_id, *verb) for verb in CHANGES.values()))

    assert keys_without_ttl(own_redis) == []


@pytest.mark.parametrize("read_only", [demoted, without_replicas])
async def test_a_deletion_that_redis_rejects_returns_503(
    service: HttpClient, own_redis: RedisServer, read_only: Incident
) -> None:
    session_id = await open_session(service)

    with read_only(own_redis):
        response = await call(service, session_id, "DELETE")

    assert response.status == 503
    assert (await call(service, session_id)).status == 200


async def test_a_session_can_be_deleted_while_redis_is_out_of_memory(
    service: HttpClient, own_redis: RedisServer
) -> None:
    session_id = await open_session(service)

    with out_of_memory(own_redis):
        response = await call(service, session_id, "DELETE")

    assert response.status == 200


@READ_ONLY
async def test_the_rate_limiter_allows_reads_while_redis_rejects_changes(
    own_redis: RedisServer, aiohttp_client: AiohttpClient, read_only: Incident
) -> None:
    service: HttpClient = await aiohttp_client(server_over(own_redis, 30, session_rate_per_address="2/hour"))
    session_id = await open_session(service)

    with read_only(own_redis):
        statuses = [(await call(service, session_id)).status for _ in range(5)]

    assert statuses == [200] * 5


@READ_ONLY
async def test_an_exhausted_rate_limit_still_applies(
    own_redis: RedisServer, aiohttp_client: AiohttpClient, read_only: Incident
) -> None:
    service: HttpClient = await aiohttp_client(server_over(own_redis, 30, session_rate_per_address="1/hour"))
    session_id = await open_session(service)

    with read_only(own_redis):
        statuses = [(await call(service, session_id)).status for _ in range(3)]

    assert statuses == [429] * 3


@READ_ONLY
async def test_reads_succeed_while_redis_rejects_changes(
    service: HttpClient, own_redis: RedisServer, read_only: Incident
) -> None:
    session_id = await open_session(service)

    with read_only(own_redis):
        await call(service, session_id, "POST", "/heartbeat")
        response = await call(service, session_id)

    assert response.status == 200


@READ_ONLY
async def test_the_service_stays_ready_while_redis_rejects_changes(
    service: HttpClient, own_redis: RedisServer, read_only: Incident
) -> None:
    with read_only(own_redis):
        await create(service)
        response = await service.get("/readyz")

    assert response.status == 200


@READ_ONLY
async def test_the_first_change_after_the_incident_succeeds(
    service: HttpClient, own_redis: RedisServer, read_only: Incident
) -> None:
    session_id = await open_session(service)
    with read_only(own_redis):
        await call(service, session_id, "POST", "/heartbeat")

    response = await call(service, session_id, "POST", "/heartbeat")

    assert (await response.json())["renewalCount"] == 1


async def test_connections_to_a_demoted_server_are_closed(service: HttpClient, own_redis: RedisServer) -> None:
    session_id = await open_session(service)
    await asyncio.gather(*(call(service, session_id) for _ in range(30)))
    before = connections_to(own_redis)

    with demoted(own_redis):
        await call(service, session_id, "POST", "/heartbeat")
        kept = before & connections_to(own_redis)

    assert kept < before


async def test_reads_concurrent_with_rejected_changes_succeed_on_a_demoted_server(
    service: HttpClient, own_redis: RedisServer
) -> None:
    session_id = await open_session(service)

    with demoted(own_redis):
        changes = asyncio.gather(*(status_of(call(service, session_id, "POST", "/renew")) for _ in range(25)))
        reads = asyncio.gather(*(status_of(call(service, session_id)) for _ in range(25)))
        answers = Counter(await changes), Counter(await reads)

    assert answers == ({503: 25}, {200: 25})
