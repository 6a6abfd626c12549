"""An agent that echoes each message in parts, to see a conversation without writing an agent."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from typing import Any

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout

from service.cli.arguments import RunDemoAgent
from service.errors import StartupError

MAX_CHUNKS = 40
CHUNK_PAUSE_SECONDS = 0.05
WAIT_SECONDS = 20
STOP_SECONDS = 5
"""How long the agent finishes its answer after a signal."""
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.5, 10.0

_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_TOKEN = re.compile(r"\s*\S+\s*")

Document = dict[str, Any]


def run(command: RunDemoAgent) -> int:
    """Answer messages until SIGINT or SIGTERM, and return the exit code. Raises StartupError if it cannot."""
    asyncio.run(_run(command))
    return 0


async def _run(command: RunDemoAgent) -> None:
    headers = {"X-API-KEY": command.key} if command.key else {}
    timeout = ClientTimeout(total=WAIT_SECONDS + 10)
    async with _stopped_by_signals() as stopping, ClientSession(headers=headers, timeout=timeout) as http:
        agent = DemoAgent(http, command.url.rstrip("/"), command.agent_id)
        _print_line(f"Agent {command.agent_id} answers messages at {command.url}. Stop it with Ctrl+C.")
        while (deliveries := await _result_unless(stopping, agent)) is not None:
            for delivery in deliveries:
                await agent.handle(delivery)


class DemoAgent:
    """Receives and answers messages through the HTTP API. Repeats a request while the service is unavailable."""

    def __init__(self, http: ClientSession, url: str, agent_id: str) -> None:
        self._http = http
        self._api = f"{url}/api/messaging"
        self._inbox = f"{self._api}/agents/{agent_id}/inbox"
        self._agent_id = agent_id

    async def receive(self) -> list[Document]:
        """Wait for deliveries. The list is empty after a while without one. Raises StartupError."""
        status, body = await self._call("GET", f"{self._inbox}?wait={WAIT_SECONDS}&max=1")
        if status != 200:
            raise StartupError(f"The service rejected the agent with {status}: {_error_in(body)}")
        deliveries: list[Document] = body["deliveries"]
        return deliveries

    async def handle(self, delivery: Document) -> None:
        """Answer a message, unless its session has ended or the user has cancelled it, and complete its delivery."""
        if delivery["type"] == "message" and delivery["session"] is not None and await self._answer(delivery):
            return
        await self._call("POST", f"{self._inbox}/ack", {"deliveries": [delivery["id"]]})

    async def _answer(self, delivery: Document) -> bool:
        """Whether the answer was accepted."""
        messages = f"{self._api}/sessions/{delivery['sessionId']}/messages"
        message_id, content = delivery["messageId"], delivery["message"]["content"]
        for index, chunk in enumerate(chunks_of(content)):
            body: Document = {"index": index, "chunk": chunk}
            status, response = await self._call("POST", f"{messages}/{message_id}/chunks", body)
            if status != 202 or response["cancelled"]:
                return False
            await asyncio.sleep(CHUNK_PAUSE_SECONDS)
        answer = {
            "content": content,
            "authorId": self._agent_id,
            "inReplyTo": message_id,
            "clientMessageId": message_id,  # a repetition adds no second answer
        }
        status, _ = await self._call("POST", messages, answer)
        if status == 201:
            _print_line(f"Answered message {message_id} in session {delivery['sessionId']}.")
        return status == 201

    async def _call(self, method: str, url: str, body: Document | None = None) -> tuple[int, Any]:
        """Send a request until the service responds. Return the status and the body."""
        backoff_seconds = MIN_BACKOFF_SECONDS
        while True:
            retry_after = 0.0
            try:
                async with self._http.request(method, url, json=body) as response:
                    if response.status not in _RETRIED:
                        return response.status, _parsed(await response.read())
                    cause = f"status {response.status}"
                    retry_after = _seconds(response.headers.get("Retry-After", ""))
            except (ClientError, TimeoutError) as error:
                cause = str(error) or type(error).__name__
            seconds = max(backoff_seconds, retry_after)
            _print_line(f"The service is unavailable ({cause}). The next attempt is in {seconds:g} seconds.")
            await asyncio.sleep(seconds)
            backoff_seconds = min(2 * backoff_seconds, MAX_BACKOFF_SECONDS)


def chunks_of(content: str) -> list[str]:
    """Split a text into its words, or into groups of words if there are many. Joined, they are the text."""
    tokens = _TOKEN.findall(content) or [content]
    size = ceil(len(tokens) / MAX_CHUNKS)
    return ["".join(tokens[start : start + size]) for start in range(0, len(tokens), size)]


@asynccontextmanager
async def _stopped_by_signals() -> AsyncIterator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set. The block ends at the latest STOP_SECONDS later."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:

            def stop() -> None:
                stopping.set()
                limit.reschedule(min(limit.when() or float("inf"), loop.time() + STOP_SECONDS))

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop)
            yield stopping
    except TimeoutError:
        _print_line("The current answer is incomplete. The message is delivered again when its lease ends.")


async def _result_unless(stopping: asyncio.Event, agent: DemoAgent) -> list[Document] | None:
    """Return the agent's next deliveries, or None once `stopping` is set."""
    receiving, stopped = asyncio.ensure_future(agent.receive()), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((receiving, stopped), return_when=asyncio.FIRST_COMPLETED)
        return receiving.result() if receiving.done() else None
    finally:
        receiving.cancel()
        stopped.cancel()


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _seconds(header: str) -> float:
    return min(float(header), MAX_BACKOFF_SECONDS) if header.isdecimal() else 0.0


def _error_in(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message") if isinstance(error, dict) else error or "no session service at this URL")


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
