"""An older and a newer replica over the same data: what the newer one adds, this one leaves as it is.

The newer one is played by hand: it has written fields and keys that this version does not know, as the rule for changes
to the layout (service/sessions/keys.py) lets it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import redis

from service.sessions.keys import Keys
from tests.conftest import AGENT, USER
from tests.faults.conftest import SETTINGS, started
from tests.faults.lengths import LENGTHS, Length
from tests.faults.load import Load
from tests.redis_server import RedisServer, wait_until
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

Client = Any
"""redis-py's, whose types say of every reply that it may be anything."""

KEYS = Keys("")
ADDED = {"addedByANewerOne": "1", "metadataVersion": "7"}
VERBS = {
    "read": ("GET", "", None),
    "heartbeat": ("POST", "/heartbeat", None),
    "renew": ("POST", "/renew", None),
    "configure": ("PATCH", "/timeout", {"timeoutMinutes": 60}),
    "annotate": ("PATCH", "/metadata", {"a": 1}),
}


@pytest.fixture
def replica(patient_replicas: list[Replica]) -> Replica:
    return patient_replicas[0]


@pytest.fixture
def by_hand(own_redis: RedisServer) -> Iterator[Client]:
    with redis.Redis.from_url(own_redis.admin_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def newer(replica: Replica, by_hand: Client) -> str:
    """The id of a session with more to it than this version knows."""
    session_id = opened(replica)
    by_hand.hset(KEYS.session(session_id), mapping=ADDED)
    by_hand.hset(KEYS.tombstone(session_id), mapping=ADDED)
    by_hand.set(of_a_newer_kind(session_id), "kept", px=60_000)
    return session_id


def opened(replica: Replica, **members: object) -> str:
    status, body = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER, **members})
    assert status == 201
    session_id: str = body["sessionId"]
    return session_id


def of_a_newer_kind(session_id: str) -> str:
    return f"{KEYS.session(session_id)}:newer"


def added_to(client: Client, key: str) -> Mapping[str, str]:
    content = client.hgetall(key)
    return {name: content[name] for name in ADDED if name in content}


@pytest.mark.parametrize(("method", "path", "body"), VERBS.values(), ids=VERBS)
def test_what_is_unknown_outlives_every_verb(
    replica: Replica, newer: str, by_hand: Client, method: str, path: str, body: object
) -> None:
    status, _ = replica.call(method, f"{SESSIONS}/{newer}{path}", body)

    assert status == 200
    assert added_to(by_hand, KEYS.session(newer)) == ADDED
    assert added_to(by_hand, KEYS.tombstone(newer)) == ADDED
    assert by_hand.get(of_a_newer_kind(newer)) == "kept"


def test_what_is_unknown_of_a_session_goes_with_it(replica: Replica, newer: str, by_hand: Client) -> None:
    status, _ = replica.call("DELETE", f"{SESSIONS}/{newer}")

    assert status == 200
    assert by_hand.exists(KEYS.session(newer), KEYS.tombstone(newer)) == 0


def test_what_is_unknown_in_a_tombstone_outlives_its_sweeping(replica: Replica, by_hand: Client) -> None:
    session_id = opened(replica, timeoutConfig={"timeoutMinutes": 0.01})
    by_hand.hset(KEYS.tombstone(session_id), mapping=ADDED)

    wait_until(lambda: by_hand.zscore(KEYS.expiry(session_id[:2]), session_id) is None, "it is swept")

    assert replica.call("GET", f"{SESSIONS}/{session_id}")[0] == 410
    assert added_to(by_hand, KEYS.tombstone(session_id)) == ADDED


def test_what_is_unknown_in_a_policy_outlives_a_new_one(replica: Replica, by_hand: Client) -> None:
    path = f"/api/messaging/agents/{AGENT}/timeout"
    replica.call("PUT", path, {"timeoutMinutes": 60})
    by_hand.hset(KEYS.policy(AGENT), mapping=ADDED)

    replica.call("PUT", path, {"timeoutMinutes": 45})

    assert added_to(by_hand, KEYS.policy(AGENT)) == ADDED
    assert replica.call("DELETE", path)[0] == 200


