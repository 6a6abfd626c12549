"""The log of a process contains hashes instead of ids, and no keys or metadata."""

import json
import re
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import AGENT, USER
from tests.hashes import hashed_at
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

POLICY = f"/api/messaging/agents/{AGENT}/timeout"
NEW_SESSION = {"agentId": AGENT, "userId": USER, "metadata": {"channel": "a secret place"}}
SHORT_SESSION = NEW_SESSION | {"timeoutConfig": {"timeoutMinutes": 0.001}}
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
FAILING_ID = "11111111-1111-4111-8111-111111111111"
IDEMPOTENCY_KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"

SERVICE_WITH_BUG = f"""
from service.__main__ import main
from service.sessions.store import SessionStore

get = SessionStore.get

async def get_with_bug(self, session_id, *arguments):
    if session_id == "{FAILING_ID}":
        raise LookupError(f"session:{{{{11}}}}:{{session_id}} of {USER.upper()}")
    return await get(self, session_id, *arguments)

SessionStore.get = get_with_bug
main()
"""
"""Fails to read one session, with ids in the message of the exception."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def replica(redis: RedisServer) -> Iterator[Replica]:
    """A replica with a bug. It logs everything, as JSON."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.replica.COMMAND", [sys.executable, "-c", SERVICE_WITH_BUG])
        replica = Replica(REDIS_URL=redis.url, SESSION_LOG_LEVEL="debug", SESSION_MIN_TIMEOUT_MINUTES="0.001")
        replica.start()
    yield replica
    replica.stop()


def line_with(replica: Replica, text: str) -> dict[str, object]:
    line: dict[str, object] = json.loads(replica.wait_for_line(text))
    return line


def test_a_request_is_a_line_with_a_timestamp_a_duration_and_a_hash(replica: Replica, redis: RedisServer) -> None:
    _, session = replica.call("POST", SESSIONS, NEW_SESSION)
    replica.call("GET", f"{SESSIONS}/{session['sessionId']}", headers={"X-Request-ID": "mine"})

    line = line_with(replica, '"request_id":"mine"')

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line.pop("timestamp")))
    assert float(str(line.pop("ms"))) > 0
    assert line == {
        "level": "info",
        "event": "request",
        "method": "GET",
        "route": SESSIONS + "/{session_id}",
        "status": 200,
        "session": hashed_at(redis.url, session["sessionId"]),
        "request_id": "mine",
    }


def test_bulk_revocations_and_changes_of_policies_are_logged_with_hashes(replica: Replica, redis: RedisServer) -> None:
    replica.call("POST", SESSIONS, NEW_SESSION)
    replica.call("PUT", POLICY, {"timeoutMinutes": 60})
    replica.call("DELETE", POLICY)
    replica.call("DELETE", f"{SESSIONS}?userId={USER}")

    put, deleted = line_with(replica, '"how":"put"'), line_with(replica, '"how":"deleted"')
    revoked = line_with(replica, '"sessions revoked"')

    assert put["agent"] == deleted["agent"] == hashed_at(redis.url, AGENT)
    assert (revoked["user"], revoked["more"]) == (hashed_at(redis.url, USER), False)
    assert int(str(revoked["number"])) >= 1


def test_the_log_contains_no_ids_metadata_or_idempotency_keys(replica: Replica, redis: RedisServer) -> None:
    key = {"Idempotency-Key": IDEMPOTENCY_KEY}
    session_id, _ = (replica.call("POST", SESSIONS, NEW_SESSION, key)[1]["sessionId"] for _ in range(2))
    expired_id = replica.call("POST", SESSIONS, SHORT_SESSION)[1]["sessionId"]
    path = f"{SESSIONS}/{session_id}"
    calls = [
        ("POST", SESSIONS, SHORT_SESSION),
        ("GET", path, None),
        ("POST", f"{path}/heartbeat", None),
        ("PATCH", f"{path}/timeout", {"autoRenew": False}),
        ("PATCH", f"{path}/metadata", {"channel": "a secret place"}),
        ("GET", f"{SESSIONS}/{UNKNOWN_ID}", None),
        ("GET", f"{SESSIONS}/{FAILING_ID}", None),
    ]

    statuses = [replica.call(method, path, body, key)[0] for method, path, body in calls]
    while replica.call("GET", f"{SESSIONS}/{expired_id}")[0] != 410:
        continue
    redis.kill()
    statuses.append(replica.call("DELETE", path)[0])
    replica.stop()

    assert statuses == [422, 200, 200, 200, 200, 404, 500, 503]
    assert all(f'"status":{status}' in replica.output for status in (*statuses, 410))
    assert "session creation replayed" in replica.output
    assert '"trigger":"activity"' in replica.output
    assert re.search(r"LookupError: session:\{11\}:[0-9a-f]{12} of [0-9a-f]{12}", replica.output)
    for secret in (session_id, expired_id, UNKNOWN_ID, FAILING_ID, USER, AGENT, IDEMPOTENCY_KEY, "a secret place"):
        assert secret not in replica.output.lower()
