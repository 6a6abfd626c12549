"""Guessing ids and keys, limited harder than using them."""

import time

import pytest
from redis.asyncio import Redis

from tests.aging import age
from tests.auth.conftest import bearing, having
from tests.conftest import AGENT, USER, HttpClient
from tests.rate_limit.conftest import UNKNOWN, Serve, coming_from
from tests.rate_limit.test_requests import CLIENT, GUARDED, OTHER, asked
from tests.redis_contents import command_counts, reset_command_counts
from tests.test_walkthrough import MINUTE_MS, SESSIONS, open_session

NEW = {"agentId": AGENT, "userId": USER}
MISS = f"{SESSIONS}/{UNKNOWN}"
HERE = coming_from(CLIENT)


async def statuses_of(client: HttpClient, *calls: tuple[str, str], headers: dict[str, str] = HERE) -> list[int]:
    return [(await client.request(method, path, headers=headers)).status for method, path in calls]


async def test_so_many_unknown_ids_are_told_and_no_more(serve: Serve) -> None:
    client = await serve(session_guesses_per_address="3/hour")

    assert await asked(client, 6, HERE, MISS) == [404, 404, 404, 429, 429, 429]


async def test_it_is_told_what_and_how_long(serve: Serve) -> None:
    client = await serve(session_guesses_per_address="1/hour")

    told, refused = [await client.get(MISS, headers=HERE) for _ in range(2)]

    assert (told.status, told.headers["RateLimit"]) == (404, '"address-guesses";r=0;t=3600')
    assert (refused.status, refused.headers["RateLimit"]) == (429, '"address-guesses";r=0;t=3600')
    assert refused.headers["RateLimit-Policy"] == '"address-guesses";q=1;w=3600'
    assert refused.headers["Retry-After"] == "3600"
    assert (await refused.json())["details"] == {"limit": "address-guesses"}


async def test_once_none_are_left_a_known_id_is_not_told_either(serve: Serve) -> None:
    client = await serve(session_guesses_per_address="1/hour")
    path = f"{SESSIONS}/{await open_session(client)}"
    await client.get(MISS, headers=HERE)

    calls = ("GET", path), ("POST", f"{path}/heartbeat"), ("PATCH", f"{path}/timeout"), ("DELETE", path)

    assert await statuses_of(client, *calls) == [429] * 4
    assert await statuses_of(client, *calls[:2], headers=coming_from(OTHER)) == [200, 200]


async def test_whatever_names_no_session_goes_on(serve: Serve) -> None:
    client = await serve(session_guesses_per_address="1/hour")
    await asked(client, 2, HERE, MISS)

    opened = await client.post(SESSIONS, json=NEW, headers=HERE)

    assert opened.status == 201
    assert await asked(client, 1, HERE) == [200]


async def test_who_never_misses_is_not_held_up(serve: Serve) -> None:
    client = await serve(session_guesses_per_address="1/hour")
    path = f"{SESSIONS}/{await open_session(client)}"

    assert await asked(client, 20, HERE, path) == [200] * 20


async def test_an_ended_session_is_no_guess(serve: Serve, redis: Redis) -> None:
    client = await serve(session_guesses_per_address="1/hour")
    session_id = await open_session(client)
    await age(redis, session_id, 31 * MINUTE_MS)

    assert await asked(client, 5, HERE, f"{SESSIONS}/{session_id}") == [410] * 5


@pytest.mark.parametrize("session_id", ["nonsense", UNKNOWN.upper(), "%00"])
async def test_what_is_no_id_at_all_is_a_guess(serve: Serve, session_id: str) -> None:
    client = await serve(session_guesses_per_address="1/hour")

    assert await asked(client, 2, HERE, f"{SESSIONS}/{session_id}") == [404, 429]


