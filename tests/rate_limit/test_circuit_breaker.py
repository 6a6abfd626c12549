"""Requests that Redis does not count: let through, not waited for, and told of once."""

import logging
from collections.abc import Sequence
from typing import Any, cast

import pytest

from service.errors import StoreUnavailable
from service.rate_limit import circuit_breaker
from service.rate_limit.buckets import Buckets
from service.rate_limit.limit import Limit, RateLimitStatus
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import ScriptError
from service.redis_client.scripts import Command
from service.sessions.keys import Keys
from service.settings.rate_limits import Rate

LIMIT = Limit("address", Rate(100, 60))
HERE, THERE = (Keys("").requests("address", address) for address in ("203.0.113.7", "203.0.113.8"))


class Away:
    """A lane on which some keys cannot be had; it remembers what it was asked."""

    def __init__(self, error: Exception, *, supports_multi_slot: bool = True) -> None:
        self._error = error
        self.supports_multi_slot = supports_multi_slot
        self.away: set[str] = {HERE.bucket}
        self.asked: list[str] = []

    async def execute(self, *commands: Command) -> Sequence[Reply]:
        key = str(commands[0][3])
        self.asked.append(key)
        if key in self.away:
            raise self._error
        return [[b"taken", 99, 600_000]]


@pytest.fixture(params=[StoreUnavailable("why"), ScriptError("why")], ids=lambda error: type(error).__name__)
def redis_client(request: pytest.FixtureRequest) -> Away:
    return Away(request.param)


@pytest.fixture
def buckets(redis_client: Away) -> Buckets:
    return Buckets(cast(RedisClient, redis_client))


async def take(buckets: Buckets, times: int = 1, keys: Any = HERE) -> list[dict[str, str]]:
    """What so many answers tell of the limit."""
    answers = [RateLimitStatus() for _ in range(times)]
    for told in answers:
        await buckets.take(keys, LIMIT, None, told)
    return [dict(told.headers()) for told in answers]


async def test_what_is_not_counted_is_let_through_and_tells_nothing(buckets: Buckets) -> None:
    assert await take(buckets) == [{}]


async def test_one_tries_and_the_others_pass_by(buckets: Buckets, redis_client: Away) -> None:
    await take(buckets, 50)

    assert len(redis_client.asked) == 1


async def test_a_while_later_the_next_one_tries(
    buckets: Buckets, redis_client: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "RETRY_SECONDS", 0)
    await take(buckets, 3)
    redis_client.away.clear()

    counted = await take(buckets, 3)

    assert len(redis_client.asked) == 6
    assert {told["RateLimit"] for told in counted} == {'"address";r=99;t=1'}


async def test_trouble_is_told_once_and_its_end_once(
    buckets: Buckets, redis_client: Away, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(circuit_breaker, "RETRY_SECONDS", 0)
    monkeypatch.setattr(circuit_breaker, "QUIET_SECONDS", 0)
    await take(buckets, 5)
    redis_client.away.clear()
    await take(buckets, 5)

    said = [record.getMessage().partition(",")[0].partition(":")[0] for record in caplog.records]
    assert said == ["rate limits are not enforced", "rate limits are enforced again"]


async def test_where_one_server_of_a_cluster_is_away_the_others_count(caplog: pytest.LogCaptureFixture) -> None:
    redis_client = Away(StoreUnavailable("why"), supports_multi_slot=False)
    buckets = Buckets(cast(RedisClient, redis_client))

    await take(buckets, 5)
    counted = await take(buckets, 5, THERE)

    assert redis_client.asked == [HERE.bucket, *[THERE.bucket] * 5]
    assert all(counted)
    assert len(caplog.records) == 1
