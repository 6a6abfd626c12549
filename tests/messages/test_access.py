"""Who may send, read, answer and cancel messages."""

import logging
from typing import Any

import pytest
from aiohttp import ClientResponse
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.auth.api_keys import new_key
from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions.keys import Keys
from service.settings import Settings
from tests.aging import age
from tests.auth.conftest import AUDIENCE, ISSUER, SECRET, token_headers
from tests.conftest import AGENT, USER, HttpClient, ServiceServer, new_session_events
from tests.messages.chat import INBOX
from tests.rate_limit.conftest import UNKNOWN_ID
from tests.test_walkthrough import MINUTE_MS, SESSIONS

OTHER_USER = "11111111-2222-4333-8444-555555555555"
OTHER_AGENT = "99999999-2222-4333-8444-555555555555"
UNKNOWN_MESSAGE = "018d0c5e-3a40-7b1c-9d2e-4f5a6b7c8d9e"

_KEYS = {
    "read": new_key("read", ["read"]),
    "write": new_key("write", ["write"]),
    "agents": new_key("agents", ["agent"]),
    "agent": new_key("agent", [f"agent:{AGENT}"]),
    "other-agent": new_key("other-agent", [f"agent:{OTHER_AGENT}"]),
}
AUTHENTICATION: dict[str, Any] = {
    "session_api_keys": " ".join(key.entry for key in _KEYS.values()),
    "session_jwt_issuer": ISSUER,
    "session_jwt_audience": AUDIENCE,
    "session_jwt_secret": SECRET,
}

OF_USERS: list[tuple[str, str, dict[str, object] | None]] = [
    ("POST", "/messages", {"content": "a"}),
    ("POST", "/messages", {"content": "a", "transport": "http"}),
    ("POST", "/messages", {"content": "a", "transport": "sse"}),
    ("GET", "/messages", None),
    ("GET", "/events", None),
    ("POST", f"/messages/{UNKNOWN_MESSAGE}/cancel", None),
]
OF_AGENTS: list[tuple[str, str, dict[str, object] | None]] = [
    *OF_USERS[:-1],
    ("POST", f"/messages/{UNKNOWN_MESSAGE}/chunks", {"index": 0, "chunk": "a"}),
    ("GET", "/transcript", None),
]
each_call_of_users = pytest.mark.parametrize(("method", "suffix", "body"), OF_USERS)
each_call_of_agents = pytest.mark.parametrize(("method", "suffix", "body"), OF_AGENTS)


def key(name: str) -> dict[str, str]:
    return {"X-API-KEY": _KEYS[name].key}


def user(user_id: str = USER) -> dict[str, str]:
    return token_headers(user_id)


@pytest.fixture
def settings() -> Settings:
    return Settings(**AUTHENTICATION, session_message_wait_seconds=0.1)


@pytest.fixture
async def path(client: HttpClient) -> str:
    """The path of a session of USER and AGENT."""
    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER}, headers=user())
    session_id: str = (await response.json())["sessionId"]
    return f"{SESSIONS}/{session_id}"


async def send(client: HttpClient, path: str, headers: dict[str, str], **members: object) -> ClientResponse:
    return await client.post(f"{path}/messages", json={"content": "Hello", **members}, headers=headers)


async def error_of(
    client: HttpClient, headers: dict[str, str], method: str, path: str, body: object = None
) -> tuple[int, str]:
    response = await client.request(method, path, json=body, headers=headers)
    return response.status, (await response.json())["code"]


async def expire(redis: Redis, path: str) -> None:
    await age(redis, path.removeprefix(f"{SESSIONS}/"), 31 * MINUTE_MS)


async def sweep(redis_client: RedisClient) -> None:
    metrics = Metrics()
    sweeper = Sweeper(redis_client, Keys(""), new_session_events(metrics), metrics, retention_ms=60 * MINUTE_MS)
    await sweeper.sweep()


# Users


