"""Agents' policies over HTTP: put, read and deleted, and in force for the sessions that are created from then on."""

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


async def timeout_of_a_new_session(client: HttpClient, **asked: object) -> Any:
    session_id = await open_session(client, timeoutConfig=asked)
    return (await (await client.get(f"{SESSIONS}/{session_id}")).json())["timeoutConfig"]


async def create(client: HttpClient) -> ClientResponse:
    return await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})


# A policy


@pytest.mark.parametrize("policy", [FULL, {}, {"timeoutMinutes": 45}, {"autoRenew": False}])
async def test_a_policy_is_kept_as_it_was_put(client: HttpClient, policy: dict[str, Any]) -> None:
    replies_or_none = await put(client, policy)

    assert (replies_or_none["agentId"], replies_or_none["timeoutConfig"]) == (AGENT, policy)
    assert await (await client.get(POLICY)).json() == replies_or_none


async def test_it_says_when_it_was_put(client: HttpClient, redis: Redis) -> None:
    replies_or_none = await put(client, FULL)

    seconds, _ = await redis.time()
    assert replies_or_none["updatedAt"].endswith("Z")
    assert -1 < seconds - datetime.fromisoformat(replies_or_none["updatedAt"]).timestamp() < 10


async def test_a_policy_is_replaced_whole(client: HttpClient) -> None:
    await put(client, FULL)

    assert (await put(client, {"autoRenew": True}))["timeoutConfig"] == {"autoRenew": True}


async def test_a_deleted_policy_is_gone(client: HttpClient) -> None:
    await put(client, FULL)

    deleted = await client.delete(POLICY)

    assert deleted.status == 200
    assert await deleted.json() == {"success": True, "message": f"Policy of agent {AGENT} deleted successfully"}
    assert (await client.get(POLICY)).status == 404


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_where_there_is_no_policy_there_is_none_to_read_or_delete(client: HttpClient, method: str) -> None:
    response = await client.request(method, POLICY)

    refusal = await response.json()
    assert (response.status, refusal["code"]) == (404, "AGENT_POLICY_NOT_FOUND")
    assert refusal["details"] == {"agentId": AGENT}


async def test_an_agent_is_kept_in_lower_case(client: HttpClient) -> None:
    replies_or_none = await (await client.put(POLICY.replace(AGENT, AGENT.upper()), json=FULL)).json()

    assert replies_or_none["agentId"] == AGENT
    assert (await client.get(POLICY)).status == 200


# What is refused


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
@pytest.mark.parametrize("agent_id", ["nonsense", AGENT.replace("-", ""), AGENT + "%0a", "*", "%00", "a" * 3000])
async def test_an_agent_is_a_uuid(client: HttpClient, method: str, agent_id: str) -> None:
    body = FULL if method == "PUT" else None

    fields = await invalid_fields(await client.request(method, POLICY.replace(AGENT, agent_id), json=body))

    assert fields == {"agentId": "must be a UUID in the 36-character form"}


async def test_every_bad_member_is_named_at_once(client: HttpClient) -> None:
    policy = {"timeoutMinutes": 4, "autoRenew": 1, "maxDurationMinutes": 12.5, "warningThresholdMinutes": None, "x": 1}

    fields = await invalid_fields(await client.put(POLICY, json=policy))

    assert sorted(fields) == ["autoRenew", "maxDurationMinutes", "timeoutMinutes", "warningThresholdMinutes", "x"]


async def test_the_maximum_duration_is_not_below_the_timeout_beside_it(client: HttpClient) -> None:
    fields = await invalid_fields(await client.put(POLICY, json={"timeoutMinutes": 60, "maxDurationMinutes": 59}))

    assert fields == {"maxDurationMinutes": "must be a whole number between 60 and 2880 (got 59)"}


@pytest.mark.parametrize("body", ["[]", "null", "30", ""])
async def test_a_policy_is_an_object(client: HttpClient, body: str) -> None:
    response = await client.put(POLICY, data=body, headers={"Content-Type": "application/json"})

    assert list(await invalid_fields(response)) == ["body"]


async def test_a_policy_needs_the_content_type(client: HttpClient) -> None:
    response = await client.put(POLICY, data=b"{}", headers={"Content-Type": "application/merge-patch+json"})

    assert response.status == 415


async def test_a_refused_policy_leaves_the_one_before(client: HttpClient) -> None:
    before = await put(client, FULL)

    await client.put(POLICY, json={"timeoutMinutes": 1})

    assert await (await client.get(POLICY)).json() == before


async def test_a_policy_of_none_puts_nothing_into_redis(client: HttpClient, redis: Redis) -> None:
    await client.get(POLICY)
    await client.delete(POLICY)

    assert await session_data(redis) == {}


@pytest.mark.parametrize(("method", "allowed"), [("POST", "PUT"), ("PATCH", "GET")])
async def test_a_wrong_method_is_told_the_right_ones(client: HttpClient, method: str, allowed: str) -> None:
    response = await client.request(method, POLICY)

    assert response.status == 405
    assert allowed in response.headers["Allow"].split(", ")


# In force


async def test_without_a_policy_the_defaults_are_in_force(client: HttpClient) -> None:
    assert await timeout_of_a_new_session(client) == DEFAULTS


