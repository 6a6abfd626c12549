"""Requests limited by where they come from and by who asks."""

import pytest
from aiohttp import ClientResponse
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from service.sessions.keys import Keys
from tests.auth.conftest import AUDIENCE, ENTRIES, ISSUER, SECRET, bearing, having
from tests.conftest import AGENT, USER, HttpClient
from tests.rate_limit.conftest import UNKNOWN, Serve, coming_from
from tests.test_walkthrough import SESSIONS

CLIENT, OTHER = "203.0.113.7", "203.0.113.8"
GUARDED = {
    "session_api_keys": ENTRIES,
    "session_jwt_issuer": ISSUER,
    "session_jwt_audience": AUDIENCE,
    "session_jwt_secret": SECRET,
}


async def asked(client: HttpClient, times: int, headers: dict[str, str], path: str = SESSIONS) -> list[int]:
    """The statuses of so many answers, one after the other."""
    return [(await client.get(path, headers=headers)).status for _ in range(times)]


def limits_told(answer: ClientResponse) -> tuple[str | None, str | None]:
    return answer.headers.get("RateLimit-Policy"), answer.headers.get("RateLimit")


async def test_what_is_more_than_the_limit_has_to_wait(serve: Serve) -> None:
    client = await serve(session_rate_per_address="3/hour")

    assert await asked(client, 5, coming_from(CLIENT)) == [200, 200, 200, 429, 429]


async def test_it_is_told_what_and_how_long(serve: Serve) -> None:
    client = await serve(session_rate_per_address="1/minute")
    await client.get(SESSIONS, headers=coming_from(CLIENT))

    answer = await client.get(SESSIONS, headers=coming_from(CLIENT))
    body = await answer.json()

    assert (answer.status, body["success"], body["code"], body["details"]) == (
        429,
        False,
        "RATE_LIMITED",
        {"limit": "address"},
    )
    assert answer.headers["Retry-After"] == "60"
    assert answer.headers["Cache-Control"] == "no-store"
    assert limits_told(answer) == ('"address";q=1;w=60', '"address";r=0;t=60')


async def test_the_refusal_is_flat_where_errors_are(serve: Serve) -> None:
    client = await serve(session_rate_per_address="1/minute", session_error_format="flat")
    await client.get(SESSIONS)

    body = await (await client.get(SESSIONS)).json()

    assert body == {"error": "Too many requests", "code": "RATE_LIMITED", "details": {"limit": "address"}}


async def test_every_answer_tells_how_the_limit_stands(serve: Serve) -> None:
    client = await serve(session_rate_per_address="100/minute", session_guesses_per_address="off")
    calls = [
        ("POST", SESSIONS, {"agentId": AGENT, "userId": USER}),
        ("POST", SESSIONS, {}),
        ("GET", f"{SESSIONS}/{UNKNOWN}", None),
        ("POST", SESSIONS, {"agentId": "x" * 70_000}),
        ("DELETE", SESSIONS, None),
    ]

    answers = [await client.request(method, path, json=body) for method, path, body in calls]

    assert [answer.status for answer in answers] == [201, 400, 404, 413, 400]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"address";q=100;w=60'}
    assert [answer.headers["RateLimit"].partition(";t")[0] for answer in answers] == [
        f'"address";r={left}' for left in (99, 98, 97, 96, 95)
    ]


async def test_addresses_do_not_share_it(serve: Serve) -> None:
    client = await serve(session_rate_per_address="1/hour")

    answers = [await asked(client, 2, coming_from(address)) for address in (CLIENT, OTHER, "2a00::1", "2a00:0:0:1::1")]

    assert answers == [[200, 429]] * 4


async def test_addresses_of_one_ipv6_network_share_it(serve: Serve) -> None:
    client = await serve(session_rate_per_address="2/hour")

    statuses = [(await client.get(SESSIONS, headers=coming_from(f"2a00::{number}"))).status for number in range(3)]

    assert statuses == [200, 200, 429]


async def test_an_address_that_nobody_trusted_tells_is_not_believed(serve: Serve) -> None:
    client = await serve(session_rate_per_address="2/hour", trusted_proxies="")

    statuses = [(await client.get(SESSIONS, headers=coming_from(f"203.0.113.{number}"))).status for number in range(3)]

    assert statuses == [200, 200, 429]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", f"{SESSIONS}/health", "/docs", "/openapi.json"])
