"""The memory that messages occupy in Redis, with the settings of deploy/valkey.conf."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from service.maintenance.startup_checks import STREAM_NODE_MAX_BYTES
from service.sessions.keys import Keys
from service.settings import MAX_METADATA_BYTES
from tests.messages.chat import Chat
from tests.redis_contents import set_config

_SETTINGS = {"hash-max-listpack-value": MAX_METADATA_BYTES, "stream-node-max-bytes": STREAM_NODE_MAX_BYTES}


@pytest.fixture
async def _configured(real_redis: Redis) -> AsyncIterator[None]:
    before: dict[str, Any] = {name: (await real_redis.config_get(name))[name] for name in _SETTINGS}
    for name, value in _SETTINGS.items():
        await set_config(real_redis, name, value)
    yield
    for name, value in before.items():
        await set_config(real_redis, name, value)


@pytest.mark.usefixtures("_configured")
async def test_a_message_in_a_session_of_ten_needs_little_memory(chat: Chat, real_redis: Redis) -> None:
    for _ in range(10):
        await chat.sent("x" * 96)

    size = cast(int, await real_redis.memory_usage(Keys("").of(chat.session_id).messages, samples=0))
    assert size / 10 <= 250


@pytest.mark.usefixtures("_configured")
async def test_an_answer_needs_little_more_memory(chat: Chat, real_redis: Redis) -> None:
    for _ in range(5):
        message = await chat.sent("x" * 96)
        await chat.answer(message["id"], "x" * 96)

    keys = Keys("").of(chat.session_id)
    sizes = [cast(int, await real_redis.memory_usage(key, samples=0)) for key in (keys.messages, keys.sends)]
    assert sum(sizes) / 10 <= 420
