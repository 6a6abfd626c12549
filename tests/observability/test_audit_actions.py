"""Each action is one record in the audit log, with its actor, the address and hashes of ids."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_cli_process import run
from tests.conftest import AGENT, StartReplica
from tests.hashes import hashed_at
from tests.observability.audited import Audited, new_session, policy_of, running, some
from tests.redis_contents import KEYS
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

ANONYMOUS = {"actor": "anonymous", "address": "127.0.0.1"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="module")
def replica(redis_server: RedisServer, path: Path) -> Iterator[Replica]:
    """A replica without authentication."""
    redis_server.command("FLUSHALL")
    with running(
        REDIS_URL=redis_server.url,
        SESSION_AUDIT_LOG=str(path),
        SESSION_MIN_TIMEOUT_MINUTES="0.001",
        SESSION_SWEEP_INTERVAL_SECONDS="0.05",
    ) as replica:
        yield replica
    redis_server.command("FLUSHALL")


@pytest.fixture
def audited(replica: Replica, path: Path) -> Audited:
    return Audited(replica, path, admin={})


def test_a_creation_is_recorded_with_its_actor_and_owners(audited: Audited, replica: Replica) -> None:
    session_id = audited.create()

    (record,) = audited.records()

    hashed = audited.hashed(session_id)
    logged = json.loads(replica.wait_for_line(f'"event":"session created","session":"{hashed}"'))
    assert list(record)[:4] == ["timestamp", "log", "action", "outcome"]
    assert some(record, "log", "action", "outcome") == {"log": "audit", "action": "session.create", "outcome": "done"}
    assert some(record, "actor", "address") == ANONYMOUS
    assert some(record, "session", "agent", "user") == {
        "session": hashed,
        "agent": audited.hashed(AGENT),
        "user": audited.hashed(audited.user_id),
    }
    assert record["request_id"] == logged["request_id"]
    assert record["timestamp"].endswith("Z")


def test_messages_and_cancellations_are_recorded_without_content(audited: Audited) -> None:
    path = f"{SESSIONS}/{audited.create()}/messages"
    sent = audited.call("POST", path, {"content": "private", "metadata": {"mood": "private"}})[1]
    audited.call("POST", f"{path}/{sent['id']}/cancel")
    audited.call("POST", path, {"content": "private", "authorId": AGENT, "thought": "private"})

    _, *records = audited.records()

    assert [some(record, "action", "author") for record in records] == [
        {"action": "message.send", "author": "user"},
        {"action": "message.cancel", "author": None},
        {"action": "message.send", "author": "agent"},
    ]
    assert "private" not in audited.text()


def test_a_deletion_is_recorded_once(audited: Audited) -> None:
    session_id = audited.create()
    statuses = [audited.call("DELETE", f"{SESSIONS}/{session_id}")[0] for _ in range(2)]

    _, record = audited.records()

    assert statuses == [200, 404]
    assert some(record, "action", "reason", "session", "user") == {
        "action": "session.end",
        "reason": "deleted",
        "session": audited.hashed(session_id),
        "user": audited.hashed(audited.user_id),
    }
    assert some(record, "actor", "address") == ANONYMOUS


def test_a_bulk_deletion_is_a_record_after_one_for_each_session(audited: Audited) -> None:
    sessions = {audited.hashed(audited.create()), audited.hashed(audited.create())}
    audited.call("DELETE", f"{SESSIONS}?userId={audited.user_id}")

    *ends, bulk = audited.records()[2:]

    assert {record["session"] for record in ends} == sessions
    assert [some(record, "action", "reason") for record in ends] == [{"action": "session.end", "reason": "revoked"}] * 2
    assert some(bulk, "action", "user", "agent", "number", "more") == {
        "action": "sessions.revoke",
        "user": audited.hashed(audited.user_id),
        "agent": None,
        "number": 2,
        "more": False,
    }
    assert {record["request_id"] for record in ends} == {bulk["request_id"]}
    assert some(bulk, "actor", "address") == ANONYMOUS


def test_the_sweeper_is_the_actor_of_an_expiry(audited: Audited, replica: Replica) -> None:
    session_id = audited.create(timeoutConfig={"timeoutMinutes": 0.001})
    replica.wait_for_line(f'"reason":"inactivity","session":"{audited.hashed(session_id)}"')

    _, record = audited.records()

    assert some(record, "action", "reason", "session", "user") == {
        "action": "session.end",
        "reason": "inactivity",
        "session": audited.hashed(session_id),
        "user": audited.hashed(audited.user_id),
    }
    assert some(record, "actor", "address", "request_id") == {"actor": "sweeper", "address": None, "request_id": None}


def test_the_service_is_the_actor_of_a_loss(audited: Audited, replica: Replica, redis_server: RedisServer) -> None:
    session_id = audited.create()
    redis_server.command("DEL", KEYS.session(session_id))
    audited.call("GET", f"{SESSIONS}/{session_id}")
    replica.wait_for_line(f'"reason":"lost","session":"{audited.hashed(session_id)}"')

    _, record = audited.records()

    assert some(record, "action", "reason", "session", "actor") == {
        "action": "session.end",
        "reason": "lost",
        "session": audited.hashed(session_id),
        "actor": "service",
    }


def test_changes_of_a_policy_are_recorded(audited: Audited) -> None:
    audited.call("PUT", policy_of(AGENT), {"timeoutMinutes": 60})
    audited.call("DELETE", policy_of(AGENT))
    audited.call("DELETE", policy_of(AGENT))

    records = audited.records()

    assert [record["action"] for record in records] == ["policy.put", "policy.delete"]
    assert [some(record, "agent", "actor") for record in records] == [
        {"agent": audited.hashed(AGENT), "actor": "anonymous"}
    ] * 2


def test_other_requests_are_not_recorded(audited: Audited) -> None:
    path = f"{SESSIONS}/{audited.create()}"
    audited.call("GET", path)
    audited.call("POST", f"{path}/heartbeat")
    audited.call("POST", f"{path}/renew")
    audited.call("PATCH", f"{path}/timeout", {"timeoutMinutes": 60})
    audited.call("PATCH", f"{path}/metadata", {"channel": "another"})
    audited.call("GET", SESSIONS)
    audited.call("GET", "/readyz")

    assert [record["action"] for record in audited.records()] == ["session.create"]


def test_the_operator_is_the_actor_of_a_command(audited: Audited, redis_server: RedisServer) -> None:
    session_id = audited.create()

    process = run(f"revoke --yes {session_id}", REDIS_URL=redis_server.url, SESSION_AUDIT_LOG=str(audited.path))

    _, record = audited.records()
    assert (process.returncode, process.stderr) == (0, "")
    assert some(record, "action", "reason", "session") == {
        "action": "session.end",
        "reason": "deleted",
        "session": audited.hashed(session_id),
    }
    assert record["actor"].startswith("terminal:")


def test_a_command_revokes_nothing_if_it_cannot_open_the_audit_log(audited: Audited, redis_server: RedisServer) -> None:
    session_id = audited.create()

    process = run(f"revoke --yes {session_id}", REDIS_URL=redis_server.url, SESSION_AUDIT_LOG="/nowhere/audit")

    error = "SESSION_AUDIT_LOG=/nowhere/audit cannot be opened: No such file or directory\n"
    assert (process.returncode, process.stderr) == (1, error)
    assert audited.call("GET", f"{SESSIONS}/{session_id}")[0] == 200


def test_only_the_owner_can_read_the_file(audited: Audited) -> None:
    assert stat.S_IMODE(audited.path.stat().st_mode) == 0o600


# Other settings


@pytest.fixture
def audit_file(tmp_path: Path, redis_server: RedisServer) -> Iterator[Path]:
    redis_server.command("FLUSHALL")
    yield tmp_path / "audit.log"
    redis_server.command("FLUSHALL")


def test_an_eviction_is_recorded_with_the_actor_of_the_creation(
    start_replica: StartReplica, redis_server: RedisServer, audit_file: Path
) -> None:
    replica = start_replica(
        REDIS_URL=redis_server.url,
        SESSION_AUDIT_LOG=str(audit_file),
        SESSION_MAX_PER_USER="1",
        SESSION_CAP_POLICY="evict",
    )
    user_id = "00000000-0000-4000-8000-00000000000b"
    evicted, _ = [replica.call("POST", SESSIONS, new_session(user_id))[1]["sessionId"] for _ in range(2)]
    replica.stop()

    _, end, creation = [json.loads(line) for line in audit_file.read_text().splitlines()]

    assert some(end, "action", "reason", "session", "user", "actor", "address") == {
        "action": "session.end",
        "reason": "evicted",
        "session": hashed_at(redis_server.url, evicted),
        "user": hashed_at(redis_server.url, user_id),
        **ANONYMOUS,
    }
    assert end["request_id"] == creation["request_id"]


def test_changes_without_enough_replicas_are_recorded_because_they_are_applied(
    start_replica: StartReplica, redis_server: RedisServer, audit_file: Path
) -> None:
    replica = start_replica(
        REDIS_URL=redis_server.url,
        SESSION_AUDIT_LOG=str(audit_file),
        SESSION_WAIT_REPLICAS="1",
        SESSION_STORE_TIMEOUT_SECONDS="4",
    )
    statuses = [replica.call(method, policy_of(AGENT), {"timeoutMinutes": 60})[0] for method in ("PUT", "DELETE")]
    replica.stop()

    actions = [json.loads(line)["action"] for line in audit_file.read_text().splitlines()]

    assert (statuses, actions) == ([503, 503], ["policy.put", "policy.delete"])


def test_workers_share_the_file_and_record_their_numbers(
    start_replica: StartReplica, redis_server: RedisServer, audit_file: Path
) -> None:
    replica = start_replica(["--workers", "2"], REDIS_URL=redis_server.url, SESSION_AUDIT_LOG=str(audit_file))
    for _ in range(20):
        replica.call("POST", SESSIONS, new_session("00000000-0000-4000-8000-00000000000b"))
    replica.stop()

    records = [json.loads(line) for line in audit_file.read_text().splitlines()]

    assert [record["action"] for record in records] == ["session.create"] * 20
    assert {record["worker"] for record in records} <= {1, 2}
