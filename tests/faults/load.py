"""Mixed load from concurrent clients, in a thread of its own. A checker checks every response.

with Load([replica.url]) as load:
    server.kill()
    load.wait_for_failures()
    server.start()
    load.wait_until_stable()
assert load.violations == []
"""

import asyncio
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.faults.checker import Checker, ExpectedSession, Response, expiry_of
from tests.test_walkthrough import SESSIONS

READS = frozenset({"read", "read of another client"})
CHANGES = frozenset({"create", "heartbeat", "renew", "update_metadata", "delete"})

MAX_RESPONSE_SECONDS = 8
"""The longest store timeout of a test, and a margin for a busy machine."""

_OPERATION_WEIGHTS = {
    "read": 30,
    "read of another client": 25,
    "heartbeat": 18,
    "renew": 7,
    "update_metadata": 8,
    "create": 7,
    "delete": 5,
}
_ACTIVE_SESSIONS_PER_CLIENT = 12
_PAUSE_SECONDS = 0.01
_BRIEF_TIMEOUT_MINUTES = 0.03
_STABLE_RESPONSES = 100
_MAX_WAIT_SECONDS = 30


class Load:
    """Runs `clients` at the same time. Each has its own sessions, and sends each request to a random one of `urls`."""

    def __init__(self, urls: Sequence[str], *, clients: int = 8, reads_are_durable: bool = True) -> None:
        self.checker = Checker(reads_are_durable=reads_are_durable)
        self.urls = list(urls)
        self._clients = clients
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._errors: list[BaseException] = []
        self._stable_since = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for_successes(self._clients * 10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the clients after each has read all its sessions once more."""
        self._is_stopped.set()
        self._thread.join(3 * _MAX_WAIT_SECONDS)
        assert not self._thread.is_alive(), "a client hangs"
        if error is None and self._errors:
            raise self._errors[0]

    @property
    def violations(self) -> list[str]:
        """Violations of the model, and responses that took too long."""
        slow = [f"slow: {response}" for response in self.checker.responses if response.seconds > MAX_RESPONSE_SECONDS]
        return self.checker.violations + slow

    def failures(self, operations: frozenset[str] = READS | CHANGES, *, since: float = 0) -> list[Response]:
        """Return failures of these operations among the requests sent since then."""
        return [
            response
            for response in self.checker.responses
            if response.is_failure and response.operation in operations and response.sent_at >= since
        ]

    @property
    def failure_statuses(self) -> set[int]:
        return {response.status for response in self.failures()}

    def wait_for_successes(self, number: int) -> None:
        """Wait for this number of further successful responses."""
        goal = self._number_of_successes() + number
        self._wait_until(lambda: self._number_of_successes() >= goal)

    def wait_for_failures(self, number: int = 1) -> None:
        """Wait for this number of further failures."""
        goal = len(self.failures()) + number
        self._wait_until(lambda: len(self.failures()) >= goal)

    def wait_until_stable(self) -> float:
        """Wait until 100 consecutive requests succeed. Returns the time when the first of them was sent."""
        self._stable_since = time.time()
        self._wait_until(self._is_stable)
        return self._stable_since

    def run_for(self, seconds: float) -> None:
        self._is_stopped.wait(seconds)

    def _is_stable(self) -> bool:
        recent = [response for response in self.checker.responses if response.sent_at >= self._stable_since]
        if any(response.is_failure for response in recent):
            self._stable_since = time.time()
            return False
        return len(recent) >= _STABLE_RESPONSES

    def _number_of_successes(self) -> int:
        return sum(not response.is_failure for response in self.checker.responses)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _MAX_WAIT_SECONDS
        while not condition():
            assert not self._errors, self._errors
            assert time.monotonic() < deadline, (self.checker.responses[-3:], self.violations[:3])
            self._is_stopped.wait(0.02)

    async def _run(self) -> None:
        try:
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(MAX_RESPONSE_SECONDS)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
                http._retry_connection = False  # aiohttp would repeat requests that the checker does not count
                clients = [Client(number, self, http) for number in range(self._clients)]
                await asyncio.gather(*(client.run_until(self._is_stopped) for client in clients))
                await asyncio.gather(*(client.read_all() for client in clients))
        except BaseException as error:
            self._errors.append(error)
            raise


class Client:
    """Sends one request after another. The sequence of operations depends only on `number`."""

    def __init__(self, number: int, load: Load, http: aiohttp.ClientSession) -> None:
        self._load = load
        self._checker = load.checker
        self._http = http
        self._random = random.Random(number)
        self._own_sessions: list[ExpectedSession] = []
        self._all_sessions = load.checker.sessions

    async def run_until(self, stopped: threading.Event) -> None:
        await self._create()
        while not stopped.is_set():
            (operation,) = self._random.choices(list(_OPERATION_WEIGHTS), list(_OPERATION_WEIGHTS.values()))
            await self._execute(operation)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def read_all(self) -> None:
        for session in self._own_sessions:
            await self._request(session, "read", "GET")

    async def _execute(self, operation: str) -> None:
        if operation == "create" or not self._own_sessions:
            await self._create()
        elif operation == "read of another client":
            await self._request(self._random.choice(self._all_sessions), operation, "GET")
        else:
            session = self._random.choice(self._own_sessions[-_ACTIVE_SESSIONS_PER_CLIENT:])
            await self._execute_on(session, operation)

    async def _execute_on(self, session: ExpectedSession, operation: str) -> None:
        match operation:
            case "read":
                await self._request(session, operation, "GET")
            case "heartbeat" | "renew" if session.expires_at is None:
                session.renewals.attempt_increment()
                await self._request(session, operation, "POST", f"/{operation}", renewals=1)
            case "update_metadata":
                session.steps.attempt_increment()
                await self._request(session, operation, "PATCH", "/metadata", {"step": session.steps.upper_bound})
            case "delete":
                await self._delete(session)

    async def _create(self) -> None:
        """Create a session. Three in ten expire after two seconds."""
        agent_id, user_id, label = (str(uuid.UUID(int=self._random.getrandbits(128), version=4)) for _ in range(3))
        is_brief = self._random.random() < 0.3
        minutes = {"timeoutMinutes": _BRIEF_TIMEOUT_MINUTES, "maxDurationMinutes": _BRIEF_TIMEOUT_MINUTES}
        body = {
            "agentId": agent_id,
            "userId": user_id,
            "metadata": {"label": label, "step": 0},
            "timeoutConfig": minutes if is_brief else {},
        }
        response = await self._send("create", "POST", "", body)
        if response.status != 201:
            self._checker.check_failed_creation(response)
            return
        session_id = response.body["sessionId"]
        session = ExpectedSession(session_id, agent_id, user_id, label, created_at=response.received_at)
        session.expires_at = expiry_of(response.body) if is_brief else None
        self._checker.check(session, session.snapshot(), response._replace(status=200))
        self._own_sessions.append(session)
        self._all_sessions.append(session)

    async def _delete(self, session: ExpectedSession) -> None:
        session.is_deletion_attempted = True
        if await self._request(session, "delete", "DELETE"):
            session.deleted_at = time.time()

    async def _request(
        self,
        session: ExpectedSession,
        operation: str,
        method: str,
        path: str = "",
        body: object = None,
        *,
        renewals: int = 0,
    ) -> bool:
        """Return whether the request was acknowledged. `renewals` is the number that the request adds."""
        before = session.snapshot()
        response = await self._send(operation, method, f"/{session.id}{path}", body, session.id)
        return self._checker.check(session, before._replace(renewals=before.renewals + renewals), response)

    async def _send(
        self, operation: str, method: str, path: str, body: object = None, session_id: str = ""
    ) -> Response:
        sent_at = time.time()
        url = self._random.choice(self._load.urls) + SESSIONS + path
        status, content = await self._status_and_body(method, url, body)
        response = Response(operation, status, content, sent_at, time.time(), session_id)
        self._checker.responses.append(response)
        return response

    async def _status_and_body(self, method: str, url: str, body: object) -> tuple[int, Any]:
        try:
            async with self._http.request(method, url, json=body) as response:
                return response.status, await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, None
