"""The contract of a Redis client: the same behaviour on one server, with Sentinel and on a cluster."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from service.errors import StoreUnavailable
from service.redis_client.batch import FULL
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import CommandRejected, ScriptError
from service.redis_client.scripts import Command
from service.sessions.keys import SHARDS, Keys
from service.sessions.scripts import HEARTBEAT
from service.settings.redis_url import Kind
from service.timestamps import ms_from_time_reply
from tests.redis_client.conftest import connected
from tests.redis_contents import command_counts
from tests.redis_server import RedisServer

MINUTE_MS = 60_000
KEYS = Keys("")
HASHES = [KEYS.session(f"{shard}90c3cc") for shard in SHARDS[::8]]
"""Keys on all nodes of a cluster."""
ZSETS = [KEYS.created(shard) for shard in SHARDS[::8]]
SHORT_TIMEOUT_SECONDS = 0.3
Nodes = list[RedisServer]

PRIMARIES: dict[Kind, int] = {"server": 1, "sentinel": 1, "cluster": 3}


@pytest.fixture(params=["server", "sentinel", "cluster"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
async def impatient_client(redis_url: str, real_redis: Redis) -> AsyncIterator[RedisClient]:
    """A connected client with a short timeout."""
    async with connected(redis_url, SHORT_TIMEOUT_SECONDS) as client:
        await query_when_available(client, *(("ZCARD", key) for key in ZSETS))
        yield client


@pytest.fixture
def nodes(request: pytest.FixtureRequest, kind: Kind) -> Nodes:
    """All primaries."""
    match kind:
        case "server":
            return [request.getfixturevalue("redis_server")]
        case "sentinel":
            return [request.getfixturevalue("sentinel_servers").primary]
        case "cluster":
            return list(request.getfixturevalue("cluster_servers").servers)


def on_every_node(nodes: Nodes, *command: str | int) -> None:
    for node in nodes:
        node.command(*command)


async def query_when_available(client: RedisClient, *commands: Command) -> list[Reply]:
    """Repeat reads that exceed a short timeout, because the machine may be busy."""
    while True:
        with suppress(StoreUnavailable):
            return await client.query(*commands)


async def write_hash(client: RedisClient, key: str, value: str | bytes) -> None:
    await client.execute(("HSET", key, "x", value), ("PEXPIRE", key, MINUTE_MS))


def heartbeats(session_ids: Sequence[str]) -> list[Command]:
    return [
        HEARTBEAT.command(KEYS.of(session_id), id=session_id, retention_ms=1, owner_id="") for session_id in session_ids
    ]


# Reads


async def test_a_hash_is_read_together_with_the_time_of_redis(redis_client: RedisClient) -> None:
    await write_hash(redis_client, HASHES[0], "1")
    before = await redis_client.query(("EXISTS", HASHES[0]), ("TIME",))

    values, now_ms = await redis_client.read_hash(HASHES[0], (b"x", b"y"))

    after = await redis_client.query(("EXISTS", HASHES[0]), ("TIME",))
    assert list(values) == [b"1", None]
    assert ms_from_time_reply(before[1]) <= now_ms <= ms_from_time_reply(after[1])


async def test_the_fields_of_a_missing_hash_are_none(redis_client: RedisClient) -> None:
    values, _ = await redis_client.read_hash(HASHES[0], (b"x", b"y"))

    assert list(values) == [None, None]


async def test_hashes_of_all_nodes_are_read_in_the_order_of_their_keys(redis_client: RedisClient) -> None:
    await asyncio.gather(*(write_hash(redis_client, key, key) for key in HASHES))

    reads = await redis_client.read_hashes(HASHES, (b"x",))

    assert [values for values, _ in reads] == [[key.encode()] for key in HASHES]


async def test_values_are_returned_unchanged(redis_client: RedisClient) -> None:
    empty, binary, large = b"", b"\r\n$1\r\n\x00\xff", b"x" * 1_000_000
    await redis_client.execute(("HSET", HASHES[0], "x", empty, "y", binary, "z", large))
    await redis_client.execute(("PEXPIRE", HASHES[0], MINUTE_MS))

    values, _ = await redis_client.read_hash(HASHES[0], (b"x", b"y", b"z"))

    assert list(values) == [empty, binary, large]


async def test_reading_a_key_of_another_type_is_a_script_error(redis_client: RedisClient) -> None:
    await redis_client.execute(("ZADD", ZSETS[0], 1, "a"))

    with pytest.raises(ScriptError, match="WRONGTYPE"):
        await redis_client.read_hash(ZSETS[0], (b"x",))


# Calls of several commands


async def test_replies_are_in_the_order_of_the_commands(redis_client: RedisClient) -> None:
    counts = range(1, len(ZSETS) + 1)
    await redis_client.execute(*(("ZADD", ZSETS[-1], n, n) for n in counts))

    replies = await redis_client.query(*(("ZSCORE", ZSETS[-(n % 2)], n) for n in counts))

    assert replies == [float(n) if n % 2 else None for n in counts]


async def test_independent_writes_reach_all_nodes(redis_client: RedisClient) -> None:
    assert await redis_client.execute(*(("ZADD", key, 1, "a") for key in ZSETS)) == [1] * len(ZSETS)

    assert await redis_client.query(*(("ZCARD", key) for key in ZSETS)) == [1] * len(ZSETS)


async def test_ordered_commands_see_the_effects_of_earlier_ones(redis_client: RedisClient) -> None:
    first, second = ZSETS[0], ZSETS[-1]

    replies = await redis_client.execute_ordered(
        ("ZADD", first, 1, "a"),
        ("ZCARD", first),
        ("ZADD", second, 1, "a"),
        ("ZADD", first, 2, "b"),
        ("ZCARD", first),
        ("ZREM", second, "a"),
        ("ZCARD", second),
    )

    assert replies == [1, 1, 1, 1, 2, 1, 0]


async def test_a_command_without_a_key_runs_on_the_node_of_the_command_before_it(redis_client: RedisClient) -> None:
    replies = await redis_client.query(*(command for key in ZSETS for command in (("ZCARD", key), ("PING",))))

    assert replies == [0, b"PONG"] * len(ZSETS)


async def test_a_call_without_commands_has_no_replies(redis_client: RedisClient) -> None:
    assert await redis_client.query() == []
    assert await redis_client.execute() == []
    assert await redis_client.execute_ordered() == []


async def test_a_broadcast_reaches_every_primary(redis_client: RedisClient, kind: Kind) -> None:
    replies = await redis_client.broadcast(("PING",), ("TIME",))

    assert [len(of_node) for of_node in replies.values()] == [2] * PRIMARIES[kind]
    assert {of_node[0] for of_node in replies.values()} == {b"PONG"}


async def test_a_broadcast_returns_error_replies(redis_client: RedisClient, kind: Kind) -> None:
    replies = await redis_client.broadcast(("PING",), ("DBSIZE",))

    assert [type(of_node[1]) for of_node in replies.values()] == [ResponseError] * PRIMARIES[kind]


async def test_commands_with_keys_of_several_slots_are_supported_except_on_a_cluster(
    redis_client: RedisClient, kind: Kind
) -> None:
    assert redis_client.supports_multi_slot == (kind != "cluster")


# Scripts


async def test_scripts_run_on_all_nodes(redis_client: RedisClient) -> None:
    session_ids = [f"{shard}90c3cc" for shard in SHARDS[::8]]

    assert await redis_client.execute(*heartbeats(session_ids)) == [[b"missing"]] * len(session_ids)


async def test_independent_commands_run_although_redis_lost_its_scripts(
    redis_client: RedisClient, nodes: Nodes
) -> None:
    await redis_client.broadcast(("PING",))  # opening a connection loads the scripts
    on_every_node(nodes, "SCRIPT", "FLUSH")

    replies = await redis_client.execute(
        ("ZADD", ZSETS[0], 1, "a"), *heartbeats(["00a", "80a", "ff0"]), ("ZADD", ZSETS[0], 1, "a")
    )

    assert replies == [1, [b"missing"], [b"missing"], [b"missing"], 0]


async def test_a_script_that_meets_a_key_of_another_type_is_a_script_error(redis_client: RedisClient) -> None:
    key = KEYS.session("ab")
    await redis_client.execute(("ZADD", key, 1, "a"), ("PEXPIRE", key, MINUTE_MS))

    with pytest.raises(ScriptError, match="WRONGTYPE"):
        await redis_client.execute(*heartbeats(["ab"]))


# Errors


async def test_a_rejected_command_raises_and_the_others_of_its_call_run(redis_client: RedisClient) -> None:
    with pytest.raises(CommandRejected):
        await redis_client.execute(("ZADD", ZSETS[0], 1, "a"), ("SORT", ZSETS[1]), ("ZADD", ZSETS[-1], 1, "a"))

    assert await redis_client.query(("ZCARD", ZSETS[0]), ("ZCARD", ZSETS[-1])) == [1, 1]


async def test_an_error_does_not_affect_concurrent_calls(redis_client: RedisClient) -> None:
    rejected, *others = await asyncio.gather(
        redis_client.query(("SORT", ZSETS[0])),
        *(redis_client.query(("ZCARD", key)) for key in ZSETS),
        return_exceptions=True,
    )

    assert isinstance(rejected, CommandRejected)
    assert "permissions" in rejected.cause
    assert others == [[0]] * len(ZSETS)


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/main", "redis+cluster://127.0.0.1:1"]
)
async def test_calls_are_unavailable_while_no_server_listens(url: str) -> None:
    async with connected(url) as client:
        with pytest.raises(StoreUnavailable):
            await client.read_hash(HASHES[0], (b"x",))
        with pytest.raises(StoreUnavailable):
            await client.execute(("ZADD", ZSETS[0], 1, "a"))
        replies = await client.broadcast(("PING",))

    assert [type(reply) for of_node in replies.values() for reply in of_node] in ([], [StoreUnavailable])


async def test_calls_are_unavailable_after_the_client_is_closed(redis_url: str) -> None:
    async with connected(redis_url) as client:
        await client.query(("ZCARD", ZSETS[0]))

    with pytest.raises(StoreUnavailable):
        await client.query(("ZCARD", ZSETS[0]))


# Timeouts and lost connections


async def test_a_write_without_a_reply_in_time_is_unavailable(impatient_client: RedisClient, nodes: Nodes) -> None:
    on_every_node(nodes, "CLIENT", "PAUSE", 10_000, "WRITE")
    started = time.monotonic()
    try:
        with pytest.raises(StoreUnavailable) as error:
            await impatient_client.execute(("ZADD", ZSETS[0], 1, "a"))
        took_seconds = time.monotonic() - started
    finally:
        on_every_node(nodes, "CLIENT", "UNPAUSE")

    assert error.value.cause.startswith(f"TimeoutError: no reply within {SHORT_TIMEOUT_SECONDS} s")
    assert took_seconds < 10
    assert await query_when_available(impatient_client, ("ZCARD", ZSETS[-1])) == [0]


async def test_a_read_without_a_reply_in_time_is_unavailable(impatient_client: RedisClient, nodes: Nodes) -> None:
    on_every_node(nodes, "CLIENT", "PAUSE", round(2000 * SHORT_TIMEOUT_SECONDS), "ALL")

    with pytest.raises(StoreUnavailable) as error:
        await impatient_client.read_hash(HASHES[0], (b"x",))

    assert error.value.cause.startswith(f"TimeoutError: no reply within {SHORT_TIMEOUT_SECONDS} s")


async def test_calls_continue_after_all_connections_are_lost(redis_client: RedisClient, nodes: Nodes) -> None:
    await redis_client.query(*(("ZCARD", key) for key in ZSETS))
    on_every_node(nodes, "CLIENT", "KILL", "USER", "default")

    assert await redis_client.query(*(("ZCARD", key) for key in ZSETS)) == [0] * len(ZSETS)
    assert await redis_client.execute(*(("ZADD", key, 1, "a") for key in ZSETS)) == [1] * len(ZSETS)


async def test_a_write_in_flight_on_a_lost_connection_is_unavailable_and_not_repeated(
    redis_client: RedisClient, real_redis: Redis, nodes: Nodes
) -> None:
    await redis_client.query(*(("ZCARD", key) for key in ZSETS))
    on_every_node(nodes, "CLIENT", "PAUSE", 10_000, "WRITE")
    try:
        write = asyncio.ensure_future(redis_client.execute(("ZADD", ZSETS[0], 1, "a")))
        await real_redis.zcard(ZSETS[0])
        on_every_node(nodes, "CLIENT", "KILL", "USER", "default")
        with pytest.raises(StoreUnavailable):
            await write
    finally:
        on_every_node(nodes, "CLIENT", "UNPAUSE")

    assert await redis_client.query(("ZCARD", ZSETS[0])) == [0]


# Concurrency


async def test_concurrent_calls_receive_their_own_replies(redis_client: RedisClient) -> None:
    await asyncio.gather(*(write_hash(redis_client, key, key) for key in HASHES))

    reads = await asyncio.gather(*(redis_client.read_hash(key, (b"x",)) for key in HASHES * 10))

    assert [list(values) for values, _ in reads] == [[key.encode()] for key in HASHES * 10]


async def test_concurrent_reads_share_round_trips(redis_client: RedisClient, real_redis: Redis, kind: Kind) -> None:
    await redis_client.query(*(("ZCARD", key) for key in ZSETS))
    before = await command_counts(real_redis)

    await asyncio.gather(*(redis_client.read_hash(key, (b"x",)) for key in HASHES * 10))

    seen = await command_counts(real_redis) - before
    assert seen["hmget"] == 10 * len(HASHES)
    assert seen["time"] <= 10 * len(HASHES) // FULL + PRIMARIES[kind]


async def test_a_cancelled_call_does_not_affect_concurrent_calls(redis_client: RedisClient) -> None:
    await asyncio.gather(*(write_hash(redis_client, key, key) for key in HASHES))
    reads = [asyncio.ensure_future(redis_client.read_hash(key, (b"x",))) for key in HASHES]
    await asyncio.sleep(0)

    for read in reads[::2]:
        read.cancel()
    remaining = await asyncio.gather(*reads[1::2])

    assert [list(values) for values, _ in remaining] == [[key.encode()] for key in HASHES[1::2]]
