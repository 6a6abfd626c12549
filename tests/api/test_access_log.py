"""Request ids and the log events of requests."""

import asyncio
import logging
import re
from typing import Any

import pytest
from aiohttp import ClientTimeout
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.auth.api_keys import new_key
from service.redis_client.factory import redis_py_client
from service.settings import Settings
from tests.api.raw_http import exchange
from tests.conftest import HttpClient, ServiceServer
from tests.hashes import hashed_in
from tests.log_events import logged_events
from tests.test_walkthrough import SESSIONS, open_session
from tests.unpipelined_client import UnpipelinedClient

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
SESSION_ROUTE = SESSIONS + "/{session_id}"


def request_events(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [event for event in logged_events(caplog) if event["event"] == "request"]


# Request ids


async def test_a_valid_request_id_is_kept(client: HttpClient) -> None:
    response = await client.get("/livez", headers={"X-Request-ID": "gateway/2026-11-22:4711"})

    assert response.headers["X-Request-ID"] == "gateway/2026-11-22:4711"


async def test_a_request_without_an_id_receives_a_unique_one(client: HttpClient) -> None:
    first, second = await client.get("/livez"), await client.get("/livez")

    assert re.fullmatch(r"[0-9a-f]{16}-\d+", first.headers["X-Request-ID"])
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


@pytest.mark.parametrize("request_id", ["", "a b", 'quoted"', "back\\slash", "ümlaut", "x" * 129], ids=repr)
async def test_an_invalid_request_id_is_replaced(client: HttpClient, request_id: str) -> None:
    response = await client.get("/livez", headers={"X-Request-ID": request_id})

    assert re.fullmatch(r"[0-9a-f]{16}-\d+", response.headers["X-Request-ID"])


@pytest.mark.parametrize("path", [f"{SESSIONS}/{UNKNOWN_ID}", "/nowhere", "/docs", "/metrics"])
async def test_every_response_has_the_request_id(client: HttpClient, path: str) -> None:
    response = await client.get(path, headers={"X-Request-ID": "mine"})

    assert response.headers["X-Request-ID"] == "mine"


async def test_the_response_to_an_unreadable_request_has_an_id(client: HttpClient) -> None:
    received = await exchange(client, b"NONSENSE\r\n\r\n")

    assert received.startswith(b"HTTP/1.0 400 ")
    assert b"\r\nX-Request-ID: " in received


# Log events


async def test_a_request_is_logged_with_its_route_and_the_hash_of_its_session(
    client: HttpClient, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    session_id = await open_session(client)
    caplog.clear()

    await client.get(f"{SESSIONS}/{session_id}", headers={"X-Request-ID": "mine"})

    (event,) = request_events(caplog)
    assert event.pop("ms") > 0
    assert event == {
        "level": "info",
        "event": "request",
        "method": "GET",
        "route": SESSION_ROUTE,
        "status": 200,
        "session": await hashed_in(redis, session_id),
        "request_id": "mine",
    }


async def test_a_change_of_a_session_is_logged_with_the_id_of_its_request(
    client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    await open_session(client)

    (created,) = [event for event in logged_events(caplog) if event["event"] == "session created"]
    (request,) = request_events(caplog)
    assert (created["level"], created["request_id"]) == ("info", request["request_id"])


async def test_an_error_is_logged_with_its_code(client: HttpClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    await client.get(f"{SESSIONS}/{UNKNOWN_ID}")

    (event,) = request_events(caplog)
    assert (event["level"], event["status"], event["code"]) == ("info", 404, "SESSION_NOT_FOUND")


async def test_a_server_error_is_logged_as_a_warning(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis_py_client("redis://127.0.0.1:1/0", 1)))

    await client.get(f"{SESSIONS}/{UNKNOWN_ID}")

    (event,) = request_events(caplog)
    assert (event["level"], event["status"], event["code"]) == ("warning", 503, "STORE_UNAVAILABLE")


async def test_a_successful_probe_is_logged_at_debug_level(
    client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    await client.get("/livez")

    (event,) = request_events(caplog)
    assert (event["level"], event["route"]) == ("debug", "/livez")


@pytest.mark.parametrize("settings", [Settings(session_api_keys=new_key("web", ["read"]).entry)], ids=["keys"])
async def test_a_rejected_probe_is_logged_at_info_level(client: HttpClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    await client.get("/metrics")

    (event,) = request_events(caplog)
    assert (event["level"], event["route"], event["status"]) == ("info", "/metrics", 401)


async def test_a_cancelled_request_is_logged_with_status_499(
    fake_redis: Redis,
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def wait(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    cancelled = asyncio.Event()
    monkeypatch.setattr(UnpipelinedClient, "read_hash", wait)
    server = ServiceServer(Settings(), fake_redis)
    server.cancels_handlers = True
    client: HttpClient = await aiohttp_client(server)

    with pytest.raises(TimeoutError):
        await client.get(f"{SESSIONS}/{UNKNOWN_ID}", timeout=ClientTimeout(total=0.1))
    await cancelled.wait()

    (event,) = [event for event in request_events(caplog) if event["status"] == 499]
    assert (event["level"], event["session"]) == ("warning", await hashed_in(fake_redis, UNKNOWN_ID))
