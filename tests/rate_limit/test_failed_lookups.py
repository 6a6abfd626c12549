"""Limits on unknown session ids, keys and tokens."""

import time

import pytest
from redis.asyncio import Redis

from tests.aging import age
from tests.auth.conftest import key_headers, token_headers
from tests.conftest import AGENT, USER
from tests.rate_limit.conftest import (
    ADDRESS,
    AUTHENTICATION,
    OTHER_ADDRESS,
    UNKNOWN_ID,
    UNKNOWN_SESSION,
    StartService,
    from_address,
    statuses_of,
)
from tests.redis_contents import command_counts, reset_command_counts
from tests.test_walkthrough import MINUTE_MS, SESSIONS, open_session

NEW_SESSION = {"agentId": AGENT, "userId": USER}
CLIENT = from_address(ADDRESS)


# Session ids


async def test_failed_lookups_over_the_limit_are_429(start_service: StartService) -> None:
    client = await start_service(session_guesses_per_address="3/hour")

    assert await statuses_of(client, 6, CLIENT, UNKNOWN_SESSION) == [404, 404, 404, 429, 429, 429]


async def test_responses_contain_the_state_of_the_limit(start_service: StartService) -> None:
    client = await start_service(session_guesses_per_address="1/hour")

    reported, rejected = [await client.get(UNKNOWN_SESSION, headers=CLIENT) for _ in range(2)]

    assert (reported.status, reported.headers["RateLimit"]) == (404, '"address-guesses";r=0;t=3600')
    assert (rejected.status, rejected.headers["RateLimit"]) == (429, '"address-guesses";r=0;t=3600')
    assert rejected.headers["RateLimit-Policy"] == '"address-guesses";q=1;w=3600'
    assert rejected.headers["Retry-After"] == "3600"
    assert (await rejected.json())["details"] == {"limit": "address-guesses"}


async def test_at_the_limit_existing_sessions_are_429_too(start_service: StartService) -> None:
    client = await start_service(session_guesses_per_address="1/hour")
    path = f"{SESSIONS}/{await open_session(client)}"
    await client.get(UNKNOWN_SESSION, headers=CLIENT)
    requests = [("GET", path), ("POST", f"{path}/heartbeat"), ("PATCH", f"{path}/timeout"), ("DELETE", path)]

    statuses = [(await client.request(*request, headers=CLIENT)).status for request in requests]

    assert statuses == [429] * 4
    assert await statuses_of(client, 1, from_address(OTHER_ADDRESS), path) == [200]
    assert await statuses_of(client, 1, from_address(OTHER_ADDRESS), f"{path}/heartbeat", "POST") == [200]


async def test_at_the_limit_requests_without_a_session_id_pass(start_service: StartService) -> None:
    client = await start_service(session_guesses_per_address="1/hour")
    await statuses_of(client, 2, CLIENT, UNKNOWN_SESSION)

    created = await client.post(SESSIONS, json=NEW_SESSION, headers=CLIENT)

    assert created.status == 201
    assert await statuses_of(client, 1, CLIENT) == [200]


async def test_successful_lookups_do_not_count(start_service: StartService) -> None:
    client = await start_service(session_guesses_per_address="1/hour")
    path = f"{SESSIONS}/{await open_session(client)}"

    assert await statuses_of(client, 20, CLIENT, path) == [200] * 20


async def test_expired_sessions_do_not_count(start_service: StartService, redis: Redis) -> None:
    client = await start_service(session_guesses_per_address="1/hour")
    session_id = await open_session(client)
    await age(redis, session_id, 31 * MINUTE_MS)

    assert await statuses_of(client, 5, CLIENT, f"{SESSIONS}/{session_id}") == [410] * 5


@pytest.mark.parametrize("session_id", ["nonsense", UNKNOWN_ID.upper(), "%00"])
async def test_an_id_that_the_service_cannot_have_issued_counts(start_service: StartService, session_id: str) -> None:
    client = await start_service(session_guesses_per_address="1/hour")

    assert await statuses_of(client, 2, CLIENT, f"{SESSIONS}/{session_id}") == [404, 429]


@pytest.mark.parametrize(("method", "path"), [("POST", "/heartbeat"), ("POST", "/renew"), ("DELETE", ""), ("HEAD", "")])
async def test_failed_lookups_of_every_method_count(start_service: StartService, method: str, path: str) -> None:
    client = await start_service(session_guesses_per_address="1/hour")

    assert await statuses_of(client, 2, CLIENT, UNKNOWN_SESSION + path, method) == [404, 429]


