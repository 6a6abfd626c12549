"""The operator's terminal: what `inspect` shows and what `revoke` ends, on a real server."""

import asyncio
import io
import json
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis
from rich.console import Console

from service.cli import arguments
from service.cli import commands as terminal
from service.cli.commands import Terminal
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.factory import redis_py_client
from service.redis_client.monitor import StoreMonitor
from service.sessions.index_scan import Entry
from service.sessions.policies import Policies
from service.sessions.revocation import MAX_REVOKED, BulkRevocation, OwnerFilter, Remainder, Revoked
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from service.shared_secret import SharedSecret
from tests.aging import age
from tests.conftest import AGENT, USER, create_session, events_into
from tests.hashes import hashed_in
from tests.redis_server import RedisServer
from tests.sessions.evidence import KEYS, contents
from tests.unpipelined_client import UnpipelinedClient

MINUTE_MS = 60_000
WIDE = 240
NOBODY = "00000000-0000-4000-8000-00000000000b"
OTHER_AGENT = "00000000-0000-4000-8000-00000000000a"
UNKNOWN = "00000000-0000-4000-8000-00000000000c"
SOON = 20
INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


Ask = Callable[[str], str]


class Outcome(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.out.splitlines()]

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def console(stream: io.StringIO, width: int) -> Console:
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def commanded(settings: Settings, words: str, width: int, ask: Ask | None) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    asked = arguments.parse(words.split())
    assert isinstance(asked, arguments.Inspect | arguments.Revoke | arguments.HashIds)
    code = terminal.run(
        asked, settings, Terminal(console(out, width), console(err, width), ask), EventLog(SharedSecret())
    )
    return Outcome(code, out.getvalue(), err.getvalue())


