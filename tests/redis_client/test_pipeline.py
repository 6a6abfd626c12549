"""The pipeline batches requests. The tests control each byte on its connections."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from prometheus_client.samples import Sample

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.batch import Replication
from service.redis_client.connection import Connection
from service.redis_client.monitor import StoreMonitor
from service.redis_client.pipeline import Connect, Pipeline
from service.sessions.scripts import SCRIPTS

X = (b"x",)
TIME = b"*1\r\n$4\r\nTIME\r\n"
TIME_REPLY = b"*2\r\n$1\r\n5\r\n$1\r\n0\r\n"
NO_HASH = b"*1\r\n_\r\n"
NO_HASH_AT_5000_MS = NO_HASH + TIME_REPLY
READONLY = b"-READONLY You can't write against a read only replica.\r\n"


def hmget(key: bytes) -> bytes:
    return b"*3\r\n$5\r\nHMGET\r\n$%d\r\n%b\r\n$1\r\nx\r\n" % (len(key), key)


class FakeTransport(asyncio.Transport):
    """Records what a connection writes. The test supplies the replies."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def reply(self, data: bytes) -> None:
        self._connection.data_received(data)

    def drop(self) -> None:
        asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)

    abort = close = drop


class FakeServer:
    """Accepts connections, each with a transport of its own."""

    def __init__(self) -> None:
        self.transports: list[FakeTransport] = []
        self.is_primary = False

    async def connect(self, on_lost: Callable[[Connection], None], on_writable: Callable[[], None]) -> Connection:
        connection = Connection(on_lost, on_writable)
        connection.is_to_a_primary = self.is_primary
        self.transports.append(FakeTransport(connection))
        connection.connection_made(self.transports[-1])
        return connection


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def pipeline(server: FakeServer, metrics: Metrics) -> Pipeline:
    return Pipeline(server.connect, 10, StoreMonitor(metrics), SCRIPTS)


async def run_callbacks() -> None:
    """Let the event loop run everything that is ready."""
    for _ in range(5):
        await asyncio.sleep(0)


# Batches


async def test_requests_of_one_turn_are_sent_in_one_write_with_one_time(pipeline: Pipeline, server: FakeServer) -> None:
    reads = [asyncio.ensure_future(pipeline.read_hash(key, X)) for key in ("a", "b")]
    await run_callbacks()

    server.transports[0].reply(b"*1\r\n$1\r\n1\r\n" + NO_HASH_AT_5000_MS)

    assert server.transports[0].written == hmget(b"a") + hmget(b"b") + TIME
    assert await asyncio.gather(*reads) == [([b"1"], 5000), ([None], 5000)]


async def test_replies_may_arrive_in_pieces(pipeline: Pipeline, server: FakeServer) -> None:
    read = asyncio.ensure_future(pipeline.read_hash("a", X))
    write = asyncio.ensure_future(pipeline.execute(("ZREM", "k", "m"), ("ZREM", "l", "m")))
    await run_callbacks()

    for byte in NO_HASH + b":1\r\n:0\r\n" + TIME_REPLY:
        server.transports[0].reply(bytes([byte]))

    assert await read == ([None], 5000)
    assert await write == [1, 0]


async def test_a_cancelled_request_leaves_the_replies_of_others_in_order(
    pipeline: Pipeline, server: FakeServer
) -> None:
    cancelled, other = (asyncio.ensure_future(pipeline.read_hash(key, X)) for key in ("a", "b"))
    await run_callbacks()

    cancelled.cancel()
    await run_callbacks()
    server.transports[0].reply(b"*1\r\n$1\r\n1\r\n" + NO_HASH_AT_5000_MS)

    assert await other == ([None], 5000)


async def test_a_round_trip_is_measured_with_the_number_of_its_requests(
    pipeline: Pipeline, server: FakeServer, metrics: Metrics
) -> None:
    reads = [asyncio.ensure_future(pipeline.read_hash(key, X)) for key in ("a", "b")]
    await run_callbacks()
    server.transports[0].reply(b"*1\r\n$1\r\n1\r\n" + NO_HASH_AT_5000_MS)
    await asyncio.gather(*reads)

    samples = {sample.name: sample.value for sample in samples_of(metrics) if "le" not in sample.labels}

    assert samples["sessions_store_batch_requests_count"] == 1
    assert samples["sessions_store_batch_requests_sum"] == 2
    assert samples["sessions_store_round_trip_duration_seconds_count"] == 1


def samples_of(metrics: Metrics) -> list[Sample]:
    return [sample for family in metrics.registry.collect() for sample in family.samples]


# Lost connections