async def test_probes_and_documentation_are_not_limited(serve: Serve, path: str) -> None:
    client = await serve(session_rate_per_address="1/hour")
    await asked(client, 2, {})

    answers = [await client.get(path) for _ in range(3)]

    assert [(answer.status, limits_told(answer)) for answer in answers] == [(200, (None, None))] * 3


async def test_where_limits_are_off_nothing_is_told_of_them(serve: Serve, redis: Redis) -> None:
    client = await serve()

    answer = await client.get(f"{SESSIONS}/{UNKNOWN}")

    assert limits_told(answer) == (None, None)
    assert await redis.keys("sessions:address:*") == []


async def test_callers_do_not_share_theirs(serve: Serve) -> None:
    client = await serve(**GUARDED, session_rate_per_caller="2/hour", session_guesses_per_caller="off")
    callers = [having("read"), having("admin"), bearing(USER), bearing(AGENT), bearing("}{", scope="read")]

    answers = [await asked(client, 3, headers, f"{SESSIONS}/{UNKNOWN}") for headers in callers]

    assert answers == [[404, 404, 429]] * 5


async def test_a_key_and_a_token_of_its_name_do_not_share_theirs(serve: Serve) -> None:
    client = await serve(**GUARDED, session_rate_per_caller="1/hour", session_guesses_per_caller="off")
    path = f"{SESSIONS}/{UNKNOWN}"

    answers = [await asked(client, 2, headers, path) for headers in (having("read"), bearing("read", scope="read"))]

    assert answers == [[404, 429]] * 2


async def test_a_caller_has_one_limit_over_all_addresses(serve: Serve) -> None:
    client = await serve(**GUARDED, session_rate_per_caller="2/hour")

    statuses = [
        (await client.get(SESSIONS, headers=having("admin") | coming_from(f"203.0.113.{number}"))).status
        for number in range(3)
    ]

    assert statuses == [200, 200, 429]


async def test_both_limits_are_told(serve: Serve) -> None:
    client = await serve(**GUARDED, session_rate_per_address="9/hour", session_rate_per_caller="1/minute")

    answers = [await client.get(SESSIONS, headers=having("admin")) for _ in range(2)]

    assert [limits_told(answer) for answer in answers] == [
        ('"address";q=9;w=3600, "caller";q=1;w=60', '"address";r=8;t=400, "caller";r=0;t=60'),
        ('"address";q=9;w=3600, "caller";q=1;w=60', '"address";r=7;t=800, "caller";r=0;t=60'),
    ]


async def test_what_the_address_may_not_takes_nothing_from_the_caller(serve: Serve) -> None:
    client = await serve(**GUARDED, session_rate_per_address="1/hour", session_rate_per_caller="2/hour")

    from_one = await asked(client, 5, having("admin") | coming_from(CLIENT))
    from_another = await asked(client, 1, having("admin") | coming_from(OTHER))

    assert from_one == [200, 429, 429, 429, 429]
    assert from_another == [200]


async def test_keys_are_asked_for_only_within_the_limit_of_the_address(serve: Serve) -> None:
    client = await serve(**GUARDED, session_rate_per_address="2/hour", session_guesses_per_address="off")

    assert await asked(client, 4, {"X-API-KEY": "wrong"}) == [401, 401, 429, 429]


async def test_what_is_refused_is_counted_by_limit(serve: Serve) -> None:
    client = await serve(session_rate_per_address="1/hour")
    await asked(client, 4, {})

    served = await (await client.get("/metrics")).text()

    samples = [sample for family in text_string_to_metric_families(served) for sample in family.samples]
    counts = {
        sample.labels["limit"]: sample.value for sample in samples if sample.name == "sessions_requests_limited_total"
    }
    assert counts == {"address": 3, "address-guesses": 0, "caller": 0, "caller-guesses": 0}


async def test_data_of_an_unknown_layout_is_left_alone(serve: Serve, redis: Redis) -> None:
    await redis.set(Keys("").layout, "2")
    client = await serve(session_rate_per_address="1/hour")

    assert await asked(client, 3, {}) == [503, 503, 503]
    assert await redis.keys("sessions:address:*") == []


async def test_a_prefix_stands_before_buckets_too(serve: Serve, redis: Redis) -> None:
    client = await serve(session_rate_per_address="1/hour", session_key_prefix="app:")
    await asked(client, 1, {})

    assert await redis.keys("*address*") == [b"app:sessions:address:{127.0.0.1}:requests"]
