"""`inspect` shows an overview, or the sessions of a user or an agent."""

import re
import shlex
import subprocess
from typing import Any

import pytest
from redis.asyncio import Redis

from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions.policies import Policies
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age
from tests.cli.operator import MINUTE_MS, OTHER_AGENT, OTHER_USER, TIMESTAMP, Operator, cells, row
from tests.conftest import AGENT, USER, create_session, new_session_events
from tests.redis_contents import KEYS, contents
from tests.redis_server import RedisServer

# Overview


async def test_the_overview_of_an_empty_redis_shows_zeros(operator: Operator, real_redis: Redis) -> None:
    outcome = await operator.run("inspect")

    assert outcome.code == 0
    assert row(outcome, "active") == "0"
    assert row(outcome, "expired, not yet swept") == "0"
    assert "no sessions" in outcome.lines


async def test_a_session_is_a_row(operator: Operator, store: SessionStore, session: Session) -> None:
    renewed = await store.renew(session.id)

    outcome = await operator.run("inspect")
    heading, values = next(
        (cells(line), cells(outcome.lines[number + 1]))
        for number, line in enumerate(outcome.lines)
        if line.startswith("session")
    )

    assert heading == ["session", "agent", "user", "created", "last activity", "expires in", "renewals", "revision"]
    assert values[:3] == [session.id, AGENT, USER]
    assert [re.fullmatch(TIMESTAMP, value) is not None for value in values[3:5]] == [True, True]
    assert values[3:5] == sorted(values[3:5])
    assert re.fullmatch(r"29m \d+s|30m", values[5])
    assert values[6:] == [str(renewed.renewal_count), "1"]


async def test_the_overview_counts_sessions_near_expiration_and_expired_sessions(
    operator: Operator, store: SessionStore, real_redis: Redis
) -> None:
    sessions = [await create_session(store) for _ in range(5)]
    await age(real_redis, sessions[0].id, 26 * MINUTE_MS)
    await age(real_redis, sessions[1].id, 33 * MINUTE_MS)
    await age(real_redis, sessions[2].id, 31 * MINUTE_MS)

    outcome = await operator.run("inspect")

    assert row(outcome, "active") == "3"
    assert row(outcome, "near expiration") == "1"
    assert re.fullmatch(r"2, the oldest 3m( \d+s)? ago", row(outcome, "expired, not yet swept"))


async def test_the_overview_shows_the_server(
    operator: Operator, redis_server: RedisServer, store: SessionStore
) -> None:
    outcome = await operator.run("inspect")

    assert re.match(r"(Valkey|Redis) \d", row(outcome, "server"))
    assert f"redis-cli -s {redis_server.url.removeprefix('unix://')}" in outcome.lines


