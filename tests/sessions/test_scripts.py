"""The Lua scripts: their headers, binding blocks and keys."""

import re
from importlib import resources

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from service.redis_client.scripts import Argument, Script
from service.sessions import scripts
from service.sessions.keys import Keys
from service.sessions.scripts import (
    ADD_TO_INBOX,
    ADD_TO_INDEX,
    ADD_WITHIN_CAPS,
    APPEND_CHUNK,
    AWAIT_REPLICATION,
    CANCEL_MESSAGE,
    COMPLETE_DELIVERIES,
    COUNT,
    CREATE,
    CREATE_WITH_RECORD,
    DELETE,
    DELETE_WITH_RECORD,
    EVICT,
    EXPIRED,
    EXTEND_DELIVERIES,
    HEARTBEAT,
    LEASE_DELIVERIES,
    LEASE_OUTBOX,
    LEASED_DELIVERIES,
    LIST,
    MARK_LOST,
    PUT_POLICY,
    RATE_LIMIT,
    READ_DELIVERY,
    READ_MESSAGES,
    REMOVE_FROM_INDEX,
    RENEW,
    REVOKE,
    SCRIPTS,
    SEND_MESSAGE,
    STATUS,
    SWEEP,
    UPDATE_METADATA,
    UPDATE_TIMEOUT,
)

SHARED_FILES = {"clock.lua", "prelude.lua", "messages.lua", "wrong_type.lua", "owner_index.lua"}
AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
ALL_SCRIPTS = [
    script
    for script in vars(scripts).values()
    if isinstance(script, Script) and script not in (CREATE, DELETE)  # the same files with fewer keys
]

each_script = pytest.mark.parametrize("script", ALL_SCRIPTS, ids=lambda script: script.name)
each_script_of_a_session = pytest.mark.parametrize(
    "script",
    [
        CREATE,
        HEARTBEAT,
        RENEW,
        UPDATE_TIMEOUT,
        UPDATE_METADATA,
        DELETE,
        SWEEP,
        REVOKE,
        MARK_LOST,
        STATUS,
        EVICT,
        SEND_MESSAGE,
        APPEND_CHUNK,
        CANCEL_MESSAGE,
        READ_MESSAGES,
        READ_DELIVERY,
    ],
    ids=lambda script: script.name,
)


def file_of(name: str) -> str:
    return (resources.files("service.sessions.scripts") / f"{name}.lua").read_text()


def header_of(script: Script) -> str:
    return file_of(script.name).partition("\nlocal ")[0]


def returned_statuses(script: Script) -> set[str]:
    """The statuses that a script returns, with those of the prelude for sessions that are not live."""
    text = file_of(script.name)
    statuses = set(re.findall(r"return \{'(\w+)'", text))
    if "return reply" in text:
        statuses |= {"missing", "expired", "lost"}
    return statuses


def arguments_of(script: Script) -> dict[str, Argument]:
    return dict.fromkeys(script.arguments, "1")


def test_the_binding_block_is_the_signature() -> None:
    assert RENEW.keys == ("session", "tombstone", "expiry", "warning")
    assert RENEW.arguments == ("id", "retention_ms", "owner_id")


@pytest.mark.parametrize(
    ("shorter", "full"), [(CREATE, CREATE_WITH_RECORD), (DELETE, DELETE_WITH_RECORD)], ids=["create", "delete"]
)
def test_omitted_keys_and_arguments_come_last(shorter: Script, full: Script) -> None:
    assert (shorter.sha, shorter.text) == (full.sha, full.text)
    assert full.keys[: len(shorter.keys)] == shorter.keys
    assert full.arguments[: len(shorter.arguments)] == shorter.arguments
    assert shorter.head == ("EVALSHA", full.sha, len(shorter.keys))


def test_arguments_are_in_the_order_of_their_numbers() -> None:
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


def test_a_command_has_keys_and_arguments_in_order() -> None:
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


def test_as_eval_replaces_the_hash_by_the_text() -> None:
    command = RENEW.command(Keys("").of(AN_ID), retention_ms=7, owner_id="", id=AN_ID)

    assert SCRIPTS.as_eval(command) == ("EVAL", RENEW.text, *command[2:])


def test_a_missing_argument_raises_key_error() -> None:
    with pytest.raises(KeyError, match="retention_ms"):
        RENEW.command(Keys("").of(AN_ID), id=AN_ID)


def test_every_script_file_is_tested_here() -> None:
    files = {file.name for file in resources.files("service.sessions.scripts").iterdir() if file.name.endswith(".lua")}

    assert files == {f"{script.name}.lua" for script in ALL_SCRIPTS} | SHARED_FILES


def test_only_scripts_that_take_a_session_include_the_prelude() -> None:
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
        LEASE_OUTBOX,
        ADD_TO_INBOX,
        LEASE_DELIVERIES,
        EXTEND_DELIVERIES,
        LEASED_DELIVERIES,
        COMPLETE_DELIVERIES,
    }


def test_only_scripts_that_add_to_an_owner_index_include_its_function() -> None:
    assert {script for script in ALL_SCRIPTS if "local function add_to_owner_index" in script.text} == {
        ADD_TO_INDEX,
        ADD_WITHIN_CAPS,
    }


@each_script
def test_keys_and_arguments_are_numbered_without_gaps(script: Script) -> None:
    numbers = re.findall(r"(KEYS|ARGV)\[(\d+)\]", script.text)

    assert sorted(numbers) == sorted(
        [("KEYS", str(number + 1)) for number in range(len(script.keys))]
        + [("ARGV", str(number + 1)) for number in range(len(script.arguments))]
    )


@each_script
def test_the_header_starts_with_a_sentence(script: Script) -> None:
    assert re.match(r"-- [A-Z][^\n]+\.\n-- returns \{", header_of(script))


@each_script
def test_the_header_names_every_status(script: Script) -> None:
    assert set(re.findall(r'\{"(\w+)"', header_of(script))) == returned_statuses(script)


@each_script
def test_a_script_has_no_shebang(script: Script) -> None:
    assert not script.text.startswith("#!")


@each_script
def test_every_argument_is_used(script: Script) -> None:
    assert set(script.arguments) <= set(re.findall(r"args\.(\w+)", script.text))


@each_script_of_a_session
def test_all_keys_of_a_script_are_in_one_slot(script: Script) -> None:
    keys = script.command(Keys("prefix:").of(AN_ID), **arguments_of(script))[3 : 3 + len(script.keys)]

    assert {key_slot(str(key).encode()) for key in keys} == {key_slot(b"ab")}


@each_script
async def test_the_hash_of_a_script_is_that_of_redis(script: Script, redis: Redis) -> None:
    assert await redis.script_load(script.text) == script.sha


def test_the_prelude_numbers_the_fields_in_the_order_of_its_read() -> None:
    names, positions = re.findall(r"^local (agentId.*?) = ([\d, ]+)$", file_of("prelude"), re.DOTALL | re.MULTILINE)[0]

    assert tuple(name.encode() for name in re.findall(r"\w+", names)) == scripts.FIELDS
    assert [int(position) for position in positions.split(", ")] == list(range(1, len(scripts.FIELDS) + 1))
