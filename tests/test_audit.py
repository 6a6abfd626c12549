"""The audit of real replicas: each thing done leaves a line that says who, when and from where, and nothing secret."""

import json
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.auth.conftest import AUDIENCE, ENTRIES, ISSUER, SECRET, bearing, having
from tests.auth.test_authenticated_process import asked
from tests.cli.test_cli_process import run
from tests.conftest import AGENT, USER, StartReplica
from tests.hashes import hashed_at
from tests.redis_server import RedisServer, wait_until
from tests.replica import Replica
from tests.sessions.evidence import KEYS as REDIS_KEYS
from tests.test_walkthrough import SESSIONS

POLICY = f"/api/messaging/agents/{AGENT}/timeout"
NEW = {"agentId": AGENT, "userId": USER, "metadata": {"channel": "a secret place"}}
BRIEF = NEW | {"timeoutConfig": {"timeoutMinutes": 0.001}}
BY_NOBODY = {"actor": "anonymous", "address": "127.0.0.1"}
NO_LIMIT = resource.RLIM_INFINITY

Line = dict[str, Any]
Hashed = Callable[[str], str]


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer) -> Iterator[None]:
    """Redis is, before each test and after it."""
    redis_server.command("FLUSHALL")
    yield
    redis_server.command("FLUSHALL")


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def replica(start_replica: StartReplica, redis_server: RedisServer, audit: Path) -> Replica:
    """One that asks nobody who they are."""
    return start_replica(
        REDIS_URL=redis_server.url,
        SESSION_AUDIT_LOG=str(audit),
        SESSION_MIN_TIMEOUT_MINUTES="0.001",
        SESSION_SWEEP_INTERVAL_SECONDS="0.05",
    )


@pytest.fixture
def with_authentication(start_replica: StartReplica, redis_server: RedisServer, audit: Path) -> Replica:
    """One that asks for keys, or tokens."""
    return start_replica(
        REDIS_URL=redis_server.url,
        SESSION_AUDIT_LOG=str(audit),
        SESSION_API_KEYS=ENTRIES,
        SESSION_JWT_ISSUER=ISSUER,
        SESSION_JWT_AUDIENCE=AUDIENCE,
        SESSION_JWT_SECRET=SECRET,
        TRUSTED_PROXIES="127.0.0.1",
    )


@pytest.fixture
def hashed(redis_server: RedisServer) -> Hashed:
    return lambda id_: hashed_at(redis_server.url, id_)


def opened(replica: Replica, body: object = NEW) -> str:
    session_id: str = replica.call("POST", SESSIONS, body)[1]["sessionId"]
    return session_id


def told(replica: Replica, audit: Path) -> list[Line]:
    """Every line there is once the replica has ended, and what all of them have."""
    replica.stop()
    return [json.loads(line) for line in audit.read_text().splitlines()]


def of(line: Line, *names: str) -> Line:
    return {name: line.get(name) for name in names}


# What is done


def test_a_creation_says_who_from_where_and_for_whom(replica: Replica, audit: Path, hashed: Hashed) -> None:
    session_id = opened(replica)

    (line,) = told(replica, audit)

    logged = json.loads(replica.line_with('"session created"'))
    assert list(line)[:4] == ["timestamp", "log", "action", "outcome"]
    assert of(line, "log", "action", "outcome") == {"log": "audit", "action": "session.create", "outcome": "done"}
    assert of(line, "actor", "address") == BY_NOBODY
    assert of(line, "session", "agent", "user") == {
        "session": hashed(session_id),
        "agent": hashed(AGENT),
        "user": hashed(USER),
    }
    assert line["request_id"] == logged["request_id"]
    assert line["timestamp"].endswith("Z")


def test_an_end_by_request_is_told_once(replica: Replica, audit: Path, hashed: Hashed) -> None:
    session_id = opened(replica)
    statuses = [replica.call("DELETE", f"{SESSIONS}/{session_id}")[0] for _ in range(2)]

    _, line = told(replica, audit)

    assert statuses == [200, 404]
    assert of(line, "action", "reason", "session", "user") == {
        "action": "session.end",
        "reason": "deleted",
        "session": hashed(session_id),
        "user": hashed(USER),
    }
    assert of(line, "actor", "address") == BY_NOBODY


def test_a_bulk_end_is_a_line_and_each_session_that_it_ends_another(
    replica: Replica, audit: Path, hashed: Hashed
) -> None:
    sessions = {hashed(opened(replica)), hashed(opened(replica))}
    replica.call("DELETE", f"{SESSIONS}?userId={USER}")

    *ends, bulk = told(replica, audit)[2:]

    assert {line["session"] for line in ends} == sessions
    assert [of(line, "action", "reason") for line in ends] == [{"action": "session.end", "reason": "revoked"}] * 2
    assert of(bulk, "action", "user", "agent", "number", "more") == {
        "action": "sessions.revoke",
        "user": hashed(USER),
        "agent": None,
        "number": 2,
        "more": False,
    }
    assert {line["request_id"] for line in ends} == {bulk["request_id"]}
    assert of(bulk, "actor", "address") == BY_NOBODY


