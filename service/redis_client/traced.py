"""A Redis client that records OpenTelemetry spans."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from service.errors import StoreUnavailable
from service.redis_client.client import Fields, Read, RedisClient, Reply
from service.redis_client.scripts import Command, ScriptCatalog


class TracedClient:
    """Wraps a client and records a span for each call, from queueing to the last retry."""

    def __init__(self, client: RedisClient, tracer: Tracer, scripts: ScriptCatalog) -> None:
        self._client = client
        self._tracer = tracer
        self._scripts = scripts

    @property
    def supports_multi_slot(self) -> bool:
        return self._client.supports_multi_slot

    async def read_hash(self, key: str, fields: Fields) -> Read:
        with self._span("HMGET"):
            return await self._client.read_hash(key, fields)

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        with self._span("HMGET"):
            return await self._client.read_hashes(keys, fields)

    async def query(self, *commands: Command) -> list[Reply]:
        with self._span(self._names_of(commands)):
            return await self._client.query(*commands)

    async def execute(self, *commands: Command) -> list[Reply]:
        with self._span(self._names_of(commands)):
            return await self._client.execute(*commands)

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        with self._span(self._names_of(commands)):
            return await self._client.execute_ordered(*commands)

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        with self._span(self._names_of(commands)):
            return await self._client.broadcast(*commands)

    async def aclose(self) -> None:
        await self._client.aclose()

    @contextmanager
    def _span(self, operation: str) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            operation,
            kind=SpanKind.CLIENT,
            attributes={"db.system.name": "redis", "db.operation.name": operation},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except StoreUnavailable as error:
                _mark_failed(span, error)
                raise

    def _names_of(self, commands: Sequence[Command]) -> str:
        return " ".join(dict.fromkeys(map(self._scripts.command_name, commands)))


def _mark_failed(span: Span, error: StoreUnavailable) -> None:
    span.set_status(StatusCode.ERROR, error.cause)
    span.set_attribute("error.type", type(error).__name__)
