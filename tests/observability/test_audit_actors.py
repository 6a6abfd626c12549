"""With authentication, the audit log names the caller of each action, and records rejected requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.auth.conftest import AUDIENCE, ENTRIES, ISSUER, SECRET, key_headers, token_headers
from tests.conftest import AGENT
from tests.observability.audited import Audited, new_session, policy_of, running, some
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

UNKNOWN = "4716d2ea-673d-47d0-b1bd-33202db7411b"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="module")
def replica(redis_server: RedisServer, path: Path) -> Iterator[Replica]:
    """A replica with API keys and tokens, behind a trusted proxy."""
    redis_server.command("FLUSHALL")
    with running(
        REDIS_URL=redis_server.url,
        SESSION_AUDIT_LOG=str(path),
        SESSION_API_KEYS=ENTRIES,
        SESSION_JWT_ISSUER=ISSUER,
        SESSION_JWT_AUDIENCE=AUDIENCE,
        SESSION_JWT_SECRET=SECRET,
        TRUSTED_PROXIES="127.0.0.1",
    ) as replica:
        yield replica
    redis_server.command("FLUSHALL")


@pytest.fixture
def audited(replica: Replica, path: Path) -> Audited:
    return Audited(replica, path, admin=key_headers("admin"))


@pytest.mark.parametrize(
    ("headers", "actor"),
    [(key_headers("admin"), "key:admin"), (token_headers("billing", scope="write"), "token:billing")],
    ids=["a key", "a token"],
)
def test_a_caller_appears_with_its_name(audited: Audited, headers: dict[str, str], actor: str) -> None:
    audited.create(headers)

    (record,) = audited.records()

    assert record["actor"] == actor


def test_a_user_appears_as_a_hash(audited: Audited) -> None:
    audited.create(token_headers(audited.user_id))

    (record,) = audited.records()

    assert record["actor"] == f"user:{audited.hashed(audited.user_id)}"


def test_a_client_behind_a_trusted_proxy_appears_with_its_own_address(audited: Audited) -> None:
    audited.create(key_headers("write") | {"X-Forwarded-For": "203.0.113.7"})

    (record,) = audited.records()

    assert record["address"] == "203.0.113.7"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "missing"),
        ({"X-API-KEY": "ssk_unknown"}, "unknown"),
        (token_headers(UNKNOWN, exp=1), "expired"),
    ],
    ids=["missing", "unknown", "expired"],
)
def test_an_unauthenticated_request_is_recorded_without_a_name(
    audited: Audited, headers: dict[str, str], reason: str
) -> None:
    audited.call("DELETE", f"{SESSIONS}?userId={audited.user_id}", headers=headers)

    (record,) = audited.records()

    assert some(record, "action", "outcome", "actor", "status", "reason", "method", "route") == {
        "action": "access",
        "outcome": "refused",
        "actor": "anonymous",
        "status": 401,
        "reason": reason,
        "method": "DELETE",
        "route": SESSIONS,
    }
    assert record["address"] == "127.0.0.1"


def test_a_request_without_permission_is_recorded_with_the_scope_and_the_session(audited: Audited) -> None:
    audited.call("DELETE", f"{SESSIONS}/{UNKNOWN}", headers=key_headers("read"))

    (record,) = audited.records()

    assert some(record, "action", "outcome", "actor", "status", "scope", "session") == {
        "action": "access",
        "outcome": "refused",
        "actor": "key:read",
        "status": 403,
        "scope": "write",
        "session": audited.hashed(UNKNOWN),
    }


def test_a_request_for_another_user_is_recorded(audited: Audited) -> None:
    audited.call("POST", SESSIONS, new_session(audited.user_id), token_headers(UNKNOWN))

    (record,) = audited.records()

    assert some(record, "outcome", "actor", "status") == {
        "outcome": "refused",
        "actor": f"user:{audited.hashed(UNKNOWN)}",
        "status": 403,
    }


def test_ids_metadata_keys_and_tokens_never_appear(audited: Audited) -> None:
    callers = [
        key_headers("admin"),
        token_headers("billing", scope="admin"),
        token_headers(audited.user_id),
        key_headers("read"),
    ]
    replies = [audited.call("POST", SESSIONS, new_session(audited.user_id), caller)[1] for caller in callers]
    ids = [reply["sessionId"] for reply in replies if "sessionId" in reply]
    audited.call("PUT", policy_of(AGENT), {"timeoutMinutes": 60}, key_headers("admin"))
    audited.call("DELETE", f"{SESSIONS}?userId={audited.user_id}", headers=key_headers("admin"))

    text = audited.text()

    credentials = [header.removeprefix("Bearer ") for caller in callers for header in caller.values()]
    assert (len(ids), len(text.splitlines())) == (3, 9)
    assert [
        secret for secret in (*ids, AGENT, audited.user_id, "a private channel", *credentials) if secret in text
    ] == []
