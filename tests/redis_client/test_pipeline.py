"""The pipeline at its seams, on lines that a test answers, drops or leaves silent by hand."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from prometheus_client.samples import Sample

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.batch import Replication
from service.redis_client.connection import Connection
from service.redis_client.monitor import StoreMonitor
from service.redis_client.pipeline import Pipeline
from service.sessions.scripts import SCRIPTS

TIME = b"*1\r\n$4\r\nTIME\r\n"
NO_HASH_AT_5000_MS = b"*1\r\n_\r\n*2\r\n$1\r\n5\r\n$1\r\n0\r\n"
X = (b"x",)
READONLY = b"-READONLY You can't write against a read only replica.\r\n"


def reading_of(key: bytes) -> bytes:
    return b"*3\r\n$5\r\nHMGET\r\n$%d\r\n%b\r\n$1\r\nx\r\n" % (len(key), key)


class Line(asyncio.Transport):
    """What a connection writes to, and the hand that answers it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def answer(self, data: bytes) -> None:
        self._connection.data_received(data)

    def drop(self) -> None:
        asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)

    abort = close = drop


class LogWriter:
    """Dials: each connection gets a line of its own."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.are_to_a_primary = False

    async def dial(self, on_lost: Callable[[Connection], None], on_writable: Callable[[], None]) -> Connection:
        connection = Connection(on_lost, on_writable)
        connection.is_to_a_primary = self.are_to_a_primary
        self.lines.append(Line(connection))
        connection.connection_made(self.lines[-1])
        return connection


@pytest.fixture
def lines() -> LogWriter:
    return LogWriter()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def pipeline(lines: LogWriter, metrics: Metrics) -> Pipeline:
    return Pipeline(lines.dial, 1, StoreMonitor(metrics), SCRIPTS)


async def some_turns() -> None:
    """Let everything that is due happen; nothing here waits for a clock."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_of_one_turn_leave_in_one_write_that_ends_in_the_time(
    pipeline: Pipeline, lines: LogWriter
) -> None:
    readings = [asyncio.ensure_future(pipeline.read_hash(key, X)) for key in ("a", "b")]
    await some_turns()

    lines.lines[0].answer(b"*1\r\n$1\r\n1\r\n" + NO_HASH_AT_5000_MS)

    assert lines.lines[0].written == reading_of(b"a") + reading_of(b"b") + TIME
    assert await asyncio.gather(*readings) == [([b"1"], 5000), ([None], 5000)]


async def test_replies_that_come_in_pieces_find_who_asked(pipeline: Pipeline, lines: LogWriter) -> None:
    reading = asyncio.ensure_future(pipeline.read_hash("a", X))
    change = asyncio.ensure_future(pipeline.execute(("ZREM", "k", "m"), ("ZREM", "l", "m")))
    await some_turns()

    for byte in b"*1\r\n_\r\n:1\r\n:0\r\n*2\r\n$1\r\n5\r\n$1\r\n0\r\n":
        lines.lines[0].answer(bytes([byte]))

    assert await reading == ([None], 5000)
    assert await change == [1, 0]


async def test_a_reading_whose_connection_breaks_goes_again_once(pipeline: Pipeline, lines: LogWriter) -> None:
    reading = asyncio.ensure_future(pipeline.read_hash("a", X))
    await some_turns()

    lines.lines[0].drop()
    await some_turns()
    lines.lines[1].drop()
    await some_turns()

    assert [line.written for line in lines.lines] == [reading_of(b"a") + TIME] * 2
    with pytest.raises(StoreUnavailable):
        await reading


async def test_what_only_asks_goes_again_too(pipeline: Pipeline, lines: LogWriter) -> None:
    asking = asyncio.ensure_future(pipeline.query(("ZCARD", "k"), ("ZCARD", "l")))
    readings = asyncio.ensure_future(pipeline.read_hashes(["a", "b"], X))
    await some_turns()

    lines.lines[0].drop()
    await some_turns()
    lines.lines[1].answer(b":1\r\n:2\r\n*1\r\n$1\r\n1\r\n" + NO_HASH_AT_5000_MS)

    assert await asking == [1, 2]
    assert await readings == [([b"1"], 5000), ([None], 5000)]


