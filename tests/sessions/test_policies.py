"""Agents' timeout policies over HTTP, and their effect on new sessions."""

from datetime import datetime
from typing import Any

import pytest
from aiohttp import ClientResponse
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.settings import Settings
from tests.bad_input.helpers import invalid_fields, session_data
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.test_walkthrough import SESSIONS, open_session

POLICY = f"/api/messaging/agents/{AGENT}/timeout"
FULL = {"timeoutMinutes": 60, "autoRenew": False, "maxDurationMinutes": 120, "warningThresholdMinutes": 10}
DEFAULTS = {"timeoutMinutes": 30, "autoRenew": True, "maxDurationMinutes": 720, "warningThresholdMinutes": 5}


async def put(client: HttpClient, policy: dict[str, Any]) -> Any:
    response = await client.put(POLICY, json=policy)
    assert response.status == 200
    return await response.json()


async def timeout_of_a_new_session(client: HttpClient, **timeouts: object) -> Any:
    session_id = await open_session(client, timeoutConfig=timeouts)
    return (await (await client.get(f"{SESSIONS}/{session_id}")).json())["timeoutConfig"]


async def create(client: HttpClient) -> ClientResponse:
    return await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})


# Storing a policy


@pytest.mark.parametrize("policy", [FULL, {}, {"timeoutMinutes": 45}, {"autoRenew": False}])
async def test_a_policy_is_stored_as_it_was_put(client: HttpClient, policy: dict[str, Any]) -> None:
    stored = await put(client, policy)

    assert (stored["agentId"], stored["timeoutConfig"]) == (AGENT, policy)
    assert await (await client.get(POLICY)).json() == stored


async def test_a_policy_contains_the_time_of_its_update(client: HttpClient, redis: Redis) -> None:
    stored = await put(client, FULL)

    seconds, _ = await redis.time()
    assert stored["updatedAt"].endswith("Z")
    assert -1 < seconds - datetime.fromisoformat(stored["updatedAt"]).timestamp() < 10


async def test_a_policy_replaces_the_previous_one_entirely(client: HttpClient) -> None:
    await put(client, FULL)

    assert (await put(client, {"autoRenew": True}))["timeoutConfig"] == {"autoRenew": True}


async def test_a_deleted_policy_is_not_found(client: HttpClient) -> None:
    await put(client, FULL)

    deleted = await client.delete(POLICY)

    assert deleted.status == 200
    assert await deleted.json() == {"success": True, "message": f"Policy of agent {AGENT} deleted successfully"}
    assert (await client.get(POLICY)).status == 404


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_reading_or_deleting_a_missing_policy_is_404(client: HttpClient, method: str) -> None:
    response = await client.request(method, POLICY)

    error = await response.json()
    assert (response.status, error["code"]) == (404, "AGENT_POLICY_NOT_FOUND")
    assert error["details"] == {"agentId": AGENT}


async def test_agent_ids_are_stored_in_lower_case(client: HttpClient) -> None:
    stored = await (await client.put(POLICY.replace(AGENT, AGENT.upper()), json=FULL)).json()

    assert stored["agentId"] == AGENT
    assert (await client.get(POLICY)).status == 200


# Invalid requests


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
@pytest.mark.parametrize("agent_id", ["nonsense", AGENT.replace("-", ""), AGENT + "%0a", "*", "%00", "a" * 3000])
async def test_the_agent_id_must_be_a_uuid(client: HttpClient, method: str, agent_id: str) -> None:
    body = FULL if method == "PUT" else None

    fields = await invalid_fields(await client.request(method, POLICY.replace(AGENT, agent_id), json=body))

    assert fields == {"agentId": "must be a UUID in the 36-character form"}


async def test_all_invalid_members_are_reported(client: HttpClient) -> None:
    policy = {"timeoutMinutes": 4, "autoRenew": 1, "maxDurationMinutes": 12.5, "warningThresholdMinutes": None, "x": 1}

    fields = await invalid_fields(await client.put(POLICY, json=policy))

    assert sorted(fields) == ["autoRenew", "maxDurationMinutes", "timeoutMinutes", "warningThresholdMinutes", "x"]


async def test_the_maximum_duration_must_not_be_below_the_timeout(client: HttpClient) -> None:
    fields = await invalid_fields(await client.put(POLICY, json={"timeoutMinutes": 60, "maxDurationMinutes": 59}))

    assert fields == {"maxDurationMinutes": "must be a whole number between 60 and 2880 (got 59)"}


@pytest.mark.parametrize("body", ["[]", "null", "30", ""])
async def test_a_policy_must_be_an_object(client: HttpClient, body: str) -> None:
    response = await client.put(POLICY, data=body, headers={"Content-Type": "application/json"})

    assert list(await invalid_fields(response)) == ["body"]


async def test_a_policy_must_have_the_json_content_type(client: HttpClient) -> None:
    response = await client.put(POLICY, data=b"{}", headers={"Content-Type": "application/merge-patch+json"})

    assert response.status == 415


async def test_an_invalid_policy_keeps_the_previous_one(client: HttpClient) -> None:
    before = await put(client, FULL)

    await client.put(POLICY, json={"timeoutMinutes": 1})

    assert await (await client.get(POLICY)).json() == before


async def test_reading_and_deleting_a_missing_policy_writes_nothing(client: HttpClient, redis: Redis) -> None:
    await client.get(POLICY)
    await client.delete(POLICY)

    assert await session_data(redis) == {}


