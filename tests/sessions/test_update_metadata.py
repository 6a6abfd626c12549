"""Changing the metadata of a live session: a patch is merged over what is there, whoever else is at it."""

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
from tests.conftest import store_on
from tests.sessions.evidence import KEYS, commands_seen, contents, ends_of, fields_of, scores_of, tombstone_of

MINUTE_MS = 60_000


async def test_a_patch_is_merged_over_the_metadata(store: SessionStore, session: Session) -> None:
    replies_or_none = await store.update_metadata(session.id, {"topic": {"name": "weather"}})

    assert replies_or_none.metadata == b'{"channel":"web","topic":{"name":"weather"}}'
    assert (await store.get(session.id)).metadata == replies_or_none.metadata


async def test_patches_add_up(store: SessionStore, session: Session) -> None:
    await store.update_metadata(session.id, {"topic": {"name": "weather", "place": "Lima"}})
    await store.update_metadata(session.id, {"channel": None, "topic": {"place": None}})

    assert (await store.get(session.id)).metadata == b'{"topic":{"name":"weather"}}'


async def test_all_else_stays_as_it_was(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)
    before = await fields_of(real_redis, session)

    await store.update_metadata(session.id, {"channel": "phone"})

    changed = {"metadata": '{"channel":"phone"}', "revision": "2"}
    assert await fields_of(real_redis, session) == before | changed


async def test_it_moves_no_end(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)
    ends, tombstone = await ends_of(real_redis, session), await tombstone_of(real_redis, session)
    scores = await scores_of(real_redis, session)

    await store.update_metadata(session.id, {"channel": "phone"})

    assert await ends_of(real_redis, session) == ends
    assert await tombstone_of(real_redis, session) == tombstone
    assert await scores_of(real_redis, session) == scores


async def test_it_is_told_as_a_change_of_metadata(
    store: SessionStore, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(SessionEvents, "changed", lambda _, session_id, what: told.append((session_id, what)))

    await store.update_metadata(session.id, {"channel": "phone"})

    assert told == [(session.id, "metadata")]


async def test_what_cannot_be_stored_changes_nothing(store: SessionStore, session: Session, real_redis: Redis) -> None:
    before = await contents(real_redis)

    with pytest.raises(InvalidRequest):
        await store.update_metadata(session.id, {"note": "x" * 10_240})

    assert await contents(real_redis) == before


async def test_redis_is_asked_twice(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.update_metadata(session.id, {"channel": "phone"})
    before = await commands_seen(real_redis)

    await store.update_metadata(session.id, {"channel": "web"})

    after = await commands_seen(real_redis)
    assert after["evalsha"] - before["evalsha"] == 1
    assert after["hmget"] - before["hmget"] == 2


async def test_twenty_patches_of_different_members_at_once_all_land(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await asyncio.gather(*(store.update_metadata(session.id, {f"m{number:02}": number}) for number in range(20)))

    fields = await fields_of(real_redis, session)
    members = ",".join(sorted(fields["metadata"].strip("{}").split(",")))
    assert members == '"channel":"web",' + ",".join(f'"m{number:02}":{number}' for number in range(20))
    assert fields["revision"] == "21"


@pytest.mark.parametrize("replicas", [1, 2])
async def test_two_hundred_patches_at_once_all_land(
    redis_client: RedisClient, settings: Settings, session: Session, replicas: int
) -> None:
    stores = [store_on(redis_client, settings) for _ in range(replicas)] * (200 // replicas)
    patches = [store.update_metadata(session.id, {f"m{number}": number}) for number, store in enumerate(stores)]

    await asyncio.gather(*patches)

    metadata = orjson.loads((await stores[0].get(session.id)).metadata)
    assert metadata == {"channel": "web"} | {f"m{number}": number for number in range(200)}


async def test_one_that_does_not_get_its_turn_in_time_gives_up_and_changes_nothing(
    redis_client: RedisClient, session: Session, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = store_on(redis_client, Settings(session_store_timeout_seconds=0.05))
    change, under_way, may_go_on = redis_client.execute, asyncio.Event(), asyncio.Event()

    async def change_slowly(*commands: Command) -> list[Reply]:
        under_way.set()
        await may_go_on.wait()
        return await change(*commands)

    monkeypatch.setattr(redis_client, "execute", change_slowly)
    first = asyncio.create_task(hasty.update_metadata(session.id, {"channel": "phone"}))
    await under_way.wait()

    with pytest.raises(Contention):
        await hasty.update_metadata(session.id, {"channel": "pigeon"})

    may_go_on.set()
    assert (await first).metadata == b'{"channel":"phone"}'
    assert (await fields_of(real_redis, session))["metadata"] == '{"channel":"phone"}'


async def test_a_patch_among_renewals_and_changes_of_timeout_loses_none_of_them(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    patches = [store.update_metadata(session.id, {f"m{number}": number}) for number in range(5)]
    renewals = [store.renew(session.id) for _ in range(5)]
    changes = [store.update_timeout(session.id, {"timeout_minutes": 60}) for _ in range(5)]

    await asyncio.gather(*(call for trio in zip(patches, renewals, changes, strict=True) for call in trio))

    fields = await fields_of(real_redis, session)
    assert (fields["renewalCount"], fields["revision"], fields["timeoutMinutes"]) == ("5", "11", "60")
    assert fields["metadata"].count(":") == 6


async def test_a_patch_does_not_bring_back_what_is_deleted_beside_it(store: SessionStore, session: Session) -> None:
    patches = [attempt(store.update_metadata, session.id, {"member": number}) for number in range(20)]

    answers = await asyncio.gather(*patches[:10], attempt(store.delete, session.id), *patches[10:])

    assert set(answers) <= {"live", "missing", "deleted"}
    assert await attempt(store.get, session.id) == "missing"


async def test_a_patch_over_an_older_revision_is_not_written(
    store: SessionStore, session: Session, redis_client: RedisClient, real_redis: Redis
) -> None:
    await store.update_metadata(session.id, {"channel": "phone"})
    before = await contents(real_redis)
    command = UPDATE_METADATA.command(KEYS.of(session.id), revision=session.stored.revision, metadata="{}")

    (answer,) = await redis_client.execute(command)

    assert (answer[0], answer[2][-2:]) == (b"changed", [b"2", b'{"channel":"phone"}'])
    assert await contents(real_redis) == before


async def test_one_that_others_always_come_before_gives_up(
    store: SessionStore, session: Session, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = redis_client.execute

    async def change_after_another(*commands: Command) -> list[Reply]:
        await real_redis.hincrby(KEYS.session(session.id), "revision", 1)
        return await change(*commands)

    monkeypatch.setattr(redis_client, "execute", change_after_another)

    with pytest.raises(Contention):
        await store.update_metadata(session.id, {"channel": "phone"})

    fields = await fields_of(real_redis, session)
    assert (fields["metadata"], fields["revision"]) == ('{"channel":"web"}', str(1 + MAX_ATTEMPTS))