async def test_the_overview_does_not_need_the_permission_for_info(
    redis_server: RedisServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.command("ACL", "SETUSER", "viewer", "on", "nopass", "~*", "+@all", "-info")
    monkeypatch.setenv("REDIS_URL", redis_server.url.replace("unix://", "unix://viewer@"))

    outcome = await Operator(Settings()).run("inspect")
    redis_server.command("ACL", "DELUSER", "viewer")

    assert outcome.code == 0
    assert row(outcome, "server") == "unknown (no permission for INFO)"
    assert row(outcome, "active") == "1"


async def test_the_limit_restricts_the_list_and_not_the_total(operator: Operator, store: SessionStore) -> None:
    sessions = [await create_session(store) for _ in range(5)]

    outcome = await operator.run("inspect --limit 2")

    assert len([session for session in sessions if session.id in outcome.out]) == 2
    assert any(line.startswith("2 of 5 sessions. Use --limit N to list more") for line in outcome.lines)


async def test_inspect_writes_nothing(operator: Operator, session: Session, real_redis: Redis) -> None:
    before = await contents(real_redis)

    await operator.run("inspect")
    await operator.run(f"inspect --user {USER} --agent {AGENT}")
    await operator.run(f"inspect {session.id}")

    assert await contents(real_redis) == before


# Lists


async def test_sessions_are_listed_by_user_by_agent_and_by_both(operator: Operator, store: SessionStore) -> None:
    both = await create_session(store)
    users = await create_session(store, agent_id=OTHER_AGENT)
    agents = await create_session(store, user_id=OTHER_USER)

    of_user = (await operator.run(f"inspect --user {USER} --json")).document
    of_agent = (await operator.run(f"inspect --agent {AGENT} --json")).document
    of_both = (await operator.run(f"inspect --user {USER} --agent {AGENT} --json")).document

    assert {session["sessionId"] for session in of_user["sessions"]} == {both.id, users.id}
    assert {session["sessionId"] for session in of_agent["sessions"]} == {both.id, agents.id}
    assert [session["sessionId"] for session in of_both["sessions"]] == [both.id]


async def test_a_list_ends_with_its_number_of_sessions(operator: Operator, session: Session) -> None:
    assert "1 session" in (await operator.run(f"inspect --user {USER}")).lines
    assert "no sessions" in (await operator.run(f"inspect --user {OTHER_USER}")).lines


async def test_expired_sessions_do_not_count_towards_the_limit(
    operator: Operator, store: SessionStore, real_redis: Redis
) -> None:
    sessions = [await create_session(store) for _ in range(4)]
    await age(real_redis, sessions[0].id, 31 * MINUTE_MS)
    await age(real_redis, sessions[1].id, 31 * MINUTE_MS)

    listed = (await operator.run(f"inspect --user {USER} --limit 2 --json")).document["sessions"]

    assert {session["sessionId"] for session in listed} == {sessions[2].id, sessions[3].id}


async def test_the_list_of_an_agent_includes_its_policy(operator: Operator, redis_client: RedisClient) -> None:
    await Policies(redis_client, KEYS, new_session_events(Metrics()), operator.settings).put(
        AGENT, {"timeout_minutes": 60, "auto_renew": False}
    )

    outcome = await operator.run(f"inspect --agent {AGENT}")
    document = (await operator.run(f"inspect --agent {AGENT} --json")).document

    assert row(outcome, "agent policy") == "timeoutMinutes 60, autoRenew false"
    assert re.fullmatch(TIMESTAMP, row(outcome, "updated"))
    assert document["policy"]["timeoutConfig"] == {"timeoutMinutes": 60, "autoRenew": False}


async def test_an_agent_without_a_policy_is_listed_without_one(operator: Operator, session: Session) -> None:
    assert "policy" not in (await operator.run(f"inspect --agent {AGENT}")).out
    assert (await operator.run(f"inspect --agent {AGENT} --json")).document["policy"] is None


async def test_lists_contain_no_metadata(operator: Operator, session: Session) -> None:
    assert '"channel"' not in (await operator.run(f"inspect --user {USER}")).out
    assert '"channel"' not in (await operator.run("inspect --json")).out


@pytest.mark.parametrize("words", ["inspect", f"inspect --user {USER}"])
async def test_eighty_columns_show_whole_ids(operator: Operator, session: Session, words: str) -> None:
    outcome = await operator.run(words, columns=80)
    number, first = next((number, line) for number, line in enumerate(outcome.lines) if line.startswith(session.id))

    assert cells(first)[0] == session.id
    assert cells(outcome.lines[number + 1])[0::2] == [AGENT, "0"]
    assert cells(outcome.lines[number + 2]) == [USER, "1"]
    assert max(len(line) for line in outcome.lines if "redis-cli" not in line) <= 80


async def test_unexpected_data_in_redis_is_an_error_of_one_line(operator: Operator, real_redis: Redis) -> None:
    await real_redis.set(KEYS.user(USER), "by hand", px=MINUTE_MS)

    outcome = await operator.run(f"inspect --user {USER}")

    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert outcome.err.startswith("Redis contains data that the service did not write: WRONGTYPE")


# redis-cli lines


def replies_to(lines: list[str], server: RedisServer) -> list[Any]:
    return [reply_to(line, server) for line in lines]


def reply_to(line: str, server: RedisServer) -> Any:
    """Return the reply to the command of a redis-cli line, without redis-cli, which may not be installed."""
    program, option, socket, *command = shlex.split(line)
    assert (program, option, f"unix://{socket}") == ("redis-cli", "-s", server.url)
    return server.command(*command)


def shell_output(line: str) -> list[str]:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.splitlines()


async def test_redis_cli_lines_show_the_same_session(
    operator: Operator, session: Session, redis_server: RedisServer
) -> None:
    lines = (await operator.run(f"inspect {session.id}", columns=80)).lines[-4:]

    fields, ttl_ms, tombstone, tombstone_ttl_ms = replies_to(lines, redis_server)

    assert fields[b"userId"] == tombstone[b"userId"] == USER.encode()
    assert 0 < ttl_ms < tombstone_ttl_ms


async def test_redis_cli_lines_show_the_same_list_and_policy(
    operator: Operator, redis_client: RedisClient, session: Session, redis_server: RedisServer
) -> None:
    await Policies(redis_client, KEYS, new_session_events(Metrics()), operator.settings).put(
        AGENT, {"timeout_minutes": 60}
    )

    lines = (await operator.run(f"inspect --user {USER} --agent {AGENT}")).lines[-3:]
    of_user, of_agent, policy = replies_to(lines, redis_server)

    assert of_user == of_agent == [session.id.encode()]
    assert policy[b"timeoutMinutes"] == b"60"


async def test_the_redis_cli_line_of_the_overview_counts_live_sessions(operator: Operator, session: Session) -> None:
    document = (await operator.run("inspect --json")).document
    prompt, count = document["redisCli"]
    printf, pipe, awk = count.split(" | ")

    commands = shell_output(printf)

    assert commands[0xAB].startswith("ZCOUNT sessions:{ab}:expiry (")
    assert (len(commands), pipe, awk) == (256, prompt, "awk '{ n += $1 } END { print n }'")


async def test_redis_cli_lines_contain_the_key_prefix(
    session: Session, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_KEY_PREFIX", "100%\\n:")
    prefixed = Operator(Settings())

    lines = (await prefixed.run(f"inspect {session.id}")).lines[-4:]
    printf = (await prefixed.run("inspect --json")).document["redisCli"][1].partition(" | ")[0]
    commands = shell_output(printf)

    assert [f"'100%\\n:session:{{{session.id[:2]}}}" in line for line in lines] == [True] * 4
    assert commands[0].startswith("ZCOUNT 100%\\n:sessions:{00}:expiry (")
