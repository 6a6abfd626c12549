"""A creation that failed with 503 is repeated with its Idempotency-Key: there is one session."""

from collections.abc import Callable
from uuid import uuid4

import pytest
import redis

from tests.conftest import AGENT, USER
from tests.faults.integrity import incomplete_sessions
from tests.faults.proxy import STALLED, Link, Proxy
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

BODY = {"agentId": AGENT, "userId": USER, "metadata": {"channel": "web"}}
SESSION_KEYS = "session:{??}:????????-????-4???-????-????????????"
UNAVAILABLE = (503, "STORE_UNAVAILABLE")


@pytest.fixture
def headers() -> dict[str, str]:
    return {"Idempotency-Key": f'"{uuid4()}"'}


def create(replica: Replica, headers: dict[str, str]) -> tuple[int, str]:
    """Return the status, and the session id or the error code."""
    status, body = replica.call("POST", SESSIONS, BODY, headers)
    return status, body.get("sessionId", body.get("code"))


def repeat_until_available(replica: Replica, headers: dict[str, str]) -> tuple[int, str]:
    """Repeat the creation as clients do. The replica may still use a connection that it has lost."""
    while (response := create(replica, headers)) == UNAVAILABLE:
        continue
    return response


def session_ids(server: RedisServer) -> list[str]:
    with redis.Redis.from_url(server.admin_url, decode_responses=True) as client:
        return [key.rpartition(":")[2] for key in client.scan_iter(SESSION_KEYS)]


@pytest.mark.parametrize("links", [{"requests": STALLED}, {"replies": STALLED}], ids=["not received", "not answered"])
@pytest.mark.parametrize("end", [Proxy.forward, Proxy.disconnect], ids=["forwarded late", "lost"])
def test_a_creation_repeated_at_another_replica_returns_the_same_session(
    proxy: Proxy,
    own_redis: RedisServer,
    proxied_replicas: list[Replica],
    headers: dict[str, str],
    links: dict[str, Link],
    end: Callable[[Proxy], None],
) -> None:
    first, second = proxied_replicas
    proxy.forward(**links)
    failed = create(first, headers)
    end(proxy)
    proxy.forward()

    created = repeat_until_available(second, headers)
    again, once_more = repeat_until_available(first, headers), create(second, headers)

    assert failed == UNAVAILABLE
    assert (created[0], {created, again, once_more}) == (201, {created})
    assert session_ids(own_redis) == [created[1]]
    assert incomplete_sessions(own_redis.admin_url, []) == []


def test_a_creation_repeated_after_a_pause_of_redis_returns_the_same_session(
    own_redis: RedisServer, proxied_replicas: list[Replica], headers: dict[str, str]
) -> None:
    own_redis.pause()
    failed = [create(replica, headers) for replica in proxied_replicas]
    own_redis.resume()

    responses = {repeat_until_available(replica, headers) for replica in proxied_replicas}

    assert failed == [UNAVAILABLE] * 2
    ((status, session_id),) = responses
    assert status == 201
    assert session_ids(own_redis) == [session_id]
