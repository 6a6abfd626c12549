"""The Lua scripts as files: what their binding blocks promise, what their headers say, and that they load anywhere."""

import re
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from service.observability.metrics import Metrics
from service.redis_client.scripts import Argument, Script
from service.sessions import scripts
from service.sessions.keys import Keys
from service.sessions.scripts import (
    ADD_TO_INDEX,
    ADD_WITHIN_CAPS,
    AWAIT_REPLICATION,
    COUNT,
    CREATE,
    CREATE_WITH_RECORD,
    DELETE,
    DELETE_WITH_RECORD,
    EVICT,
    EXPIRED,
    HEARTBEAT,
    LIST,
    MARK_LOST,
    PUT_POLICY,
    RATE_LIMIT,
    REMOVE_FROM_INDEX,
    RENEW,
    REVOKE,
    SCRIPTS,
    STATUS,
    SWEEP,
    UPDATE_METADATA,
    UPDATE_TIMEOUT,
)
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import AGENT, USER, clients_of, create_session, store_on

MINUTE_MS = 60_000
AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
THEN_MS = 4_102_444_800_000
END_MS = THEN_MS + 30 * MINUTE_MS
ARGUMENTS: dict[str, Argument] = {
    "id": AN_ID,
    "agent_id": AGENT,
    "user_id": USER,
    "metadata": "{}",
    "timeout_minutes": "30",
    "auto_renew": "true",
    "max_duration_minutes": "45",
    "warning_threshold_minutes": "5",
    "retention_ms": 60 * MINUTE_MS,
    "marker_lifetime_ms": 10 * MINUTE_MS,
    "revision": "1",
    "owner_id": USER,
    "last_activity": THEN_MS,
    "revisions": "",
}
ALL_SCRIPTS = [
    *(
        CREATE_WITH_RECORD,
        ADD_TO_INDEX,
        HEARTBEAT,
        RENEW,
        UPDATE_TIMEOUT,
        UPDATE_METADATA,
        DELETE_WITH_RECORD,
        SWEEP,
        LIST,
        COUNT,
        REVOKE,
        PUT_POLICY,
        MARK_LOST,
    ),
    *(EXPIRED, STATUS, REMOVE_FROM_INDEX, RATE_LIMIT, ADD_WITHIN_CAPS, EVICT, AWAIT_REPLICATION),
]

each_script = pytest.mark.parametrize("script", ALL_SCRIPTS, ids=lambda script: script.name)
each_script_of_a_live_session = pytest.mark.parametrize(
    "script", [HEARTBEAT, RENEW, UPDATE_TIMEOUT, UPDATE_METADATA, DELETE, REVOKE, EVICT], ids=lambda script: script.name
)
each_script_for_a_user = pytest.mark.parametrize(
    "script", [HEARTBEAT, RENEW, UPDATE_TIMEOUT, DELETE, STATUS], ids=lambda script: script.name
)
each_script_of_a_session = pytest.mark.parametrize(
    "script",
    [CREATE, HEARTBEAT, RENEW, UPDATE_TIMEOUT, UPDATE_METADATA, DELETE, SWEEP, REVOKE, MARK_LOST, STATUS, EVICT],
    ids=lambda script: script.name,
)


def file_of(name: str) -> str:
    return (resources.files("service.sessions.scripts") / f"{name}.lua").read_text()


def header_of(script: Script) -> str:
    return file_of(script.name).partition("\nlocal ")[0]


def words_answered(script: Script) -> set[str]:
    """The words a script's lines answer with; those of a session that does not live are said by the prelude."""
    text = file_of(script.name)
    words = set(re.findall(r"return \{'(\w+)'", text))
    if "return reply" in text:
        words |= {"missing", "expired", "lost"}
    return words


def arguments_of(script: Script) -> dict[str, Argument]:
    return dict.fromkeys(script.arguments, "1")


async def run_at(redis: Redis, now_ms: int, script: Script, **changes: Argument) -> list[Any]:
    """What a script answers for the session of AN_ID when Redis's clock says this and somewhat less than 1 ms more."""
    told = f"{{'{now_ms // 1000}', '{now_ms % 1000 * 1000 + 999}'}}"
    command = script.command(Keys("").of(AN_ID), **ARGUMENTS | changes)
    text = script.text.replace("redis.call('TIME')", told)
    answer: list[Any] = await redis.eval(text, len(script.keys), *map(str, command[3:]))
    return answer


@pytest.fixture
async def session_of_2100(redis: Redis) -> None:
    """A session that begins with the year 2100, of half an hour within three quarters of one."""
    await run_at(redis, THEN_MS, CREATE)


