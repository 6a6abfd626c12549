"""The OpenAPI document and its page: valid, true to the routes, the contract and the settings; its examples hold."""

import re
import sys
import tomllib
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import orjson
import pytest
import schemathesis
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.api import health_routes, session_routes
from service.api.access_log import AccessLog
from service.api.openapi import Document, document
from service.api.responses import error_response
from service.api.routes import Route
from service.app import create_app
from service.errors import (
    AgentNotFound,
    AgentPolicyNotFound,
    Contention,
    CreationContention,
    Forbidden,
    IdempotencyKeyReused,
    InternalError,
    InvalidRequest,
    InvalidTimeoutConfig,
    IssuerUnavailable,
    PayloadTooLarge,
    PreconditionFailed,
    RateLimited,
    RenewalFailed,
    ServiceError,
    SessionExpired,
    SessionLimitReached,
    SessionNotFound,
    SessionRevoked,
    StoreUnavailable,
    Unauthorized,
    UnsupportedEncoding,
    UnsupportedMediaType,
)
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.settings import MAX_BODY_BYTES, Settings
from service.shared_secret import SharedSecret
from tests.conftest import AGENT, HttpClient, ServiceServer, clients_of

CONTRACT_OF_A_SESSION = {
    "sessionId": {"type": "string"},
    "agentId": {"type": "string", "format": "uuid"},
    "userId": {"type": "string", "format": "uuid"},
    "createdAt": {"type": "string", "format": "date-time"},
    "lastActivity": {"type": "string", "format": "date-time"},
    "metadata": {"type": "object"},
    "expiresAt": {"type": "string", "format": "date-time"},
    "timeoutConfig": {"type": "object"},
    "renewalCount": {"type": "integer"},
    "timeRemaining": {"type": "integer"},
    "isNearExpiration": {"type": "boolean"},
}
CONTRACT_OF_A_TIMEOUT = {
    "timeoutMinutes": {"type": "integer"},
    "autoRenew": {"type": "boolean"},
    "maxDurationMinutes": {"type": "integer"},
    "warningThresholdMinutes": {"type": "integer"},
}
CONTRACT_OF_AN_ERROR = {"success": {"type": "boolean"}, "error": {"type": "object"}}
CONTRACT_OF_WHAT_IS_WRONG = {
    "code": {"type": "string"},
    "message": {"type": "string"},
    "details": {"type": "string"},
}

FRACTIONS = Settings(
    session_min_timeout_minutes=0.5,
    session_max_timeout_minutes=4,
    session_default_timeout_minutes=1.5,
    session_max_duration_minutes=6,
    session_warning_threshold_minutes=0.5,
    session_auto_renew=False,
)
GUARDED = Settings(
    session_jwt_issuer="https://issuer.example",
    session_jwt_audience="sessions",
    session_jwt_jwks_url="https://issuer.example/keys",
)
LIMITED = Settings(session_rate_per_address="100/minute")
DENYING = Settings(session_max_per_user=10)
EVICTING = Settings(session_max_per_agent=10, session_cap_policy="evict")
SETTINGS = {
    "default": Settings(),
    "flat": Settings(session_error_format="flat"),
    "clamp": Settings(session_out_of_range="clamp"),
    "fractions": FRACTIONS,
    "guarded": GUARDED,
    "limited": LIMITED,
    "guarded and limited": GUARDED.model_copy(update={"session_rate_per_address": "100/minute"}),
    "denying": DENYING,
    "evicting": EVICTING,
    "guarded, flat": GUARDED.model_copy(update={"session_error_format": "flat"}),
}
EVERYTHING = SETTINGS["guarded and limited"].model_copy(update={"session_max_per_user": 10})
SETTINGS["everything"] = EVERYTHING

ID = "4e3f1c52-8a57-4d0e-9b1f-2c6d0a7e5b93"
TEN_MS = 1705312800000
HALF_PAST_TEN_MS = 1705314600000
TWENTY_TWO_MS = 1705356000000

