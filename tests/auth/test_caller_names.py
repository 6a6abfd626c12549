"""Idempotency keys are each caller's own: of whoever has another key, bears another token, or is another user."""

from collections.abc import Callable

import pytest

from tests.auth.conftest import bearing, having
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS

OTHER_USER = "00000000-0000-4000-8000-000000000001"
CALLERS: dict[str, Callable[[], dict[str, str]]] = {
    "a key": lambda: having("write"),
    "another key": lambda: having("admin"),
    "a service of the key's name": lambda: bearing("write", scope="write"),
    "the user": lambda: bearing(USER),
}


@pytest.mark.parametrize("name", [name for name in CALLERS if name != "a key"])
async def test_another_callers_key_is_another(client: HttpClient, name: str) -> None:
    first = await opened_by(client, CALLERS["a key"]())

    second = await opened_by(client, CALLERS[name]())

    assert second != first


@pytest.mark.parametrize("name", CALLERS)
async def test_the_same_callers_is_the_same(client: HttpClient, name: str) -> None:
    assert await opened_by(client, CALLERS[name]()) == await opened_by(client, CALLERS[name]())


async def test_another_user_opens_a_session_of_their_own(client: HttpClient) -> None:
    first = await opened_by(client, bearing(USER))

    assert await opened_by(client, bearing(OTHER_USER), OTHER_USER) != first


async def opened_by(client: HttpClient, caller: dict[str, str], user_id: str = USER) -> str:
    """The id of the session that the caller opens, always with the same key."""
    response = await client.post(
        SESSIONS, json={"agentId": AGENT, "userId": user_id}, headers={"Idempotency-Key": "1", **caller}
    )
    assert response.status == 201
    session_id: str = (await response.json())["sessionId"]
    return session_id
