"""OpenTelemetry traces, where they are asked for: a span for each request, and within it one for each call to Redis.

What OpenTelemetry's own variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, …) holds. Spans carry no
path, for it holds the session's id: a keyed hash stands for it.
"""

import asyncio
from typing import Any

from aiohttp import web
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode

from service.api.middleware import PROBES, Handle, route_of
from service.observability.log import REQUEST_ID
from service.redis_client.client import RedisClient
from service.redis_client.traced import TracedClient
from service.sessions.scripts import SCRIPTS
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
        """The same client, with a span for each call."""
        return TracedClient(redis, self._tracer, SCRIPTS)

    async def aclose(self) -> None:
        """Send what has not been sent yet."""
        await asyncio.to_thread(self._provider.shutdown)


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
