"""What the document says and what the service does are the same: a search for a request that tells them apart."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import schemathesis
from hypothesis import Phase, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.openapi.checks import RejectedPositiveData

from service.api.openapi import document
from service.settings import Settings
from tests.auth.conftest import AUDIENCE, ENTRIES, ISSUER, SECRET, having
from tests.redis_server import RedisServer
from tests.replica import Replica

Case = schemathesis.Case[Any]
load_all_checks()

REFUSALS_OF_A_STATE = ["410", "412", "422"]
"""No request is at fault where the session has ended, was changed, or has nothing left to extend."""

thorough = settings(
    max_examples=100,
    stateful_step_count=8,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
)
brief = settings(thorough, max_examples=25)


def is_of_this_path(context: schemathesis.HookContext, case: Case) -> bool:
    """`health` where an id is asked for is another path of the document: one without parameters goes first."""
    return bool(case.path_parameters.get("sessionId") != "health")


def is_a_fault(
    context: schemathesis.HookContext, failure: Exception, case: Case, response: schemathesis.Response
) -> bool:
    """Not what no JSON Schema can say: an end before its timeout, a number deep inside that cannot be kept, and

    in a query, a cursor that nobody gave, or neither a user nor an agent.
    """
    if not isinstance(failure, RejectedPositiveData):
        return True
    if case.headers.get("If-Match") == "0":  # a tag that lost its quotes: schemathesis took it for JSON
        return False
    if case.path == "/api/messaging/sessions" and case.method != "POST":
        return not ("cursor" in case.query or (case.method == "DELETE" and not case.query))
    return not (_holds_too_long_a_number(case.body) or _ends_before_its_timeout(case.body))


class Documented:
    """The document under some settings, which are variables as a replica takes them; `headers` are of every call."""

    def __init__(self, headers: Mapping[str, str] | None = None, **variables: str) -> None:
        self.variables = variables
        self.headers = dict(headers or {})
        chosen: dict[str, Any] = {name.lower(): value for name, value in variables.items()}
        self.schema = schemathesis.openapi.from_dict(document(Settings(**chosen)))
        self.schema.config.checks.positive_data_acceptance.expected_statuses += REFUSALS_OF_A_STATE
        self.schema.hook("filter_case")(is_of_this_path)
        self.schema.hook("filter_failure")(is_a_fault)


PLAIN = Documented()
GUARDED = Documented(
    having("admin"),
    SESSION_API_KEYS=ENTRIES,
    SESSION_JWT_ISSUER=ISSUER,
    SESSION_JWT_AUDIENCE=AUDIENCE,
    SESSION_JWT_SECRET=SECRET,
    SESSION_RATE_PER_ADDRESS="1000000/second",
    SESSION_RATE_PER_CALLER="1000000/second",
    SESSION_MAX_PER_USER="3",
    SESSION_MAX_PER_AGENT="3",
    SESSION_CORS_ORIGINS="https://chat.example",
)
FLAT = Documented(SESSION_ERROR_FORMAT="flat", SESSION_MIN_TIMEOUT_MINUTES="0.5", SESSION_ID_FORMAT="hex256")
LIMITED = Documented(SESSION_RATE_PER_ADDRESS="20/hour")
CLAMPING = Documented(SESSION_OUT_OF_RANGE="clamp", SESSION_REQUIRE_KNOWN_AGENT="true")


class Services:
    """A replica for each document that is asked about, which begins with nothing: others have other minutes."""

    def __init__(self, redis_server: RedisServer) -> None:
        self._redis_server = redis_server
        self._replicas: dict[Documented, Replica] = {}

    def url_of(self, documented: Documented) -> str:
        if documented not in self._replicas:
            self._redis_server.command("FLUSHALL")
            self._replicas[documented] = Replica(REDIS_URL=self._redis_server.url, **documented.variables)
            self._replicas[documented].start()
        return self._replicas[documented].url

    def check(self, case: Case, documented: Documented) -> None:
        case.call_and_validate(base_url=self.url_of(documented), headers=documented.headers)

    def stop(self) -> None:
        for replica in self._replicas.values():
            replica.stop()


@pytest.fixture(scope="module")
def services(redis_server: RedisServer) -> Iterator[Services]:
    services = Services(redis_server)
    yield services
    services.stop()
    redis_server.command("FLUSHALL")


@pytest.mark.parametrize("documented", [PLAIN, GUARDED, FLAT, LIMITED, CLAMPING])
def test_every_check_is_on(documented: Documented) -> None:
    names = CHECKS.get_all_names()

    off = [name for name in names if not documented.schema.config.checks.get_by_name(name=name).enabled]

    assert off == []
    assert len(names) >= 14


@thorough
@PLAIN.schema.parametrize()
def test_each_call_answers_as_documented(case: Case, services: Services) -> None:
    services.check(case, PLAIN)


@brief
@GUARDED.schema.parametrize()
def test_each_call_answers_as_documented_who_has_a_key(case: Case, services: Services) -> None:
    services.check(case, GUARDED)


@brief
@FLAT.schema.parametrize()
def test_each_call_answers_as_documented_in_flat_errors_and_fractions_of_minutes(
    case: Case, services: Services
) -> None:
    services.check(case, FLAT)


@brief
@CLAMPING.schema.parametrize()
def test_each_call_answers_as_documented_where_minutes_are_clamped_and_agents_known(
    case: Case, services: Services
) -> None:
    services.check(case, CLAMPING)


@brief
@LIMITED.schema.parametrize()
def test_each_call_answers_as_documented_who_asks_too_much(case: Case, services: Services) -> None:
    services.check(case, LIMITED)


def test_calls_that_follow_one_another_answer_as_documented(services: Services, redis_server: RedisServer) -> None:
    PLAIN.schema.config.update(base_url=services.url_of(PLAIN))

    class Machine(PLAIN.schema.as_state_machine()):  # type: ignore[misc]
        """Each of its runs begins with nothing: hypothesis minds where one is answered otherwise than one before."""

        def setup(self) -> None:
            redis_server.command("FLUSHALL")

    Machine.run(settings=thorough)


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
