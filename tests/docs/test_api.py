"""docs/api.md lists every call, and its examples run and return what it shows."""

import json
from pathlib import Path
from typing import Any

from tests.conftest import AGENT, USER
from tests.docs import markdown, shell
from tests.docs.shapes import shape
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

PAGE = markdown.document("docs/api.md")
SAMPLES = [json.loads(block) for block in markdown.blocks(PAGE, "json")]
SESSION, DELETED, PAGE_OF_SESSIONS, REVOKED, POLICY = SAMPLES
POLICY_PATH = f"/api/messaging/agents/{AGENT}/timeout"


def test_every_call_is_listed_with_its_success_status(replica: Replica) -> None:
    _, openapi = replica.call("GET", "/openapi.json")
    described = {
        (f"`{method.upper()} {path}`", successful_status(call))
        for path, item in openapi["paths"].items()
        for method, call in item.items()
        if method != "parameters"
    }

    rows = markdown.table_rows(markdown.section(PAGE, "Calls"))

    assert {(call, success[:3]) for call, success, _ in rows} == described


def test_the_examples_succeed_in_their_order(replica: Replica, tmp_path: Path) -> None:
    transcript = shell.run(markdown.blocks(PAGE, "sh"), replica.url, tmp_path)

    assert transcript.requests == [
        "POST 201",
        "GET 200",
        "POST 200",
        "POST 200",
        "PATCH 200",
        "PATCH 200",
        "PATCH 200",
        "DELETE 200",
        "GET 200",
        "GET 200",
        "DELETE 200",
        "PUT 200",
        "GET 200",
        "DELETE 200",
        "GET 200",
        "GET 200",
        "GET 200",
    ]


def test_a_session_has_the_members_of_the_sample(replica: Replica) -> None:
    body = {"agentId": AGENT, "userId": USER, "metadata": {"channel": "web"}}

    _, created = replica.call("POST", SESSIONS, body)

    assert shape(created) == shape(SESSION)
    assert created["timeoutConfig"] == SESSION["timeoutConfig"]


def test_a_page_has_the_members_of_the_sample(replica: Replica) -> None:
    for _ in range(2):
        replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})

    _, page = replica.call("GET", f"{SESSIONS}?limit=1")

    assert shape(page) == shape(PAGE_OF_SESSIONS)


def test_the_ends_of_sessions_have_the_members_of_the_samples(replica: Replica) -> None:
    _, session = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})

    _, deleted = replica.call("DELETE", f"{SESSIONS}/{session['sessionId']}")
    _, revoked = replica.call("DELETE", f"{SESSIONS}?userId={USER}")

    assert shape(revoked) == shape(REVOKED)
    assert deleted["message"] == DELETED["message"].replace(SESSION["sessionId"], session["sessionId"])


def test_a_policy_has_the_members_of_the_sample(replica: Replica) -> None:
    _, policy = replica.call("PUT", POLICY_PATH, {"timeoutMinutes": 60})

    assert policy == {**POLICY, "updatedAt": policy["updatedAt"]}


def test_the_request_limits_are_right(replica: Replica) -> None:
    rows = {row[2]: row[1] for row in markdown.table_rows(markdown.section(PAGE, "Request limits"))}

    _, too_large_body = replica.call("POST", SESSIONS, "x" * 70_000)
    _, too_long_url = replica.call("GET", "/" + "x" * 9_000)
    _, too_large_header = replica.call("GET", "/livez", headers={"X-Large": "x" * 17_000})

    assert rows["413"] == f"{too_large_body['details']['maxBytes'] // 1024} KiB"
    assert rows["414"] == f"{too_long_url['details']['maxBytes'] // 1024} KiB"
    header = too_large_header["details"]
    assert (
        rows["431"] == f"{header['maxFieldBytes'] // 1024} KiB; {header['maxBytes'] // 1024} KiB; {header['maxFields']}"
    )


def successful_status(call: dict[str, Any]) -> str:
    *_, status = [str(status) for status in call["responses"] if status.startswith("2")]
    return status
