"""OpenTelemetry traces, where they are asked for: a span for each request, and within it one for each call to Redis.

What OpenTelemetry's own variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, …) holds. Spans carry no
path, for it holds the session's id: a keyed hash stands for it.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from service.api.middleware import PROBES, Handle, route_of
from service.errors import StoreUnavailable
from service.observability.log import REQUEST_ID
from service.redis_client.client import Fields, Read, RedisClient, Reply
from service.sessions import scripts
from service.sessions.scripts import Command
from service.shared_secret import SharedSecret


def otlp_tracing(secret: SharedSecret) -> "Tracing":
    """Traces that are sent over OTLP/HTTP, in batches, from a thread of their own."""
    resource = Resource({SERVICE_NAME: "session-service"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, secret)


class Tracing:
    """Makes spans with a provider, which it shuts down when it is closed. Ids are told as the secret hashes them."""

    def __init__(self, provider: TracerProvider, secret: SharedSecret) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("session-service")
        self._secret = secret

    def over(self, handle: Handle) -> Handle:
        """The same, with a span for each request but the probes', within the trace that its `traceparent` names."""

        async def answer(request: Any) -> web.StreamResponse:
            if request.path in PROBES:
                return await handle(request)
            context = extract(request.headers)
            with self._tracer.start_as_current_span(request.method, context, SpanKind.SERVER) as span:
                response = await handle(request)
                _tell(span, request, response.status, self._secret)
            return response

        return answer

    def on(self, redis: RedisClient) -> RedisClient:
        """The same way to Redis, with a span for each call: its waiting for others, the round trip, and a retry."""
        return _TracedClient(redis, self._tracer)

    async def aclose(self) -> None:
        """Send what has not been sent yet."""
        await asyncio.to_thread(self._provider.shutdown)


class _TracedClient:
    def __init__(self, redis: RedisClient, tracer: Tracer) -> None:
        self._redis = redis
        self._tracer = tracer

    @property
    def supports_multi_slot(self) -> bool:
        return self._redis.supports_multi_slot

    async def read_hash(self, key: str, fields: Fields) -> Read:
        with self._span("HMGET"):
            return await self._redis.read_hash(key, fields)

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        with self._span("HMGET"):
            return await self._redis.read_hashes(keys, fields)

    async def query(self, *commands: Command) -> list[Reply]:
        with self._span(_names_of(commands)):
            return await self._redis.query(*commands)

    async def execute(self, *commands: Command) -> list[Reply]:
        with self._span(_names_of(commands)):
            return await self._redis.execute(*commands)

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        with self._span(_names_of(commands)):
            return await self._redis.execute_ordered(*commands)

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        with self._span(_names_of(commands)):
            return await self._redis.broadcast(*commands)

    async def aclose(self) -> None:
        await self._redis.aclose()

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
                _fail(span, error)
                raise


def _names_of(commands: Sequence[Command]) -> str:
    return " ".join(dict.fromkeys(scripts.command_name(command) for command in commands))


def _tell(span: Span, request: web.Request, status: int, secret: SharedSecret) -> None:
    route = route_of(request)
    span.set_attributes(
        {
            "http.request.method": request.method,
            "http.response.status_code": status,
            "http.request.header.x-request-id": [REQUEST_ID.get("")],
        }
    )
    if route is not None:
        span.update_name(f"{request.method} {route}")
        span.set_attribute("http.route", route)
    if "session_id" in request.match_info:
        span.set_attribute("session.hash", secret.hashed(request.match_info["session_id"]))
    if status >= 500:
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", str(status))


def _fail(span: Span, error: StoreUnavailable) -> None:
    span.set_status(StatusCode.ERROR, error.why)
    span.set_attribute("error.type", type(error).__name__)