REFUSALS = {
    "InvalidRequest": InvalidRequest(
        {"agentId": "is required", "timeoutConfig.autoRenew": "must be true or false"},
    ),
    "InvalidQuery": InvalidRequest(
        {"limit": "must be a whole number between 1 and 1000", "userid": "is not a parameter of this request"}
    ),
    "SessionRevoked": SessionRevoked("3c90c3cc-0d44-4b50-8888-8dd25736052a", "7d444840-9dc0-41d1-b245-5ffdce74fad2"),
    "SessionNotFound": SessionNotFound("abc-123"),
    "SessionExpired": SessionExpired(ID, HALF_PAST_TEN_MS, "inactivity"),
    "SessionAtMaximumExpired": SessionExpired(ID, TWENTY_TWO_MS, "max_duration"),
    "AgentNotFound": AgentNotFound(AGENT),
    "AgentPolicyNotFound": AgentPolicyNotFound(AGENT),
    "PreconditionFailed": PreconditionFailed(ID, 4),
    "PayloadTooLarge": PayloadTooLarge(MAX_BODY_BYTES),
    "UnsupportedEncoding": UnsupportedEncoding("br"),
    "UnsupportedMediaType": UnsupportedMediaType("application/x-www-form-urlencoded", "application/json"),
    "RenewalFailed": RenewalFailed(ID, created_at_ms=TEN_MS, max_duration_minutes=720, expires_at_ms=TWENTY_TWO_MS),
    "InvalidTimeoutConfig": InvalidTimeoutConfig(ID, HALF_PAST_TEN_MS - 749_750),
    "IdempotencyKeyReused": IdempotencyKeyReused(),
    "InternalError": InternalError(),
    "Contention": Contention(ID),
    "StoreUnavailable": StoreUnavailable("why"),
}
REFUSALS_AT_A_CAP = {
    "SessionLimitReached": SessionLimitReached("user", "7d444840-9dc0-41d1-b245-5ffdce74fad2", 10),
    "CreationContention": CreationContention("agent", AGENT),
}
REFUSALS_OF_A_GUARD = {
    "Unauthorized": Unauthorized(
        "Send an API key in X-API-KEY, or a key or token as Authorization: Bearer.", reason="missing"
    ),
    "UnknownCaller": Unauthorized.unknown(),
    "ExpiredToken": Unauthorized("The token has expired.", reason="expired"),
    "Forbidden": Forbidden("This request requires the scope 'admin'.", scope="admin"),
    "IssuerUnavailable": IssuerUnavailable(),
}

REFUSALS_OF_LIMITS = {
    "RateLimited": RateLimited("address", 18),
    "GuessesSpent": RateLimited("address-guesses", 360),
}
ALL_REFUSALS = REFUSALS | REFUSALS_AT_A_CAP | REFUSALS_OF_A_GUARD | REFUSALS_OF_LIMITS


class Content(NamedTuple):
    """A body that is sent or received: where, of what schema, and its examples."""

    where: str
    schema: Document
    examples: list[Any]


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
def app(settings: Settings, fake_redis: Redis) -> web.Application:
    metrics = Metrics()
    return create_app(settings, clients_of(fake_redis, 2, metrics), AccessLog(metrics, EventLog(SharedSecret())))


@pytest.fixture
async def client(settings: Settings, fake_redis: Redis, aiohttp_client: AiohttpClient) -> HttpClient:
    return await aiohttp_client(ServiceServer(settings, fake_redis))


def _guarded_routes() -> list[Route]:
    return [route for route in (*session_routes.routes, *health_routes.routes) if route.permission is not None]


every_setting = pytest.mark.parametrize(
    "described", [document(settings) for settings in SETTINGS.values()], ids=SETTINGS
)


@every_setting
def test_the_document_is_valid_openapi(described: Document) -> None:
    schemathesis.openapi.from_dict(described).validate()


async def test_the_document_is_served(client: HttpClient, settings: Settings) -> None:
    response = await client.get("/openapi.json")

    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-cache"
    assert await response.json() == document(settings)


