"""A creation is answered 503, whatever came of it, and its client repeats it with its key: there is one session."""

import time
from collections.abc import Callable, Iterator

import pytest
import redis

from tests.conftest import AGENT, USER
from tests.faults.conftest import SETTINGS, started
from tests.faults.proxy import STALLED, Proxy, Way
from tests.faults.remains import half_written
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

BODY = {"agentId": AGENT, "userId": USER, "metadata": {"channel": "web"}}
KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}
SOON = 10
A_SESSION = "session:{??}:????????-????-4???-????-????????????"


@pytest.fixture
def fresh(proxy: Proxy, own_redis: RedisServer) -> Iterator[list[Replica]]:
    """Replicas that were started on the emptied Redis, and know the secret in it by which keys are hashed."""
    with started(*(Replica(REDIS_URL=proxy.url, **SETTINGS) for _ in range(2))) as replicas:
        for number, replica in enumerate(replicas):
            until_it_takes_keys(replica, str(number))
        yield replicas


def until_it_takes_keys(replica: Replica, key: str) -> None:
    """It leaves no session behind."""
    latest = time.monotonic() + SOON
    status, session = replica.call("POST", SESSIONS, BODY, {"Idempotency-Key": key})
    while status == 503 and time.monotonic() < latest:
        status, session = replica.call("POST", SESSIONS, BODY, {"Idempotency-Key": key})
    assert replica.call("DELETE", f"{SESSIONS}/{session['sessionId']}")[0] == 200


def opened_by(replica: Replica) -> tuple[int, str]:
    status, answer = replica.call("POST", SESSIONS, BODY, KEY)
    return status, answer.get("sessionId", answer.get("code"))


def living(server: RedisServer) -> list[str]:
    with redis.Redis.from_url(server.admin_url, decode_responses=True) as client:
        return [key.rpartition(":")[2] for key in client.scan_iter(A_SESSION)]


@pytest.mark.parametrize("ways", [{"requests": STALLED}, {"replies": STALLED}], ids=["not arrived", "not answered"])
@pytest.mark.parametrize("then", [Proxy.go, Proxy.cut], ids=["late", "never"])
def test_repeated_at_another_replica_it_is_one_session(
    proxy: Proxy, own_redis: RedisServer, fresh: list[Replica], ways: dict[str, Way], then: Callable[[Proxy], None]
) -> None:
    proxy.go(**ways)
    refused = opened_by(fresh[0])
    then(proxy)
    proxy.go()

    opened, again, once_more = opened_by(fresh[1]), opened_by(fresh[0]), opened_by(fresh[1])

    assert refused == (503, "STORE_UNAVAILABLE")
    assert (opened[0], {opened, again, once_more}) == (201, {opened})
    assert living(own_redis) == [opened[1]]
    assert half_written(own_redis.admin_url, []) == []


def test_repeated_after_redis_stood_still_it_is_one_session(own_redis: RedisServer, fresh: list[Replica]) -> None:
    own_redis.pause()
    refused = [opened_by(replica) for replica in fresh]
    own_redis.resume()

    answers = {opened_by(replica) for replica in fresh}

    assert refused == [(503, "STORE_UNAVAILABLE")] * 2
    ((status, session_id),) = answers
    assert status == 201
    assert living(own_redis) == [session_id]
