"""`revoke` ends one session, or all sessions of a user or an agent, after a confirmation."""

import re
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from service.sessions.index_scan import Entry
from service.sessions.revocation import MAX_REVOKED, BulkRevocation, OwnerFilter, Remainder, Revoked
from service.sessions.session import Session
from service.sessions.store import SessionStore
from tests.aging import age
from tests.cli.operator import MINUTE_MS, OTHER_AGENT, OTHER_USER, TIMESTAMP, UNKNOWN, Operator, Prompt
from tests.conftest import AGENT, USER, create_session
from tests.redis_contents import KEYS, contents
from tests.redis_server import RedisServer

OTHER_VERSION = "The data in Redis has schema version 2; this release supports 1.\n"


async def test_a_session_is_revoked_after_a_confirmation(operator: Operator, session: Session) -> None:
    outcome = await operator.run(f"revoke {session.id}", prompt=lambda _: "y")

    assert outcome.code == 0
    assert outcome.lines[0].startswith(f"This revokes a session of agent {AGENT} and user {USER}, which expires in ")
    assert outcome.lines[1] == "The session was revoked."
    assert (await operator.run(f"inspect {session.id}")).code == 1


@pytest.mark.parametrize("answer", ["n", "", "yesterday"])
@pytest.mark.parametrize("owner", ["--user " + USER, "--agent " + AGENT, None])
async def test_nothing_is_revoked_without_a_confirmation(
    operator: Operator, session: Session, owner: str | None, answer: str
) -> None:
    outcome = await operator.run(f"revoke {owner or session.id}", prompt=lambda _: answer)

    assert (outcome.code, outcome.lines[-1]) == (1, "Nothing was revoked.")
    assert (await operator.run(f"inspect {session.id}")).code == 0


def end_of_input(_: str) -> str:
    raise EOFError


def interrupt(_: str) -> str:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("prompt", "code", "output"), [(end_of_input, 1, ["Nothing was revoked."]), (interrupt, 130, [])]
)
async def test_nothing_is_revoked_if_the_prompt_is_aborted(
    operator: Operator, session: Session, prompt: Prompt, code: int, output: list[str]
) -> None:
    outcome = await operator.run(f"revoke {session.id}", prompt=prompt)

    assert (outcome.code, outcome.lines[1:]) == (code, output)
    assert (await operator.run(f"inspect {session.id}")).code == 0


async def test_yes_is_required_without_a_terminal(operator: Operator, session: Session) -> None:
    outcome = await operator.run(f"revoke {session.id}")

    assert outcome == (2, "", "revoke: --yes is required, because there is no terminal to prompt on\n")
    assert (await operator.run(f"inspect {session.id}")).code == 0


@pytest.mark.parametrize("owner", [f"--user {USER}", f"--agent {AGENT}", f"--user {USER} --agent {AGENT}"])
async def test_all_sessions_of_an_owner_are_revoked(operator: Operator, store: SessionStore, owner: str) -> None:
    sessions = [await create_session(store) for _ in range(3)]
    other = await create_session(store, agent_id=OTHER_AGENT, user_id=OTHER_USER)

    outcome = await operator.run(f"revoke {owner} --yes")

    assert outcome.code == 0
    assert outcome.lines[0].startswith("This revokes 3 sessions of ")
    assert outcome.lines[1] == "3 sessions revoked."
    assert [(await operator.run(f"inspect {session.id}")).code for session in [*sessions, other]] == [1, 1, 1, 0]


async def test_an_owner_without_sessions_is_no_error(operator: Operator) -> None:
    outcome = await operator.run(f"revoke --user {uuid4()} --yes")

    assert (outcome.code, outcome.lines[-1]) == (0, "0 sessions revoked.")


async def test_sessions_are_revoked_in_batches(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    remainders = [Remainder(0, Entry(str(number), "an id"), Entry("9", "another")) for number in range(2)]
    replies = iter([Revoked(MAX_REVOKED, remainders[0]), Revoked(MAX_REVOKED, remainders[1]), Revoked(7, None)])
    received = list[Remainder | None]()

    async def revoke(_: BulkRevocation, __: OwnerFilter, remainder: Remainder | None = None) -> Revoked:
        received.append(remainder)
        return next(replies)

    monkeypatch.setattr(BulkRevocation, "revoke", revoke)

    assert (await operator.run(f"revoke --user {USER} --yes")).lines[1:] == [
        "1000 sessions revoked so far.",
        "2000 sessions revoked so far.",
        "2007 sessions revoked.",
    ]
    assert received == [None, *remainders]


async def test_an_expired_or_unknown_session_is_an_error(
    operator: Operator, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    expired = await operator.run(f"revoke {session.id} --yes")
    unknown = await operator.run(f"revoke {UNKNOWN} --yes")

    assert (expired.code, expired.out, expired.err.count("\n")) == (1, "", 1)
    assert re.fullmatch(rf"The session expired at {TIMESTAMP} because of inactivity\.\n", expired.err)
    assert unknown == (1, "", f"There is no session with the id '{UNKNOWN}'.\n")


# Another schema version


@pytest.mark.parametrize("words", [f"revoke --user {USER} --yes", "revoke {id} --yes", "inspect", "inspect {id}"])
async def test_data_of_another_schema_version_is_neither_shown_nor_changed(
    operator: Operator, session: Session, real_redis: Redis, words: str
) -> None:
    await real_redis.set(KEYS.layout, "2")
    before = await contents(real_redis)

    outcome = await operator.run(words.format(id=session.id))

    assert outcome == (1, "", OTHER_VERSION)
    assert await contents(real_redis) == before


async def test_the_schema_version_is_checked_again_after_the_prompt(
    operator: Operator, redis_server: RedisServer, session: Session, real_redis: Redis
) -> None:
    def migrate_and_confirm(_: str) -> str:
        redis_server.command("SET", KEYS.layout, "2")
        return "y"

    outcome = await operator.run(f"revoke {session.id}", prompt=migrate_and_confirm)

    assert (outcome.code, outcome.err) == (1, OTHER_VERSION)
    assert await real_redis.exists(KEYS.session(session.id)) == 1
