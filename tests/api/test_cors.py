"""Pages of other sites: what browsers are told where SESSION_CORS_ORIGINS is set, and where it is not."""

import pytest
from aiohttp import ClientResponse
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.auth.api_keys import new_key
from service.settings import Settings
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.test_walkthrough import SESSIONS, open_session

APP = "https://app.example"
OTHER = "http://localhost:5173"
STRANGER = "https://stranger.example"
KEY, ENTRY = new_key("web", ["write"])
NAMED = Settings(session_cors_origins=f"{APP}, {OTHER}")
GUARDED = Settings(session_cors_origins=APP, session_api_keys=ENTRY)
EVERYBODY = Settings(session_cors_origins="*", session_api_keys=ENTRY)

ANSWERS = {
    "an answer": ("GET", "/livez", 200),
    "a list": ("GET", SESSIONS, 200),
    "a session that is not there": ("GET", f"{SESSIONS}/x", 404),
    "a path that is not there": ("GET", "/nowhere", 404),
    "a method that is not there": ("PUT", "/livez", 405),
    "what is wrong": ("POST", SESSIONS, 415),
    "the page": ("GET", "/docs", 200),
    "metrics": ("GET", "/metrics", 200),
}

every_answer = pytest.mark.parametrize(("method", "path", "status"), ANSWERS.values(), ids=ANSWERS)


@pytest.fixture
def settings() -> Settings:
    return NAMED


@pytest.fixture
async def client(settings: Settings, fake_redis: Redis, aiohttp_client: AiohttpClient) -> HttpClient:
    return await aiohttp_client(ServiceServer(settings, fake_redis))


def with_settings(settings: Settings) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("settings", [settings], ids=["set"])


async def asked_beforehand(client: HttpClient, path: str, origin: str = APP) -> ClientResponse:
    asking = {
        "Origin": origin,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return await client.options(path, headers=asking)


def allowances_of(response: ClientResponse) -> list[str]:
    return [name for name in response.headers if name.startswith("Access-Control-")]


@every_answer
@pytest.mark.parametrize("origin", [APP, OTHER])
async def test_pages_of_a_named_origin_may_read_it(
    client: HttpClient, method: str, path: str, status: int, origin: str
) -> None:
    response = await client.request(method, path, headers={"Origin": origin})

    assert response.status == status
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert response.headers["Vary"] == "Origin"


@every_answer
@pytest.mark.parametrize("origin", [STRANGER, "null", f"{APP}.stranger.example", "http://app.example", f"{APP}:8443"])
async def test_pages_of_others_may_not(client: HttpClient, method: str, path: str, status: int, origin: str) -> None:
    response = await client.request(method, path, headers={"Origin": origin})

    assert response.status == status
    assert allowances_of(response) == []
    assert response.headers["Vary"] == "Origin"


@every_answer
async def test_caches_are_told_also_where_no_page_asks(client: HttpClient, method: str, path: str, status: int) -> None:
    response = await client.request(method, path)

    assert response.headers["Vary"] == "Origin"
    assert allowances_of(response) == []


async def test_pages_may_read_the_headers_that_say_something(client: HttpClient) -> None:
    response = await client.get("/livez", headers={"Origin": APP})

    exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
    assert exposed >= {"ETag", "Location", "Retry-After", "RateLimit", "X-Request-ID", "Idempotency-Replayed"}


@pytest.mark.parametrize("path", [SESSIONS, f"{SESSIONS}/x", f"{SESSIONS}/x/timeout", "/livez", "/metrics"])
async def test_what_a_page_may_send_is_answered_beforehand(client: HttpClient, path: str) -> None:
    response = await asked_beforehand(client, path)

    assert (response.status, await response.read()) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= set(
        response.headers["Access-Control-Allow-Methods"].split(", ")
    )
    assert {"Authorization", "X-API-KEY", "Content-Type", "If-Match", "Idempotency-Key", "X-Request-ID"} <= set(
        response.headers["Access-Control-Allow-Headers"].split(", ")
    )
    assert response.headers["Access-Control-Max-Age"] == "600"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in response.headers
    assert "Access-Control-Allow-Credentials" not in response.headers


async def test_to_pages_of_others_it_is_a_method_that_is_not_there(client: HttpClient) -> None:
    response = await asked_beforehand(client, SESSIONS, STRANGER)

    assert response.status == 405
    assert allowances_of(response) == []


async def test_to_a_path_that_is_not_there_nothing_may_be_sent(client: HttpClient) -> None:
    response = await asked_beforehand(client, "/nowhere")

    assert response.status == 404


@with_settings(GUARDED)
async def test_a_page_asks_beforehand_without_a_key(client: HttpClient) -> None:
    assert (await asked_beforehand(client, SESSIONS)).status == 204


@with_settings(GUARDED)
async def test_a_page_without_a_key_may_read_that_it_needs_one(client: HttpClient) -> None:
    response = await client.get(f"{SESSIONS}/x", headers={"Origin": APP})

    assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (401, APP)


@with_settings(EVERYBODY)
async def test_where_every_page_may_none_is_named(client: HttpClient) -> None:
    response = await client.post(
        SESSIONS, json={"agentId": AGENT, "userId": USER}, headers={"Origin": STRANGER, "X-API-KEY": KEY}
    )

    assert response.status == 201
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Vary" not in response.headers


@with_settings(Settings())
async def test_unless_it_is_set_no_page_may_do_anything(client: HttpClient) -> None:
    session_id = await open_session(client)
    read = await client.get(f"{SESSIONS}/{session_id}", headers={"Origin": APP})
    asked = await asked_beforehand(client, SESSIONS)

    assert (read.status, asked.status) == (200, 405)
    assert allowances_of(read) + allowances_of(asked) == []
    assert "Vary" not in read.headers
