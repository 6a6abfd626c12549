"""The shorter way to the routes of sessions finds what the router would, and leaves the rest to it."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.api.session_routes import SESSIONS
from service.api.shortcut import Shortcut
from tests.conftest import HttpClient

ID = "4716d2ea-673d-47d0-b1bd-33202db7411b"


async def found(client: HttpClient, method: str, path: str) -> Any:
    """What the shortcut finds for a request of this method and path; None where it leaves it to the others."""

    asked: Any = SimpleNamespace(method=method, rel_url=client.make_url(path).relative())
    application: Any = client.app
    shortcut = next(iter(application.router.resources()))
    assert isinstance(shortcut, Shortcut)
    match, allowed = await shortcut.resolve(asked)
    assert allowed == set()
    return match


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("GET", SESSIONS, SESSIONS),
        ("POST", SESSIONS, SESSIONS),
        ("GET", f"{SESSIONS}/{ID}", SESSIONS + "/{session_id}"),
        ("HEAD", f"{SESSIONS}/{ID}", SESSIONS + "/{session_id}"),
        ("DELETE", f"{SESSIONS}/{ID}", SESSIONS + "/{session_id}"),
        ("POST", f"{SESSIONS}/{ID}/heartbeat", SESSIONS + "/{session_id}/heartbeat"),
        ("PATCH", f"{SESSIONS}/{ID}/metadata", SESSIONS + "/{session_id}/metadata"),
    ],
)
async def test_it_finds_what_is_called_most(client: HttpClient, method: str, path: str, template: str) -> None:
    match = await found(client, method, path)

    assert match.route.method == method
    assert match.route.resource.canonical == template
    assert match == ({"session_id": ID} if ID in path else {})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{SESSIONS}/health"),
        ("DELETE", f"{SESSIONS}/health"),
        ("PUT", f"{SESSIONS}/{ID}"),
        ("GET", f"{SESSIONS}/{ID}/heartbeat"),
        ("POST", f"{SESSIONS}/{ID}/heartbeat/"),
        ("POST", f"{SESSIONS}/{ID}/heartbeat/more"),
        ("GET", f"{SESSIONS}/"),
        ("GET", f"{SESSIONS}//heartbeat"),
        ("GET", f"{SESSIONS}/{ID}%2Fheartbeat"),
        ("GET", f"{SESSIONS}x/{ID}"),
        ("GET", f"/more{SESSIONS}/{ID}"),
    ],
)
async def test_it_leaves_to_the_router_what_is_not_as_plain(client: HttpClient, method: str, path: str) -> None:
    assert await found(client, method, path) is None


async def test_methods_that_there_are_not_are_refused_as_ever(client: HttpClient) -> None:
    refused = await client.put(f"{SESSIONS}/{ID}")

    assert (refused.status, refused.headers["Allow"]) == (405, "DELETE, GET, HEAD")
