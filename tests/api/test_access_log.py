"""Requests under watch: their ids, their durations by route, and the log of what they did."""

import asyncio
import json
import logging
import math
import re
import sys
from typing import Any

import pytest
from aiohttp import ClientTimeout
from prometheus_client.parser import text_string_to_metric_families
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.auth.api_keys import new_key
from service.redis_client.factory import redis_py_client
from service.settings import Settings
from tests.api.test_json_response import answers_to
from tests.conftest import AGENT, USER, HttpClient, ServiceServer, StartReplica
from tests.hashes import hashed_at, hashed_in
from tests.log_events import logged_events
from tests.redis_server import RedisServer
from tests.test_process import own_redis, statuses_until
from tests.unpipelined_client import UnpipelinedClient

__all__ = ["own_redis"]

SESSIONS = "/api/messaging/sessions"
NEW_SESSION = {"agentId": AGENT, "userId": USER, "metadata": {"channel": "a secret place"}}
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def opened(client: HttpClient, **headers: str) -> str:
    response = await client.post(SESSIONS, json=NEW_SESSION, headers=headers)
    session_id: str = (await response.json())["sessionId"]
    return session_id


async def measured(client: HttpClient) -> dict[str, float]:
    """Every sample of /metrics, by its name and labels as they are written there."""
    text = await (await client.get("/metrics")).text()
    return {
        f"{sample.name}{json.dumps(sample.labels)}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def requests_of(route: str, method: str, status: int) -> str:
    labels = {"method": method, "route": route, "status": str(status)}
    return f"sessions_http_request_duration_seconds_count{json.dumps(labels)}"


async def test_a_request_keeps_the_id_it_came_with(client: HttpClient) -> None:
    response = await client.get("/livez", headers={"X-Request-ID": "gateway/2026-11-22:4711"})

    assert response.headers["X-Request-ID"] == "gateway/2026-11-22:4711"


async def test_a_request_without_an_id_is_given_one_of_its_own(client: HttpClient) -> None:
    first, second = await client.get("/livez"), await client.get("/livez")

    assert re.fullmatch(r"[0-9a-f]{16}-\d+", first.headers["X-Request-ID"])
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


@pytest.mark.parametrize("unfit", ["", "a b", 'quoted"', "back\\slash", "ümlaut", "x" * 129], ids=repr)
async def test_an_id_unfit_for_a_log_is_replaced(client: HttpClient, unfit: str) -> None:
    response = await client.get("/livez", headers={"X-Request-ID": unfit})

    assert re.fullmatch(r"[0-9a-f]{16}-\d+", response.headers["X-Request-ID"])


@pytest.mark.parametrize(
    "path", [f"{SESSIONS}/{UNKNOWN}", "/nowhere", "/docs", "/metrics"], ids=["refused", "unmatched", "page", "metrics"]
)
async def test_every_answer_has_an_id(client: HttpClient, path: str) -> None:
    response = await client.get(path, headers={"X-Request-ID": "mine"})

    assert response.headers["X-Request-ID"] == "mine"


async def test_what_cannot_be_read_is_answered_with_an_id_too(client: HttpClient) -> None:
    answer = await answers_to(client, b"NONSENSE\r\n\r\n")

    assert answer.startswith(b"HTTP/1.0 400 ")
    assert b"\r\nX-Request-ID: " in answer


async def test_requests_are_measured_by_method_route_and_status(client: HttpClient) -> None:
    session_id = await opened(client)
    await client.get(f"{SESSIONS}/{session_id}")
    await client.get(f"{SESSIONS}/{UNKNOWN}")

    found = await measured(client)

    assert found[requests_of(SESSIONS, "POST", 201)] == 1
    assert found[requests_of(SESSIONS + "/{session_id}", "GET", 200)] == 1
    assert found[requests_of(SESSIONS + "/{session_id}", "GET", 404)] == 1


async def test_no_label_takes_what_a_client_makes_up(client: HttpClient) -> None:
    await client.get("/made/up/4711")
    await client.request("PURGE", f"{SESSIONS}/made-up-4711")
    await answers_to(client, b"MADE UP 4711\r\n\r\n")

    found = await measured(client)

    assert found[requests_of("unmatched", "GET", 404)] == 1
    assert found[requests_of("unmatched", "other", 405)] == 1
    assert found[requests_of("unread", "other", 400)] == 1
    assert "4711" not in str(found)


@pytest.mark.parametrize("accepted", ["text/plain", "application/openmetrics-text"])
async def test_no_instrument_says_when_it_was_made(client: HttpClient, accepted: str) -> None:
    await opened(client)

    text = await (await client.get("/metrics", headers={"Accept": accepted})).text()

    assert "sessions_created_total 1.0" in text
    assert "sessions_http_request_duration_seconds_count" in text
    assert not re.search(r"^\w+_created[ {]", text, re.MULTILINE)


async def test_what_is_cut_off_is_measured_and_told_of(
    fake_redis: Redis,
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def never(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()

    cut_off = asyncio.Event()
    monkeypatch.setattr(UnpipelinedClient, "read_hash", never)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), fake_redis))

    with pytest.raises(TimeoutError):  # aiohttp's test server cancels the handler when the client disconnects
        await client.get(f"{SESSIONS}/{UNKNOWN}", timeout=ClientTimeout(total=0.1))
    await cut_off.wait()
    found = await measured(client)

    assert found[requests_of(SESSIONS + "/{session_id}", "GET", 499)] == 1
    (line,) = [event for event in logged_events(caplog) if event.get("status") == 499]
    assert (line["level"], line["session"]) == ("warning", await hashed_in(fake_redis, UNKNOWN))


