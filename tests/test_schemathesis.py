"""What the document says and what the service does are the same: a search for a request that tells them apart."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import Phase, settings
from schemathesis.openapi.checks import RejectedPositiveData

from service.http.documentation import document
from service.settings import Settings
from tests.redis_server import RedisServer
from tests.replica import Replica

Case = schemathesis.Case[Any]

REFUSALS_OF_A_STATE = ["410", "412", "422"]
"""No request is at fault where the session has ended, was changed, or has nothing left to extend."""

documented = schemathesis.openapi.from_dict(document(Settings()))
documented.config.checks.positive_data_acceptance.expected_statuses += REFUSALS_OF_A_STATE

thorough = settings(
    max_examples=100,
    stateful_step_count=8,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
)


@pytest.fixture(scope="module")
def service_url(redis_server: RedisServer) -> Iterator[str]:
    replica = Replica(REDIS_URL=redis_server.url)
    replica.start()
    yield replica.url
    replica.stop()


@thorough
@documented.parametrize()
def test_each_call_answers_as_documented(case: Case, service_url: str) -> None:
    case.call_and_validate(base_url=service_url)


def test_calls_that_follow_one_another_answer_as_documented(service_url: str, redis_server: RedisServer) -> None:
    documented.config.update(base_url=service_url)

    class Machine(documented.as_state_machine()):  # type: ignore[misc]
        """Each of its runs begins with nothing: hypothesis minds where one is answered otherwise than one before."""

        def setup(self) -> None:
            redis_server.command("FLUSHALL")

    Machine.run(settings=thorough)


@documented.hook
def filter_case(context: schemathesis.HookContext, case: Case) -> bool:
    """`health` where an id is asked for is another path of the document: one without parameters goes first."""
    return bool(case.path_parameters.get("sessionId") != "health")


@documented.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Exception, case: Case, response: schemathesis.Response
) -> bool:
    """Faults that no JSON Schema can say: an end before its timeout, a number deep inside that cannot be kept, and

    in a query, a cursor that nobody gave, or neither a user nor an agent.
    """
    if not isinstance(failure, RejectedPositiveData):
        return True
    if case.headers.get("If-Match") == "0":  # a tag that lost its quotes: schemathesis took it for JSON
        return False
    if case.path == "/api/messaging/sessions" and case.method != "POST":
        return not ("cursor" in case.query or (case.method == "DELETE" and not case.query))
    return not (_holds_too_long_a_number(case.body) or _ends_before_its_timeout(case.body))


def _ends_before_its_timeout(body: Any) -> bool:
    timeout = body.get("timeoutConfig", body)
    return bool(timeout.get("maxDurationMinutes", math.inf) < timeout.get("timeoutMinutes", 0))


def _holds_too_long_a_number(value: Any) -> bool:
    match value:
        case dict():
            return any(_holds_too_long_a_number(inner) for inner in value.values())
        case list():
            return any(_holds_too_long_a_number(inner) for inner in value)
        case int():
            return not -(2**63) <= value < 2**64
        case _:
            return False