def test_an_end_at_a_cap_is_the_doing_of_who_opens_another(
    start_replica: StartReplica, redis_server: RedisServer, audit: Path, hashed: Hashed
) -> None:
    at_a_cap = {"SESSION_MAX_PER_USER": "1", "SESSION_CAP_POLICY": "evict"}
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_AUDIT_LOG=str(audit), **at_a_cap)
    first = opened(replica)
    opened(replica)

    _, end, created = told(replica, audit)

    assert of(end, "action", "reason", "session", "user", "actor", "address") == {
        "action": "session.end",
        "reason": "evicted",
        "session": hashed(first),
        "user": hashed(USER),
        **BY_NOBODY,
    }
    assert end["request_id"] == created["request_id"]


def test_an_end_by_itself_is_the_sweepers(replica: Replica, audit: Path, hashed: Hashed) -> None:
    session_id = opened(replica, BRIEF)
    replica.line_with('"reason":"inactivity"')

    _, line = told(replica, audit)

    assert of(line, "action", "reason", "session", "user") == {
        "action": "session.end",
        "reason": "inactivity",
        "session": hashed(session_id),
        "user": hashed(USER),
    }
    assert of(line, "actor", "address", "request_id") == {"actor": "sweeper", "address": None, "request_id": None}


def test_a_loss_is_nobodys_doing(replica: Replica, audit: Path, hashed: Hashed, redis_server: RedisServer) -> None:
    session_id = opened(replica)
    redis_server.command("DEL", REDIS_KEYS.session(session_id))
    replica.call("GET", f"{SESSIONS}/{session_id}")
    replica.line_with('"reason":"lost"')

    _, line = told(replica, audit)

    assert of(line, "action", "reason", "session", "actor") == {
        "action": "session.end",
        "reason": "lost",
        "session": hashed(session_id),
        "actor": "service",
    }


def test_changes_of_a_policy_are_told(replica: Replica, audit: Path, hashed: Hashed) -> None:
    replica.call("PUT", POLICY, {"timeoutMinutes": 60})
    replica.call("DELETE", POLICY)
    replica.call("DELETE", POLICY)

    lines = told(replica, audit)

    assert [line["action"] for line in lines] == ["policy.put", "policy.delete"]
    assert [of(line, "agent", "actor") for line in lines] == [{"agent": hashed(AGENT), "actor": "anonymous"}] * 2


def test_what_too_few_replicas_had_in_time_is_told_for_it_was_done(
    start_replica: StartReplica, redis_server: RedisServer, audit: Path
) -> None:
    replica = start_replica(
        REDIS_URL=redis_server.url,
        SESSION_AUDIT_LOG=str(audit),
        SESSION_WAIT_REPLICAS="1",
        SESSION_STORE_TIMEOUT_SECONDS="0.5",
    )
    statuses = [replica.call(method, POLICY, {"timeoutMinutes": 60})[0] for method in ("PUT", "DELETE")]

    lines = told(replica, audit)

    assert statuses == [503, 503]
    assert [line["action"] for line in lines] == ["policy.put", "policy.delete"]


def test_all_else_leaves_no_line(replica: Replica, audit: Path) -> None:
    path = f"{SESSIONS}/{opened(replica)}"
    replica.call("GET", path)
    replica.call("POST", f"{path}/heartbeat")
    replica.call("POST", f"{path}/renew")
    replica.call("PATCH", f"{path}/timeout", {"timeoutMinutes": 60})
    replica.call("PATCH", f"{path}/metadata", {"channel": "another"})
    replica.call("GET", SESSIONS)
    replica.call("GET", "/readyz")

    assert [line["action"] for line in told(replica, audit)] == ["session.create"]


# Who does it


@pytest.mark.parametrize(
    ("headers", "actor"),
    [(having("admin"), "key:admin"), (bearing("billing", scope="write"), "token:billing")],
    ids=["a key", "a token"],
)
def test_callers_are_told_by_their_names(
    with_authentication: Replica, audit: Path, headers: dict[str, str], actor: str
) -> None:
    asked(with_authentication, "POST", SESSIONS, headers, NEW)

    (line,) = told(with_authentication, audit)

    assert line["actor"] == actor


def test_users_are_told_by_their_hashes(with_authentication: Replica, audit: Path, hashed: Hashed) -> None:
    asked(with_authentication, "POST", SESSIONS, bearing(USER), NEW)

    (line,) = told(with_authentication, audit)

    assert line["actor"] == f"user:{hashed(USER)}"