def test_it_names_the_version_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())["project"]

    assert document(Settings())["info"]["version"] == project["version"]


def test_every_route_is_described_and_nothing_else(app: web.Application, settings: Settings) -> None:
    assert set(_described_calls(document(settings))) == set(_routes(app))


def test_every_call_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for _, operation in _operations(document(Settings()))]

    assert "getSession" in names
    assert len(names) == len(set(names))


def test_every_call_is_summed_up_and_has_its_place() -> None:
    operations = dict(_operations(document(Settings())))

    assert [where for where, operation in operations.items() if not operation["summary"]] == []
    assert [where for where, operation in operations.items() if not operation["description"]] == []
    assert {tag for operation in operations.values() for tag in operation["tags"]} == {"messaging", "system"}


def test_reading_a_session_is_described_as_in_the_contract() -> None:
    described = document(Settings())
    read = described["paths"]["/api/messaging/sessions/{sessionId}"]["get"]
    session = _schema_of(described, read["responses"]["200"])
    timeout = _resolved(described, session["properties"]["timeoutConfig"])

    assert read["operationId"] == "getSession"
    assert read["responses"].keys() >= {"200", "404", "410", "500"}
    assert _facts(described, session) == CONTRACT_OF_A_SESSION
    assert _facts(described, timeout) == CONTRACT_OF_A_TIMEOUT


@pytest.mark.parametrize("status", ["404", "410", "500"])
def test_not_reading_a_session_is_described_as_in_the_contract(status: str) -> None:
    described = document(Settings())
    read = described["paths"]["/api/messaging/sessions/{sessionId}"]["get"]
    error = _schema_of(described, read["responses"][status])

    assert _facts(described, error).items() >= CONTRACT_OF_AN_ERROR.items()
    assert _facts(described, error["properties"]["error"]) == CONTRACT_OF_WHAT_IS_WRONG


def test_a_session_is_named_as_in_the_contract() -> None:
    described = document(Settings())
    (parameter,) = described["paths"]["/api/messaging/sessions/{sessionId}"]["parameters"]
    session_id = _resolved(described, parameter)

    assert (session_id["name"], session_id["in"], session_id["required"]) == ("sessionId", "path", True)
    assert session_id["schema"] == {"type": "string"}


@every_setting
def test_every_body_has_an_example(described: Document) -> None:
    assert [content.where for content in _contents(described) if not content.examples] == []


@every_setting
def test_every_example_of_a_body_is_of_its_schema(described: Document) -> None:
    assert [fault for content in _contents(described) for fault in _faults(described, content)] == []


@every_setting
def test_every_example_of_a_member_is_of_its_schema(described: Document) -> None:
    assert [fault for content in _members(described) for fault in _faults(described, content)] == []


def test_every_member_has_an_example() -> None:
    described = document(Settings())

    assert [member.where for member in _members(described) if not member.examples] == []


def test_every_parameter_and_header_has_an_example() -> None:
    components = document(Settings())["components"]
    described = components["parameters"] | components["headers"]

    assert [name for name, value in described.items() if not value["examples"]] == []


def test_every_call_takes_the_id_of_its_request() -> None:
    operations = dict(_operations(document(Settings())))
    taken = {"$ref": "#/components/parameters/RequestId"}

    assert [where for where, operation in operations.items() if operation["parameters"].count(taken) != 1] == []


def test_every_response_has_the_id_of_its_request() -> None:
    described = document(Settings())
    responses = [
        (f"{where} {status}", _resolved(described, response))
        for where, operation in _operations(described)
        for status, response in operation["responses"].items()
    ]
    had = {"$ref": "#/components/headers/RequestId"}

    assert [where for where, response in responses if response["headers"]["X-Request-ID"] != had] == []


def test_every_session_and_every_refusal_is_kept_from_caches() -> None:
    described = document(Settings())
    components = described["components"]["responses"]

    assert [name for name, response in components.items() if "Cache-Control" not in response["headers"]] == []