async def test_a_life_is_counted(client: HttpClient) -> None:
    session_id = await opened(client)
    await client.post(f"{SESSIONS}/{session_id}/heartbeat")
    await client.post(f"{SESSIONS}/{session_id}/heartbeat")
    await client.post(f"{SESSIONS}/{session_id}/renew")
    await client.delete(f"{SESSIONS}/{session_id}")

    found = await measured(client)

    assert found["sessions_created_total{}"] == 1
    assert found['sessions_renewed_total{"trigger": "activity"}'] == 2
    assert found['sessions_renewed_total{"trigger": "manual"}'] == 1
    assert found['sessions_ended_total{"reason": "deleted"}'] == 1


async def test_a_heartbeat_that_renews_nothing_is_no_renewal(client: HttpClient) -> None:
    response = await client.post(SESSIONS, json=NEW_SESSION | {"timeoutConfig": {"autoRenew": False}})
    session_id = (await response.json())["sessionId"]

    await client.post(f"{SESSIONS}/{session_id}/heartbeat")

    assert (await measured(client))['sessions_renewed_total{"trigger": "activity"}'] == 0


async def test_what_lives_is_a_gauge(client: HttpClient) -> None:
    await opened(client)
    always_near = NEW_SESSION | {"timeoutConfig": {"timeoutMinutes": 30, "warningThresholdMinutes": 30}}
    await client.post(SESSIONS, json=always_near)

    found = await measured(client)

    assert (found["sessions_active{}"], found["sessions_near_expiration{}"]) == (2, 1)


async def test_round_trips_are_measured(client: HttpClient) -> None:
    await opened(client)

    assert (await measured(client))["sessions_store_round_trip_duration_seconds_count{}"] >= 1


async def test_without_redis_the_metrics_say_what_fails(aiohttp_client: AiohttpClient) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis_py_client("redis://127.0.0.1:1/0", 1)))
    await client.get(f"{SESSIONS}/{UNKNOWN}")

    found = await measured(client)

    assert found['sessions_store_errors_total{"kind": "connection"}'] >= 1
    assert math.isnan(found["sessions_active{}"])
    assert found[requests_of(SESSIONS + "/{session_id}", "GET", 503)] == 1


async def test_a_turn_in_a_life_is_told_with_the_request_that_made_it(
    client: HttpClient, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    session_id = await opened(client, **{"X-Request-ID": "mine"})

    (created,) = [event for event in logged_events(caplog) if event["event"] == "session created"]
    assert created["session"] == await hashed_in(redis, session_id)
    assert (created["level"], created["request_id"]) == ("info", "mine")


def test_the_log_is_json_with_a_line_for_each_request(start_replica: StartReplica, redis_server: RedisServer) -> None:
    replica = start_replica(REDIS_URL=redis_server.url)
    _, session = replica.call("POST", SESSIONS, NEW_SESSION)
    replica.call("GET", f"{SESSIONS}/{session['sessionId']}")

    read = json.loads(replica.line_with('"method":"GET"'))
    created = json.loads(replica.line_with('"session created"'))
    posted = json.loads(replica.line_with('"method":"POST"'))

    assert {name: read[name] for name in ("level", "event", "method", "route", "status", "session")} == {
        "level": "info",
        "event": "request",
        "method": "GET",
        "route": SESSIONS + "/{session_id}",
        "status": 200,
        "session": hashed_at(redis_server.url, session["sessionId"]),
    }
    assert read["ms"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read["timestamp"])
    assert created["request_id"] == posted["request_id"] != read["request_id"]


def test_the_line_of_a_refusal_has_its_code(start_replica: StartReplica, redis_server: RedisServer) -> None:
    replica = start_replica(REDIS_URL=redis_server.url)

    replica.call("GET", f"{SESSIONS}/{UNKNOWN}")

    assert '"code":"SESSION_NOT_FOUND"' in replica.line_with('"status":404')


def test_ends_in_bulk_and_changes_of_policy_are_told(start_replica: StartReplica, redis_server: RedisServer) -> None:
    replica = start_replica(REDIS_URL=redis_server.url)
    replica.call("POST", SESSIONS, NEW_SESSION)

    replica.call("PUT", f"/api/messaging/agents/{AGENT}/timeout", {"timeoutMinutes": 60})
    replica.call("DELETE", f"/api/messaging/agents/{AGENT}/timeout")
    replica.call("DELETE", f"{SESSIONS}?userId={USER}")

    put, deleted = json.loads(replica.line_with('"how":"put"')), json.loads(replica.line_with('"how":"deleted"'))
    revoked = json.loads(replica.line_with('"sessions revoked"'))
    assert put["agent"] == deleted["agent"] == hashed_at(redis_server.url, AGENT)
    assert (revoked["user"], revoked["more"]) == (hashed_at(redis_server.url, USER), False)
    assert revoked["number"] >= 1


def test_neither_ids_nor_metadata_reach_the_log(start_replica: StartReplica, redis_server: RedisServer) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_LOG_LEVEL="debug")
    _, session = replica.call("POST", SESSIONS, NEW_SESSION)
    path = f"{SESSIONS}/{session['sessionId']}"
    for method, call in [("GET", path), ("POST", path + "/heartbeat"), ("PATCH", path + "/timeout"), ("DELETE", path)]:
        replica.call(method, call, {"autoRenew": False})

    replica.line_with('"reason":"deleted"')
    replica.stop()

    assert '"trigger":"activity"' in replica.banner
    assert session["sessionId"] not in replica.banner
    assert USER not in replica.banner
    assert "a secret place" not in replica.banner


