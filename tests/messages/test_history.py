"""GET /sessions/{id}/messages and the transcript."""

from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.aging import age
from tests.conftest import HttpClient
from tests.messages.chat import Chat, new_chat


def ms_of(message: Any) -> int:
    return round(datetime.fromisoformat(message["createdAt"]).timestamp() * 1000)


@pytest.fixture
async def numbered(chat: Chat) -> Chat:
    """A chat with the messages 0 to 9."""
    for number in range(10):
        await chat.sent(str(number))
    return chat


async def test_an_empty_history_has_no_cursors(chat: Chat) -> None:
    assert await chat.page() == {"messages": [], "hasMore": False}


async def test_the_newest_message_comes_first(numbered: Chat) -> None:
    assert await numbered.contents(limit=3) == ["9", "8", "7"]
    assert await numbered.contents(limit=3, order="asc") == ["0", "1", "2"]


@pytest.mark.parametrize(("limit", "has_more"), [(9, True), (10, False), (11, False)])
async def test_has_more_is_exact(numbered: Chat, limit: int, has_more: bool) -> None:
    assert (await numbered.page(limit=limit))["hasMore"] is has_more
    assert (await numbered.page(limit=limit, order="asc"))["hasMore"] is has_more


async def test_pages_backward_contain_every_message_once(numbered: Chat) -> None:
    pages = [await numbered.page(limit=4)]
    while pages[-1]["hasMore"]:
        pages.append(await numbered.page(limit=4, before=pages[-1]["cursors"]["before"]))

    contents = [[message["content"] for message in page["messages"]] for page in pages]
    assert contents == [["9", "8", "7", "6"], ["5", "4", "3", "2"], ["1", "0"]]


async def test_pages_forward_contain_every_message_once(numbered: Chat) -> None:
    pages = [await numbered.page(limit=4, after=0)]
    while pages[-1]["hasMore"]:
        pages.append(await numbered.page(limit=4, after=pages[-1]["cursors"]["after"]))

    contents = [[message["content"] for message in page["messages"]] for page in pages]
    assert contents == [["3", "2", "1", "0"], ["7", "6", "5", "4"], ["9", "8"]]


async def test_both_bounds_are_exclusive(numbered: Chat) -> None:
    messages = (await numbered.page())["messages"]

    between = await numbered.contents(before=ms_of(messages[2]), after=ms_of(messages[5]))

    assert between == ["6", "5"]


async def test_bounds_are_milliseconds_or_iso_8601(numbered: Chat) -> None:
    message = (await numbered.page())["messages"][4]
    iso = datetime.fromtimestamp(ms_of(message) / 1000, UTC).isoformat()

    assert await numbered.contents(before=ms_of(message)) == await numbered.contents(before=iso)
    assert await numbered.contents(before=message["createdAt"], limit=1) == ["4"]


@pytest.mark.parametrize(("limit", "number"), [("0", 1), ("-5", 1), ("1000", 10), ("", 10)])
async def test_a_limit_beyond_the_bounds_is_adjusted(numbered: Chat, limit: str, number: int) -> None:
    assert len(await numbered.contents(limit=limit)) == number


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "ten"),
        ("limit", "1e2"),
        ("before", "yesterday"),
        ("before", "2024-01-15"),
        ("after", "9" * 16),
        ("after", "-1"),
        ("order", "newest"),
    ],
)
async def test_an_invalid_parameter_is_rejected(chat: Chat, name: str, value: str) -> None:
    response = await chat.client.get(f"{chat.path}/messages", params={name: value})

    assert (response.status, list((await response.json())["details"]["fields"])) == (400, [name])


async def test_a_page_has_a_bounded_size(chat: Chat) -> None:
    for _ in range(40):
        await chat.sent("x" * 4000, metadata={"a": "y" * 10_000})

    page = await chat.page(limit=100)

    assert 10 < len(page["messages"]) < 40
    assert page["hasMore"] is True


async def test_reading_is_no_activity(chat: Chat, client: HttpClient) -> None:
    before = await (await client.get(chat.path)).json()

    await chat.page()

    after = await (await client.get(chat.path)).json()
    assert after["lastActivity"] == before["lastActivity"]


async def test_the_history_of_an_expired_session_is_a_transcript(chat: Chat, redis: Redis) -> None:
    await chat.sent("Hello")
    await age(redis, chat.session_id, 31 * 60_000)

    history = await chat.client.get(f"{chat.path}/messages")
    transcript = await chat.client.get(f"{chat.path}/transcript")

    assert (history.status, transcript.status) == (410, 200)
    assert [message["content"] for message in (await transcript.json())["messages"]] == ["Hello"]


async def test_a_session_that_never_existed_has_no_transcript(chat: Chat, client: HttpClient) -> None:
    other = await new_chat(client)
    await client.delete(other.path)

    assert (await client.get(f"{other.path}/transcript")).status == 404
    assert (await client.get(f"{chat.path}/transcript")).status == 200


@pytest.mark.parametrize("query", [{"before": "0"}, {"before": "1969-01-01T00:00:00Z"}, {"before": "0", "after": "0"}])
async def test_no_message_is_before_1970(numbered: Chat, query: dict[str, str]) -> None:
    assert await numbered.page(**query) == {"messages": [], "hasMore": False}
