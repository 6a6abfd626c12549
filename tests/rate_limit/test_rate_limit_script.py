"""The script that takes from buckets, at chosen instants, beside a bucket of exact fractions."""

from fractions import Fraction
from typing import Any, NamedTuple

from fakeredis import FakeAsyncRedis, FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st

from service.sessions.keys import Keys
from service.sessions.scripts import RATE_LIMIT
from service.settings.rate_limits import Rate

THEN_MS = 4_102_444_800_000
KEYS = Keys("").requests("address", "203.0.113.7")

rates = st.builds(Rate, st.integers(1, 30), st.sampled_from([1, 60, 3600, 86_400]))
pauses_ms = st.lists(st.one_of(st.just(0), st.integers(0, 1000), st.integers(0, 100_000_000)), max_size=60)


class Drawn(NamedTuple):
    """Whether one was taken, and what was left."""

    taken: bool
    left: int


class Model:
    """Fills by one in each interval, up to the quota."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._held = Fraction(rate.quota)

    def draw(self, passed_ms: int) -> Drawn:
        filled = self._held + Fraction(passed_ms * 1000, self._rate.interval_us)
        self._held = min(filled, Fraction(self._rate.quota))
        if self._held < 1:
            return Drawn(False, 0)
        self._held -= 1
        return Drawn(True, int(self._held))


async def drawn_at(redis: Any, now_ms: int, rate: Rate) -> Drawn:
    """What the script answers when Redis's clock says this."""
    told = f"{{'{now_ms // 1000}', '{now_ms % 1000 * 1000}'}}"
    text = RATE_LIMIT.text.replace("redis.call('TIME')", told)
    arguments = {
        "quota": rate.quota,
        "interval_us": rate.interval_us,
        "blocked_by_quota": 0,
        "blocked_by_interval_us": 0,
    }
    command = RATE_LIMIT.command(KEYS, **arguments)
    answer = await redis.eval(text, len(RATE_LIMIT.keys), *map(str, command[3:]))
    return Drawn(answer[0] == b"taken", answer[1] if answer[0] == b"taken" else 0)


@settings(max_examples=60, deadline=None)
@given(rates, pauses_ms)
async def test_it_is_a_bucket_that_fills_evenly(rate: Rate, pauses_ms: list[int]) -> None:
    redis, model = FakeAsyncRedis(server=FakeServer()), Model(rate)
    instants = [THEN_MS + sum(pauses_ms[: place + 1]) for place in range(len(pauses_ms))]

    drawn = [await drawn_at(redis, now_ms, rate) for now_ms in instants]

    assert drawn == [model.draw(pause_ms) for pause_ms in pauses_ms]


@settings(max_examples=20, deadline=None)
@given(rates)
async def test_at_one_instant_exactly_the_quota_is_taken(rate: Rate) -> None:
    redis = FakeAsyncRedis(server=FakeServer())

    drawn = [await drawn_at(redis, THEN_MS, rate) for _ in range(rate.quota + 5)]

    assert [taken for taken, _ in drawn] == [True] * rate.quota + [False] * 5


async def test_a_clock_that_goes_back_never_gives_more() -> None:
    """As a failover may have it: a server whose clock is behind takes over."""
    redis, rate = FakeAsyncRedis(server=FakeServer()), Rate(2, 60)

    drawn = [await drawn_at(redis, now_ms, rate) for now_ms in (THEN_MS, THEN_MS, THEN_MS - 40_000, THEN_MS - 10_001)]
    later = await drawn_at(redis, THEN_MS - 10_000, rate)

    assert [taken for taken, _ in drawn] == [True, True, False, False]
    assert later.taken