@pytest.mark.parametrize("error_format", ["schema", "flat"])
@pytest.mark.parametrize("name", ALL_REFUSALS)
def test_an_example_of_a_refusal_is_what_the_service_answers(name: str, error_format: Any) -> None:
    everything = EVERYTHING.model_copy(update={"session_error_format": error_format})
    components = document(everything)["components"]

    assert components["examples"][name]["value"] == _answered(ALL_REFUSALS[name], error_format)


@pytest.mark.parametrize(
    ("settings", "rejections"),
    [
        (Settings(), REFUSALS),
        (GUARDED, REFUSALS | REFUSALS_OF_A_GUARD),
        (LIMITED, REFUSALS | REFUSALS_OF_LIMITS),
        (DENYING, REFUSALS | REFUSALS_AT_A_CAP),
        (EVICTING, REFUSALS),
        (EVERYTHING, ALL_REFUSALS),
    ],
    ids=["open", "guarded", "limited", "denying", "evicting", "everything"],
)
def test_every_refusal_has_its_example_under_its_status(
    settings: Settings, rejections: dict[str, ServiceError]
) -> None:
    described = document(settings)
    shown = {
        (status, example["code"])
        for where, example in _shown(described)
        if "code" in example and (status := int(where.split()[-1]))
    }

    assert shown == {(refusal.status, refusal.code) for refusal in rejections.values()}


def test_where_errors_are_flat_they_are_described_as_flat() -> None:
    described = document(SETTINGS["flat"])
    error = described["components"]["schemas"]["Error"]

    assert _facts(described, error) == {
        "error": {"type": "string"},
        "code": {"type": "string"},
        "details": {"type": "object"},
    }
    assert "FlatError" not in described["components"]["schemas"]


def test_by_default_it_is_the_document_as_written() -> None:
    schemas = document(Settings())["components"]["schemas"]

    assert _bounds_of(schemas["TimeoutMinutes"]) == ("integer", 5, 1440)
    assert _bounds_of(schemas["MaxDurationMinutes"]) == ("integer", 5, 2880)
    assert _bounds_of(schemas["WarningThresholdMinutes"]) == ("integer", 1, 1440)
    assert _defaults_in(schemas) == [30, True, 720, 5]


def test_minutes_are_bounded_as_the_settings_bound_them() -> None:
    schemas = document(FRACTIONS)["components"]["schemas"]

    assert _bounds_of(schemas["TimeoutMinutes"]) == ("number", 0.5, 4)
    assert _bounds_of(schemas["MaxDurationMinutes"]) == ("number", 0.5, 8)
    assert _bounds_of(schemas["WarningThresholdMinutes"]) == ("number", 0.5, 4)
    assert schemas["TimeoutConfig"]["properties"]["timeoutMinutes"]["type"] == "number"
    assert _defaults_in(schemas) == [1.5, False, 6, 0.5]


@pytest.mark.parametrize("name", ["TimeoutMinutes", "MaxDurationMinutes", "WarningThresholdMinutes"])
def test_where_minutes_are_clamped_they_are_whole_or_beyond_their_bounds(name: str) -> None:
    schema = document(SETTINGS["clamp"])["components"]["schemas"][name]

    whole, *beyond = schema["anyOf"]
    assert whole == {"type": "integer"}
    assert [sorted(side) for side in beyond] == [["exclusiveMaximum", "type"], ["exclusiveMinimum", "type"]]
    assert not schema.keys() & {"type", "minimum", "maximum"}
    assert re.search(r"What is not between \d+ and \d+ is brought there\.$", schema["description"])


def test_one_document_does_not_change_another() -> None:
    before = document(Settings())
    document(SETTINGS["flat"])
    document(SETTINGS["clamp"])

    assert document(Settings()) == before


def test_where_nobody_is_asked_who_they_are_nothing_is_said_of_keys() -> None:
    said = str(document(Settings())).lower()

    assert [word for word in ("x-api-key", "bearer", "'401'", "'403'", "issuer") if word in said] == []