@pytest.fixture
async def loose_store(redis: Redis, settings: Settings) -> AsyncIterator[SessionStore]:
    """A store on the fake and on the real server."""
    redis_client = clients_of(redis, settings.session_store_timeout_seconds, Metrics()).main
    yield store_on(redis_client, settings)
    await redis_client.aclose()


def test_the_binding_block_is_the_signature() -> None:
    assert RENEW.keys == ("session", "tombstone", "expiry", "warning")
    assert RENEW.arguments == ("id", "retention_ms", "owner_id")


@pytest.mark.parametrize(
    ("shorter", "whole"), [(CREATE, CREATE_WITH_RECORD), (DELETE, DELETE_WITH_RECORD)], ids=["create", "delete"]
)
def test_what_a_script_is_told_nothing_of_stands_last(shorter: Script, whole: Script) -> None:
    assert (shorter.sha, shorter.text) == (whole.sha, whole.text)
    assert whole.keys[: len(shorter.keys)] == shorter.keys
    assert whole.arguments[: len(shorter.arguments)] == shorter.arguments
    assert shorter.head == ("EVALSHA", whole.sha, len(shorter.keys))


def test_names_are_read_in_the_order_of_their_numbers() -> None:
    assert UPDATE_TIMEOUT.arguments == (
        "id",
        "timeout_minutes",
        "auto_renew",
        "max_duration_minutes",
        "warning_threshold_minutes",
        "retention_ms",
        "revisions",
        "owner_id",
    )


def test_a_command_gives_keys_and_arguments_in_that_order() -> None:
    command = RENEW.command(Keys("").of(AN_ID), retention_ms=7, owner_id="", id=AN_ID)

    assert command == (
        "EVALSHA",
        RENEW.sha,
        4,
        f"session:{{ab}}:{AN_ID}",
        f"session:{{ab}}:{AN_ID}:tombstone",
        "sessions:{ab}:expiry",
        "sessions:{ab}:warning",
        AN_ID,
        7,
        "",
    )


def test_a_command_for_a_server_that_forgot_the_script_brings_its_text() -> None:
    command = RENEW.command(Keys("").of(AN_ID), retention_ms=7, owner_id="", id=AN_ID)

    assert SCRIPTS.as_eval(command) == ("EVAL", RENEW.text, *command[2:])


def test_an_argument_left_out_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="retention_ms"):
        RENEW.command(Keys("").of(AN_ID), id=AN_ID)


def test_no_script_is_forgotten_here() -> None:
    files = {file.name for file in resources.files("service.sessions.scripts").iterdir() if file.name.endswith(".lua")}

    assert files == {f"{script.name}.lua" for script in ALL_SCRIPTS} | {"clock.lua", "prelude.lua", "owner_index.lua"}


def test_a_script_of_no_session_does_without_the_rules_of_one() -> None:
    assert {script for script in ALL_SCRIPTS if "local function read_live_session" not in script.text} == {
        ADD_TO_INDEX,
        LIST,
        COUNT,
        PUT_POLICY,
        EXPIRED,
        REMOVE_FROM_INDEX,
        RATE_LIMIT,
        ADD_WITHIN_CAPS,
        AWAIT_REPLICATION,
    }


def test_only_scripts_that_list_an_id_bring_along_how() -> None:
    assert {script for script in ALL_SCRIPTS if "local function add_to_owner_index" in script.text} == {
        ADD_TO_INDEX,
        ADD_WITHIN_CAPS,
    }


@each_script
def test_keys_and_arguments_are_numbered_without_a_gap(script: Script) -> None:
    numbers = re.findall(r"(KEYS|ARGV)\[(\d+)\]", script.text)

    assert sorted(numbers) == sorted(
        [("KEYS", str(number + 1)) for number in range(len(script.keys))]
        + [("ARGV", str(number + 1)) for number in range(len(script.arguments))]
    )


@each_script
def test_the_header_says_what_it_does_in_a_sentence(script: Script) -> None:
    assert re.match(r"-- [A-Z][^\n]+\.\n-- returns \{", header_of(script))


@each_script
def test_the_header_names_every_answer(script: Script) -> None:
    assert set(re.findall(r'\{"(\w+)"', header_of(script))) == words_answered(script)


@each_script
def test_a_script_has_no_shebang(script: Script) -> None:
    assert not script.text.startswith("#!")


@each_script
def test_every_argument_is_used(script: Script) -> None:
    assert set(script.arguments) <= set(re.findall(r"args\.(\w+)", script.text))


