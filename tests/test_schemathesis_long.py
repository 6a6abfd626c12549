"""Many generated requests, also with other settings. `make test` does not collect this file, which takes seconds."""

from collections.abc import Iterator

import pytest

from tests.generated_requests import (
    DEFAULT,
    PROTECTED,
    Case,
    Services,
    Variant,
    brief,
    running_services,
    thorough,
)
from tests.redis_server import RedisServer

FLAT = Variant(SESSION_ERROR_FORMAT="flat", SESSION_MIN_TIMEOUT_MINUTES="0.5", SESSION_ID_FORMAT="hex256")
RATE_LIMITED = Variant(SESSION_RATE_PER_ADDRESS="20/hour")
CLAMPING = Variant(SESSION_OUT_OF_RANGE="clamp", SESSION_REQUIRE_KNOWN_AGENT="true")


@pytest.fixture(scope="module")
def services(redis_server: RedisServer) -> Iterator[Services]:
    yield from running_services(redis_server)


@pytest.mark.long
@pytest.mark.timeout(300)
@thorough
@DEFAULT.schema.parametrize()
def test_many_responses_match_the_document(case: Case, services: Services) -> None:
    services.check(case, DEFAULT)


@pytest.mark.long
@pytest.mark.timeout(300)
@brief
@PROTECTED.schema.parametrize()
def test_many_responses_match_the_document_with_authentication(case: Case, services: Services) -> None:
    services.check(case, PROTECTED)


@pytest.mark.long
@pytest.mark.timeout(300)
@brief
@FLAT.schema.parametrize()
def test_responses_match_the_document_with_flat_errors_and_fractional_minutes(case: Case, services: Services) -> None:
    services.check(case, FLAT)


@pytest.mark.long
@pytest.mark.timeout(300)
@brief
@CLAMPING.schema.parametrize()
def test_responses_match_the_document_with_clamped_minutes_and_known_agents(case: Case, services: Services) -> None:
    services.check(case, CLAMPING)


@pytest.mark.long
@pytest.mark.timeout(300)
@brief
@RATE_LIMITED.schema.parametrize()
def test_responses_match_the_document_beyond_the_rate_limit(case: Case, services: Services) -> None:
    services.check(case, RATE_LIMITED)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_responses_of_many_request_sequences_match_the_document(services: Services) -> None:
    services.sequences_of(DEFAULT).run(settings=thorough)
