"""The same Idempotency-Key of two callers creates two sessions."""

from collections.abc import Callable

import pytest

from tests.auth.conftest import key_headers, token_headers
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS

OTHER_USER = "00000000-0000-4000-8000-000000000001"
NewHeaders = Callable[[], dict[str, str]]
OTHER_CALLERS: dict[str, NewHeaders] = {
    "another key": lambda: key_headers("admin"),
    "token with the name of the key": lambda: token_headers("write", scope="write"),
    "user": lambda: token_headers(USER),
}

CALLERS: dict[str, NewHeaders] = {"key": lambda: key_headers("write"), **OTHER_CALLERS}


async def create(client: HttpClient, headers: dict[str, str], user_id: str = USER) -> str:
    """Create a session, always with the same Idempotency-Key, and return its id."""
    response = await client.post(
        SESSIONS, json={"agentId": AGENT, "userId": user_id}, headers={"Idempotency-Key": "1", **headers}
    )
    assert response.status == 201
    session_id: str = (await response.json())["sessionId"]
    return session_id


@pytest.mark.parametrize("new_headers", OTHER_CALLERS.values(), ids=OTHER_CALLERS)
async def test_another_caller_creates_another_session(client: HttpClient, new_headers: NewHeaders) -> None:
    first = await create(client, key_headers("write"))

    assert await create(client, new_headers()) != first


@pytest.mark.parametrize("new_headers", CALLERS.values(), ids=CALLERS)
async def test_the_same_caller_receives_the_same_session(client: HttpClient, new_headers: NewHeaders) -> None:
    assert await create(client, new_headers()) == await create(client, new_headers())


async def test_another_user_creates_another_session(client: HttpClient) -> None:
    first = await create(client, token_headers(USER))

    assert await create(client, token_headers(OTHER_USER), OTHER_USER) != first
