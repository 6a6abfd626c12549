"""Limits on the requests of addresses and callers."""

import pytest
from aiohttp import ClientResponse
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from service.errors import StartupError
from service.observability.metrics import Metrics
from service.rate_limit.limiter import build_rate_limiter
from service.redis_client.client import RedisClient
from service.sessions.keys import Keys
from service.settings import Settings
from tests.auth.conftest import key_headers, token_headers
from tests.conftest import AGENT, USER
from tests.rate_limit.conftest import (
    ADDRESS,
    AUTHENTICATION,
    OTHER_ADDRESS,
    UNKNOWN_SESSION,
    StartService,
    from_address,
    statuses_of,
)
from tests.test_walkthrough import SESSIONS


def rate_limit_headers(response: ClientResponse) -> tuple[str | None, str | None]:
    return response.headers.get("RateLimit-Policy"), response.headers.get("RateLimit")


# Addresses


async def test_requests_over_the_limit_of_an_address_are_429(start_service: StartService) -> None:
    client = await start_service(session_rate_per_address="3/hour")

    assert await statuses_of(client, 5, from_address(ADDRESS)) == [200, 200, 200, 429, 429]


async def test_the_error_contains_the_limit_and_the_time_to_wait(start_service: StartService) -> None:
    client = await start_service(session_rate_per_address="1/minute")
    await client.get(SESSIONS, headers=from_address(ADDRESS))

    response = await client.get(SESSIONS, headers=from_address(ADDRESS))
    error = await response.json()

    assert (response.status, error["success"], error["code"]) == (429, False, "RATE_LIMITED")
    assert error["details"] == {"limit": "address"}
    assert response.headers["Retry-After"] == "60"
    assert response.headers["Cache-Control"] == "no-store"
    assert rate_limit_headers(response) == ('"address";q=1;w=60', '"address";r=0;t=60')


async def test_the_error_follows_the_error_format(start_service: StartService) -> None:
    client = await start_service(session_rate_per_address="1/minute", session_error_format="flat")
    await client.get(SESSIONS)

    error = await (await client.get(SESSIONS)).json()

    assert error == {"error": "Too many requests", "code": "RATE_LIMITED", "details": {"limit": "address"}}


async def test_every_response_contains_the_state_of_the_limit(start_service: StartService) -> None:
    client = await start_service(session_rate_per_address="100/minute", session_guesses_per_address="off")
    requests = [
        ("POST", SESSIONS, {"agentId": AGENT, "userId": USER}),
        ("POST", SESSIONS, {}),
        ("GET", UNKNOWN_SESSION, None),
        ("POST", SESSIONS, {"agentId": "x" * 70_000}),
        ("DELETE", SESSIONS, None),
    ]

    responses = [await client.request(method, path, json=body) for method, path, body in requests]

    assert [response.status for response in responses] == [201, 400, 404, 413, 400]
    assert {response.headers["RateLimit-Policy"] for response in responses} == {'"address";q=100;w=60'}
    assert [response.headers["RateLimit"].partition(";t")[0] for response in responses] == [
        f'"address";r={remaining}' for remaining in (99, 98, 97, 96, 95)
    ]


async def test_each_address_has_its_own_limit(start_service: StartService) -> None:
    client = await start_service(session_rate_per_address="1/hour")
    addresses = (ADDRESS, OTHER_ADDRESS, "2a00::1", "2a00:0:0:1::1")

    statuses = [await statuses_of(client, 2, from_address(address)) for address in addresses]

    assert statuses == [[200, 429]] * 4


async def test_addresses_of_an_ipv6_network_share_a_limit(start_service: StartService) -> None:
    client = await start_service(session_rate_per_address="2/hour")

    statuses = [(await client.get(SESSIONS, headers=from_address(f"2a00::{number}"))).status for number in range(3)]

    assert statuses == [200, 200, 429]


async def test_a_forwarded_address_is_ignored_without_trusted_proxies(start_service: StartService) -> None:
    client = await start_service(session_rate_per_address="2/hour", trusted_proxies="")

    statuses = [(await client.get(SESSIONS, headers=from_address(f"192.0.2.{number}"))).status for number in range(3)]

    assert statuses == [200, 200, 429]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", f"{SESSIONS}/health", "/docs", "/openapi.json"])
async def test_probes_and_documentation_are_not_limited(start_service: StartService, path: str) -> None:
    client = await start_service(session_rate_per_address="1/hour")
    await statuses_of(client, 2, {})

    responses = [await client.get(path) for _ in range(3)]

    assert [(response.status, rate_limit_headers(response)) for response in responses] == [(200, (None, None))] * 3


