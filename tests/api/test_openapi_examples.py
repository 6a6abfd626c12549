"""The examples in the OpenAPI document match their schemas and the errors of the service."""

from typing import Literal

import orjson
import pytest

from service.api.openapi import document
from service.api.response_bodies import error_response
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
from service.messages.errors import (
    ChunkOutOfOrder,
    ClientMessageIdReused,
    MessageAlreadyAnswered,
    MessageNotFound,
    MessagesDisabled,
)
from service.settings import MAX_BODY_BYTES, Settings
from tests.api.openapi_reader import bodies, members, schema_errors
from tests.api.test_openapi import DEFAULT, VARIANTS
from tests.conftest import AGENT

SESSION_ID = "4e3f1c52-8a57-4d0e-9b1f-2c6d0a7e5b93"
MESSAGE_ID = "018d0c5e-3a40-7b1c-9d2e-4f5a6b7c8d9e"
USER = "7d444840-9dc0-41d1-b245-5ffdce74fad2"
TEN_MS = 1705312800000
HALF_PAST_TEN_MS = 1705314600000
TWENTY_TWO_MS = 1705356000000

ERRORS: dict[str, ServiceError] = {
    "InvalidRequest": InvalidRequest({"agentId": "is required", "timeoutConfig.autoRenew": "must be true or false"}),
    "InvalidQuery": InvalidRequest(
        {"limit": "must be a whole number between 1 and 1000", "userid": "is not a parameter of this request"}
    ),
    "Unauthorized": Unauthorized.missing("Send an API key in X-API-KEY, or a key or token as Authorization: Bearer."),
    "UnknownKey": Unauthorized.unknown(),
    "ExpiredToken": Unauthorized.expired(),
    "Forbidden": Forbidden("This request requires the scope 'admin'.", scope="admin"),
    "SessionNotFound": SessionNotFound("abc-123"),
    "AgentNotFound": AgentNotFound(AGENT),
    "AgentPolicyNotFound": AgentPolicyNotFound(AGENT),
    "SessionRevoked": SessionRevoked(AGENT, USER),
    "SessionLimitReached": SessionLimitReached("user", USER, 10),
    "SessionExpired": SessionExpired(SESSION_ID, HALF_PAST_TEN_MS, "inactivity"),
    "SessionExpiredAtMaximum": SessionExpired(SESSION_ID, TWENTY_TWO_MS, "max_duration"),
    "PreconditionFailed": PreconditionFailed(SESSION_ID, 4),
    "PayloadTooLarge": PayloadTooLarge(MAX_BODY_BYTES),
    "UnsupportedEncoding": UnsupportedEncoding("br"),
    "UnsupportedMediaType": UnsupportedMediaType("application/x-www-form-urlencoded", "application/json"),
    "RenewalFailed": RenewalFailed(
        SESSION_ID, created_at_ms=TEN_MS, max_duration_minutes=720, expires_at_ms=TWENTY_TWO_MS
    ),
    "InvalidTimeoutConfig": InvalidTimeoutConfig(SESSION_ID, HALF_PAST_TEN_MS - 749_750),
    "IdempotencyKeyReused": IdempotencyKeyReused(),
    "RateLimited": RateLimited("address", 18),
    "FailedLookupsExceeded": RateLimited("address-guesses", 360),
    "InternalError": InternalError(),
    "Contention": Contention(SESSION_ID),
    "CreationContention": CreationContention("agent", AGENT),
    "StoreUnavailable": StoreUnavailable("cause"),
    "IssuerUnavailable": IssuerUnavailable(),
    "MessageNotFound": MessageNotFound(SESSION_ID, MESSAGE_ID),
    "MessageAlreadyAnswered": MessageAlreadyAnswered(SESSION_ID, MESSAGE_ID),
    "ChunkOutOfOrder": ChunkOutOfOrder(5, 3),
    "ClientMessageIdReused": ClientMessageIdReused(),
    "MessagesDisabled": MessagesDisabled(),
}

every_variant = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)


def test_all_bodies_have_examples() -> None:
    assert [content.place for content in bodies(DEFAULT) if not content.examples] == []


def test_all_members_have_examples() -> None:
    assert [content.place for content in members(DEFAULT) if not content.examples] == []


def test_all_parameters_and_headers_have_examples() -> None:
    components = DEFAULT["components"]

    assert [name for name, item in components["parameters"].items() if not item["examples"]] == []
    assert [name for name, item in components["headers"].items() if not item["examples"]] == []


@every_variant
def test_examples_of_bodies_match_their_schemas(settings: Settings) -> None:
    variant = document(settings)

    assert [error for content in bodies(variant) for error in schema_errors(variant, content)] == []


@every_variant
def test_examples_of_members_match_their_schemas(settings: Settings) -> None:
    variant = document(settings)

    assert [error for content in members(variant) for error in schema_errors(variant, content)] == []


@pytest.mark.parametrize("error_format", ["schema", "flat"])
@pytest.mark.parametrize("name", ERRORS)
def test_the_example_of_an_error_is_the_response_of_the_service(
    name: str, error_format: Literal["schema", "flat"]
) -> None:
    examples = document(Settings(session_error_format=error_format))["components"]["examples"]

    assert examples[name]["value"] == orjson.loads(error_response(ERRORS[name], error_format).body)


def test_all_errors_have_an_example_under_their_status() -> None:
    shown = {
        (int(content.place.split()[-1]), example["code"])
        for content in bodies(DEFAULT)
        for example in content.examples
        if "code" in example
    }

    assert shown == {(error.status, error.code) for error in ERRORS.values()}
