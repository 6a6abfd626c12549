"""Redis stands still, or the network before it fails: 503 in bounded time, and all is well again without a restart."""

import time

import pytest

from tests.faults.lengths import LENGTHS, Length
from tests.faults.load import Load
from tests.faults.proxy import SLOW, STALLED, TRICKLE, Proxy, Way
from tests.faults.remains import half_written
from tests.redis_server import RedisServer


@LENGTHS
def test_a_paused_redis_is_waited_out(own_redis: RedisServer, urls: list[str], length: Length) -> None:
    with Load(urls, clients=length.clients) as load:
        load.until_answered(length.steady)
        own_redis.pause()
        load.for_seconds(length.seconds)
        own_redis.resume()
        went_on = time.time()
        well = load.until_well()
        load.until_answered(length.steady)

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} == {503}
    assert load.failures(since=well) == []
    assert well - went_on < 5
    assert half_written(own_redis.admin_url, load.checker.sessions) == []


@LENGTHS
@pytest.mark.parametrize("reset", [False, True], ids=["cut", "reset"])
@pytest.mark.parametrize("replies", [Way(), TRICKLE], ids=["", "in the midst of replies"])
def test_connections_that_break_harm_nothing(
    proxy: Proxy, urls: list[str], own_redis: RedisServer, length: Length, reset: bool, replies: Way
) -> None:
    with Load(urls, clients=length.clients) as load:
        for _ in range(length.times):
            load.until_answered(length.steady)
            proxy.go(replies=replies)
            load.for_seconds(length.seconds / 5)
            proxy.cut(reset=reset)
            proxy.go()
        well = load.until_well()

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} <= {503}
    assert load.failures(since=well) == []
    assert half_written(own_redis.admin_url, load.checker.sessions) == []


@LENGTHS
@pytest.mark.parametrize(
    "ways",
    [{"requests": STALLED}, {"replies": STALLED}, {"requests": TRICKLE, "replies": TRICKLE}, {"replies": SLOW}],
    ids=["requests stall", "replies stall", "both trickle", "replies are slow"],
)
def test_a_network_that_holds_things_up_holds_up_nobody_for_long(
    proxy: Proxy, urls: list[str], own_redis: RedisServer, length: Length, ways: dict[str, Way]
) -> None:
    with Load(urls, clients=length.clients) as load:
        load.until_answered(length.steady)
        proxy.go(**ways)
        load.for_seconds(length.seconds)
        proxy.go()
        went_on = time.time()
        well = load.until_well()

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} <= {503}
    assert well - went_on < 5
    assert half_written(own_redis.admin_url, load.checker.sessions) == []


@LENGTHS
def test_a_redis_that_cannot_be_reached_is_reached_again(proxy: Proxy, urls: list[str], length: Length) -> None:
    with Load(urls, clients=length.clients) as load:
        proxy.cut(reset=True, refuse=True)
        load.for_seconds(length.seconds)
        proxy.go()
        went_on = time.time()
        well = load.until_well()

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} == {503}
    assert well - went_on < 5
