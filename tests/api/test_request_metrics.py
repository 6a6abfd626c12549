"""The metrics of requests and sessions at /metrics."""

import json
import math
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pytest_aiohttp.plugin import AiohttpClient

from service.redis_client.factory import redis_py_client
from service.settings import Settings
from tests.api.raw_http import exchange
from tests.conftest import HttpClient, ServiceServer
from tests.test_walkthrough import SESSIONS, open_session

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
SESSION_ROUTE = SESSIONS + "/{session_id}"


async def metrics_of(client: HttpClient) -> dict[str, float]:
    """Return all samples by their name and labels."""
    text = await (await client.get("/metrics")).text()
    return {
        f"{sample.name}{json.dumps(sample.labels)}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def requests(method: str, route: str, status: int) -> str:
    """Return the name of the sample that counts these requests."""
    labels = {"method": method, "route": route, "status": str(status)}
    return f"sessions_http_request_duration_seconds_count{json.dumps(labels)}"


async def test_requests_are_measured_by_method_route_and_status(client: HttpClient) -> None:
    session_id = await open_session(client)
    await client.get(f"{SESSIONS}/{session_id}")
    await client.get(f"{SESSIONS}/{UNKNOWN_ID}")

    metrics = await metrics_of(client)

    assert metrics[requests("POST", SESSIONS, 201)] == 1
    assert metrics[requests("GET", SESSION_ROUTE, 200)] == 1
    assert metrics[requests("GET", SESSION_ROUTE, 404)] == 1


async def test_labels_do_not_contain_text_of_clients(client: HttpClient) -> None:
    await client.get("/made/up/4711")
    await client.request("PURGE", f"{SESSIONS}/made-up-4711")
    await exchange(client, b"MADE UP 4711\r\n\r\n")

    metrics = await metrics_of(client)

    assert metrics[requests("GET", "unmatched", 404)] == 1
    assert metrics[requests("other", "unmatched", 405)] == 1
    assert metrics[requests("other", "unread", 400)] == 1
    assert "4711" not in str(metrics)


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
async def test_metrics_have_no_creation_times(client: HttpClient, accept: str) -> None:
    await open_session(client)

    text = await (await client.get("/metrics", headers={"Accept": accept})).text()

    assert "sessions_created_total 1.0" in text
    assert "sessions_http_request_duration_seconds_count" in text
    assert not re.search(r"^\w+_created[ {]", text, re.MULTILINE)


async def test_the_life_of_a_session_is_counted(client: HttpClient) -> None:
    session_id = await open_session(client)
    await client.post(f"{SESSIONS}/{session_id}/heartbeat")
    await client.post(f"{SESSIONS}/{session_id}/heartbeat")
    await client.post(f"{SESSIONS}/{session_id}/renew")
    await client.delete(f"{SESSIONS}/{session_id}")

    metrics = await metrics_of(client)

    assert metrics["sessions_created_total{}"] == 1
    assert metrics['sessions_renewed_total{"trigger": "activity"}'] == 2
    assert metrics['sessions_renewed_total{"trigger": "manual"}'] == 1
    assert metrics['sessions_ended_total{"reason": "deleted"}'] == 1


async def test_a_heartbeat_without_automatic_renewal_is_not_counted_as_one(client: HttpClient) -> None:
    session_id = await open_session(client, timeoutConfig={"autoRenew": False})

    await client.post(f"{SESSIONS}/{session_id}/heartbeat")

    assert (await metrics_of(client))['sessions_renewed_total{"trigger": "activity"}'] == 0


async def test_active_and_expiring_sessions_are_gauges(client: HttpClient) -> None:
    await open_session(client)
    await open_session(client, timeoutConfig={"timeoutMinutes": 30, "warningThresholdMinutes": 30})

    metrics = await metrics_of(client)

    assert (metrics["sessions_active{}"], metrics["sessions_near_expiration{}"]) == (2, 1)


async def test_round_trips_to_redis_are_measured(client: HttpClient) -> None:
    await open_session(client)

    assert (await metrics_of(client))["sessions_store_round_trip_duration_seconds_count{}"] >= 1


async def test_failures_of_redis_are_counted_and_its_gauges_are_nan(aiohttp_client: AiohttpClient) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis_py_client("redis://127.0.0.1:1/0", 1)))
    await client.get(f"{SESSIONS}/{UNKNOWN_ID}")

    metrics = await metrics_of(client)

    assert metrics['sessions_store_errors_total{"kind": "connection"}'] >= 1
    assert math.isnan(metrics["sessions_active{}"])
    assert metrics[requests("GET", SESSION_ROUTE, 503)] == 1
