"""Redis pauses, restarts, loads its data, or loses data, scripts and connections."""

import asyncio
from collections import Counter

import pytest
from pytest_aiohttp.plugin import AiohttpClient

from tests.conftest import HttpClient
from tests.outages.incidents import (
    PAUSE_TIMEOUT_SECONDS,
    VERBS,
    call,
    content_of,
    create,
    killed,
    paused,
    renewal_count,
    server_over,
    status_of,
    until_ready,
)
from tests.redis_server import RedisServer
from tests.test_walkthrough import open_session


async def test_two_hundred_concurrent_calls_all_succeed(service: HttpClient) -> None:
    session_id = await open_session(service)

    answers = await asyncio.gather(*(status_of(call(service, session_id)) for _ in range(200)))

    assert Counter(answers) == {200: 200}


async def test_two_hundred_concurrent_calls_all_succeed_after_a_restart(
    service: HttpClient, own_redis: RedisServer
) -> None:
    session_id = await open_session(service)
    await asyncio.gather(*(call(service, session_id) for _ in range(200)))
    with killed(own_redis):
        await call(service, session_id)

    answers = await asyncio.gather(*(status_of(call(service, session_id)) for _ in range(200)))

    assert Counter(answers) == {200: 200}


@pytest.mark.parametrize("store_timeout_seconds", [PAUSE_TIMEOUT_SECONDS])
@pytest.mark.parametrize("verb", ["/heartbeat", "/renew"])
async def test_a_renewal_during_a_pause_counts_at_most_once(
    service: HttpClient, own_redis: RedisServer, verb: str
) -> None:
    session_id = await open_session(service)
    await call(service, session_id, "POST", verb)

    with paused(own_redis):
        renewing = asyncio.create_task(status_of(call(service, session_id, "POST", verb)))
        await asyncio.wait([renewing], timeout=1.5 * PAUSE_TIMEOUT_SECONDS)

    assert await renewing == 503
    assert await renewal_count(service, session_id) in (1, 2)


async def test_renewals_during_a_restart_count_at_most_once(service: HttpClient, own_redis: RedisServer) -> None:
    session_id = await open_session(service)
    calls = [asyncio.create_task(status_of(call(service, session_id, "POST", "/heartbeat"))) for _ in range(50)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)

    with killed(own_redis):
        answers = Counter(await asyncio.gather(*calls))

    assert set(answers) <= {200, 503}
    assert answers[200] <= await renewal_count(service, session_id) <= 50


async def test_a_session_survives_a_restart_of_redis_unchanged(service: HttpClient, own_redis: RedisServer) -> None:
    session_id = await open_session(service, metadata={"a": 18446744073709551615})
    before = content_of(own_redis, session_id)

    with killed(own_redis):
        pass

    assert content_of(own_redis, session_id) == before
    assert (await call(service, session_id)).status == 200


async def test_calls_return_503_while_redis_loads_its_data(
    unpersisted_redis: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    service: HttpClient = await aiohttp_client(server_over(unpersisted_redis, 30))
    session_id = await open_session(service)
    unpersisted_redis.command("EVAL", "for i = 1, 5000 do redis.call('SET', 'filling:' .. i, i, 'EX', 60) end", 0)
    unpersisted_redis.command("SAVE")
    unpersisted_redis.kill()
    unpersisted_redis.start_loading(microseconds_per_key=200)

    script_load_commands = await call(service, session_id)
    ready = await service.get("/readyz")
    await until_ready(service)

    assert (script_load_commands.status, ready.status) == (503, 503)
    assert (await call(service, session_id)).status == 200


async def test_after_data_loss_sessions_return_404_and_creation_succeeds(
    unpersisted_redis: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    service: HttpClient = await aiohttp_client(server_over(unpersisted_redis, 30))
    session_id = await open_session(service)

    with killed(unpersisted_redis):
        await call(service, session_id)

    assert (await call(service, session_id)).status == 404
    assert (await create(service)).status == 201


# Lost scripts and connections


@pytest.mark.parametrize("loss", [("SCRIPT", "FLUSH"), ("CLIENT", "KILL", "TYPE", "normal")], ids=" ".join)
@pytest.mark.parametrize(("method", "verb"), VERBS.values(), ids=VERBS)
async def test_the_first_call_after_lost_scripts_or_connections_succeeds(
    service: HttpClient, own_redis: RedisServer, loss: tuple[str, ...], method: str, verb: str
) -> None:
    session_id = await open_session(service)
    await asyncio.gather(*(call(service, session_id) for _ in range(20)))
    own_redis.command(*loss)

    response = await call(service, session_id, method, verb)

    assert response.status == 200


async def test_a_creation_succeeds_after_scripts_were_flushed(service: HttpClient, own_redis: RedisServer) -> None:
    await create(service)
    own_redis.command("SCRIPT", "FLUSH")

    response = await create(service)

    assert response.status == 201


async def test_heartbeats_after_scripts_were_flushed_count_once_each(
    service: HttpClient, own_redis: RedisServer
) -> None:
    session_id = await open_session(service)
    own_redis.command("SCRIPT", "FLUSH")

    await asyncio.gather(*(call(service, session_id, "POST", "/heartbeat") for _ in range(20)))

    assert await renewal_count(service, session_id) == 20
