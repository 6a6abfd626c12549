"""While Redis is unavailable, calls return 503; afterwards the first call succeeds."""

import asyncio
from collections import Counter

import pytest
from pytest_aiohttp.plugin import AiohttpClient

from tests.conftest import HttpClient
from tests.outages.incidents import (
    SOON_SECONDS,
    UNAVAILABLE,
    VERBS,
    Incident,
    call,
    call_for_user,
    call_policy,
    create,
    polling,
    server_over,
    status_of,
    until_ready,
)
from tests.redis_server import RedisServer
from tests.test_walkthrough import SESSIONS, open_session


@UNAVAILABLE
@pytest.mark.parametrize(("method", "verb"), VERBS.values(), ids=VERBS)
async def test_every_call_returns_503_with_retry_after(
    service: HttpClient, own_redis: RedisServer, unavailable: Incident, method: str, verb: str
) -> None:
    session_id = await open_session(service)

    with unavailable(own_redis):
        response = await call(service, session_id, method, verb)

    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert (await response.json())["code"] == "STORE_UNAVAILABLE"


@UNAVAILABLE
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
async def test_policy_calls_return_503_with_retry_after(
    service: HttpClient, own_redis: RedisServer, unavailable: Incident, method: str
) -> None:
    await call_policy(service, "PUT")

    with unavailable(own_redis):
        response = await call_policy(service, method)

    assert response.status == 503
    assert response.headers["Retry-After"] == "1"


@UNAVAILABLE
async def test_creation_returns_503_if_the_agent_cannot_be_checked(
    own_redis: RedisServer, aiohttp_client: AiohttpClient, unavailable: Incident, store_timeout_seconds: float
) -> None:
    service: HttpClient = await aiohttp_client(
        server_over(own_redis, store_timeout_seconds, session_require_known_agent=True)
    )
    await until_ready(service)

    with unavailable(own_redis):
        response = await create(service)

    assert response.status == 503


@UNAVAILABLE
async def test_the_rate_limiter_fails_open_during_an_outage(
    own_redis: RedisServer, aiohttp_client: AiohttpClient, unavailable: Incident, store_timeout_seconds: float
) -> None:
    service: HttpClient = await aiohttp_client(
        server_over(own_redis, store_timeout_seconds, session_rate_per_address="1/hour")
    )
    session_id = await open_session(service)

    with unavailable(own_redis):
        statuses = [(await call(service, session_id)).status for _ in range(3)]

    assert statuses == [503] * 3
    async with polling(service, session_id) as poller:
        await poller.wait_for(429)


@UNAVAILABLE
async def test_creation_returns_503_with_retry_after(
    service: HttpClient, own_redis: RedisServer, unavailable: Incident
) -> None:
    with unavailable(own_redis):
        response = await create(service)

    assert response.status == 503
    assert response.headers["Retry-After"] == "1"


@UNAVAILABLE
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_listings_and_revocations_return_503_and_change_nothing(
    service: HttpClient, own_redis: RedisServer, unavailable: Incident, method: str
) -> None:
    session_id = await open_session(service)

    with unavailable(own_redis):
        response = await call_for_user(service, method)

    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert (await call(service, session_id)).status == 200


@UNAVAILABLE
async def test_the_first_listing_after_an_outage_succeeds(
    service: HttpClient, own_redis: RedisServer, unavailable: Incident
) -> None:
    session_id = await open_session(service)
    await call_for_user(service, "GET")

    with unavailable(own_redis):
        await call_for_user(service, "GET")
    await until_ready(service)

    (listed,) = (await (await call_for_user(service, "GET")).json())["sessions"]
    assert listed["sessionId"] == session_id


@UNAVAILABLE
async def test_the_service_stays_alive_but_is_not_ready(
    service: HttpClient, own_redis: RedisServer, unavailable: Incident
) -> None:
    with unavailable(own_redis):
        alive, ready = await service.get("/livez"), await service.get("/readyz")

    assert (alive.status, ready.status) == (200, 503)


@UNAVAILABLE
async def test_health_reports_no_counts_during_an_outage(
    service: HttpClient, own_redis: RedisServer, unavailable: Incident
) -> None:
    with unavailable(own_redis):
        response = await service.get(f"{SESSIONS}/health")

    report = await response.json()
    assert response.status == 503
    assert (report["activeSessions"], report["expiringSoon"]) == (None, None)


@UNAVAILABLE
async def test_the_first_call_after_an_outage_succeeds(
    service: HttpClient, own_redis: RedisServer, unavailable: Incident
) -> None:
    session_id = await open_session(service)
    with unavailable(own_redis):
        await call(service, session_id)

    response = await call(service, session_id, "POST", "/heartbeat")

    assert response.status == 200


@UNAVAILABLE
async def test_the_service_is_ready_immediately_after_an_outage(
    service: HttpClient, own_redis: RedisServer, unavailable: Incident
) -> None:
    with unavailable(own_redis):
        await service.get("/readyz")

    response = await service.get("/readyz")

    assert response.status == 200


@UNAVAILABLE
async def test_a_live_session_never_returns_404_or_410_around_an_outage(
    service: HttpClient, own_redis: RedisServer, unavailable: Incident
) -> None:
    session_id = await open_session(service)

    async with polling(service, session_id) as poller:
        await poller.wait_for(200)
        with unavailable(own_redis):
            await poller.wait_for(503)
        await poller.wait_for(200)

    assert set(poller.statuses) == {200, 503}


@UNAVAILABLE
async def test_two_hundred_concurrent_calls_all_return_503(
    service: HttpClient, own_redis: RedisServer, unavailable: Incident
) -> None:
    session_id = await open_session(service)

    with unavailable(own_redis):
        async with asyncio.timeout(SOON_SECONDS):
            answers = await asyncio.gather(*(status_of(call(service, session_id)) for _ in range(200)))

    assert Counter(answers) == {503: 200}