@pytest.mark.parametrize(("method", "allowed"), [("POST", "PUT"), ("PATCH", "GET")])
async def test_an_unsupported_method_is_405_with_allow(client: HttpClient, method: str, allowed: str) -> None:
    response = await client.request(method, POLICY)

    assert response.status == 405
    assert allowed in response.headers["Allow"].split(", ")


# Effect on sessions


async def test_without_a_policy_the_defaults_apply(client: HttpClient) -> None:
    assert await timeout_of_a_new_session(client) == DEFAULTS


async def test_a_policy_overrides_the_defaults(client: HttpClient) -> None:
    await put(client, {"timeoutMinutes": 60, "autoRenew": False})

    assert await timeout_of_a_new_session(client) == {**DEFAULTS, "timeoutMinutes": 60, "autoRenew": False}


async def test_a_request_overrides_the_policy(client: HttpClient) -> None:
    await put(client, FULL)

    assert await timeout_of_a_new_session(client, timeoutMinutes=15) == {**FULL, "timeoutMinutes": 15}


async def test_a_policy_applies_only_to_its_agent(client: HttpClient) -> None:
    await put(client, FULL)

    response = await client.post(SESSIONS, json={"agentId": USER, "userId": USER})

    assert (await response.json())["timeoutConfig"] == DEFAULTS


async def test_a_replaced_policy_applies_at_once(client: HttpClient) -> None:
    await put(client, FULL)
    await timeout_of_a_new_session(client)

    await put(client, {"maxDurationMinutes": 240})

    assert await timeout_of_a_new_session(client) == {**DEFAULTS, "maxDurationMinutes": 240}


async def test_after_a_deletion_the_defaults_apply(client: HttpClient) -> None:
    await put(client, FULL)
    await timeout_of_a_new_session(client)

    await client.delete(POLICY)

    assert await timeout_of_a_new_session(client) == DEFAULTS


async def test_existing_sessions_keep_their_timeouts(client: HttpClient) -> None:
    session_id = await open_session(client)

    await put(client, FULL)

    session = await (await client.get(f"{SESSIONS}/{session_id}")).json()
    assert session["timeoutConfig"] == DEFAULTS


async def test_a_timeout_change_merges_into_the_timeouts_of_the_session_and_not_the_policy(client: HttpClient) -> None:
    session_id = await open_session(client)
    await put(client, FULL)

    response = await client.patch(f"{SESSIONS}/{session_id}/timeout", json={"timeoutMinutes": 45})

    assert (await response.json())["timeoutConfig"] == {**DEFAULTS, "timeoutMinutes": 45}


# Several replicas


@pytest.fixture
async def other_replica(redis: Redis, aiohttp_client: AiohttpClient) -> HttpClient:
    """A client of another replica."""
    return await aiohttp_client(ServiceServer(Settings(), redis))


async def test_a_policy_applies_on_a_replica_that_has_not_cached_it(
    client: HttpClient, other_replica: HttpClient
) -> None:
    await timeout_of_a_new_session(other_replica)

    await put(client, FULL)

    assert await timeout_of_a_new_session(other_replica) == FULL


async def test_a_policy_applies_on_a_replica_that_has_cached_an_older_one(
    client: HttpClient, other_replica: HttpClient
) -> None:
    await put(client, FULL)
    await timeout_of_a_new_session(other_replica)

    await put(client, {"timeoutMinutes": 45})

    assert await timeout_of_a_new_session(other_replica) == {**DEFAULTS, "timeoutMinutes": 45}


async def test_a_deletion_applies_on_a_replica_that_has_cached_the_policy(
    client: HttpClient, other_replica: HttpClient
) -> None:
    await put(client, FULL)
    await timeout_of_a_new_session(other_replica)

    await client.delete(POLICY)

    assert await timeout_of_a_new_session(other_replica) == DEFAULTS


# SESSION_REQUIRE_KNOWN_AGENT


@pytest.fixture
async def strict(redis: Redis, aiohttp_client: AiohttpClient) -> HttpClient:
    return await aiohttp_client(ServiceServer(Settings(session_require_known_agent=True), redis))


async def test_an_agent_without_a_policy_is_404_if_known_agents_are_required(strict: HttpClient, redis: Redis) -> None:
    response = await create(strict)

    error = await response.json()
    assert (response.status, error["code"]) == (404, "AGENT_NOT_FOUND")
    assert error["details"] == {"agentId": AGENT}
    assert await session_data(redis) == {}


@pytest.mark.parametrize(("policy", "expected"), [({}, DEFAULTS), (FULL, FULL)])
async def test_a_policy_makes_an_agent_known(
    strict: HttpClient, policy: dict[str, Any], expected: dict[str, Any]
) -> None:
    await put(strict, policy)

    assert await timeout_of_a_new_session(strict) == expected


async def test_an_agent_becomes_known_by_a_policy_from_another_replica(strict: HttpClient, client: HttpClient) -> None:
    await create(strict)

    await put(client, {})

    assert (await create(strict)).status == 201


async def test_an_agent_becomes_unknown_by_a_deletion_on_another_replica(
    strict: HttpClient, client: HttpClient, redis: Redis
) -> None:
    await put(client, {})
    session_id = await open_session(strict)
    await client.delete(POLICY)
    await client.delete(f"{SESSIONS}/{session_id}")

    response = await create(strict)

    assert (response.status, (await response.json())["code"]) == (404, "AGENT_NOT_FOUND")
    assert await session_data(redis) == {}


async def test_a_request_is_validated_before_its_agent_is_checked(strict: HttpClient) -> None:
    response = await strict.post(SESSIONS, json={"agentId": AGENT})

    assert await invalid_fields(response) == {"userId": "is required"}