def test_a_client_behind_a_trusted_proxy_is_told_by_its_own_address(with_authentication: Replica, audit: Path) -> None:
    asked(with_authentication, "POST", SESSIONS, having("write") | {"X-Forwarded-For": "203.0.113.7"}, NEW)

    (line,) = told(with_authentication, audit)

    assert line["address"] == "203.0.113.7"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "missing"),
        ({"X-API-KEY": "ssk_nobodys"}, "unknown"),
        (bearing(USER, exp=1), "expired"),
    ],
    ids=["missing", "unknown", "expired"],
)
def test_who_is_not_let_in_is_told_without_a_name(
    with_authentication: Replica, audit: Path, headers: dict[str, str], reason: str
) -> None:
    asked(with_authentication, "DELETE", f"{SESSIONS}?userId={USER}", headers)

    (line,) = told(with_authentication, audit)

    assert of(line, "action", "outcome", "actor", "status", "reason", "method", "route") == {
        "action": "access",
        "outcome": "refused",
        "actor": "anonymous",
        "status": 401,
        "reason": reason,
        "method": "DELETE",
        "route": SESSIONS,
    }
    assert of(line, "address") == {"address": "127.0.0.1"}


def test_who_may_not_is_told_with_what_was_asked_for(with_authentication: Replica, audit: Path, hashed: Hashed) -> None:
    unknown = "4716d2ea-673d-47d0-b1bd-33202db7411b"
    asked(with_authentication, "POST", SESSIONS, having("write"), NEW)  # what is served knows the secret to hash by
    asked(with_authentication, "DELETE", f"{SESSIONS}/{unknown}", having("read"))

    _, line = told(with_authentication, audit)

    assert of(line, "action", "outcome", "actor", "status", "scope", "session") == {
        "action": "access",
        "outcome": "refused",
        "actor": "key:read",
        "status": 403,
        "scope": "write",
        "session": hashed(unknown),
    }


def test_a_user_who_asks_for_anothers_is_told(with_authentication: Replica, audit: Path, hashed: Hashed) -> None:
    asked(with_authentication, "POST", SESSIONS, bearing("00000000-0000-4000-8000-00000000000b"), NEW)

    (line,) = told(with_authentication, audit)

    actor = f"user:{hashed('00000000-0000-4000-8000-00000000000b')}"
    assert of(line, "outcome", "actor", "status") == {"outcome": "refused", "actor": actor, "status": 403}


def test_the_operator_at_a_terminal_is_told(
    replica: Replica, audit: Path, hashed: Hashed, redis_server: RedisServer
) -> None:
    session_id = opened(replica)

    ended = run(f"revoke --yes {session_id}", REDIS_URL=redis_server.url, SESSION_AUDIT_LOG=str(audit))

    _, line = told(replica, audit)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert of(line, "action", "reason", "session") == {
        "action": "session.end",
        "reason": "deleted",
        "session": hashed(session_id),
    }
    assert line["actor"].startswith("terminal:")


def test_what_cannot_be_told_is_not_ended_from_a_terminal(replica: Replica, redis_server: RedisServer) -> None:
    session_id = opened(replica)

    refused = run(f"revoke --yes {session_id}", REDIS_URL=redis_server.url, SESSION_AUDIT_LOG="/nowhere/audit")

    assert (refused.returncode, refused.stderr) == (1, "SESSION_AUDIT_LOG=/nowhere/audit: No such file or directory\n")
    assert replica.call("GET", f"{SESSIONS}/{session_id}")[0] == 200


# What is not told


def test_neither_ids_nor_metadata_keys_nor_tokens_are_told(with_authentication: Replica, audit: Path) -> None:
    callers = [having("admin"), bearing("billing", scope="admin"), bearing(USER), having("read")]
    sessions = [
        json.loads(asked(with_authentication, "POST", SESSIONS, caller, NEW)[1].splitlines()[-1]) for caller in callers
    ]
    ids = [session["sessionId"] for session in sessions if "sessionId" in session]
    asked(with_authentication, "PUT", POLICY, having("admin"), {"timeoutMinutes": 60})
    asked(with_authentication, "DELETE", f"{SESSIONS}?agentId={AGENT}", having("admin"))

    with_authentication.stop()

    text = audit.read_text()
    credentials = [header.removeprefix("Bearer ") for caller in callers for header in caller.values()]
    assert (len(ids), len(text.splitlines())) == (3, 9)
    assert [secret for secret in (*ids, AGENT, USER, "a secret place", *credentials) if secret in text] == []


# Where it is kept


def test_its_file_is_its_owners_alone(replica: Replica, audit: Path) -> None:
    assert stat.S_IMODE(audit.stat().st_mode) == 0o600


