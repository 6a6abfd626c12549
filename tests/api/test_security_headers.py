"""What every answer says to browsers, and what none says of the server, down to the bytes on the wire."""

import pytest

from tests.api.test_json_response import answers_to
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS, open_session

OPENED = f'{{"agentId":"{AGENT}","userId":"{USER}"}}'.encode()

ASKED = {
    "an answer": b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "a list": f"GET {SESSIONS} HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
    "a session that is opened": (
        f"POST {SESSIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(OPENED)}\r\n\r\n".encode()
        + OPENED
    ),
    "one to HTTP/1.0": b"GET /livez HTTP/1.0\r\n\r\n",
    "one to HEAD": b"HEAD /readyz HTTP/1.1\r\nHost: a\r\n\r\n",
    "the last on its connection": b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "a session that is not there": f"GET {SESSIONS}/x HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
    "a path that is not there": b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path that is not there, to HTTP/1.0": b"GET /nowhere HTTP/1.0\r\n\r\n",
    "a method that is not there": b"TRACE /livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "an expectation that is not met": b"GET /livez HTTP/1.1\r\nHost: a\r\nExpect: nothing\r\n\r\n",
    "what is not HTTP": b"nonsense\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "the metrics": b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    "the document": b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n",
    "the page": b"GET /docs HTTP/1.1\r\nHost: a\r\n\r\n",
    "the page, to HEAD": b"HEAD /docs HTTP/1.1\r\nHost: a\r\n\r\n",
    "a file of the page": b"GET /docs/swagger-ui.css HTTP/1.1\r\nHost: a\r\n\r\n",
    "a part of it": b"GET /docs/swagger-ui.css HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n",
    "a part that it has not": b"GET /docs/swagger-ui.css HTTP/1.1\r\nHost: a\r\nRange: bytes=9999999-\r\n\r\n",
}

every_answer = pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)

LAST = b"GET /livez HTTP/1.0\r\n\r\n"


async def head_of_the_answer(client: HttpClient, asked: bytes) -> list[str]:
    answers = await answers_to(client, asked + LAST)
    return answers.partition(b"\r\n\r\n")[0].decode().split("\r\n")


@every_answer
async def test_no_answer_names_what_serves(client: HttpClient, asked: bytes) -> None:
    head = await head_of_the_answer(client, asked)

    assert head[0].startswith("HTTP/1.")
    assert [line for line in head if line.lower().startswith(("server:", "x-powered-by:", "via:"))] == []
    assert "aiohttp" not in "".join(head).lower()
    assert "python" not in "".join(head).lower()


@every_answer
async def test_every_answer_is_safe_to_show_to_a_browser(client: HttpClient, asked: bytes) -> None:
    head = await head_of_the_answer(client, asked)

    assert head.count("X-Content-Type-Options: nosniff") == 1
    assert head.count("X-Frame-Options: DENY") == 1
    assert head.count("Referrer-Policy: no-referrer") == 1
    assert head.count("Cross-Origin-Resource-Policy: same-origin") == 1


@every_answer
async def test_no_answer_may_be_framed_and_none_loads_from_elsewhere(client: HttpClient, asked: bytes) -> None:
    head = await head_of_the_answer(client, asked)

    (policy,) = [line for line in head if line.startswith("Content-Security-Policy: ")]
    assert policy.startswith("Content-Security-Policy: default-src 'none'; ")
    assert policy.endswith("; frame-ancestors 'none'")


async def test_what_is_shown_of_a_session_runs_nothing_and_is_kept_by_nobody(client: HttpClient) -> None:
    session_id = await open_session(client)

    response = await client.get(f"{SESSIONS}/{session_id}")

    assert response.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert response.headers["Cache-Control"] == "no-store"


async def test_nor_are_the_metrics_kept(client: HttpClient) -> None:
    response = await client.get("/metrics")

    assert response.headers["Cache-Control"] == "no-store"
