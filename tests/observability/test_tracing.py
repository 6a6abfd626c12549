"""Requests and calls to Redis are spans, without ids, and are exported over OTLP."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.api.tracing import Tracing
from service.redis_client.factory import redis_py_client
from service.settings import Settings
from service.shared_secret import SharedSecret
from tests.conftest import AGENT, USER, HttpClient, ServiceServer, StartReplica
from tests.redis_server import RedisServer

SESSIONS = "/api/messaging/sessions"
NEW_SESSION = {"agentId": AGENT, "userId": USER}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def secret() -> SharedSecret:
    return SharedSecret()


@pytest.fixture
async def tracing(exporter: InMemorySpanExporter, secret: SharedSecret) -> AsyncIterator[Tracing]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider, secret)
    yield tracing
    await tracing.aclose()


class TracedServer(ServiceServer):
    def __init__(self, redis: Redis, tracing: Tracing) -> None:
        super().__init__(Settings(), redis, tracing.trace, tracing.middleware)


@pytest.fixture
async def client(redis: Redis, tracing: Tracing, aiohttp_client: AiohttpClient) -> HttpClient:
    return await aiohttp_client(TracedServer(redis, tracing))


def request_spans(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]


def redis_spans(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]


async def test_a_request_is_a_span_with_the_name_of_its_route(
    client: HttpClient, exporter: InMemorySpanExporter, secret: SharedSecret
) -> None:
    session_id = (await (await client.post(SESSIONS, json=NEW_SESSION)).json())["sessionId"]
    secret.load("0f" * 32)
    await client.get(f"{SESSIONS}/{session_id}", headers={"X-Request-ID": "mine"})

    _, read = request_spans(exporter)

    assert read.name == f"GET {SESSIONS}/{{session_id}}"
    assert dict(read.attributes or {}) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.request.header.x-request-id": ("mine",),
        "http.route": SESSIONS + "/{session_id}",
        "session.hash": secret.hash_id(session_id),
    }


async def test_a_call_to_redis_is_a_child_span(client: HttpClient, exporter: InMemorySpanExporter) -> None:
    await client.post(SESSIONS, json=NEW_SESSION)  # loads the scripts and caches the policy
    exporter.clear()

    await client.post(SESSIONS, json=NEW_SESSION)

    (request,), (call,) = request_spans(exporter), redis_spans(exporter)

    assert call.name == "HMGET add_to_index create"
    assert call.parent is not None
    assert request.context is not None
    assert call.parent.span_id == request.context.span_id


async def test_a_request_continues_the_trace_of_its_caller(client: HttpClient, exporter: InMemorySpanExporter) -> None:
    await client.post(SESSIONS, json=NEW_SESSION)
    exporter.clear()

    await client.post(SESSIONS, json=NEW_SESSION, headers={"traceparent": TRACEPARENT})

    spans = exporter.get_finished_spans()

    assert [f"{span.context.trace_id:032x}" for span in spans if span.context] == [TRACE, TRACE]


async def test_an_unsampled_trace_has_no_spans(client: HttpClient, exporter: InMemorySpanExporter) -> None:
    await client.post(SESSIONS, json=NEW_SESSION, headers={"traceparent": TRACEPARENT[:-2] + "00"})

    assert exporter.get_finished_spans() == ()


async def test_probes_have_no_spans(client: HttpClient, exporter: InMemorySpanExporter) -> None:
    await client.get("/readyz")

    assert exporter.get_finished_spans() == ()


async def test_spans_contain_no_ids(client: HttpClient, exporter: InMemorySpanExporter) -> None:
    session_id = (await (await client.post(SESSIONS, json=NEW_SESSION)).json())["sessionId"]
    await client.post(f"{SESSIONS}/{session_id}/heartbeat")
    await client.delete(f"{SESSIONS}/{session_id}")

    exported = "".join(span.to_json() for span in exporter.get_finished_spans())

    assert "heartbeat" in exported
    assert session_id not in exported
    assert USER not in exported


async def test_spans_contain_no_messages(client: HttpClient, exporter: InMemorySpanExporter) -> None:
    session_id = (await (await client.post(SESSIONS, json=NEW_SESSION)).json())["sessionId"]
    body = {"content": "private", "metadata": {"mood": "private"}, "clientMessageId": "private"}
    await client.post(f"{SESSIONS}/{session_id}/messages", json=body)
    await client.get(f"{SESSIONS}/{session_id}/messages")

    exported = "".join(span.to_json() for span in exporter.get_finished_spans())

    assert "messages" in exported
    assert "private" not in exported
    assert session_id not in exported


async def test_an_outage_is_an_error_in_both_spans(
    tracing: Tracing, exporter: InMemorySpanExporter, aiohttp_client: AiohttpClient, data_dir: Path
) -> None:
    server = RedisServer(data_dir)
    server.start()
    client: HttpClient = await aiohttp_client(TracedServer(redis_py_client(server.url, 10), tracing))
    await client.post(SESSIONS, json=NEW_SESSION)
    server.kill()
    exporter.clear()

    await client.post(SESSIONS, json=NEW_SESSION)
    (request,), (call,) = request_spans(exporter), redis_spans(exporter)

    assert (request.status.status_code, call.status.status_code) == (StatusCode.ERROR, StatusCode.ERROR)
    assert (request.attributes or {})["error.type"] == "503"


async def test_spans_are_exported_to_the_endpoint_of_the_environment(
    start_replica: StartReplica, redis_server: RedisServer
) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        await received.put(await request.read())
        return web.Response()

    collector = web.Application()
    collector.router.add_post("/v1/traces", receive)
    async with TestServer(collector) as server:
        replica = await asyncio.to_thread(
            start_replica,
            REDIS_URL=redis_server.url,
            SESSION_TRACING="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=str(server.make_url("")),
            OTEL_EXPORTER_OTLP_COMPRESSION="none",
            OTEL_SERVICE_NAME="chat-sessions",
        )
        await asyncio.to_thread(replica.call, "POST", SESSIONS, NEW_SESSION)
        await asyncio.to_thread(replica.stop)
        export = ExportTraceServiceRequest.FromString(await received.get())

    assert "chat-sessions" in [pair.value.string_value for pair in export.resource_spans[0].resource.attributes]
    names = [span.name for scope in export.resource_spans[0].scope_spans for span in scope.spans]
    assert {"HMGET add_to_index create", f"POST {SESSIONS}"} <= set(names)


def test_tracing_without_its_extra_is_an_error(monkeypatch: pytest.MonkeyPatch, start_replica: StartReplica) -> None:
    hidden = "import sys; sys.modules['opentelemetry'] = None; import service.__main__ as main; main.main()"
    monkeypatch.setattr("tests.replica.COMMAND", [sys.executable, "-c", hidden])

    replica = start_replica(REDIS_URL="redis://127.0.0.1:1/0", SESSION_TRACING="true")

    assert replica.wait() == 1
    assert replica.output.startswith("SESSION_TRACING: needs OpenTelemetry")


@pytest.mark.parametrize(
    "variable", ["OTEL_PROPAGATORS=tracecontext,baggage,b3", "OTEL_BSP_MAX_QUEUE_SIZE=10"], ids=["propagators", "queue"]
)
def test_a_rejected_variable_of_opentelemetry_is_reported_in_one_line(variable: str) -> None:
    name, _, value = variable.partition("=")
    environment = {
        **os.environ,
        "REDIS_URL": "redis://127.0.0.1:1",
        "SESSION_TRACING": "true",
        "PORT": "0",
        name: value,
    }

    done = subprocess.run(
        [sys.executable, "-m", "service"], env=environment, capture_output=True, text=True, timeout=50, check=False
    )

    assert done.returncode == 1
    assert done.stderr.startswith("SESSION_TRACING: OpenTelemetry rejects the value of an OTEL_ variable: ")
    assert done.stderr.count("\n") == 1


async def test_closing_does_not_wait_for_a_collector_that_does_not_respond(
    secret: SharedSecret, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.api.tracing.MAX_SHUTDOWN_SECONDS", 0.01)
    provider, may_end = TracerProvider(shutdown_on_exit=False), threading.Event()
    monkeypatch.setattr(provider, "shutdown", may_end.wait)

    await Tracing(provider, secret).aclose()

    may_end.set()
    assert caplog.messages[0].startswith("the last spans were not sent: the collector did not respond")