async def test_a_change_whose_connection_breaks_is_not_sent_again(pipeline: Pipeline, lines: LogWriter) -> None:
    change = asyncio.ensure_future(pipeline.execute(("ZREM", "k", "m")))
    await some_turns()

    lines.lines[0].drop()
    await some_turns()

    assert len(lines.lines) == 1
    with pytest.raises(StoreUnavailable):
        await change


async def test_a_reading_in_flight_to_a_demoted_server_is_not_forgotten(pipeline: Pipeline, lines: LogWriter) -> None:
    change = asyncio.ensure_future(pipeline.execute(("ZREM", "k", "m")))
    await some_turns()
    reading = asyncio.ensure_future(pipeline.read_hash("a", X))
    await some_turns()

    lines.lines[0].answer(READONLY)
    await some_turns()
    lines.lines[0].drop()
    await some_turns()
    lines.lines[1].answer(NO_HASH_AT_5000_MS)

    assert await reading == ([None], 5000)
    with pytest.raises(StoreUnavailable):
        await change


async def test_nobody_joins_a_batch_that_goes_again(pipeline: Pipeline, lines: LogWriter) -> None:
    first = asyncio.ensure_future(pipeline.read_hash("a", X))
    await some_turns()

    lines.lines[0].drop()
    await asyncio.sleep(0)
    second = asyncio.ensure_future(pipeline.read_hash("b", X))
    await some_turns()
    lines.lines[1].answer(NO_HASH_AT_5000_MS * 2)

    assert lines.lines[1].written == reading_of(b"a") + TIME + reading_of(b"b") + TIME
    assert [await first, await second] == [([None], 5000), ([None], 5000)]


async def test_whoever_has_gone_leaves_the_replies_of_others_in_order(pipeline: Pipeline, lines: LogWriter) -> None:
    gone, staying = (asyncio.ensure_future(pipeline.read_hash(key, X)) for key in ("a", "b"))
    await some_turns()

    gone.cancel()
    await some_turns()
    lines.lines[0].answer(b"*1\r\n$1\r\n1\r\n" + NO_HASH_AT_5000_MS)

    assert await staying == ([None], 5000)


async def test_on_closing_everyone_who_waits_is_told(pipeline: Pipeline, lines: LogWriter) -> None:
    waiting = [
        asyncio.ensure_future(pipeline.read_hash("a", X)),
        asyncio.ensure_future(pipeline.execute(("ZREM", "k", "m"))),
    ]
    await some_turns()

    await pipeline.aclose()
    told = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(answer) for answer in told] == [StoreUnavailable] * 2


async def test_a_server_that_says_what_nobody_asked_is_hung_up_on(pipeline: Pipeline, lines: LogWriter) -> None:
    reading = asyncio.ensure_future(pipeline.read_hash("a", X))
    await some_turns()

    lines.lines[0].answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await some_turns()
    lines.lines[1].answer(NO_HASH_AT_5000_MS)

    assert await reading == ([None], 5000)


async def test_whatever_keeps_a_connection_from_being_opened_is_told_at_once() -> None:
    async def dial(*_: object) -> Connection:
        raise ValueError("no such TLS version")

    pipeline = Pipeline(cast(Callable[..., object], dial), 60, StoreMonitor(Metrics()), SCRIPTS)  # type: ignore[arg-type]

    with pytest.raises(StoreUnavailable) as told:
        await pipeline.read_hash("a", X)

    assert told.value.cause == "ValueError: no such TLS version"


async def test_a_round_trip_is_measured_with_the_requests_that_shared_it(
    pipeline: Pipeline, lines: LogWriter, metrics: Metrics
) -> None:
    readings = [asyncio.ensure_future(pipeline.read_hash(key, X)) for key in ("a", "b")]
    await some_turns()
    lines.lines[0].answer(b"*1\r\n$1\r\n1\r\n" + NO_HASH_AT_5000_MS)
    await asyncio.gather(*readings)

    samples = {sample.name: sample.value for sample in samples_of(metrics) if "le" not in sample.labels}

    assert samples["sessions_store_batch_requests_count"] == 1
    assert samples["sessions_store_batch_requests_sum"] == 2
    assert samples["sessions_store_round_trip_duration_seconds_count"] == 1


def samples_of(metrics: Metrics) -> list[Sample]:
    return [sample for family in metrics.registry.collect() for sample in family.samples]


# A server that is demoted