@pytest.mark.parametrize(
    "call",
    [("POST", f"{MISS}/heartbeat"), ("POST", f"{MISS}/renew"), ("DELETE", MISS), ("HEAD", MISS)],
    ids=lambda call: " ".join(call).replace(MISS, ""),
)
async def test_every_verb_can_guess(serve: Serve, call: tuple[str, str]) -> None:
    client = await serve(session_guesses_per_address="1/hour")

    assert await statuses_of(client, call, call) == [404, 429]


@pytest.mark.parametrize("path", [f"/api/messaging/agents/{AGENT}/timeout", "/nowhere"])
async def test_what_else_is_unknown_is_no_guess(serve: Serve, path: str) -> None:
    client = await serve(session_guesses_per_address="1/hour")

    assert await asked(client, 3, HERE, path) == [404] * 3


async def test_a_wrong_key_is_a_guess_wherever_it_is_tried(serve: Serve) -> None:
    client = await serve(**GUARDED, session_guesses_per_address="4/hour")
    wrong = HERE | {"X-API-KEY": "wrong"}

    answers = [await asked(client, 1, wrong, path) for path in (SESSIONS, MISS, "/metrics", f"{SESSIONS}/health")]

    assert answers == [[401]] * 4
    assert await asked(client, 1, wrong) + await asked(client, 1, wrong, "/metrics") == [429, 429]
    assert await asked(client, 1, having("admin") | HERE, "/metrics") == [200]


async def test_a_forged_token_is_a_guess_and_one_that_is_missing_or_expired_is_none(serve: Serve) -> None:
    client = await serve(**GUARDED, session_guesses_per_address="1/hour")
    forged = {"Authorization": bearing(USER)["Authorization"] + "x"}
    expired = bearing(USER, exp=time.time() - 60)

    assert await asked(client, 3, HERE) == [401] * 3
    assert await asked(client, 3, HERE | expired) == [401] * 3
    assert await asked(client, 2, HERE | forged) == [401, 429]


async def test_another_users_session_is_a_guess(serve: Serve) -> None:
    client = await serve(**GUARDED, session_guesses_per_caller="1/hour")
    opened = await client.post(SESSIONS, json=NEW, headers=bearing(USER))
    path = opened.headers["Location"]

    assert await asked(client, 2, bearing(AGENT), path) == [404, 429]
    assert await asked(client, 2, bearing(USER), path) == [200, 200]


async def test_a_caller_has_one_number_of_guesses_over_all_addresses(serve: Serve) -> None:
    client = await serve(**GUARDED, session_guesses_per_caller="2/hour")

    statuses = [
        (await client.get(MISS, headers=having("read") | coming_from(f"203.0.113.{number}"))).status
        for number in range(4)
    ]

    assert statuses == [404, 404, 429, 429]


async def test_a_guess_counts_for_its_address_and_its_caller(serve: Serve) -> None:
    client = await serve(**GUARDED, session_guesses_per_address="3/hour", session_guesses_per_caller="2/hour")

    answer = await client.get(MISS, headers=HERE | having("read"))

    assert answer.headers["RateLimit"] == '"address-guesses";r=2;t=1200, "caller-guesses";r=1;t=1800'


async def test_where_requests_are_limited_a_tenth_of_them_may_be_guesses(serve: Serve) -> None:
    client = await serve(session_rate_per_address="20/hour")

    assert await asked(client, 3, HERE, MISS) == [404, 404, 429]


async def test_guesses_may_be_left_unlimited(serve: Serve) -> None:
    client = await serve(session_rate_per_address="20/hour", session_guesses_per_address="off")

    assert await asked(client, 20, HERE, MISS) == [404] * 20


@pytest.mark.parametrize("headers", [having("read"), bearing(AGENT)], ids=["key", "token"])
async def test_once_none_are_left_no_session_is_looked_at(serve: Serve, redis: Redis, headers: dict[str, str]) -> None:
    client = await serve(**GUARDED, session_guesses_per_caller="1/hour")
    await client.get(MISS, headers=headers)
    await reset_command_counts(redis)

    await asked(client, 5, headers, MISS)

    assert (await command_counts(redis))["hmget"] == 0
