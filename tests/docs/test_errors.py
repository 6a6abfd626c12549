"""docs/errors.md lists every error of the service and of the load balancer."""

import inspect
import json
import re
from typing import Any

import pytest

from service import errors
from service.messages import errors as message_errors
from tests.conftest import AGENT, USER, StartReplica
from tests.docs import markdown
from tests.docs.shapes import shape
from tests.redis_server import RedisServer, wait_until
from tests.test_walkthrough import SESSIONS

PAGE = markdown.document("docs/errors.md")
SERVICE_ROWS = markdown.table_rows(markdown.section(PAGE, "Error codes of the service"))
BALANCER_ROWS = markdown.table_rows(markdown.section(PAGE, "Error codes of the load balancer"))
CLASSES: list[Any] = [
    error
    for module in (errors, message_errors)
    for _, error in inspect.getmembers(module, inspect.isclass)
    if "code" in vars(error)
]
RETRYABLE = {error.code for error in CLASSES if "Retry-After" in error.headers}
SAMPLES = [json.loads(block) for block in markdown.blocks(PAGE, "json")]
SHORT_SESSIONS = {"SESSION_MIN_TIMEOUT_MINUTES": "0.001", "SESSION_DEFAULT_TIMEOUT_MINUTES": "0.001"}


def listed(rows: list[list[str]]) -> set[tuple[str, int]]:
    return {(code.strip("`"), int(status)) for code, status, *_ in rows}


def test_every_error_of_the_service_is_listed_with_its_status() -> None:
    assert listed(SERVICE_ROWS) == {(error.code, error.status) for error in CLASSES}
    assert len(SERVICE_ROWS) > 25


def test_every_error_of_the_load_balancer_is_listed_with_its_status() -> None:
    files = (markdown.ROOT / "deploy" / "errors").glob("*.http")
    found = {(re.findall(r'"code":"(\w+)"', file.read_text())[0], int(file.stem)) for file in files}

    assert listed(BALANCER_ROWS) == found


@pytest.mark.parametrize("row", [*SERVICE_ROWS, *BALANCER_ROWS], ids=lambda row: row[0])
def test_every_error_says_whether_to_retry(row: list[str]) -> None:
    assert re.match(r"(Yes|No|After|Only)\b.*\.$", row[3])


@pytest.mark.parametrize("code", sorted(RETRYABLE))
def test_an_error_with_retry_after_can_be_retried_after_it(code: str) -> None:
    [row] = [row for row in SERVICE_ROWS if row[0] == f"`{code}`"]

    assert "`Retry-After`" in row[3] or "after" in row[3].lower()


@pytest.mark.parametrize(("format_name", "sample"), [("schema", SAMPLES[0]), ("flat", SAMPLES[1])])
def test_an_expired_session_returns_the_documented_body(
    redis_server: RedisServer, start_replica: StartReplica, format_name: str, sample: dict[str, Any]
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_ERROR_FORMAT=format_name, **SHORT_SESSIONS)
    _, session = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})
    path = f"{SESSIONS}/{session['sessionId']}"
    wait_until(lambda: replica.call("GET", path)[0] == 410, "the session expires")

    _, body = replica.call("GET", path)

    assert shape(body) == shape(sample)
    assert without_values(body) == without_values(sample)


def without_values(body: dict[str, Any]) -> str:
    """Return the body as text, without ids and timestamps."""
    return re.sub(r"\d{4}-[\d:.T-]+Z|[0-9a-f-]{36}", "", json.dumps(body))