ROLE = b"*1\r\n$4\r\nROLE\r\n"
A_PRIMARY = b"*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n"
A_REPLICA = b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$9\r\nconnected\r\n:1\r\n"


@pytest.fixture
def always_looking(monkeypatch: pytest.MonkeyPatch, lines: LogWriter) -> None:
    monkeypatch.setattr("service.redis_client.pipeline._ROLE_CHECK_SECONDS", -1)
    lines.are_to_a_primary = True


@pytest.mark.usefixtures("always_looking")
async def test_what_a_demoted_server_was_asked_is_asked_again_elsewhere(pipeline: Pipeline, lines: LogWriter) -> None:
    reading = asyncio.ensure_future(pipeline.read_hash("a", X))
    await some_turns()

    lines.lines[0].answer(A_REPLICA + b"*1\r\n$5\r\nstale\r\n" + b"*2\r\n$1\r\n5\r\n$1\r\n0\r\n")
    await some_turns()
    lines.lines[1].answer(A_PRIMARY + NO_HASH_AT_5000_MS)

    assert lines.lines[0].written == ROLE + reading_of(b"a") + TIME
    assert await reading == ([None], 5000)


@pytest.mark.usefixtures("always_looking")
async def test_whoever_else_is_on_a_demoted_server_is_told(lines: LogWriter) -> None:
    told: list[str] = []
    pipeline = Pipeline(lines.dial, 1, StoreMonitor(Metrics()), SCRIPTS, on_demoted=lambda: told.append("demoted"))
    reading = asyncio.ensure_future(pipeline.read_hash("a", X))
    await some_turns()

    lines.lines[0].answer(A_REPLICA)
    await some_turns()
    lines.lines[1].answer(A_PRIMARY + NO_HASH_AT_5000_MS)
    await reading

    assert told == ["demoted"]


# Changes that wait for replicas

WAIT = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$3\r\n500\r\n"


def removal_of(member: bytes) -> bytes:
    return b"*3\r\n$4\r\nZREM\r\n$1\r\nk\r\n$1\r\n%b\r\n" % member


@pytest.fixture
async def patient(lines: LogWriter, metrics: Metrics) -> Pipeline:
    return Pipeline(lines.dial, 1, StoreMonitor(metrics), SCRIPTS, Replication(1, 500))


async def removed(pipeline: Pipeline, member: str) -> int:
    (number,) = await pipeline.execute(("ZREM", "k", member))
    return int(number)


async def test_those_who_come_during_a_wait_share_the_next(patient: Pipeline, lines: LogWriter) -> None:
    first = asyncio.ensure_future(removed(patient, "a"))
    await some_turns()
    others = [asyncio.ensure_future(removed(patient, member)) for member in "bc"]
    await some_turns()
    at_first = lines.lines[0].written

    lines.lines[0].answer(b":1\r\n:1\r\n")
    await some_turns()
    lines.lines[0].answer(b":1\r\n:1\r\n:1\r\n")

    assert at_first == removal_of(b"a") + WAIT
    assert lines.lines[0].written == at_first + removal_of(b"b") + removal_of(b"c") + WAIT
    assert await asyncio.gather(first, *others) == [1, 1, 1]


async def test_only_what_was_written_needs_a_replica(patient: Pipeline, lines: LogWriter) -> None:
    in_vain, done = (asyncio.ensure_future(removed(patient, member)) for member in "ab")
    await some_turns()

    lines.lines[0].answer(b":0\r\n:1\r\n:0\r\n")

    assert await in_vain == 0
    with pytest.raises(StoreUnavailable) as refusal:
        await done
    assert refusal.value.cause.startswith("0 of 1 replicas")


@pytest.mark.parametrize("said", [READONLY, b":1\r\n"], ids=["by the change", "by the wait"])
async def test_a_server_that_cannot_wait_was_demoted_and_is_left(
    patient: Pipeline, lines: LogWriter, said: bytes
) -> None:
    change = asyncio.ensure_future(removed(patient, "a"))
    await some_turns()

    lines.lines[0].answer(said + b"-ERR WAIT cannot be used with replica instances.\r\n")
    with pytest.raises(StoreUnavailable):
        await change
    again = asyncio.ensure_future(removed(patient, "a"))
    await some_turns()
    lines.lines[1].answer(b":1\r\n:1\r\n")

    assert await again == 1
