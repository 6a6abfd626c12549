"""A chat, and Node.js code that uses it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.node import run_node, url_of
from tests.conftest import HttpClient
from tests.messages.chat import Chat, new_chat

Call = Callable[[str], Awaitable[Any]]


@pytest.fixture
async def chat(client: HttpClient) -> Chat:
    return await new_chat(client)


@pytest.fixture
def call(chat: Chat, setup: str, tmp_path: Path) -> Call:
    """Runs code after `setup`, which binds names to its arguments: the URL, and the id of a session."""

    async def call(code: str) -> Any:
        return await run_node(tmp_path / "code.mjs", setup + code, url_of(chat.client), chat.session_id)

    return call