def test_one_that_is_there_is_gone_on_with(start_replica: StartReplica, redis_server: RedisServer, audit: Path) -> None:
    audit.write_text('{"action":"of a time before"}\n')
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_AUDIT_LOG=str(audit))
    opened(replica)

    assert [line["action"] for line in told(replica, audit)] == ["of a time before", "session.create"]


def test_once_it_is_moved_away_another_is_begun(replica: Replica, audit: Path) -> None:
    path = f"{SESSIONS}/{opened(replica)}"
    wait_until(lambda: "session.create" in audit.read_text(), "a line")
    old = audit.rename(audit.with_suffix(".1"))
    replica.call("DELETE", path)

    (line,) = told(replica, audit)

    assert line["action"] == "session.end"
    assert [json.loads(line)["action"] for line in old.read_text().splitlines()] == ["session.create"]
    assert stat.S_IMODE(audit.stat().st_mode) == 0o600


def test_where_no_other_can_be_begun_the_old_one_is_gone_on_with(replica: Replica, audit: Path) -> None:
    old = audit.rename(audit.with_suffix(".1"))
    audit.mkdir()
    opened(replica)

    replica.line_with("the audit log cannot be written")
    replica.stop()

    assert [json.loads(line)["action"] for line in old.read_text().splitlines()] == ["session.create"]


@pytest.fixture
def full_disk(replica: Replica) -> None:
    """No file of the replica's may grow: its writes fail as on a full disk."""
    resource.prlimit(replica.pid, resource.RLIMIT_FSIZE, (0, NO_LIMIT))


@pytest.mark.usefixtures("full_disk")
def test_on_a_full_disk_requests_are_answered_and_what_is_dropped_is_counted(replica: Replica, audit: Path) -> None:
    statuses = [replica.call("POST", SESSIONS, NEW)[0] for _ in range(3)]
    told_at_once = json.loads(replica.line_with("the audit log cannot be written"))
    dropped = 'sessions_log_lines_dropped_total{log="audit"} 3.0'
    wait_until(lambda: dropped in asked(replica, "GET", "/metrics", {})[1], "the count of what was dropped")

    resource.prlimit(replica.pid, resource.RLIMIT_FSIZE, (NO_LIMIT, NO_LIMIT))
    replica.call("POST", SESSIONS, NEW)

    assert statuses == [201] * 3
    assert told_at_once["level"] == "error"
    assert replica.line_with("3 lines of the audit log were dropped")
    assert len(told(replica, audit)) == 1


@pytest.mark.parametrize("level", ["info", "error"])
def test_without_a_file_it_stands_in_the_log_whatever_the_level(
    start_replica: StartReplica, redis_server: RedisServer, level: str
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_LOG_LEVEL=level)
    opened(replica)

    replica.line_with('"log":"audit"')
    replica.stop()

    marked = [json.loads(line) for line in replica.banner.splitlines() if '"log":"audit"' in line]
    assert [line["action"] for line in marked] == ["session.create"]


def test_for_people_it_is_readable(start_replica: StartReplica, redis_server: RedisServer, hashed: Hashed) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_LOG_FORMAT="console")
    session_id = opened(replica)

    line = replica.line_with("session.create")

    assert "[audit    ] session.create " in line
    assert " actor=anonymous address=127.0.0.1 " in line
    assert f" session={hashed(session_id)} " in line


def test_turned_off_there_is_none(start_replica: StartReplica, redis_server: RedisServer) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_AUDIT_LOG="off")
    opened(replica)

    replica.stop()

    assert "audit" not in replica.banner


def test_workers_share_it_and_say_who_wrote(
    start_replica: StartReplica, redis_server: RedisServer, audit: Path
) -> None:
    replica = start_replica(["--workers", "2"], REDIS_URL=redis_server.url, SESSION_AUDIT_LOG=str(audit))
    for _ in range(20):
        opened(replica)

    lines = told(replica, audit)

    assert [line["action"] for line in lines] == ["session.create"] * 20
    assert {line["worker"] for line in lines} <= {1, 2}


@pytest.mark.parametrize("words", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_a_file_that_cannot_be_opened_stops_the_start(
    start_replica: StartReplica, redis_server: RedisServer, tmp_path: Path, words: list[str]
) -> None:
    replica = start_replica(words, REDIS_URL=redis_server.url, SESSION_AUDIT_LOG=str(tmp_path))

    assert replica.wait() == 1
    assert f"SESSION_AUDIT_LOG={tmp_path}: Is a directory" in replica.banner


def test_so_does_what_is_no_file(start_replica: StartReplica, redis_server: RedisServer) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_AUDIT_LOG="/dev/null")

    assert replica.wait() == 1
    assert "SESSION_AUDIT_LOG=/dev/null: is no file" in replica.banner