def test_without_caps_nothing_is_said_of_them() -> None:
    said = str(document(Settings()))

    assert [
        word for word in ("SESSION_LIMIT_REACHED", "may live at once", "many create sessions") if word in said
    ] == []


def test_a_creation_is_said_to_be_refused_at_a_cap_only_where_none_is_evicted() -> None:
    denying, evicting = (str(document(settings)["paths"]) for settings in (DENYING, EVICTING))

    assert "is refused another one" in denying
    assert "the least recently active ends" in evicting
    assert "SESSION_LIMIT_REACHED" not in str(document(EVICTING))


def test_where_callers_are_asked_each_call_says_what_it_needs() -> None:
    operations = dict(_operations(document(GUARDED)))
    is_open = {where for where, operation in operations.items() if operation["security"] == []}
    refused = {
        where for where, operation in operations.items() if {"401", "403", "503"} <= operation["responses"].keys()
    }

    assert is_open == {"GET /livez", "GET /readyz", "GET /openapi.json", "GET /docs"}
    assert refused == operations.keys() - is_open


@pytest.mark.parametrize("route", _guarded_routes(), ids=lambda route: f"{route.method} {route.path}")
def test_a_call_needs_what_its_route_needs(route: Route) -> None:
    path = re.sub(r":[^}]*\}", "}", route.path).replace("session_id", "sessionId").replace("agent_id", "agentId")
    security = document(GUARDED)["paths"][path][route.method.lower()]["security"]
    permission = route.permission
    assert permission is not None

    assert security == [{"key": [permission.scope]}, {"bearer": [permission.user_scope or permission.scope]}]


def test_where_nothing_is_limited_nothing_is_said_of_limits() -> None:
    said = str(document(Settings())).lower()

    assert [word for word in ("'429'", "ratelimit", "rate_limited", "guess") if word in said] == []


def _limited_in(settings: Settings) -> set[str]:
    return {where for where, operation in _operations(document(settings)) if "429" in operation["responses"]}


def test_where_requests_are_limited_each_call_about_sessions_may_meet_it() -> None:
    about_sessions = {route.path for route in session_routes.routes}

    assert len(_limited_in(LIMITED)) == len(session_routes.routes)
    assert {
        where.split()[1].replace("sessionId", r"session_id:(?!health$)[^/]+") for where in _limited_in(LIMITED)
    } == {path.replace("agent_id", "agentId") for path in about_sessions}


def test_where_guesses_alone_are_limited_those_calls_may_that_name_a_session() -> None:
    limited = _limited_in(Settings(session_guesses_per_address="10/hour"))

    assert limited == {where for where in _limited_in(LIMITED) if "{sessionId}" in where}


def test_where_keys_may_be_guessed_every_call_that_takes_one_may() -> None:
    with_authentication = _limited_in(SETTINGS["guarded and limited"])

    assert with_authentication == _limited_in(LIMITED) | {"GET /metrics", "GET /api/messaging/sessions/health"}


def test_what_succeeds_tells_how_limits_stand() -> None:
    read = document(LIMITED)["paths"]["/api/messaging/sessions/{sessionId}"]["get"]
    headers = _resolved(document(LIMITED), read["responses"]["200"])["headers"]

    assert headers.keys() >= {"RateLimit", "RateLimit-Policy"}


async def test_the_page_is_served_under_a_strict_policy(client: HttpClient) -> None:
    response = await client.get("/docs")
    policy = response.headers["Content-Security-Policy"]

    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "http" not in policy


async def test_the_page_needs_no_other_host(client: HttpClient) -> None:
    page = await (await client.get("/docs")).text()
    script = await (await client.get("/docs/docs.js")).text()

    assert "//" not in page
    assert "http" not in script
    assert "validatorUrl: null" in script


