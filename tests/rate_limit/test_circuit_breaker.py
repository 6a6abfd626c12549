"""While Redis does not count requests, they pass without waiting, and the log reports it once."""

import logging
from collections.abc import Sequence
from typing import cast

import pytest

from service.errors import StoreUnavailable
from service.rate_limit import circuit_breaker
from service.rate_limit.buckets import Buckets, Limit, RateLimitStatus
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import ScriptError
from service.redis_client.scripts import Command
from service.sessions.keys import BucketKeys, Keys
from service.settings.rate_limits import Rate

LIMIT = Limit("address", Rate(100, 60))
FAILING, WORKING = (Keys("").requests("address", address) for address in ("203.0.113.7", "203.0.113.8"))


class FailingClient:
    """A client that fails for some keys, and records the keys of all calls."""

    def __init__(self, error: Exception, *, supports_multi_slot: bool = True) -> None:
        self._error = error
        self.supports_multi_slot = supports_multi_slot
        self.failing_keys: set[str] = {FAILING.bucket}
        self.calls: list[str] = []

    async def execute(self, *commands: Command) -> Sequence[Reply]:
        key = str(commands[0][3])
        self.calls.append(key)
        if key in self.failing_keys:
            raise self._error
        return [[b"taken", 99, 600_000]]


@pytest.fixture(params=[StoreUnavailable("cause"), ScriptError("cause")], ids=lambda error: type(error).__name__)
def failing_client(request: pytest.FixtureRequest) -> FailingClient:
    return FailingClient(request.param)


@pytest.fixture
def buckets(failing_client: FailingClient) -> Buckets:
    return Buckets(cast(RedisClient, failing_client))


async def take(buckets: Buckets, number: int = 1, keys: BucketKeys = FAILING) -> list[dict[str, str]]:
    """Take this number of requests, and return the headers of each."""
    statuses = [RateLimitStatus() for _ in range(number)]
    for status in statuses:
        await buckets.take(keys, LIMIT, None, status)
    return [dict(status.headers()) for status in statuses]


async def test_a_request_that_is_not_counted_passes_without_headers(buckets: Buckets) -> None:
    assert await take(buckets) == [{}]


async def test_after_a_failure_other_requests_pass_without_a_call(
    buckets: Buckets, failing_client: FailingClient
) -> None:
    await take(buckets, 50)

    assert len(failing_client.calls) == 1


async def test_after_a_pause_the_next_request_tries_again(
    buckets: Buckets, failing_client: FailingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "RETRY_SECONDS", 0)
    await take(buckets, 3)
    failing_client.failing_keys.clear()

    headers = await take(buckets, 3)

    assert len(failing_client.calls) == 6
    assert {each["RateLimit"] for each in headers} == {'"address";r=99;t=1'}


async def test_the_start_and_the_end_of_an_incident_are_logged_once(
    buckets: Buckets,
    failing_client: FailingClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(circuit_breaker, "RETRY_SECONDS", 0)
    monkeypatch.setattr(circuit_breaker, "QUIET_SECONDS", 0)
    await take(buckets, 5)
    failing_client.failing_keys.clear()
    await take(buckets, 5)

    assert [message.partition(",")[0] for message in caplog.messages] == [
        "rate limits are not enforced",
        "rate limits are enforced again",
    ]


async def test_in_a_cluster_the_other_servers_still_count(caplog: pytest.LogCaptureFixture) -> None:
    client = FailingClient(StoreUnavailable("cause"), supports_multi_slot=False)
    buckets = Buckets(cast(RedisClient, client))

    await take(buckets, 5)
    headers = await take(buckets, 5, WORKING)

    assert client.calls == [FAILING.bucket, *[WORKING.bucket] * 5]
    assert all(headers)
    assert len(caplog.records) == 1
