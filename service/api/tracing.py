"""OpenTelemetry spans of requests. Spans contain a keyed hash of the session id, and no path.

The `OTEL_` variables configure the exporter and the sampler.
"""

import asyncio
import logging
from contextlib import suppress
from threading import Thread

from aiohttp import web
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode

from service.api.routes import PROBE_PATHS, Handler, path_template_of
from service.observability.log import REQUEST_ID
from service.redis_client.client import RedisClient
from service.redis_client.traced import TracedClient
from service.sessions.scripts import SCRIPTS
from service.shared_secret import SharedSecret

MAX_SHUTDOWN_SECONDS = 3

_log = logging.getLogger(__name__)


class Tracing:
    """Records spans of requests and of calls to Redis. Closing it shuts down the provider."""

    def __init__(self, provider: TracerProvider, secret: SharedSecret) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("session-service")
        self._secret = secret

    def middleware(self, handler: Handler) -> Handler:
        """Record a span for each request except probes, in the trace of its `traceparent`."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.path in PROBE_PATHS:
                return await handler(request)
            context = extract(request.headers)
            with self._tracer.start_as_current_span(request.method, context, SpanKind.SERVER) as span:
                response = await handler(request)
                _set_attributes(span, request, response.status, self._secret)
            return response

        return handle

    def trace(self, client: RedisClient) -> RedisClient:
        """Return the client with a span for each call."""
        return TracedClient(client, self._tracer, SCRIPTS)

    async def aclose(self) -> None:
        """Send the remaining spans. Logs a warning if the collector does not receive them in time."""
        loop, is_closed = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(is_closed.set)

        Thread(target=shut_down, name="tracing", daemon=True).start()  # the process does not wait for it
        try:
            async with asyncio.timeout(MAX_SHUTDOWN_SECONDS):
                await is_closed.wait()
        except TimeoutError:
            _log.warning("the last spans were not sent: the collector did not respond in %d s", MAX_SHUTDOWN_SECONDS)


def _set_attributes(span: Span, request: web.Request, status: int, secret: SharedSecret) -> None:
    route = path_template_of(request)
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
        span.set_attribute("session.hash", secret.hash_id(request.match_info["session_id"]))
    if status >= 500:
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", str(status))


def otlp_provider() -> TracerProvider:
    """Return a provider that sends spans over OTLP/HTTP, in batches, from a background thread."""
    resource = Resource({SERVICE_NAME: "session-service"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