async def test_without_limits_nothing_is_counted(start_service: StartService, redis: Redis) -> None:
    client = await start_service()

    response = await client.get(UNKNOWN_SESSION)

    assert rate_limit_headers(response) == (None, None)
    assert await redis.keys("sessions:address:*") == []


# Callers


async def test_each_caller_has_its_own_limit(start_service: StartService) -> None:
    client = await start_service(**AUTHENTICATION, session_rate_per_caller="2/hour", session_guesses_per_caller="off")
    callers = [
        key_headers("read"),
        key_headers("admin"),
        token_headers("read", scope="read"),
        token_headers(USER),
        token_headers(AGENT),
        token_headers("}{", scope="read"),
    ]

    statuses = [await statuses_of(client, 3, headers, UNKNOWN_SESSION) for headers in callers]

    assert statuses == [[404, 404, 429]] * 6


async def test_a_caller_has_one_limit_for_all_addresses(start_service: StartService) -> None:
    client = await start_service(**AUTHENTICATION, session_rate_per_caller="2/hour")
    requests = [key_headers("admin") | from_address(f"192.0.2.{number}") for number in range(3)]

    statuses = [(await client.get(SESSIONS, headers=headers)).status for headers in requests]

    assert statuses == [200, 200, 429]


async def test_responses_contain_the_state_of_both_limits(start_service: StartService) -> None:
    client = await start_service(
        **AUTHENTICATION, session_rate_per_address="9/hour", session_rate_per_caller="1/minute"
    )

    responses = [await client.get(SESSIONS, headers=key_headers("admin")) for _ in range(2)]

    assert [rate_limit_headers(response) for response in responses] == [
        ('"address";q=9;w=3600, "caller";q=1;w=60', '"address";r=8;t=400, "caller";r=0;t=60'),
        ('"address";q=9;w=3600, "caller";q=1;w=60', '"address";r=7;t=800, "caller";r=0;t=60'),
    ]


async def test_a_request_over_the_limit_of_its_address_does_not_count_for_its_caller(
    start_service: StartService,
) -> None:
    client = await start_service(**AUTHENTICATION, session_rate_per_address="1/hour", session_rate_per_caller="2/hour")

    first = await statuses_of(client, 5, key_headers("admin") | from_address(ADDRESS))
    second = await statuses_of(client, 1, key_headers("admin") | from_address(OTHER_ADDRESS))

    assert first == [200, 429, 429, 429, 429]
    assert second == [200]


async def test_the_limit_of_an_address_applies_before_authentication(start_service: StartService) -> None:
    client = await start_service(**AUTHENTICATION, session_rate_per_address="2/hour", session_guesses_per_address="off")

    assert await statuses_of(client, 4, {"X-API-KEY": "unknown"}) == [401, 401, 429, 429]


@pytest.mark.parametrize("name", ["session_rate_per_caller", "session_guesses_per_caller"])
async def test_limits_of_callers_require_authentication(redis_client: RedisClient, name: str) -> None:
    settings = Settings(**{name: "9/day"})  # type: ignore[arg-type]

    with pytest.raises(StartupError, match=f"^{name.upper()}: requires authentication"):
        build_rate_limiter(settings, redis_client, Keys(""), Metrics())


# Metrics and keys


async def test_rejected_requests_are_counted_by_limit(start_service: StartService) -> None:
    client = await start_service(session_rate_per_address="1/hour")
    await statuses_of(client, 4, {})

    metrics = await (await client.get("/metrics")).text()

    samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    counts = {
        sample.labels["limit"]: sample.value for sample in samples if sample.name == "sessions_requests_limited_total"
    }
    assert counts == {"address": 3, "address-guesses": 0, "caller": 0, "caller-guesses": 0}


async def test_nothing_is_written_to_data_of_another_schema_version(start_service: StartService, redis: Redis) -> None:
    await redis.set(Keys("").layout, "2")
    client = await start_service(session_rate_per_address="1/hour")

    assert await statuses_of(client, 3, {}) == [503, 503, 503]
    assert await redis.keys("sessions:address:*") == []


async def test_keys_of_buckets_have_the_key_prefix(start_service: StartService, redis: Redis) -> None:
    client = await start_service(session_rate_per_address="1/hour", session_key_prefix="app:")
    await statuses_of(client, 1, {})

    assert await redis.keys("*address*") == [b"app:sessions:address:{127.0.0.1}:requests"]
