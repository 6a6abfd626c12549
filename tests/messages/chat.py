"""Calls of a front end and of an agent."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import ClientResponse

from tests.conftest import AGENT, HttpClient
from tests.test_walkthrough import SESSIONS, open_session

INBOX = f"/api/messaging/agents/{AGENT}/inbox"


class ServerSentEvent(NamedTuple):
    """One event of a stream, with its parsed data."""

    name: str
    data: Any
    id: str = ""


class Chat:
    """A session, as its front end and its agent use it. Authentication is off."""

    def __init__(self, client: HttpClient, session_id: str) -> None:
        self.client = client
        self.session_id = session_id
        self.path = f"{SESSIONS}/{session_id}"

    async def send(self, content: str = "Hello", **members: Any) -> ClientResponse:
        return await self.client.post(f"{self.path}/messages", json={"content": content, **members})

    async def sent(self, content: str = "Hello", **members: Any) -> Any:
        """Send a message that is accepted, and return it."""
        response = await self.send(content, **members)
        assert response.status == 201, await response.text()
        return await response.json()

    async def answer(self, message_id: str, content: str = "Hi there", **members: Any) -> Any:
        return await self.sent(content, authorId=AGENT, inReplyTo=message_id, **members)

    async def chunk(self, message_id: str, index: int, chunk: str) -> ClientResponse:
        path = f"{self.path}/messages/{message_id}/chunks"
        return await self.client.post(path, json={"index": index, "chunk": chunk})

    async def cancel(self, message_id: str) -> ClientResponse:
        return await self.client.post(f"{self.path}/messages/{message_id}/cancel")

    async def page(self, **query: Any) -> Any:
        response = await self.client.get(f"{self.path}/messages", params=query)
        assert response.status == 200, await response.text()
        return await response.json()

    async def contents(self, **query: Any) -> list[str]:
        return [message["content"] for message in (await self.page(**query))["messages"]]

    async def deliveries(self, wait: float = 5, **query: Any) -> list[Any]:
        """Receive deliveries, waiting for the first one."""
        response = await self.client.get(INBOX, params={"wait": wait, **query})
        assert response.status == 200, await response.text()
        deliveries: list[Any] = (await response.json())["deliveries"]
        return deliveries

    @asynccontextmanager
    async def listening(self, headers: dict[str, str] | None = None, **query: Any) -> AsyncIterator["EventReader"]:
        """Open the event stream, and read the first event, which is the session."""
        async with self.client.get(f"{self.path}/events", headers=headers, params=query) as response:
            assert response.status == 200, await response.text()
            events = EventReader(response)
            assert (await events.next()).name == "session"
            yield events


class EventReader:
    """Reads the events of a response one after the other."""

    def __init__(self, response: ClientResponse) -> None:
        self._lines = response.content

    async def next(self) -> ServerSentEvent:
        """Return the next event. Raises EOFError at the end of the stream."""
        fields: dict[str, str] = {}
        while True:
            line = (await self._lines.readline()).decode()
            if not line:
                raise EOFError
            if line == "\n" and "event" in fields:
                return ServerSentEvent(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name] = value

    async def until(self, name: str) -> ServerSentEvent:
        """Return the next event with this name, and skip others."""
        while (event := await self.next()).name != name:
            continue
        return event

    async def rest(self) -> list[ServerSentEvent]:
        """Return all events until the end of the stream."""
        events = []
        while True:
            try:
                events.append(await self.next())
            except EOFError:
                return events


async def new_chat(client: HttpClient, **members: object) -> Chat:
    return Chat(client, await open_session(client, **members))