def test_nor_do_they_where_requests_are_refused(start_replica: StartReplica, own_redis: RedisServer) -> None:
    own_redis.start()
    replica = start_replica(REDIS_URL=own_redis.url, SESSION_LOG_LEVEL="debug", SESSION_MIN_TIMEOUT_MINUTES="0.001")
    brief = NEW_SESSION | {"timeoutConfig": {"timeoutMinutes": 0.001}}
    ended, kept = (replica.call("POST", SESSIONS, body)[1]["sessionId"] for body in (brief, NEW_SESSION))

    statuses_until(replica, f"{SESSIONS}/{ended}", 410)
    unknown = replica.call("GET", f"{SESSIONS}/{UNKNOWN}")[0]
    own_redis.kill()
    cut_off = replica.call("PATCH", f"{SESSIONS}/{kept}/metadata", {"channel": "a secret place"})[0]
    replica.stop()

    assert (unknown, cut_off) == (404, 503)
    assert all(f'"status":{status}' in replica.banner for status in (404, 410, 503))
    assert not any(secret in replica.banner for secret in (ended, kept, UNKNOWN, USER, AGENT, "a secret place"))


FAILING = """
from service.__main__ import main
from service.sessions.store import SessionStore

async def fail(self, session_id, *_):
    raise LookupError(f"session:{{47}}:{session_id} of " + "%s")

SessionStore.get = fail
main()
"""


@pytest.mark.parametrize("format_", ["json", "console"])
def test_nor_do_ids_where_a_request_fails_with_one_in_its_words(
    start_replica: StartReplica, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    monkeypatch.setattr("tests.replica.COMMAND", [sys.executable, "-c", FAILING % USER.upper()])
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_LOG_FORMAT=format_)

    status, _ = replica.call("GET", f"{SESSIONS}/{UNKNOWN}")
    replica.stop()

    assert status == 500
    session, user = (hashed_at(redis_server.url, id_) for id_ in (UNKNOWN, USER))
    assert f"LookupError: session:{{47}}:{session} of {user}" in replica.banner
    assert UNKNOWN not in replica.banner
    assert USER not in replica.banner.lower()


def test_probes_are_told_of_only_when_asked_for(start_replica: StartReplica, redis_server: RedisServer) -> None:
    replica = start_replica(REDIS_URL=redis_server.url)

    replica.call("GET", "/livez")
    replica.call("GET", f"{SESSIONS}/{UNKNOWN}")
    replica.line_with('"status":404')
    replica.stop()

    assert "/livez" not in replica.banner.partition("look inside")[2]


def test_a_probe_that_is_refused_is_told_of(start_replica: StartReplica, redis_server: RedisServer) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_API_KEYS=new_key("web", ["read"]).entry)

    replica.call("GET", "/metrics")

    assert '"status":401' in replica.line_with('"route":"/metrics"')


def test_at_warning_only_failures_are_told(start_replica: StartReplica, redis_server: RedisServer) -> None:
    nowhere = start_replica(REDIS_URL="redis://127.0.0.1:1/0", SESSION_LOG_LEVEL="warning")

    nowhere.call("GET", "/livez")
    nowhere.call("GET", f"{SESSIONS}/{UNKNOWN}")
    failed: dict[str, Any] = json.loads(nowhere.line_with('"status":503'))
    nowhere.stop()

    assert failed["level"] == "warning"
    assert '"level":"info"' not in nowhere.banner


def test_the_log_can_be_made_readable(start_replica: StartReplica, redis_server: RedisServer) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_LOG_FORMAT="console")

    replica.call("GET", f"{SESSIONS}/{UNKNOWN}")
    line = replica.line_with("status=404")

    assert "[info     ] request" in line
    assert f"session={hashed_at(redis_server.url, UNKNOWN)}" in line