class Operator:
    """Types commands, with the settings that the service has."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def types(self, words: str, *, width: int = WIDE, ask: Ask | None = None) -> Outcome:
        """A command has an event loop of its own, so it runs in a thread of its own."""
        return await asyncio.to_thread(commanded, self.settings, words, width, ask)


@pytest.fixture
def operator(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    return Operator(Settings())


@pytest.fixture
async def redis_client(redis_server: RedisServer, real_redis: Redis) -> AsyncIterator[RedisClient]:
    """One is enough: what is shown does not hang on the lane that sessions came by."""
    redis_client = UnpipelinedClient(redis_py_client(redis_server.admin_url, 2), 2, StoreMonitor(Metrics()))
    yield redis_client
    await redis_client.aclose()


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


def row_of(outcome: Outcome, name: str) -> str:
    """What stands beside a name, in the first row that begins with it."""
    return next(line.partition(name)[2].strip() for line in outcome.lines if line.startswith(name))


def shown_by(line: str, server: RedisServer) -> Any:
    """What a redis-cli line shows; the machine need not have redis-cli."""
    program, option, socket, *command = shlex.split(line)
    assert (program, option, f"unix://{socket}") == ("redis-cli", "-s", server.url)
    return server.command(*command)


def said_by_the_shell(line: str) -> list[str]:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.splitlines()


# The whole


async def test_where_there_is_nothing_it_says_so(operator: Operator, real_redis: Redis) -> None:
    outcome = await operator.types("inspect")

    assert outcome.code == 0
    assert row_of(outcome, "active") == "0"
    assert row_of(outcome, "ended, not yet swept") == "0"
    assert "no sessions" in outcome.lines


async def test_a_session_is_a_row(operator: Operator, store: SessionStore, session: Session) -> None:
    renewed = await store.renew(session.id)

    outcome = await operator.types("inspect")
    heading, row = next(
        (cells(line), cells(outcome.lines[number + 1]))
        for number, line in enumerate(outcome.lines)
        if line.startswith("session")
    )

    assert heading == ["session", "agent", "user", "created", "last activity", "ends in", "renewals", "revision"]
    assert row[:3] == [session.id, AGENT, USER]
    assert [re.fullmatch(INSTANT, instant) is not None for instant in row[3:5]] == [True, True]
    assert row[3:5] == sorted(row[3:5])
    assert re.fullmatch(r"29m \d+s|30m", row[5])
    assert row[6:] == [str(renewed.renewal_count), "1"]


async def test_it_counts_those_near_their_end_and_those_that_have_ended(
    operator: Operator, store: SessionStore, real_redis: Redis
) -> None:
    sessions = [await create_session(store) for _ in range(5)]
    await age(real_redis, sessions[0].id, 26 * MINUTE_MS)
    await age(real_redis, sessions[1].id, 33 * MINUTE_MS)
    await age(real_redis, sessions[2].id, 31 * MINUTE_MS)

    outcome = await operator.types("inspect")

    assert row_of(outcome, "active") == "3"
    assert row_of(outcome, "near expiration") == "1"
    assert re.fullmatch(r"2, the oldest 3m( \d+s)? ago", row_of(outcome, "ended, not yet swept"))


async def test_it_says_which_server_it_looks_at(
    operator: Operator, redis_server: RedisServer, store: SessionStore
) -> None:
    outcome = await operator.types("inspect")

    assert re.match(r"(Valkey|Redis) \d", row_of(outcome, "server"))
    assert f"redis-cli -s {redis_server.url.removeprefix('unix://')}" in outcome.lines


async def test_an_account_that_may_not_ask_what_the_server_is_can_look(
    operator: Operator, redis_server: RedisServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.command("ACL", "SETUSER", "looker", "on", "nopass", "~*", "+@all", "-info")
    monkeypatch.setenv("REDIS_URL", redis_server.url.replace("unix://", "unix://looker@"))

    outcome = await Operator(Settings()).types("inspect")
    redis_server.command("ACL", "DELUSER", "looker")

    assert outcome.code == 0
    assert row_of(outcome, "server") == "does not say what it is"
    assert row_of(outcome, "active") == "1"


async def test_it_lists_the_first_and_says_that_there_are_more(operator: Operator, store: SessionStore) -> None:
    sessions = [await create_session(store) for _ in range(5)]

    outcome = await operator.types("inspect --limit 2")

    assert len([session for session in sessions if session.id in outcome.out]) == 2
    assert any(line.startswith("2 of 5 sessions; --limit N shows more") for line in outcome.lines)


async def test_looking_writes_nothing(operator: Operator, session: Session, real_redis: Redis) -> None:
    before = await contents(real_redis)

    await operator.types("inspect")
    await operator.types(f"inspect --user {USER} --agent {AGENT}")
    await operator.types(f"inspect {session.id}")

    assert await contents(real_redis) == before


# Somebody's


async def test_it_lists_those_of_a_user_of_an_agent_and_of_both(operator: Operator, store: SessionStore) -> None:
    both = await create_session(store)
    users = await create_session(store, agent_id=OTHER_AGENT)
    agents = await create_session(store, user_id=NOBODY)

    of_user = (await operator.types(f"inspect --user {USER} --json")).document
    of_agent = (await operator.types(f"inspect --agent {AGENT} --json")).document
    of_both = (await operator.types(f"inspect --user {USER} --agent {AGENT} --json")).document

    assert {session["sessionId"] for session in of_user["sessions"]} == {both.id, users.id}
    assert {session["sessionId"] for session in of_agent["sessions"]} == {both.id, agents.id}
    assert [session["sessionId"] for session in of_both["sessions"]] == [both.id]


async def test_a_listing_says_how_many_there_are(operator: Operator, session: Session) -> None:
    assert "1 session" in (await operator.types(f"inspect --user {USER}")).lines
    assert "no sessions" in (await operator.types(f"inspect --user {NOBODY}")).lines


async def test_a_listing_goes_on_over_those_that_have_ended(
    operator: Operator, store: SessionStore, real_redis: Redis
) -> None:
    sessions = [await create_session(store) for _ in range(4)]
    await age(real_redis, sessions[0].id, 31 * MINUTE_MS)
    await age(real_redis, sessions[1].id, 31 * MINUTE_MS)

    listed = (await operator.types(f"inspect --user {USER} --limit 2 --json")).document["sessions"]

    assert {session["sessionId"] for session in listed} == {sessions[2].id, sessions[3].id}


async def test_with_an_agent_comes_its_policy(operator: Operator, redis_client: RedisClient) -> None:
    await Policies(redis_client, KEYS, events_into(Metrics()), operator.settings).put(
        AGENT, {"timeout_minutes": 60, "auto_renew": False}
    )

    outcome = await operator.types(f"inspect --agent {AGENT}")
    document = (await operator.types(f"inspect --agent {AGENT} --json")).document

    assert row_of(outcome, "agent's policy") == "timeoutMinutes 60, autoRenew false"
    assert re.fullmatch(INSTANT, row_of(outcome, "in force since"))
    assert document["policy"]["timeoutConfig"] == {"timeoutMinutes": 60, "autoRenew": False}


async def test_without_a_policy_none_is_shown(operator: Operator, session: Session) -> None:
    assert "policy" not in (await operator.types(f"inspect --agent {AGENT}")).out
    assert (await operator.types(f"inspect --agent {AGENT} --json")).document["policy"] is None


async def test_metadata_is_in_no_listing(operator: Operator, session: Session) -> None:
    assert "channel" not in (await operator.types(f"inspect --user {USER}")).out
    assert "channel" not in (await operator.types("inspect --json")).out


@pytest.mark.parametrize("words", ["inspect", f"inspect --user {USER}"])
async def test_eighty_columns_hold_whole_ids(operator: Operator, session: Session, words: str) -> None:
    outcome = await operator.types(words, width=80)
    number, first = next((number, line) for number, line in enumerate(outcome.lines) if line.startswith(session.id))

    assert cells(first)[0] == session.id
    assert cells(outcome.lines[number + 1])[0::2] == [AGENT, "0"]
    assert cells(outcome.lines[number + 2]) == [USER, "1"]
    assert max(len(line) for line in outcome.lines if "redis-cli" not in line) <= 80


# One session


async def test_of_one_it_shows_every_field(operator: Operator, session: Session) -> None:
    outcome = await operator.types(f"inspect {session.id}")

    assert outcome.code == 0
    assert outcome.lines[0] == session.id
    assert re.fullmatch(r"It lives and ends in (30m|29m \d+s)\.", outcome.lines[1])
    assert row_of(outcome, "agentId") == AGENT
    assert row_of(outcome, "userId") == USER
    assert row_of(outcome, "timeoutMinutes") == "30"
    assert row_of(outcome, "autoRenew") == "true"
    assert row_of(outcome, "metadata") == '{"channel":"web"}'
    assert re.fullmatch(rf"{INSTANT} \(\d+(ms|s) ago\)", row_of(outcome, "createdAt"))
    assert re.fullmatch(rf"{INSTANT} \(in 29m \d+s\)", row_of(outcome, "expiresAt"))
    assert row_of(outcome, "reason") == "inactivity"


async def test_of_one_it_shows_what_it_is_called_in_logs(
    operator: Operator, session: Session, real_redis: Redis
) -> None:
    await real_redis.set(KEYS.secret, "0f" * 32)

    outcome = await operator.types(f"inspect {session.id}")
    document = (await operator.types(f"inspect {session.id} --json")).document

    hashed = await hashed_in(real_redis, session.id)
    assert (outcome.lines[2], document["logHash"]) == (f"In logs it is {hashed}.", hashed)


async def test_of_one_it_shows_when_its_keys_die_and_where_it_is_listed(operator: Operator, session: Session) -> None:
    document = (await operator.types(f"inspect {session.id} --json")).document

    assert 29 * MINUTE_MS < document["session"]["ttlMs"] <= 30 * MINUTE_MS
    assert 1469 * MINUTE_MS < document["tombstone"]["ttlMs"] <= 1470 * MINUTE_MS
    assert document["session"]["fields"]["metadata"] == {"channel": "web"}
    assert {name: place["key"] for name, place in document["indexes"].items()} == {
        "expiry": KEYS.expiry(session.id[:2]),
        "warning": KEYS.warning(session.id[:2]),
        "created": KEYS.created(session.id[:2]),
        "user": KEYS.user(USER),
        "agent": KEYS.agent(AGENT),
    }
    assert document["indexes"]["expiry"]["listedAt"] == document["session"]["fields"]["expiresAt"]


async def test_what_an_index_lacks_is_named(operator: Operator, session: Session, real_redis: Redis) -> None:
    await real_redis.zrem(KEYS.user(USER), session.id)

    outcome = await operator.types(f"inspect {session.id}")

    assert row_of(outcome, "user  ") == f"missing in {KEYS.user(USER)}"
    assert re.match(INSTANT, row_of(outcome, "agent  "))


async def test_a_key_without_an_end_is_named(operator: Operator, session: Session, real_redis: Redis) -> None:
    await real_redis.persist(KEYS.session(session.id))

    outcome = await operator.types(f"inspect {session.id}")
    await real_redis.delete(KEYS.session(session.id))

    assert row_of(outcome, "TTL") == "none: this key would stay for good"


async def test_of_one_that_has_ended_it_says_when_and_why(
    operator: Operator, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    outcome = await operator.types(f"inspect {session.id}")

    assert outcome.code == 0
    assert re.fullmatch(rf"The session expired at {INSTANT} because of inactivity\.", outcome.lines[1])
    assert row_of(outcome, "TTL") == "no such key"
    assert row_of(outcome, "userId") == USER


async def test_one_that_is_lost_is_said_to_be(operator: Operator, session: Session, real_redis: Redis) -> None:
    await real_redis.delete(KEYS.session(session.id))

    outcome = await operator.types(f"inspect {session.id}")

    assert (outcome.code, outcome.lines[1].partition(":")[0]) == (0, "It is lost")


async def test_a_mark_is_said_to_be_one(operator: Operator, redis_client: RedisClient, real_redis: Redis) -> None:
    await real_redis.zadd(KEYS.user(USER), {UNKNOWN: 1})
    await real_redis.pexpire(KEYS.user(USER), MINUTE_MS)
    await BulkRevocation(redis_client, KEYS, events_into(Metrics())).revoke(OwnerFilter(None, USER))

    outcome = await operator.types(f"inspect {UNKNOWN}")

    assert (outcome.code, outcome.lines[1].partition(":")[0]) == (0, "It is a mark")
    assert re.fullmatch(rf"{INSTANT} \(\d+(ms|s) ago\)", row_of(outcome, "revokedAt"))


@pytest.mark.parametrize("session_id", [UNKNOWN, "never-issued"])
async def test_one_that_is_unknown_is_said_to_be(operator: Operator, real_redis: Redis, session_id: str) -> None:
    outcome = await operator.types(f"inspect {session_id}")
    document = (await operator.types(f"inspect {session_id} --json")).document

    assert (outcome.code, outcome.lines[1].partition(":")[0]) == (1, "It is unknown")
    assert (document["state"], document["session"], document["tombstone"]) == ("unknown", None, None)


async def test_nothing_that_a_client_stored_reaches_the_terminal_as_a_command(
    operator: Operator, store: SessionStore, real_redis: Redis
) -> None:
    session = await create_session(store, metadata='{"a":"\u009b31m[bold]"}'.encode())
    await real_redis.hset(KEYS.session(session.id), "by\x1b[2Jhand", "\x1b]0;title\x07")

    outcome = await operator.types(f"inspect {session.id}")
    in_json = await operator.types(f"inspect {session.id} --json")

    assert row_of(outcome, "metadata") == '{"a":"\N{REPLACEMENT CHARACTER}31m[bold]"}'
    assert in_json.document["session"]["fields"]["metadata"] == {"a": "\u009b31m[bold]"}
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", outcome.out + in_json.out) == []


async def test_one_that_lost_a_field_can_be_looked_at(operator: Operator, session: Session, real_redis: Redis) -> None:
    await real_redis.hdel(KEYS.session(session.id), "metadata", "renewalCount")

    outcome = await operator.types(f"inspect {session.id}")

    assert outcome.code == 0
    assert row_of(outcome, "agentId") == AGENT


# The lines for redis-cli


async def test_the_lines_show_the_same_session(operator: Operator, session: Session, redis_server: RedisServer) -> None:
    lines = (await operator.types(f"inspect {session.id}", width=80)).lines[-4:]

    fields, ttl_ms, tombstone, tombstone_ttl_ms = [shown_by(line, redis_server) for line in lines]

    assert fields[b"userId"] == tombstone[b"userId"] == USER.encode()
    assert 0 < ttl_ms < tombstone_ttl_ms


async def test_the_lines_show_the_same_listing_and_policy(
    operator: Operator, redis_client: RedisClient, session: Session, redis_server: RedisServer
) -> None:
    await Policies(redis_client, KEYS, events_into(Metrics()), operator.settings).put(AGENT, {"timeout_minutes": 60})

    lines = (await operator.types(f"inspect --user {USER} --agent {AGENT}")).lines[-3:]
    of_user, of_agent, policy = [shown_by(line, redis_server) for line in lines]

    assert of_user == of_agent == [session.id.encode()]
    assert policy[b"timeoutMinutes"] == b"60"


async def test_the_line_of_the_whole_counts_those_that_live(operator: Operator, session: Session) -> None:
    document = (await operator.types("inspect --json")).document
    prompt, counting = document["redisCli"]
    printf, piped_to, awk = counting.split(" | ")

    asked = said_by_the_shell(printf)

    assert asked[0xAB].startswith("ZCOUNT sessions:{ab}:expiry (")
    assert (len(asked), piped_to, awk) == (256, prompt, "awk '{ n += $1 } END { print n }'")


async def test_a_prefix_is_in_every_line(session: Session, operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_KEY_PREFIX", "100%\\n:")
    prefixed = Operator(Settings())

    lines = (await prefixed.types(f"inspect {session.id}")).lines[-4:]
    counting = (await prefixed.types("inspect --json")).document["redisCli"][1].partition(" | ")[0]
    asked = said_by_the_shell(counting)

    assert [f"'100%\\n:session:{{{session.id[:2]}}}" in line for line in lines] == [True] * 4
    assert asked[0].startswith("ZCOUNT 100%\\n:sessions:{00}:expiry (")


# Ending


async def test_one_is_ended_once_that_is_confirmed(operator: Operator, session: Session) -> None:
    outcome = await operator.types(f"revoke {session.id}", ask=lambda _: "y")

    assert outcome.code == 0
    assert outcome.lines[0].startswith(f"A session of agent {AGENT} and user {USER} that lives and ends in ")
    assert outcome.lines[1] == "The session has ended."
    assert (await operator.types(f"inspect {session.id}")).code == 1


@pytest.mark.parametrize("answer", ["n", "", "yesterday"])
@pytest.mark.parametrize("whose", ["--user " + USER, "--agent " + AGENT, None])
async def test_nothing_is_ended_that_is_not_confirmed(
    operator: Operator, session: Session, whose: str | None, answer: str
) -> None:
    outcome = await operator.types(f"revoke {whose or session.id}", ask=lambda _: answer)

    assert (outcome.code, outcome.lines[-1]) == (1, "Nothing was ended.")
    assert (await operator.types(f"inspect {session.id}")).code == 0


def gone(_: str) -> str:
    raise EOFError


def interrupted(_: str) -> str:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("ask", "code", "said"), [(gone, 1, ["Nothing was ended."]), (interrupted, 130, [])])
async def test_nothing_is_ended_where_whoever_is_asked_leaves(
    operator: Operator, session: Session, ask: Ask, code: int, said: list[str]
) -> None:
    outcome = await operator.types(f"revoke {session.id}", ask=ask)

    assert (outcome.code, outcome.lines[1:]) == (code, said)
    assert (await operator.types(f"inspect {session.id}")).code == 0


async def test_where_nobody_can_be_asked_it_has_to_be_said_beforehand(operator: Operator, session: Session) -> None:
    outcome = await operator.types(f"revoke {session.id}")

    assert outcome == (2, "", "revoke: there is no terminal to ask on, so --yes is needed\n")
    assert (await operator.types(f"inspect {session.id}")).code == 0


@pytest.mark.parametrize("whose", [f"--user {USER}", f"--agent {AGENT}", f"--user {USER} --agent {AGENT}"])
async def test_all_of_somebody_are_ended(operator: Operator, store: SessionStore, whose: str) -> None:
    sessions = [await create_session(store) for _ in range(3)]
    other = await create_session(store, agent_id=OTHER_AGENT, user_id=NOBODY)

    outcome = await operator.types(f"revoke {whose} --yes")

    assert outcome.code == 0
    assert outcome.lines[0].endswith(": 3 sessions listed.")
    assert outcome.lines[1] == "3 sessions ended."
    assert [(await operator.types(f"inspect {session.id}")).code for session in [*sessions, other]] == [1, 1, 1, 0]


async def test_it_goes_on_until_nothing_more_is_listed(
    operator: Operator, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests = [Remainder(0, Entry(str(number), "an id"), Entry("9", "another")) for number in range(2)]
    answers = iter([Revoked(MAX_REVOKED, rests[0]), Revoked(MAX_REVOKED, rests[1]), Revoked(7, None)])
    gone_on_with = list[Remainder | None]()

    async def revoke(_: BulkRevocation, whose: OwnerFilter, rest: Remainder | None = None) -> Revoked:
        gone_on_with.append(rest)
        return next(answers)

    monkeypatch.setattr(BulkRevocation, "revoke", revoke)

    assert (await operator.types(f"revoke --user {USER} --yes")).lines[1:] == [
        "1000 sessions ended so far.",
        "2000 sessions ended so far.",
        "2007 sessions ended.",
    ]
    assert gone_on_with == [None, *rests]


async def test_what_cannot_be_ended_is_said_in_words(operator: Operator, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    expired = await operator.types(f"revoke {session.id} --yes")
    unknown = await operator.types(f"revoke {UNKNOWN} --yes")

    assert (expired.code, expired.out, expired.err.count("\n")) == (1, "", 1)
    assert re.fullmatch(rf"The session expired at {INSTANT} because of inactivity\.\n", expired.err)
    assert unknown == (1, "", f"There is no session with the id '{UNKNOWN}'.\n")


# Trouble


async def test_what_others_wrote_under_our_keys_is_told_in_one_line(operator: Operator, real_redis: Redis) -> None:
    await real_redis.set(KEYS.user(USER), "by hand", px=MINUTE_MS)

    outcome = await operator.types(f"inspect --user {USER}")

    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert outcome.err.startswith("Redis holds what this service did not write: WRONGTYPE")


# Data of another layout


@pytest.mark.parametrize("words", [f"revoke --user {USER} --yes", "revoke {id} --yes", "inspect", "inspect {id}"])
async def test_data_of_another_layout_is_neither_shown_nor_ended(
    operator: Operator, session: Session, real_redis: Redis, words: str
) -> None:
    await real_redis.set(KEYS.layout, "2")
    before = await contents(real_redis)

    outcome = await operator.types(words.format(id=session.id))

    assert outcome == (1, "", "The data in Redis is of layout 2; this version reads 1.\n")
    assert await contents(real_redis) == before


async def test_data_that_is_moved_while_a_person_thinks_is_not_touched(
    operator: Operator, redis_server: RedisServer, session: Session, real_redis: Redis
) -> None:
    def yes_at_last(_: str) -> str:
        redis_server.command("SET", KEYS.layout, "2")
        return "y"

    outcome = await operator.types(f"revoke {session.id}", ask=yes_at_last)

    assert (outcome.code, outcome.err) == (1, "The data in Redis is of layout 2; this version reads 1.\n")
    assert await real_redis.exists(KEYS.session(session.id)) == 1


# What ids are called in logs


async def test_each_id_has_a_line_with_what_it_is_called_in_logs(operator: Operator, real_redis: Redis) -> None:
    await real_redis.set(KEYS.secret, "0f" * 32)

    outcome = await operator.types(f"hash {UNKNOWN} {USER.upper()}")

    session, user = await hashed_in(real_redis, UNKNOWN), await hashed_in(real_redis, USER)
    assert (outcome.code, outcome.lines) == (0, [f"{session}  {UNKNOWN}", f"{user}  {USER}"])


async def test_where_nobody_has_made_the_secret_it_makes_none(operator: Operator, real_redis: Redis) -> None:
    outcome = await operator.types(f"hash {UNKNOWN}")

    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("Redis holds no secret to hash ids by")
    assert await contents(real_redis) == {}