async def test_users_send_read_listen_and_cancel_in_their_own_sessions(client: HttpClient, path: str) -> None:
    sent = await send(client, path, user())
    message = await sent.json()
    page = await client.get(f"{path}/messages", headers=user())
    cancelled = await client.post(f"{path}/messages/{message['id']}/cancel", headers=user())
    async with client.get(f"{path}/events", headers=user()) as events:
        pass

    assert [response.status for response in (sent, page, cancelled, events)] == [201, 200, 202, 200]
    assert message["authorId"] == USER


@each_call_of_users
async def test_sessions_of_other_users_are_not_found(
    client: HttpClient, path: str, method: str, suffix: str, body: object
) -> None:
    assert await error_of(client, user(OTHER_USER), method, path + suffix, body) == (404, "SESSION_NOT_FOUND")


@each_call_of_users
async def test_expired_sessions_of_other_users_are_not_found(
    client: HttpClient, path: str, redis: Redis, method: str, suffix: str, body: object
) -> None:
    await expire(redis, path)

    foreign = await error_of(client, user(OTHER_USER), method, path + suffix, body)
    own = await error_of(client, user(), method, path + suffix, body)

    assert (foreign, own) == ((404, "SESSION_NOT_FOUND"), (410, "SESSION_EXPIRED"))


async def test_users_cannot_send_as_the_agent(client: HttpClient, path: str) -> None:
    sent = await (await send(client, path, user())).json()

    as_agent = await send(client, path, user(), authorId=AGENT)
    as_answer = await send(client, path, user(), inReplyTo=sent["id"])

    assert (as_agent.status, as_answer.status) == (400, 400)


@pytest.mark.parametrize(
    ("method", "suffix"), [("GET", "/transcript"), ("POST", f"/messages/{UNKNOWN_MESSAGE}/chunks")]
)
async def test_users_have_no_access_to_calls_of_agents(client: HttpClient, path: str, method: str, suffix: str) -> None:
    assert (await error_of(client, user(), method, path + suffix, {}))[0] == 403
    assert (await error_of(client, user(), "GET", INBOX))[0] == 403


# Agents


async def test_an_agent_reads_and_answers_its_sessions(client: HttpClient, path: str) -> None:
    sent = await (await send(client, path, user())).json()

    answered = await send(client, path, key("agent"), content="Hi", inReplyTo=sent["id"])
    transcript = await client.get(f"{path}/transcript", headers=key("agent"))

    answer = await answered.json()
    assert (answered.status, answer["authorId"], answer["isAgent"]) == (201, AGENT, True)
    assert [message["content"] for message in (await transcript.json())["messages"]] == ["Hi", "Hello"]


@each_call_of_agents
async def test_sessions_of_other_agents_are_not_found(
    client: HttpClient, path: str, method: str, suffix: str, body: object
) -> None:
    await send(client, path, user())

    assert await error_of(client, key("other-agent"), method, path + suffix, body) == (404, "SESSION_NOT_FOUND")


async def test_an_agent_submits_only_to_its_sessions(client: HttpClient, path: str) -> None:
    body = {"channel_id": path.removeprefix(f"{SESSIONS}/"), "author_id": OTHER_AGENT, "content": "Hi"}

    error = await error_of(client, key("other-agent"), "POST", "/api/messaging/submit", body)

    assert error == (404, "SESSION_NOT_FOUND")


@pytest.mark.parametrize("is_swept", [False, True])
async def test_the_transcript_of_an_ended_session_is_for_its_agent(
    client: HttpClient, path: str, redis: Redis, redis_client: RedisClient, is_swept: bool
) -> None:
    await send(client, path, user())
    await expire(redis, path)
    if is_swept:
        await sweep(redis_client)

    statuses = [
        (await client.get(f"{path}/transcript", headers=key(name))).status
        for name in ("agent", "agents", "other-agent", "write")
    ]

    assert statuses == [200, 200, 404, 403]