async def test_a_read_is_sent_once_more_after_a_lost_connection(pipeline: Pipeline, server: FakeServer) -> None:
    read = asyncio.ensure_future(pipeline.read_hash("a", X))
    await run_callbacks()

    server.transports[0].drop()
    await run_callbacks()
    server.transports[1].drop()
    await run_callbacks()

    assert [transport.written for transport in server.transports] == [hmget(b"a") + TIME] * 2
    with pytest.raises(StoreUnavailable):
        await read


async def test_queries_and_reads_of_several_hashes_are_sent_once_more_too(
    pipeline: Pipeline, server: FakeServer
) -> None:
    query = asyncio.ensure_future(pipeline.query(("ZCARD", "k"), ("ZCARD", "l")))
    reads = asyncio.ensure_future(pipeline.read_hashes(["a", "b"], X))
    await run_callbacks()

    server.transports[0].drop()
    await run_callbacks()
    server.transports[1].reply(b":1\r\n:2\r\n*1\r\n$1\r\n1\r\n" + NO_HASH_AT_5000_MS)

    assert await query == [1, 2]
    assert await reads == [([b"1"], 5000), ([None], 5000)]


async def test_a_write_is_not_sent_again_after_a_lost_connection(pipeline: Pipeline, server: FakeServer) -> None:
    write = asyncio.ensure_future(pipeline.execute(("ZREM", "k", "m")))
    await run_callbacks()

    server.transports[0].drop()
    await run_callbacks()

    assert len(server.transports) == 1
    with pytest.raises(StoreUnavailable):
        await write


async def test_a_new_request_does_not_join_a_batch_that_is_sent_again(pipeline: Pipeline, server: FakeServer) -> None:
    first = asyncio.ensure_future(pipeline.read_hash("a", X))
    await run_callbacks()

    server.transports[0].drop()
    await asyncio.sleep(0)
    second = asyncio.ensure_future(pipeline.read_hash("b", X))
    await run_callbacks()
    server.transports[1].reply(NO_HASH_AT_5000_MS * 2)

    assert server.transports[1].written == hmget(b"a") + TIME + hmget(b"b") + TIME
    assert [await first, await second] == [([None], 5000), ([None], 5000)]


async def test_an_unexpected_reply_closes_the_connection(pipeline: Pipeline, server: FakeServer) -> None:
    read = asyncio.ensure_future(pipeline.read_hash("a", X))
    await run_callbacks()

    server.transports[0].reply(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await run_callbacks()
    server.transports[1].reply(NO_HASH_AT_5000_MS)

    assert await read == ([None], 5000)


async def test_waiting_requests_are_unavailable_when_the_pipeline_is_closed(
    pipeline: Pipeline, server: FakeServer
) -> None:
    waiting = [
        asyncio.ensure_future(pipeline.read_hash("a", X)),
        asyncio.ensure_future(pipeline.execute(("ZREM", "k", "m"))),
    ]
    await run_callbacks()

    await pipeline.aclose()
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(result) for result in results] == [StoreUnavailable] * 2


async def test_any_error_while_connecting_fails_the_waiting_requests_at_once() -> None:
    async def connect(*_: object) -> Connection:
        raise ValueError("no such TLS version")

    pipeline = Pipeline(cast(Connect, connect), 60, StoreMonitor(Metrics()), SCRIPTS)

    with pytest.raises(StoreUnavailable) as error:
        await pipeline.read_hash("a", X)

    assert error.value.cause == "ValueError: no such TLS version"


# Demoted servers

ROLE = b"*1\r\n$4\r\nROLE\r\n"
PRIMARY_ROLE = b"*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n"
REPLICA_ROLE = b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$9\r\nconnected\r\n:1\r\n"


@pytest.fixture
def frequent_role_checks(monkeypatch: pytest.MonkeyPatch, server: FakeServer) -> None:
    """Check the role before each batch."""
    monkeypatch.setattr("service.redis_client.pipeline._ROLE_CHECK_SECONDS", -1)
    server.is_primary = True


async def test_a_read_in_flight_is_sent_again_after_a_write_was_rejected_by_a_demoted_server(
    pipeline: Pipeline, server: FakeServer
) -> None:
    write = asyncio.ensure_future(pipeline.execute(("ZREM", "k", "m")))
    await run_callbacks()
    read = asyncio.ensure_future(pipeline.read_hash("a", X))
    await run_callbacks()

    server.transports[0].reply(READONLY)
    await run_callbacks()
    server.transports[0].drop()
    await run_callbacks()
    server.transports[1].reply(NO_HASH_AT_5000_MS)

    assert await read == ([None], 5000)
    with pytest.raises(StoreUnavailable):
        await write