async def test_a_policy_goes_over_the_defaults(client: HttpClient) -> None:
    await put(client, {"timeoutMinutes": 60, "autoRenew": False})

    assert await timeout_of_a_new_session(client) == {**DEFAULTS, "timeoutMinutes": 60, "autoRenew": False}


async def test_what_is_asked_goes_over_the_policy(client: HttpClient) -> None:
    await put(client, FULL)

    assert await timeout_of_a_new_session(client, timeoutMinutes=15) == {**FULL, "timeoutMinutes": 15}


async def test_a_policy_is_of_its_agent_only(client: HttpClient) -> None:
    await put(client, FULL)

    response = await client.post(SESSIONS, json={"agentId": USER, "userId": USER})

    assert (await response.json())["timeoutConfig"] == DEFAULTS


async def test_a_replaced_policy_is_in_force_at_once(client: HttpClient) -> None:
    await put(client, FULL)
    await timeout_of_a_new_session(client)

    await put(client, {"maxDurationMinutes": 240})

    assert await timeout_of_a_new_session(client) == {**DEFAULTS, "maxDurationMinutes": 240}


async def test_a_deleted_policy_puts_the_defaults_back(client: HttpClient) -> None:
    await put(client, FULL)
    await timeout_of_a_new_session(client)

    await client.delete(POLICY)

    assert await timeout_of_a_new_session(client) == DEFAULTS


async def test_a_session_keeps_what_was_in_force_when_it_was_created(client: HttpClient) -> None:
    session_id = await open_session(client)

    await put(client, FULL)

    session = await (await client.get(f"{SESSIONS}/{session_id}")).json()
    assert session["timeoutConfig"] == DEFAULTS


async def test_a_change_of_timeout_goes_over_the_sessions_own_and_not_over_the_policy(client: HttpClient) -> None:
    session_id = await open_session(client)
    await put(client, FULL)

    response = await client.patch(f"{SESSIONS}/{session_id}/timeout", json={"timeoutMinutes": 45})

    assert (await response.json())["timeoutConfig"] == {**DEFAULTS, "timeoutMinutes": 45}


# On every replica


@pytest.fixture
async def other(redis: Redis, aiohttp_client: AiohttpClient) -> HttpClient:
    """Another replica."""
    return await aiohttp_client(ServiceServer(Settings(), redis))


async def test_a_policy_is_in_force_on_a_replica_that_never_saw_it(client: HttpClient, other: HttpClient) -> None:
    await timeout_of_a_new_session(other)

    await put(client, FULL)

    assert await timeout_of_a_new_session(other) == FULL


async def test_a_policy_is_in_force_on_a_replica_that_saw_another(client: HttpClient, other: HttpClient) -> None:
    await put(client, FULL)
    await timeout_of_a_new_session(other)

    await put(client, {"timeoutMinutes": 45})

    assert await timeout_of_a_new_session(other) == {**DEFAULTS, "timeoutMinutes": 45}


async def test_a_deletion_is_in_force_on_a_replica_that_saw_the_policy(client: HttpClient, other: HttpClient) -> None:
    await put(client, FULL)
    await timeout_of_a_new_session(other)

    await client.delete(POLICY)

    assert await timeout_of_a_new_session(other) == DEFAULTS


# SESSION_REQUIRE_KNOWN_AGENT


@pytest.fixture
async def strict(redis: Redis, aiohttp_client: AiohttpClient) -> HttpClient:
    return await aiohttp_client(ServiceServer(Settings(session_require_known_agent=True), redis))


async def test_an_agent_must_be_known_where_that_is_required(strict: HttpClient, redis: Redis) -> None:
    response = await create(strict)

    refusal = await response.json()
    assert (response.status, refusal["code"]) == (404, "AGENT_NOT_FOUND")
    assert refusal["details"] == {"agentId": AGENT}
    assert await session_data(redis) == {}


@pytest.mark.parametrize(("policy", "in_force"), [({}, DEFAULTS), (FULL, FULL)])
async def test_a_policy_makes_an_agent_known(
    strict: HttpClient, policy: dict[str, Any], in_force: dict[str, Any]
) -> None:
    await put(strict, policy)

    assert await timeout_of_a_new_session(strict) == in_force


async def test_an_agent_made_known_elsewhere_is_known(strict: HttpClient, client: HttpClient) -> None:
    await create(strict)

    await put(client, {})

    assert (await create(strict)).status == 201


async def test_an_agent_whose_policy_was_deleted_elsewhere_is_unknown_again(
    strict: HttpClient, client: HttpClient, redis: Redis
) -> None:
    await put(client, {})
    opened = await open_session(strict)
    await client.delete(POLICY)
    await client.delete(f"{SESSIONS}/{opened}")

    response = await create(strict)

    assert (response.status, (await response.json())["code"]) == (404, "AGENT_NOT_FOUND")
    assert await session_data(redis) == {}


async def test_a_bad_request_is_refused_before_its_agent_is_looked_for(strict: HttpClient) -> None:
    response = await strict.post(SESSIONS, json={"agentId": AGENT})

    assert await invalid_fields(response) == {"userId": "is required"}