@pytest.mark.parametrize(("method", "action"), [("GET", ""), ("POST", "/ack"), ("POST", "/extend")])
async def test_the_inbox_of_another_agent_is_forbidden(client: HttpClient, method: str, action: str) -> None:
    body = {"deliveries": ["x"]}

    errors = [await error_of(client, key(name), method, INBOX + action, body) for name in ("other-agent", "write")]
    own = await client.request(method, INBOX + action, json=body, headers=key("agent"))

    assert (errors, own.status) == ([(403, "FORBIDDEN")] * 2, 200)


async def test_an_agent_cannot_send_as_the_user(client: HttpClient, path: str) -> None:
    statuses = [(await send(client, path, key(name), authorId=USER)).status for name in ("agent", "agents")]

    assert statuses == [400, 400]


# Other keys


async def test_a_write_key_cannot_send_as_the_agent(client: HttpClient, path: str) -> None:
    sent = await (await send(client, path, key("write"))).json()

    as_agent = await send(client, path, key("write"), authorId=AGENT)
    as_answer = await send(client, path, key("write"), inReplyTo=sent["id"])
    chunk = await error_of(
        client, key("write"), "POST", f"{path}/messages/{sent['id']}/chunks", {"index": 0, "chunk": "a"}
    )

    assert (sent["authorId"], sent["isAgent"]) == (USER, False)
    assert (as_agent.status, as_answer.status, chunk) == (400, 400, (403, "FORBIDDEN"))


async def test_a_read_key_reads_only(client: HttpClient, path: str) -> None:
    sent = await send(client, path, key("read"))
    page = await client.get(f"{path}/messages", headers=key("read"))

    assert (sent.status, page.status) == (403, 200)


@each_call_of_agents
async def test_without_a_key_nothing_is_possible(
    client: HttpClient, path: str, method: str, suffix: str, body: object
) -> None:
    assert (await error_of(client, {}, method, path + suffix, body))[0] == 401
    assert (await error_of(client, {}, "GET", INBOX))[0] == 401


# Rate limits


async def test_messages_count_as_requests(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    client: HttpClient = await aiohttp_client(
        ServiceServer(Settings(**AUTHENTICATION, session_rate_per_caller="3/hour"), redis)
    )
    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER}, headers=user())
    path = f"{SESSIONS}/{(await response.json())['sessionId']}"

    statuses = [(await send(client, path, user())).status for _ in range(3)]

    assert statuses == [201, 201, 429]


@each_call_of_agents
async def test_unknown_sessions_count_as_failed_lookups(
    redis: Redis, aiohttp_client: AiohttpClient, method: str, suffix: str, body: object
) -> None:
    client: HttpClient = await aiohttp_client(
        ServiceServer(Settings(**AUTHENTICATION, session_guesses_per_caller="2/hour"), redis)
    )

    errors = [await error_of(client, key("agents"), method, f"{SESSIONS}/{UNKNOWN_ID}{suffix}", body) for _ in range(3)]

    assert [status for status, _ in errors] == [404, 404, 429]


# Privacy


async def test_no_log_and_no_metric_contains_what_participants_wrote(
    client: HttpClient, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    private = {"content": "violet", "metadata": {"mood": "violet"}}
    sent = await (await send(client, path, user(), **private, clientMessageId="violet")).json()
    await send(client, path, user(), content="violet " * 1000)
    await client.post(
        f"{path}/messages/{sent['id']}/chunks", json={"index": 0, "chunk": "violet"}, headers=key("agent")
    )
    await send(client, path, key("agent"), **private, thought="violet", actions=["violet"], inReplyTo=sent["id"])
    await client.get(INBOX, headers=key("agent"))
    await client.get(f"{path}/transcript", headers=key("agent"))

    metrics = await (await client.get("/metrics")).text()

    assert caplog.records
    assert "violet" not in caplog.text
    assert not [record for record in caplog.records if "violet" in repr(record.__dict__)]
    assert "violet" not in metrics
