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

from service.errors import StoreUnavailable
from service.http.middleware import PROBES, Handle, route_of
from service.lanes.lane import Fields, Lane, Read, Reply
from service.life import scripts
from service.life.scripts import Command
from service.secret import Secret
from service.telemetry.log import REQUEST_ID


def otlp_tracing(secret: Secret) -> "Tracing":
    """Traces that are sent over OTLP/HTTP, in batches, from a thread of their own."""
    resource = Resource({SERVICE_NAME: "session-service"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, secret)


class Tracing:
    """Makes spans with a provider, which it shuts down when it is closed. Ids are told as the secret hashes them."""

    def __init__(self, provider: TracerProvider, secret: Secret) -> None:
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

    def on(self, lane: Lane) -> Lane:
        """The same way to Redis, with a span for each call: its waiting for others, the round trip, and a retry."""
        return _TracedLane(lane, self._tracer)

    async def aclose(self) -> None:
        """Send what has not been sent yet."""
        await asyncio.to_thread(self._provider.shutdown)


class _TracedLane:
    def __init__(self, lane: Lane, tracer: Tracer) -> None:
        self._lane = lane
        self._tracer = tracer

    @property
    def spans_slots(self) -> bool:
        return self._lane.spans_slots

    async def read(self, key: str, fields: Fields) -> Read:
        with self._span("HMGET"):
            return await self._lane.read(key, fields)

    async def reads(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        with self._span("HMGET"):
            return await self._lane.reads(keys, fields)

    async def ask(self, *commands: Command) -> list[Reply]:
        with self._span(_names_of(commands)):
            return await self._lane.ask(*commands)

    async def change(self, *commands: Command) -> list[Reply]:
        with self._span(_names_of(commands)):
            return await self._lane.change(*commands)

    async def in_order(self, *commands: Command) -> list[Reply]:
        with self._span(_names_of(commands)):
            return await self._lane.in_order(*commands)

    async def everywhere(self, *commands: Command) -> dict[str, list[Reply]]:
        with self._span(_names_of(commands)):
            return await self._lane.everywhere(*commands)

    async def aclose(self) -> None:
        await self._lane.aclose()

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
    return " ".join(dict.fromkeys(scripts.name_of(command) for command in commands))


def _tell(span: Span, request: web.Request, status: int, secret: Secret) -> None:
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