@each_script_of_a_session
def test_all_keys_of_a_script_lie_in_one_slot(script: Script) -> None:
    keys = script.command(Keys("prefix:").of(AN_ID), **arguments_of(script))[3 : 3 + len(script.keys)]

    assert {key_slot(str(key).encode()) for key in keys} == {key_slot(b"ab")}


@each_script
async def test_redis_knows_a_script_by_the_name_it_is_called(script: Script, redis: Redis) -> None:
    assert await redis.script_load(script.text) == script.sha


async def test_scripts_bring_a_session_through_its_life(loose_store: SessionStore) -> None:
    session = await create_session(loose_store)

    answers = [
        await attempt(loose_store.heartbeat, session.id),
        await attempt(loose_store.renew, session.id),
        await attempt(loose_store.update_timeout, session.id, {"timeout_minutes": 60}),
        await attempt(loose_store.update_metadata, session.id, {"channel": "web"}),
        await attempt(loose_store.delete, session.id),
        await attempt(loose_store.get, session.id),
    ]

    assert answers == ["live", "live", "live", "live", "deleted", "missing"]


async def test_scripts_know_an_expired_session(loose_store: SessionStore, redis: Redis) -> None:
    session = await create_session(loose_store)
    await age(redis, session.id, 30 * MINUTE_MS)

    answers = [
        await attempt(loose_store.heartbeat, session.id),
        await attempt(loose_store.renew, session.id),
        await attempt(loose_store.update_timeout, session.id, {"timeout_minutes": 60}),
        await attempt(loose_store.update_metadata, session.id, {"channel": "web"}),
        await attempt(loose_store.delete, session.id),
    ]

    assert answers == ["expired"] * 5


async def test_the_clock_has_milliseconds(redis: Redis) -> None:
    _, now_ms, values = await run_at(redis, THEN_MS + 7, CREATE)

    assert now_ms == THEN_MS + 7
    assert dict(zip(scripts.FIELDS, values, strict=True))[b"createdAt"] == str(THEN_MS + 7).encode()


@each_script_of_a_live_session
@pytest.mark.usefixtures("session_of_2100")
async def test_a_session_lives_in_its_last_millisecond(script: Script, redis: Redis) -> None:
    answer = await run_at(redis, END_MS - 1, script)

    assert answer[0] in {b"live", b"deleted", b"revoked", b"evicted"}


@each_script_of_a_live_session
@pytest.mark.usefixtures("session_of_2100")
async def test_a_session_has_expired_at_the_instant_of_its_end(script: Script, redis: Redis) -> None:
    assert await run_at(redis, END_MS, script) == [b"expired", str(END_MS).encode(), b"inactivity"]


@each_script_of_a_live_session
@pytest.mark.usefixtures("session_of_2100")
async def test_a_hash_that_is_gone_more_than_five_seconds_early_was_lost(script: Script, redis: Redis) -> None:
    await redis.delete(Keys("").session(AN_ID))

    assert await run_at(redis, END_MS - 5001, script) == [b"lost"]


@each_script_of_a_live_session
@pytest.mark.usefixtures("session_of_2100")
async def test_a_hash_that_is_gone_five_seconds_early_has_expired(script: Script, redis: Redis) -> None:
    await redis.delete(Keys("").session(AN_ID))

    assert await run_at(redis, END_MS - 5000, script) == [b"expired", str(END_MS).encode(), b"inactivity"]


@pytest.mark.usefixtures("session_of_2100")
async def test_a_session_is_lost_once(redis: Redis) -> None:
    await redis.delete(Keys("").session(AN_ID))

    answers = [await run_at(redis, THEN_MS, MARK_LOST), await run_at(redis, END_MS - 5001, MARK_LOST)]

    assert answers == [[b"marked"], [b"already_marked"]]
    assert await redis.hget(Keys("").tombstone(AN_ID), "lostAt") == str(THEN_MS).encode()


@pytest.mark.usefixtures("session_of_2100")
async def test_a_session_that_is_gone_five_seconds_early_is_not_lost(redis: Redis) -> None:
    await redis.delete(Keys("").session(AN_ID))

    assert await run_at(redis, END_MS - 5000, MARK_LOST) == [b"expired", str(END_MS).encode(), b"inactivity"]


@pytest.mark.usefixtures("session_of_2100")
async def test_a_session_that_lives_is_not_lost(redis: Redis) -> None:
    assert await run_at(redis, THEN_MS, MARK_LOST) == [b"live"]
    assert await redis.hget(Keys("").tombstone(AN_ID), "lostAt") is None