@pytest.mark.usefixtures("frequent_role_checks")
async def test_reads_are_sent_again_if_the_role_check_finds_a_replica(pipeline: Pipeline, server: FakeServer) -> None:
    read = asyncio.ensure_future(pipeline.read_hash("a", X))
    await run_callbacks()

    server.transports[0].reply(REPLICA_ROLE + b"*1\r\n$5\r\nstale\r\n" + TIME_REPLY)
    await run_callbacks()
    server.transports[1].reply(PRIMARY_ROLE + NO_HASH_AT_5000_MS)

    assert server.transports[0].written == ROLE + hmget(b"a") + TIME
    assert await read == ([None], 5000)


@pytest.mark.usefixtures("frequent_role_checks")
async def test_the_owner_of_the_pipeline_is_notified_of_a_demoted_server(server: FakeServer) -> None:
    notifications: list[str] = []
    pipeline = Pipeline(
        server.connect, 10, StoreMonitor(Metrics()), SCRIPTS, on_demoted=lambda: notifications.append("demoted")
    )
    read = asyncio.ensure_future(pipeline.read_hash("a", X))
    await run_callbacks()

    server.transports[0].reply(REPLICA_ROLE)
    await run_callbacks()
    server.transports[1].reply(PRIMARY_ROLE + NO_HASH_AT_5000_MS)
    await read

    assert notifications == ["demoted"]


# Writes that wait for replicas

WAIT = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$3\r\n500\r\n"


def zrem(member: bytes) -> bytes:
    return b"*3\r\n$4\r\nZREM\r\n$1\r\nk\r\n$1\r\n%b\r\n" % member


@pytest.fixture
async def replicated(server: FakeServer, metrics: Metrics) -> Pipeline:
    return Pipeline(server.connect, 10, StoreMonitor(metrics), SCRIPTS, Replication(1, 500))


async def removed(pipeline: Pipeline, member: str) -> int:
    (number,) = await pipeline.execute(("ZREM", "k", member))
    return int(number)


async def test_writes_that_arrive_during_a_wait_share_the_next_one(replicated: Pipeline, server: FakeServer) -> None:
    first = asyncio.ensure_future(removed(replicated, "a"))
    await run_callbacks()
    others = [asyncio.ensure_future(removed(replicated, member)) for member in "bc"]
    await run_callbacks()
    sent_before_the_reply = server.transports[0].written

    server.transports[0].reply(b":1\r\n:1\r\n")
    await run_callbacks()
    server.transports[0].reply(b":1\r\n:1\r\n:1\r\n")

    assert sent_before_the_reply == zrem(b"a") + WAIT
    assert server.transports[0].written == sent_before_the_reply + zrem(b"b") + zrem(b"c") + WAIT
    assert await asyncio.gather(first, *others) == [1, 1, 1]


async def test_a_command_that_changed_nothing_needs_no_replica(replicated: Pipeline, server: FakeServer) -> None:
    unchanged, changed = (asyncio.ensure_future(removed(replicated, member)) for member in "ab")
    await run_callbacks()

    server.transports[0].reply(b":0\r\n:1\r\n:0\r\n")

    assert await unchanged == 0
    with pytest.raises(StoreUnavailable) as error:
        await changed
    assert error.value.cause.startswith("0 of 1 replicas")


@pytest.mark.parametrize("write_reply", [READONLY, b":1\r\n"], ids=["write rejected", "wait rejected"])
async def test_a_server_that_rejects_the_write_or_the_wait_as_a_replica_is_left(
    replicated: Pipeline, server: FakeServer, write_reply: bytes
) -> None:
    write = asyncio.ensure_future(removed(replicated, "a"))
    await run_callbacks()

    server.transports[0].reply(write_reply + b"-ERR WAIT cannot be used with replica instances.\r\n")
    with pytest.raises(StoreUnavailable):
        await write
    next_write = asyncio.ensure_future(removed(replicated, "a"))
    await run_callbacks()
    server.transports[1].reply(b":1\r\n:1\r\n")

    assert await next_write == 1


async def test_deadlines_are_enforced_after_an_error_in_a_check(
    server: FakeServer, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    overdue = Connection.overdue

    def fail_once(connection: Connection, now: float) -> list[Any]:
        monkeypatch.setattr(Connection, "overdue", overdue)
        raise TypeError("an unexpected state")

    monkeypatch.setattr(Connection, "overdue", fail_once)
    pipeline = Pipeline(server.connect, 0.1, StoreMonitor(metrics), SCRIPTS)

    with pytest.raises(StoreUnavailable):
        await pipeline.read_hash("a", X)

    assert "deadlines of requests to Redis cannot be checked and will be checked again" in caplog.messages
