"""The script that takes requests from buckets behaves like a model with exact fractions, at any time."""

from fractions import Fraction
from typing import Any, NamedTuple

from fakeredis import FakeAsyncRedis, FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st

from service.sessions.keys import Keys
from service.sessions.scripts import RATE_LIMIT
from service.settings.rate_limits import Rate

START_MS = 4_102_444_800_000
KEYS = Keys("").requests("address", "203.0.113.7")

rates = st.builds(Rate, st.integers(1, 30), st.sampled_from([1, 60, 3600, 86_400]))
pauses_ms = st.lists(st.one_of(st.just(0), st.integers(0, 1000), st.integers(0, 100_000_000)), max_size=60)


class Result(NamedTuple):
    """Whether a request was taken, and how many remain."""

    is_taken: bool
    remaining: int


class Model:
    """Refills one request per interval, up to the quota."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._available = Fraction(rate.quota)

    def take_after(self, pause_ms: int) -> Result:
        refilled = self._available + Fraction(pause_ms * 1000, self._rate.interval_us)
        self._available = min(refilled, Fraction(self._rate.quota))
        if self._available < 1:
            return Result(False, 0)
        self._available -= 1
        return Result(True, int(self._available))


async def take_at(redis: Any, now_ms: int, rate: Rate) -> Result:
    """Run the script with this time as the clock of Redis."""
    time_reply = f"{{'{now_ms // 1000}', '{now_ms % 1000 * 1000}'}}"
    text = RATE_LIMIT.text.replace("redis.call('TIME')", time_reply)
    arguments = {
        "quota": rate.quota,
        "interval_us": rate.interval_us,
        "blocked_by_quota": 0,
        "blocked_by_interval_us": 0,
    }
    command = RATE_LIMIT.command(KEYS, **arguments)
    status, remaining, *_ = await redis.eval(text, len(RATE_LIMIT.keys), *map(str, command[3:]))
    return Result(True, remaining) if status == b"taken" else Result(False, 0)


@settings(max_examples=60, deadline=None)
@given(rates, pauses_ms)
async def test_a_bucket_is_refilled_evenly(rate: Rate, pauses_ms: list[int]) -> None:
    redis, model = FakeAsyncRedis(server=FakeServer()), Model(rate)
    times = [START_MS + sum(pauses_ms[: number + 1]) for number in range(len(pauses_ms))]

    results = [await take_at(redis, now_ms, rate) for now_ms in times]

    assert results == [model.take_after(pause_ms) for pause_ms in pauses_ms]


@settings(max_examples=20, deadline=None)
@given(rates)
async def test_exactly_the_quota_is_taken_at_one_time(rate: Rate) -> None:
    redis = FakeAsyncRedis(server=FakeServer())

    results = [await take_at(redis, START_MS, rate) for _ in range(rate.quota + 5)]

    assert [result.is_taken for result in results] == [True] * rate.quota + [False] * 5


async def test_a_clock_that_goes_back_does_not_refill_a_bucket() -> None:
    """After a failover, the clock of the new primary can be behind."""
    redis, rate = FakeAsyncRedis(server=FakeServer()), Rate(2, 60)
    times = (START_MS, START_MS, START_MS - 40_000, START_MS - 10_001)

    results = [await take_at(redis, now_ms, rate) for now_ms in times]
    later = await take_at(redis, START_MS - 10_000, rate)

    assert [result.is_taken for result in results] == [True, True, False, False]
    assert later.is_taken
