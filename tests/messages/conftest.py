"""A chat over a service in the test process."""

import pytest

from tests.conftest import HttpClient
from tests.messages.chat import Chat, new_chat


@pytest.fixture
async def chat(client: HttpClient) -> Chat:
    return await new_chat(client)