def test_an_unknown_reason_of_an_end_is_passed_on_and_swept(replica: Replica, by_hand: Client) -> None:
    session_id = opened(replica, timeoutConfig={"timeoutMinutes": 0.01})
    by_hand.hset(KEYS.tombstone(session_id), "reason", "newer")

    wait_until(lambda: by_hand.zscore(KEYS.expiry(session_id[:2]), session_id) is None, "it is swept")
    status, body = replica.call("GET", f"{SESSIONS}/{session_id}")

    assert (status, body["details"]["reason"]) == (410, "newer")


@LENGTHS
def test_under_load_nothing_is_amiss_while_a_newer_one_adds_to_every_session(
    patient_urls: list[str], by_hand: Client, length: Length
) -> None:
    with Load(patient_urls, clients=length.clients) as load:
        for _ in range(length.times):
            add_to_every_session(by_hand)
            load.until_answered(length.steady)
            by_hand.script_flush()

    assert load.wrong == []
    assert load.failures() == []


def add_to_every_session(client: Client) -> None:
    """In the way of a newer version's script: only to those that are there."""
    add = client.register_script("return redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HSET', KEYS[1], 'new', 1)")
    for key in client.scan_iter("session:*", _type="hash"):
        add(keys=[key])


# Another layout


@pytest.fixture
def of_layout_2(by_hand: Client, patient_replicas: list[Replica]) -> Iterator[None]:
    relabel(2, by_hand, patient_replicas)
    yield
    relabel(1, by_hand, patient_replicas)


def relabel(layout: int, client: Client, replicas: list[Replica]) -> list[int]:
    """Give the data this version, and let the replicas look: whether they are ready."""
    client.set(KEYS.layout, layout)
    return [replica.call("GET", "/readyz")[0] for replica in replicas]


@pytest.mark.usefixtures("of_layout_2")
def test_a_replica_that_meets_another_layout_is_not_ready(replica: Replica) -> None:
    status, body = replica.call("GET", "/readyz")

    assert (status, body["reason"]) == (503, "The data in Redis has schema version 2; this release supports 1.")


@pytest.mark.parametrize(("method", "path", "body"), VERBS.values(), ids=VERBS)
@pytest.mark.usefixtures("of_layout_2")
def test_it_takes_no_requests_either(replica: Replica, method: str, path: str, body: object) -> None:
    status, refusal = replica.call(method, f"{SESSIONS}/{AGENT}{path}", body)

    assert (status, refusal["code"]) == (503, "STORE_UNAVAILABLE")


@pytest.mark.usefixtures("of_layout_2")
def test_it_creates_nothing(replica: Replica, by_hand: Client) -> None:
    before = by_hand.dbsize()

    status, _ = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})

    assert status == 503
    assert by_hand.dbsize() <= before


@pytest.mark.usefixtures("of_layout_2")
def test_it_sweeps_nothing(own_redis: RedisServer, by_hand: Client) -> None:
    by_hand.zadd(KEYS.expiry("ab"), {"of another layout": 1})

    with started(Replica(REDIS_URL=own_redis.url, **SETTINGS)) as (replica,):
        held_up = replica.line_with("the sweeper is delayed by the session store")

    assert "layout 2" in held_up
    assert by_hand.zscore(KEYS.expiry("ab"), "of another layout") == 1


def test_it_goes_on_when_the_layout_is_its_own_again(patient_replicas: list[Replica], by_hand: Client) -> None:
    session_id = opened(patient_replicas[0])

    ready = [relabel(2, by_hand, patient_replicas), relabel(1, by_hand, patient_replicas)]

    assert ready == [[503] * 3, [200] * 3]
    assert patient_replicas[0].call("GET", f"{SESSIONS}/{session_id}")[0] == 200