@pytest.mark.usefixtures("session_of_2100")
async def test_a_session_is_due_from_the_instant_of_its_end_by_the_servers_clock(redis: Redis) -> None:
    answers = [await run_at(redis, END_MS - 1, EXPIRED, limit=9), await run_at(redis, END_MS, EXPIRED, limit=9)]

    told = [AN_ID.encode(), str(END_MS).encode()]
    assert answers == [[b"found", END_MS - 1, []], [b"found", END_MS, told]]


@pytest.mark.usefixtures("session_of_2100")
@pytest.mark.parametrize(
    ("now_ms", "word"), [(THEN_MS, b"lost"), (END_MS - 5001, b"lost"), (END_MS - 5000, b"expired")]
)
async def test_a_session_whose_hash_is_gone_is_judged_by_its_tombstone(redis: Redis, now_ms: int, word: bytes) -> None:
    await redis.delete(Keys("").session(AN_ID))

    assert (await run_at(redis, now_ms, STATUS))[0] == word


@pytest.mark.usefixtures("session_of_2100")
async def test_a_session_that_lives_is_judged_living_until_its_end(redis: Redis) -> None:
    answers = [await run_at(redis, END_MS - 1, STATUS), await run_at(redis, END_MS, STATUS)]

    assert answers[0][0] == b"live"
    assert answers[1] == [b"expired", str(END_MS).encode(), b"inactivity"]


@each_script_for_a_user
@pytest.mark.usefixtures("session_of_2100")
async def test_a_script_reports_a_live_session_of_another_user_as_missing(script: Script, redis: Redis) -> None:
    assert await run_at(redis, THEN_MS, script, owner_id="another") == [b"missing"]


@each_script_for_a_user
@pytest.mark.usefixtures("session_of_2100")
async def test_a_script_reports_an_expired_session_of_another_user_as_missing(script: Script, redis: Redis) -> None:
    assert await run_at(redis, END_MS, script, owner_id="another") == [b"missing"]


@each_script_for_a_user
@pytest.mark.usefixtures("session_of_2100")
async def test_a_script_finds_no_owner_in_a_swept_tombstone(script: Script, redis: Redis) -> None:
    await run_at(redis, END_MS, SWEEP)

    assert await run_at(redis, END_MS, script, owner_id=USER) == [b"missing"]
    assert (await run_at(redis, END_MS, script, owner_id=""))[0] == b"expired"


@pytest.mark.usefixtures("session_of_2100")
async def test_a_change_may_leave_a_millisecond(redis: Redis) -> None:
    answer = await run_at(redis, THEN_MS + 20 * MINUTE_MS - 1, UPDATE_TIMEOUT, timeout_minutes="20")

    assert answer[0] == b"live"


@pytest.mark.usefixtures("session_of_2100")
async def test_a_change_may_not_leave_nothing(redis: Redis) -> None:
    now_ms = THEN_MS + 20 * MINUTE_MS

    answer = await run_at(redis, now_ms, UPDATE_TIMEOUT, timeout_minutes="20")

    assert answer == [b"in_the_past", str(now_ms).encode()]


@pytest.mark.usefixtures("session_of_2100")
async def test_a_millisecond_short_of_the_maximum_duration_there_is_something_left_to_extend(redis: Redis) -> None:
    await run_at(redis, THEN_MS + 15 * MINUTE_MS - 1, RENEW)

    assert (await run_at(redis, THEN_MS + 15 * MINUTE_MS, RENEW))[0] == b"live"


@pytest.mark.usefixtures("session_of_2100")
async def test_at_the_maximum_duration_nothing_is_left_to_extend(redis: Redis) -> None:
    await run_at(redis, THEN_MS + 15 * MINUTE_MS, RENEW)

    answer = await run_at(redis, THEN_MS + 15 * MINUTE_MS, RENEW)

    assert answer == [b"at_maximum", str(THEN_MS).encode(), b"45", str(THEN_MS + 45 * MINUTE_MS).encode()]


def test_the_prelude_names_each_field_by_its_place_in_the_order_of_reading() -> None:
    names, places = re.findall(r"^local (agentId.*?) = ([\d, ]+)$", file_of("prelude"), re.DOTALL | re.MULTILINE)[0]

    assert tuple(name.encode() for name in re.findall(r"\w+", names)) == scripts.FIELDS
    assert [int(place) for place in places.split(", ")] == list(range(1, len(scripts.FIELDS) + 1))
