"""Generated requests: the document of a service, and checks that ignore what a JSON Schema cannot describe."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import schemathesis
from hypothesis import Phase, settings
from schemathesis.checks import load_all_checks
from schemathesis.openapi.checks import RejectedPositiveData

from service.api.openapi import document
from service.sessions.session import is_issued_id
from service.settings import Settings
from tests.auth.conftest import AUDIENCE, ENTRIES, ISSUER, SECRET, key_headers
from tests.redis_server import RedisServer
from tests.replica import Replica

Case = schemathesis.Case[Any]
load_all_checks()

STATUSES_OF_VALID_REQUESTS = ["410", "412", "422"]
"""Valid requests receive these because of the session's state: expired, changed, or at its maximum duration."""

thorough = settings(
    max_examples=100,
    stateful_step_count=8,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
)
brief = settings(thorough, max_examples=25)
minimal = settings(thorough, max_examples=10)


MAX_WAIT_SECONDS = 0.1

SHORT_WAITS = {"SESSION_MESSAGE_WAIT_SECONDS": "0.05"}


def has_other_path_and_ends_soon(context: schemathesis.HookContext, case: Case) -> bool:
    """Exclude the session id `health`: `/sessions/health` is another path of the document. Exclude long waits."""
    session_id = case.path_parameters.get("sessionId")
    is_stream = case.path.endswith("/events") and is_issued_id(str(session_id).lower())
    waits = isinstance(case.query, dict) and _is_long(case.query.get("wait", 0))
    return session_id != "health" and not is_stream and not waits


def _is_long(seconds: Any) -> bool:
    return isinstance(seconds, int | float) and seconds > MAX_WAIT_SECONDS


def is_relevant(
    context: schemathesis.HookContext, failure: Exception, case: Case, response: schemathesis.Response
) -> bool:
    """Exclude 414, which any request can return, and rejections that JSON Schema cannot describe.

    - A maximum duration below the timeout, and an integer beyond 64 bits in metadata.
    - A cursor that the service did not return, and a bulk revocation without a user or an agent.
    - A message of another author, or one that the user must not send, and a leap second.
    """
    if response.status_code == 414:
        return False
    if not isinstance(failure, RejectedPositiveData):
        return True
    if case.headers.get("If-Match") == "0":  # schemathesis converts the ETag "0" to a number
        return False
    if case.path == "/api/messaging/sessions" and case.method != "POST":
        return not ("cursor" in case.query or (case.method == "DELETE" and not case.query))
    if isinstance(case.query, dict) and case.query.keys() & {"before", "after"}:
        return False
    if case.headers.get("Last-Event-ID") is not None or not isinstance(case.body, dict):
        return False
    if case.path.endswith("/messages") and case.body.keys() & {"authorId", "inReplyTo", "thought", "actions"}:
        return False
    return not (_has_integer_beyond_64_bits(case.body) or _has_maximum_below_timeout(case.body))


class Variant:
    """A service with these environment variables, and its document. `headers` are added to each request."""

    def __init__(self, headers: Mapping[str, str] | None = None, **variables: str) -> None:
        self.variables = {**SHORT_WAITS, **variables}
        self.headers = dict(headers or {})
        values: dict[str, Any] = {name.lower(): value for name, value in variables.items()}
        self.schema = schemathesis.openapi.from_dict(document(Settings(**values)))
        self.requires_authentication = "SESSION_API_KEYS" in variables
        checks = self.schema.config.checks
        checks.ignored_auth.enabled = self.requires_authentication  # the document describes scopes in any case
        checks.positive_data_acceptance.expected_statuses += STATUSES_OF_VALID_REQUESTS
        self.schema.hook("filter_case")(has_other_path_and_ends_soon)
        self.schema.hook("filter_failure")(is_relevant)


DEFAULT = Variant()
PROTECTED = Variant(
    key_headers("admin"),
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


class Services:
    """Starts one service process for each variant, on an empty Redis."""

    def __init__(self, redis_server: RedisServer) -> None:
        self._redis_server = redis_server
        self._replicas: dict[Variant, Replica] = {}

    def url_of(self, variant: Variant) -> str:
        if variant not in self._replicas:
            self._redis_server.command("FLUSHALL")
            self._replicas[variant] = Replica(REDIS_URL=self._redis_server.url, **variant.variables)
            self._replicas[variant].start()
        return self._replicas[variant].url

    def check(self, case: Case, variant: Variant) -> None:
        case.call_and_validate(base_url=self.url_of(variant), headers=variant.headers)

    def sequences_of(self, variant: Variant) -> type[Any]:
        """Return the tests of request sequences. Each sequence starts with an empty Redis."""
        variant.schema.config.update(base_url=self.url_of(variant))
        redis_server = self._redis_server

        class Sequence(variant.schema.as_state_machine()):  # type: ignore[misc]
            def setup(self) -> None:
                redis_server.command("FLUSHALL")

        return Sequence

    def stop(self) -> None:
        for replica in self._replicas.values():
            replica.stop()


def running_services(redis_server: RedisServer) -> Iterator[Services]:
    services = Services(redis_server)
    yield services
    services.stop()
    redis_server.command("FLUSHALL")


def _has_maximum_below_timeout(body: Any) -> bool:
    timeout = body.get("timeoutConfig", body) or {}
    return bool(timeout.get("maxDurationMinutes", math.inf) < timeout.get("timeoutMinutes", 0))


def _has_integer_beyond_64_bits(value: Any) -> bool:
    match value:
        case dict():
            return any(_has_integer_beyond_64_bits(inner) for inner in value.values())
        case list():
            return any(_has_integer_beyond_64_bits(inner) for inner in value)
        case int():
            return not -(2**63) <= value < 2**64
        case _:
            return False
