"""Send invalid requests, and read the errors and the data that they leave."""

import json

from aiohttp import ClientResponse
from redis.asyncio import Redis
from yarl import URL

from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS, open_session

JSON = {"Content-Type": "application/json"}
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
CREATION = json.dumps({"agentId": AGENT, "userId": USER}).encode()

SESSION_ROUTES = [
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/heartbeat"),
    ("POST", "/renew"),
    ("PATCH", "/timeout"),
    ("PATCH", "/metadata"),
]
"""The method and the end of the path of each route with a session id."""


async def post_body(client: HttpClient, body: bytes, **headers: str) -> ClientResponse:
    """Create a session with this body."""
    return await client.post(SESSIONS, data=body, headers={**JSON, **headers})


async def create_with(client: HttpClient, **members: object) -> ClientResponse:
    """Create a session with these members in addition to the ids, or in place of them."""
    return await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER, **members})


async def patch_metadata(client: HttpClient, body: bytes, content_type: str = "application/json") -> ClientResponse:
    """Patch the metadata of a new session."""
    session_id = await open_session(client, metadata={"channel": "web"})
    headers = {"Content-Type": content_type}
    return await client.patch(f"{SESSIONS}/{session_id}/metadata", data=body, headers=headers)


async def call_route(client: HttpClient, method: str, session_id: str, path: str) -> ClientResponse:
    """Call a route of SESSION_ROUTES. `session_id` must be percent-encoded."""
    body = {"timeoutMinutes": 30} if method == "PATCH" else None
    return await client.request(method, URL(f"{SESSIONS}/{session_id}{path}", encoded=True), json=body)


async def invalid_fields(response: ClientResponse) -> dict[str, str]:
    """Return the errors of a VALIDATION_ERROR response by the name of the field."""
    assert response.status == 400
    error = await response.json()
    assert error["code"] == "VALIDATION_ERROR"
    fields: dict[str, str] = error["details"]["fields"]
    return fields


async def session_data(redis: Redis) -> dict[bytes, object]:
    """Return the content of each session hash and tombstone, and the names of all other keys of sessions."""
    keys = [key async for key in redis.scan_iter("session*{*")]
    return {key: await redis.hgetall(key) if key.startswith(b"session:") else None for key in keys}
