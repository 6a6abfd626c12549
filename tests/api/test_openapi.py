"""The OpenAPI document is valid and matches the routes, the ElizaOS contract and the settings."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from aiohttp import web
from redis.asyncio import Redis

from service.api import event_routes, health_routes, inbox_routes, message_routes, session_routes
from service.api.access_log import AccessLog
from service.api.openapi import Document, document
from service.api.routes import Route
from service.app import create_app
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.settings import Settings
from service.shared_secret import SharedSecret
from tests.api.openapi_reader import json_schema_of, member_types, operations, resolve
from tests.conftest import redis_clients_for

SESSION_CONTRACT = {
    "sessionId": {"type": "string"},
    "channelId": {"type": "string"},
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
TIMEOUT_CONTRACT = {
    "timeoutMinutes": {"type": "integer"},
    "autoRenew": {"type": "boolean"},
    "maxDurationMinutes": {"type": "integer"},
    "warningThresholdMinutes": {"type": "integer"},
}
ERROR_CONTRACT = {"success": {"type": "boolean"}, "error": {"type": "object"}}
ERROR_MEMBERS_CONTRACT = {"code": {"type": "string"}, "message": {"type": "string"}, "details": {"type": "string"}}

FRACTIONAL_MINUTES = Settings(
    session_min_timeout_minutes=0.5,
    session_max_timeout_minutes=4,
    session_default_timeout_minutes=1.5,
    session_max_duration_minutes=6,
    session_warning_threshold_minutes=0.5,
    session_auto_renew=False,
)
VARIANTS = {
    "default": Settings(),
    "flat": Settings(session_error_format="flat"),
    "clamp": Settings(session_out_of_range="clamp"),
    "fractional minutes": FRACTIONAL_MINUTES,
}
"""The settings that change the document."""

SESSION_PATH = "/api/messaging/sessions/{sessionId}"
PUBLIC_OPERATIONS = {"GET /livez", "GET /readyz", "GET /openapi.json", "GET /docs"}
DEFAULT = document(Settings())
ROUTES = [
    route
    for module in (session_routes, message_routes, event_routes, inbox_routes, health_routes)
    for route in module.routes
]
PROTECTED_ROUTES = [route for route in ROUTES if route.permission]


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_the_document_is_valid_openapi(settings: Settings) -> None:
    schemathesis.openapi.from_dict(document(settings)).validate()


def test_it_has_the_version_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())["project"]

    assert DEFAULT["info"]["version"] == project["version"]


async def test_it_describes_all_routes_and_no_others(fake_redis: Redis) -> None:
    metrics = Metrics()
    app = create_app(
        Settings(), redis_clients_for(fake_redis, 2, metrics), AccessLog(metrics, EventLog(SharedSecret()))
    )

    assert {place for place, _ in operations(DEFAULT)} == set(_routes(app))


def test_operation_ids_are_unique() -> None:
    names = [operation["operationId"] for _, operation in operations(DEFAULT)]

    assert "getSession" in names
    assert len(names) == len(set(names))


def test_all_operations_have_a_summary_a_description_and_a_tag() -> None:
    described = dict(operations(DEFAULT))

    assert [place for place, operation in described.items() if not operation["summary"]] == []
    assert [place for place, operation in described.items() if not operation["description"]] == []
    assert {tag for operation in described.values() for tag in operation["tags"]} == {"messaging", "system"}


# The contract of ElizaOS


def test_reading_a_session_follows_the_contract() -> None:
    operation = DEFAULT["paths"][SESSION_PATH]["get"]
    session = json_schema_of(DEFAULT, operation["responses"]["200"])
    timeout = resolve(DEFAULT, session["properties"]["timeoutConfig"])

    assert operation["operationId"] == "getSession"
    assert operation["responses"].keys() >= {"200", "404", "410", "500"}
    assert member_types(DEFAULT, session) == SESSION_CONTRACT
    assert member_types(DEFAULT, timeout) == TIMEOUT_CONTRACT


@pytest.mark.parametrize("status", ["404", "410", "500"])
def test_errors_of_reading_a_session_follow_the_contract(status: str) -> None:
    error = json_schema_of(DEFAULT, DEFAULT["paths"][SESSION_PATH]["get"]["responses"][status])

    assert member_types(DEFAULT, error).items() >= ERROR_CONTRACT.items()
    assert member_types(DEFAULT, error["properties"]["error"]) == ERROR_MEMBERS_CONTRACT


def test_the_session_id_follows_the_contract() -> None:
    (parameter,) = DEFAULT["paths"][SESSION_PATH]["parameters"]
    session_id = resolve(DEFAULT, parameter)

    assert (session_id["name"], session_id["in"], session_id["required"]) == ("sessionId", "path", True)
    assert session_id["schema"] == {"type": "string"}


# What operations share


def test_all_operations_accept_a_request_id() -> None:
    reference = {"$ref": "#/components/parameters/RequestId"}

    assert [place for place, operation in operations(DEFAULT) if operation["parameters"].count(reference) != 1] == []


def test_all_responses_contain_a_request_id() -> None:
    reference = {"$ref": "#/components/headers/RequestId"}
    responses = [response for _, operation in operations(DEFAULT) for response in operation["responses"].values()]

    assert {str(resolve(DEFAULT, response)["headers"]["X-Request-ID"]) for response in responses} == {str(reference)}


def test_sessions_and_errors_must_not_be_cached() -> None:
    responses = DEFAULT["components"]["responses"]

    assert [name for name, response in responses.items() if "Cache-Control" not in response["headers"]] == []


@pytest.mark.parametrize("route", PROTECTED_ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_an_operation_requires_the_scopes_of_its_route(route: Route) -> None:
    path = (
        re.sub(r":[^}]*\}", "}", route.path)
        .replace("session_id", "sessionId")
        .replace("agent_id", "agentId")
        .replace("message_id", "messageId")
    )
    permission = route.permission
    assert permission is not None

    security = DEFAULT["paths"][path][route.method.lower()]["security"]

    agents = [{"key": ["agent"]}, {"bearer": ["agent"]}] if permission.allows_agents else []
    assert security == [{"key": [permission.scope]}, {"bearer": [permission.user_scope or permission.scope]}, *agents]


def test_operations_with_a_scope_describe_errors_of_authentication_and_rate_limits() -> None:
    described = dict(operations(DEFAULT))
    public = {place for place, operation in described.items() if operation["security"] == []}
    with_errors = {
        place for place, operation in described.items() if {"401", "403", "429", "503"} <= operation["responses"].keys()
    }

    assert public == PUBLIC_OPERATIONS
    assert with_errors == described.keys() - public


def test_successful_session_responses_have_rate_limit_headers() -> None:
    session = resolve(DEFAULT, DEFAULT["paths"][SESSION_PATH]["get"]["responses"]["200"])

    assert session["headers"].keys() >= {"RateLimit", "RateLimit-Policy"}


# Settings


@pytest.mark.parametrize(
    "settings",
    [
        {"session_rate_per_address": "100/minute"},
        {"session_max_per_user": 10},
        {"session_cors_origins": "https://chat.example"},
        {"session_jwt_issuer": "https://i.example", "session_jwt_audience": "a", "session_jwt_secret": "s" * 32},
    ],
    ids=["rate limits", "caps", "CORS", "authentication"],
)
def test_other_settings_do_not_change_the_document(settings: dict[str, object]) -> None:
    assert document(Settings(**settings)) == DEFAULT  # type: ignore[arg-type]


def test_a_flat_error_has_the_members_of_the_flat_format() -> None:
    flat = document(VARIANTS["flat"])
    schemas = flat["components"]["schemas"]

    assert "FlatError" not in schemas
    assert member_types(flat, schemas["Error"]) == {
        "error": {"type": "string"},
        "code": {"type": "string"},
        "details": {"type": "object"},
    }


def test_the_default_bounds_of_minutes_are_whole_numbers() -> None:
    schemas = DEFAULT["components"]["schemas"]

    assert _bounds(schemas["TimeoutMinutes"]) == ("integer", 5, 1440)
    assert _bounds(schemas["MaxDurationMinutes"]) == ("integer", 5, 2880)
    assert _bounds(schemas["WarningThresholdMinutes"]) == ("integer", 1, 1440)
    assert _default_values(schemas) == [30, True, 720, 5]


def test_the_bounds_of_minutes_follow_the_settings() -> None:
    schemas = document(FRACTIONAL_MINUTES)["components"]["schemas"]

    assert _bounds(schemas["TimeoutMinutes"]) == ("number", 0.5, 4)
    assert _bounds(schemas["MaxDurationMinutes"]) == ("number", 0.5, 8)
    assert _bounds(schemas["WarningThresholdMinutes"]) == ("number", 0.5, 4)
    assert schemas["TimeoutConfig"]["properties"]["timeoutMinutes"]["type"] == "number"
    assert _default_values(schemas) == [1.5, False, 6, 0.5]


@pytest.mark.parametrize("name", ["TimeoutMinutes", "MaxDurationMinutes", "WarningThresholdMinutes"])
def test_clamped_minutes_are_whole_or_beyond_the_bounds(name: str) -> None:
    schema = document(VARIANTS["clamp"])["components"]["schemas"][name]

    whole, *beyond = schema["anyOf"]
    assert whole == {"type": "integer"}
    assert [sorted(side) for side in beyond] == [["exclusiveMaximum", "type"], ["exclusiveMinimum", "type"]]
    assert not schema.keys() & {"type", "minimum", "maximum"}
    assert re.search(r"replaced by the nearest value between \d+ and \d+\.$", schema["description"])


def test_building_one_document_does_not_change_another() -> None:
    document(VARIANTS["flat"])
    document(VARIANTS["clamp"])

    assert document(Settings()) == DEFAULT


def _routes(app: web.Application) -> Iterator[str]:
    """Return the method and path of all routes except HEAD and the files of the documentation page."""
    for route in app.router.routes():
        assert route.resource is not None
        path = (
            route.resource.canonical.replace("session_id", "sessionId")
            .replace("agent_id", "agentId")
            .replace("message_id", "messageId")
        )
        if route.method != "HEAD" and not path.startswith("/docs/"):
            yield f"{route.method} {path}"


def _bounds(schema: Document) -> tuple[str, float | None, float | None]:
    return schema["type"], schema.get("minimum"), schema.get("maximum")


def _default_values(schemas: Document) -> list[float | bool]:
    return [member["default"] for member in schemas["NewTimeoutConfig"]["properties"].values()]
