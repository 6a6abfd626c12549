"""Patching the metadata of a live session, also while others change the session."""

import asyncio

import orjson
import pytest
from redis.asyncio import Redis

from service.errors import Contention, InvalidRequest
from service.redis_client.client import RedisClient, Reply
from service.redis_client.scripts import Command
from service.sessions.events import SessionEvents
from service.sessions.scripts import UPDATE_METADATA
from service.sessions.session import Session
from service.sessions.store import MAX_ATTEMPTS, SessionStore
from service.settings import Settings
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import new_session_store
from tests.redis_contents import KEYS, command_counts, contents, expiry_times_of, fields_of, scores_of, tombstone_of

MINUTE_MS = 60_000


async def test_a_patch_is_merged_into_the_metadata(store: SessionStore, session: Session) -> None:
    replies_or_none = await store.update_metadata(session.id, {"topic": {"name": "weather"}})

    assert replies_or_none.metadata == b'{"channel":"web","topic":{"name":"weather"}}'
    assert (await store.get(session.id)).metadata == replies_or_none.metadata


async def test_successive_patches_accumulate(store: SessionStore, session: Session) -> None:
    await store.update_metadata(session.id, {"topic": {"name": "weather", "place": "Lima"}})
    await store.update_metadata(session.id, {"channel": None, "topic": {"place": None}})

    assert (await store.get(session.id)).metadata == b'{"topic":{"name":"weather"}}'


async def test_a_patch_changes_only_metadata_and_revision(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)
    before = await fields_of(real_redis, session)

    await store.update_metadata(session.id, {"channel": "phone"})

    changed = {"metadata": '{"channel":"phone"}', "revision": "2"}
    assert await fields_of(real_redis, session) == before | changed


async def test_a_patch_does_not_move_the_expiry(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)
    ends, tombstone = await expiry_times_of(real_redis, session), await tombstone_of(real_redis, session)
    scores = await scores_of(real_redis, session)

    await store.update_metadata(session.id, {"channel": "phone"})

    assert await expiry_times_of(real_redis, session) == ends
    assert await tombstone_of(real_redis, session) == tombstone
    assert await scores_of(real_redis, session) == scores


async def test_a_patch_is_reported_as_a_change_of_metadata(
    store: SessionStore, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[tuple[str, str]] = []
    monkeypatch.setattr(SessionEvents, "changed", lambda _, session_id, what: reported.append((session_id, what)))

    await store.update_metadata(session.id, {"channel": "phone"})

    assert reported == [(session.id, "metadata")]


async def test_metadata_that_would_be_too_large_is_not_stored(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    before = await contents(real_redis)

    with pytest.raises(InvalidRequest):
        await store.update_metadata(session.id, {"note": "x" * 10_240})

    assert await contents(real_redis) == before


async def test_a_patch_takes_a_read_and_a_script(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.update_metadata(session.id, {"channel": "phone"})
    before = await command_counts(real_redis)

    await store.update_metadata(session.id, {"channel": "web"})

    after = await command_counts(real_redis)
    assert after["evalsha"] - before["evalsha"] == 1
    assert after["hmget"] - before["hmget"] == 2


async def test_twenty_concurrent_patches_of_different_members_are_all_applied(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await asyncio.gather(*(store.update_metadata(session.id, {f"m{number:02}": number}) for number in range(20)))

    fields = await fields_of(real_redis, session)
    members = ",".join(sorted(fields["metadata"].strip("{}").split(",")))
    assert members == '"channel":"web",' + ",".join(f'"m{number:02}":{number}' for number in range(20))
    assert fields["revision"] == "21"


@pytest.mark.parametrize("replicas", [1, 2])
async def test_two_hundred_concurrent_patches_are_all_applied(
    redis_client: RedisClient, settings: Settings, session: Session, replicas: int
) -> None:
    stores = [new_session_store(redis_client, settings) for _ in range(replicas)] * (200 // replicas)
    patches = [store.update_metadata(session.id, {f"m{number}": number}) for number, store in enumerate(stores)]

    await asyncio.gather(*patches)

    metadata = orjson.loads((await stores[0].get(session.id)).metadata)
    assert metadata == {"channel": "web"} | {f"m{number}": number for number in range(200)}


async def test_a_patch_that_waits_too_long_for_others_fails_and_changes_nothing(
    redis_client: RedisClient, session: Session, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = new_session_store(redis_client, Settings(session_store_timeout_seconds=0.05))
    execute, is_running, may_continue = redis_client.execute, asyncio.Event(), asyncio.Event()

    async def execute_slowly(*commands: Command) -> list[Reply]:
        is_running.set()
        await may_continue.wait()
        return await execute(*commands)

    monkeypatch.setattr(redis_client, "execute", execute_slowly)
    first = asyncio.create_task(impatient.update_metadata(session.id, {"channel": "phone"}))
    await is_running.wait()

    with pytest.raises(Contention):
        await impatient.update_metadata(session.id, {"channel": "email"})

    may_continue.set()
    assert (await first).metadata == b'{"channel":"phone"}'
    assert (await fields_of(real_redis, session))["metadata"] == '{"channel":"phone"}'


async def test_a_patch_among_renewals_and_timeout_changes_keeps_all_of_them(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    patches = [store.update_metadata(session.id, {f"m{number}": number}) for number in range(5)]
    renewals = [store.renew(session.id) for _ in range(5)]
    changes = [store.update_timeout(session.id, {"timeout_minutes": 60}) for _ in range(5)]

    await asyncio.gather(*(call for trio in zip(patches, renewals, changes, strict=True) for call in trio))

    fields = await fields_of(real_redis, session)
    assert (fields["renewalCount"], fields["revision"], fields["timeoutMinutes"]) == ("5", "11", "60")
    assert fields["metadata"].count(":") == 6


async def test_a_patch_does_not_revive_a_session_that_is_deleted_concurrently(
    store: SessionStore, session: Session
) -> None:
    patches = [attempt(store.update_metadata, session.id, {"member": number}) for number in range(20)]

    outcomes = await asyncio.gather(*patches[:10], attempt(store.delete, session.id), *patches[10:])

    assert set(outcomes) <= {"live", "missing", "deleted"}
    assert await attempt(store.get, session.id) == "missing"


async def test_a_patch_of_an_older_revision_is_not_written(
    store: SessionStore, session: Session, redis_client: RedisClient, real_redis: Redis
) -> None:
    await store.update_metadata(session.id, {"channel": "phone"})
    before = await contents(real_redis)
    command = UPDATE_METADATA.command(
        KEYS.of(session.id), id=session.id, revision=session.stored.revision, metadata="{}"
    )

    (reply,) = await redis_client.execute(command)

    assert (reply[0], reply[2][-2:]) == (b"changed", [b"2", b'{"channel":"phone"}'])
    assert await contents(real_redis) == before


async def test_a_patch_fails_if_others_always_change_the_session_first(
    store: SessionStore, session: Session, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = redis_client.execute

    async def execute_after_another(*commands: Command) -> list[Reply]:
        await real_redis.hincrby(KEYS.session(session.id), "revision", 1)
        return await execute(*commands)

    monkeypatch.setattr(redis_client, "execute", execute_after_another)

    with pytest.raises(Contention):
        await store.update_metadata(session.id, {"channel": "phone"})

    fields = await fields_of(real_redis, session)
    assert (fields["metadata"], fields["revision"]) == ('{"channel":"web"}', str(1 + MAX_ATTEMPTS))