async def test_what_the_page_asks_for_is_there(client: HttpClient) -> None:
    page = await (await client.get("/docs")).text()
    answers = {name: await client.get(f"/{name}") for name in re.findall(r'(?:src|href)="([^"]+)"', page)}

    assert {name: answer.headers["Content-Type"].partition(";")[0] for name, answer in answers.items()} == {
        "docs/favicon-32x32.png": "image/png",
        "docs/swagger-ui.css": "text/css",
        "docs/swagger-ui-bundle.js": "text/javascript",
        "docs/docs.js": "text/javascript",
        "openapi.json": "application/json",
    }
    assert {answer.status for answer in answers.values()} == {HTTPStatus.OK}


async def test_what_the_page_asks_for_is_not_sent_again(client: HttpClient) -> None:
    first = await client.get("/docs/swagger-ui.css")
    second = await client.get("/docs/swagger-ui.css", headers={"If-None-Match": first.headers["ETag"]})

    assert first.headers["Cache-Control"] == "public, max-age=86400"
    assert second.status == HTTPStatus.NOT_MODIFIED


def test_the_package_of_the_page_is_not_imported() -> None:
    assert "swagger_ui" not in sys.modules


def _answered(refusal: ServiceError, error_format: str) -> object:
    body = error_response(refusal, error_format).body
    assert isinstance(body, bytes)
    return orjson.loads(body)


def _routes(app: web.Application) -> Iterator[tuple[str, str]]:
    """What can be asked, but for HEAD, which comes with GET, and the files of the page."""
    for route in app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical.replace("session_id", "sessionId").replace("agent_id", "agentId")
        if route.method != "HEAD" and not path.startswith("/docs/"):
            yield route.method, path


def _described_calls(described: Document) -> Iterator[tuple[str, str]]:
    for where, _ in _operations(described):
        method, path = where.split()
        yield method, path


def _operations(described: Document) -> Iterator[tuple[str, Document]]:
    for path, item in described["paths"].items():
        for method in item.keys() - {"parameters"}:
            yield f"{method.upper()} {path}", item[method]


def _contents(described: Document) -> Iterator[Content]:
    for where, operation in _operations(described):
        if "requestBody" in operation:
            yield from _contents_of(described, where, operation["requestBody"])
        for status, response in operation["responses"].items():
            yield from _contents_of(described, f"{where} {status}", _resolved(described, response))


def _contents_of(described: Document, where: str, body: Document) -> Iterator[Content]:
    for content in body["content"].values():
        examples = [_resolved(described, example)["value"] for example in content["examples"].values()]
        yield Content(where, content["schema"], examples)


def _shown(described: Document) -> Iterator[tuple[str, Any]]:
    for content in _contents(described):
        for example in content.examples:
            yield content.where, example


def _members(described: Document) -> Iterator[Content]:
    for name, schema in described["components"]["schemas"].items():
        for member, of_member in schema.get("properties", {}).items():
            if "properties" not in _resolved(described, of_member):
                yield Content(f"{name}.{member}", of_member, _resolved(described, of_member).get("examples", []))


def _faults(described: Document, content: Content) -> Iterator[str]:
    schema = {**content.schema, "components": described["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    for example in content.examples:
        for fault in validator.iter_errors(example):
            yield f"{content.where}: {fault.message}"


def _resolved(described: Document, value: Document) -> Document:
    if "$ref" not in value:
        return value
    found: Any = described
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return {**found, **value}


def _schema_of(described: Document, response: Document) -> Document:
    return _resolved(described, _resolved(described, response)["content"]["application/json"]["schema"])


def _facts(described: Document, schema: Document) -> Document:
    """The members of a schema with what the contract states of them."""
    members = {name: _resolved(described, member) for name, member in schema["properties"].items()}
    return {
        name: {fact: member[fact] for fact in ("type", "format") if fact in member} for name, member in members.items()
    }


def _bounds_of(schema: Document) -> tuple[str, float | None, float | None]:
    return schema["type"], schema.get("minimum"), schema.get("maximum")


def _defaults_in(schemas: Document) -> list[float | bool]:
    return [member["default"] for member in schemas["NewTimeoutConfig"]["properties"].values()]
