"""Generated requests against the OpenAPI document: the service responds as the document describes."""

from collections.abc import Iterator

import pytest
from schemathesis.checks import CHECKS

from tests.generated_requests import DEFAULT, PROTECTED, Case, Services, Variant, minimal, running_services
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def services(redis_server: RedisServer) -> Iterator[Services]:
    yield from running_services(redis_server)


@pytest.mark.parametrize("variant", [DEFAULT, PROTECTED])
def test_all_checks_are_enabled(variant: Variant) -> None:
    names = CHECKS.get_all_names()

    disabled = [name for name in names if not variant.schema.config.checks.get_by_name(name=name).enabled]

    assert disabled == ([] if variant.requires_authentication else ["ignored_auth"])
    assert len(names) >= 14


@minimal
@PROTECTED.schema.parametrize()
def test_responses_match_the_document_with_authentication(case: Case, services: Services) -> None:
    services.check(case, PROTECTED)


def test_responses_of_request_sequences_match_the_document(services: Services) -> None:
    services.sequences_of(DEFAULT).run(settings=minimal)