@pytest.mark.parametrize("path", [f"/api/messaging/agents/{AGENT}/timeout", "/nowhere"])
async def test_other_404_responses_do_not_count(start_service: StartService, path: str) -> None:
    client = await start_service(session_guesses_per_address="1/hour")

    assert await statuses_of(client, 3, CLIENT, path) == [404] * 3


# Keys and tokens


async def test_an_unknown_key_counts_on_every_route(start_service: StartService) -> None:
    client = await start_service(**AUTHENTICATION, session_guesses_per_address="4/hour")
    unknown = CLIENT | {"X-API-KEY": "unknown"}
    paths = (SESSIONS, UNKNOWN_SESSION, "/metrics", f"{SESSIONS}/health")

    reported = [await statuses_of(client, 1, unknown, path) for path in paths]
    rejected = [await statuses_of(client, 1, unknown, path) for path in (SESSIONS, "/metrics")]

    assert (reported, rejected) == ([[401]] * 4, [[429]] * 2)
    assert await statuses_of(client, 1, key_headers("admin") | CLIENT, "/metrics") == [200]


async def test_a_forged_token_counts_and_a_missing_or_expired_one_does_not(start_service: StartService) -> None:
    client = await start_service(**AUTHENTICATION, session_guesses_per_address="1/hour")
    forged = {"Authorization": token_headers(USER)["Authorization"] + "x"}
    expired = token_headers(USER, exp=time.time() - 60)

    assert await statuses_of(client, 3, CLIENT) == [401] * 3
    assert await statuses_of(client, 3, CLIENT | expired) == [401] * 3
    assert await statuses_of(client, 2, CLIENT | forged) == [401, 429]


# Callers


async def test_the_session_of_another_user_counts(start_service: StartService) -> None:
    client = await start_service(**AUTHENTICATION, session_guesses_per_caller="1/hour")
    created = await client.post(SESSIONS, json=NEW_SESSION, headers=token_headers(USER))
    path = created.headers["Location"]

    assert await statuses_of(client, 2, token_headers(AGENT), path) == [404, 429]
    assert await statuses_of(client, 2, token_headers(USER), path) == [200, 200]


async def test_a_caller_has_one_limit_for_all_addresses(start_service: StartService) -> None:
    client = await start_service(**AUTHENTICATION, session_guesses_per_caller="2/hour")
    requests = [key_headers("read") | from_address(f"192.0.2.{number}") for number in range(4)]

    statuses = [(await client.get(UNKNOWN_SESSION, headers=headers)).status for headers in requests]

    assert statuses == [404, 404, 429, 429]


async def test_a_failed_lookup_counts_for_its_address_and_its_caller(start_service: StartService) -> None:
    client = await start_service(
        **AUTHENTICATION, session_guesses_per_address="3/hour", session_guesses_per_caller="2/hour"
    )

    response = await client.get(UNKNOWN_SESSION, headers=CLIENT | key_headers("read"))

    assert response.headers["RateLimit"] == '"address-guesses";r=2;t=1200, "caller-guesses";r=1;t=1800'


@pytest.mark.parametrize("headers", [key_headers("read"), token_headers(AGENT)], ids=["key", "token"])
async def test_at_the_limit_sessions_are_not_read(
    start_service: StartService, redis: Redis, headers: dict[str, str]
) -> None:
    client = await start_service(**AUTHENTICATION, session_guesses_per_caller="1/hour")
    await client.get(UNKNOWN_SESSION, headers=headers)
    await reset_command_counts(redis)

    await statuses_of(client, 5, headers, UNKNOWN_SESSION)

    assert (await command_counts(redis))["hmget"] == 0


# Settings


async def test_the_default_limit_is_a_tenth_of_the_requests(start_service: StartService) -> None:
    client = await start_service(session_rate_per_address="20/hour")

    assert await statuses_of(client, 3, CLIENT, UNKNOWN_SESSION) == [404, 404, 429]


async def test_the_limit_can_be_off(start_service: StartService) -> None:
    client = await start_service(session_rate_per_address="20/hour", session_guesses_per_address="off")

    assert await statuses_of(client, 20, CLIENT, UNKNOWN_SESSION) == [404] * 20
