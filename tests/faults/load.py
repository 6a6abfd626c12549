"""Steady mixed load: clients that open, read, change and end sessions, each answer judged by a checker.

It runs beside the test, in a thread of its own, until the `with` is left:

    with Load([replica.url]) as load:
        load.until_answered()
        server.kill()
        ...
    assert load.wrong == []
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

from tests.faults.checker import Answer, Checker, Known, end_of
from tests.test_walkthrough import SESSIONS

READS = frozenset({"read", "read of another's"})
CHANGES = frozenset({"create", "heartbeat", "renew", "annotate", "delete"})

ANSWER_SECONDS = 8
"""In which everything must be answered: what a replica waits for Redis, and a margin for a machine that is busy."""

_VERBS = {
    "read": 30,
    "read of another's": 25,
    "heartbeat": 18,
    "renew": 7,
    "annotate": 8,
    "create": 7,
    "delete": 5,
}
_SESSIONS_EACH = 12
_PAUSE_SECONDS = 0.01
_BRIEF_MINUTES = 0.03
_WELL = 200
_WAIT_SECONDS = 30


class Load:
    """`clients` at once, each with sessions of its own, each request to one of `urls` by chance."""

    def __init__(self, urls: Sequence[str], *, clients: int = 8, seen_stays: bool = True) -> None:
        self.checker = Checker(seen_stays=seen_stays)
        self.urls = list(urls)
        self._clients = clients
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._broken: list[BaseException] = []
        self._well_since = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        self.until_answered()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and read every session once more."""
        self._stopped.set()
        self._thread.join(3 * _WAIT_SECONDS)
        assert not self._thread.is_alive(), "a client hangs"
        if error is None and self._broken:
            raise self._broken[0]

    @property
    def wrong(self) -> list[str]:
        """What no client may ever be told, and answers that did not come in time."""
        late = [f"late: {answer}" for answer in self.checker.answers if answer.came - answer.asked > ANSWER_SECONDS]
        return self.checker.wrong + late

    def failures(self, verbs: frozenset[str] = READS | CHANGES, *, since: float = 0) -> list[Answer]:
        """What failed of these that was asked since the instant."""
        return [
            answer
            for answer in self.checker.answers
            if answer.failed and answer.verb in verbs and answer.asked >= since
        ]

    def until_answered(self, number: int = 200) -> None:
        """Go on until as many more requests were answered well."""
        goal = self._well_answered() + number
        self._until(lambda: self._well_answered() >= goal)

    def until_failed(self, number: int = 1) -> None:
        """Go on until as many more requests failed."""
        goal = len(self.failures()) + number
        self._until(lambda: len(self.failures()) >= goal)

    def until_well(self) -> float:
        """Go on until nothing fails any more: of the next 200, none. Returns the instant of the first."""
        self._well_since = time.time()
        self._until(self._is_well)
        return self._well_since

    def _is_well(self) -> bool:
        asked = [answer for answer in self.checker.answers if answer.asked >= self._well_since]
        if any(answer.failed for answer in asked):
            self._well_since = time.time()
            return False
        return len(asked) >= _WELL

    def for_seconds(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def _well_answered(self) -> int:
        return sum(not answer.failed for answer in self.checker.answers)

    def _until(self, is_so: Callable[[], bool]) -> None:
        latest = time.monotonic() + _WAIT_SECONDS
        while not is_so():
            assert not self._broken, self._broken
            assert time.monotonic() < latest, (self.checker.answers[-3:], self.wrong[:3])
            self._stopped.wait(0.02)

    async def _run(self) -> None:
        try:
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(ANSWER_SECONDS)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
                http._retry_connection = False  # or what a client would not be told is tried again behind our back
                clients = [Client(number, self, http) for number in range(self._clients)]
                await asyncio.gather(*(client.resume(self._stopped) for client in clients))
                await asyncio.gather(*(client.read_all() for client in clients))
        except BaseException as error:
            self._broken.append(error)
            raise


class Client:
    """Does one thing after another, chosen by chance, the same in every run."""

    def __init__(self, number: int, load: Load, http: aiohttp.ClientSession) -> None:
        self._load = load
        self._checker = load.checker
        self._http = http
        self._chance = random.Random(number)
        self._own: list[Known] = []
        self._others = load.checker.sessions

    async def resume(self, stopped: threading.Event) -> None:
        await self._create()
        while not stopped.is_set():
            (verb,) = self._chance.choices(list(_VERBS), list(_VERBS.values()))
            await self._do(verb)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def read_all(self) -> None:
        for known in self._own:
            await self._ask(known, "read", "GET")

    async def _do(self, verb: str) -> None:
        if verb == "create" or not self._own:
            await self._create()
        elif verb == "read of another's":
            await self._ask(self._chance.choice(self._others), verb, "GET")
        else:
            await self._do_to(self._chance.choice(self._own[-_SESSIONS_EACH:]), verb)

    async def _do_to(self, known: Known, verb: str) -> None:
        match verb:
            case "read":
                await self._ask(known, verb, "GET")
            case "heartbeat" | "renew" if known.ends is None:
                known.renewals.attempt()
                await self._ask(known, verb, "POST", f"/{verb}", renewals=1)
            case "annotate":
                known.steps.attempt()
                await self._ask(known, verb, "PATCH", "/metadata", {"step": known.steps.attempted})
            case "delete":
                await self._delete(known)

    async def _create(self) -> None:
        """Some of them brief, to be seen to end."""
        agent_id, user_id, label = (str(uuid.UUID(int=self._chance.getrandbits(128), version=4)) for _ in range(3))
        brief = self._chance.random() < 0.3
        timeout = {"timeoutMinutes": _BRIEF_MINUTES, "maxDurationMinutes": _BRIEF_MINUTES} if brief else {}
        metadata = {"label": label, "step": 0}
        body = {"agentId": agent_id, "userId": user_id, "metadata": metadata, "timeoutConfig": timeout}
        answer = await self._send("create", "POST", "", body)
        if answer.status != 201:
            self._checker.expect_refused(answer)
            return
        known = Known(answer.body["sessionId"], agent_id, user_id, label, created=answer.came)
        known.ends = end_of(answer.body) if brief else None
        self._checker.judge(known, known.now(), answer._replace(status=200))
        self._own.append(known)
        self._others.append(known)

    async def _delete(self, known: Known) -> None:
        known.deletion_attempted = True
        if await self._ask(known, "delete", "DELETE"):
            known.deleted = time.time()

    async def _ask(
        self, known: Known, verb: str, method: str, path: str = "", body: object = None, *, renewals: int = 0
    ) -> bool:
        before = known.now()
        answer = await self._send(verb, method, f"/{known.id}{path}", body, known.id)
        return self._checker.judge(known, before._replace(renewals=before.renewals + renewals), answer)

    async def _send(self, verb: str, method: str, path: str, body: object = None, session_id: str = "") -> Answer:
        asked = time.time()
        status, content = await self._answered(method, self._chance.choice(self._load.urls) + SESSIONS + path, body)
        answer = Answer(verb, status, content, asked, time.time(), session_id)
        self._checker.answers.append(answer)
        return answer

    async def _answered(self, method: str, url: str, body: object) -> tuple[int, Any]:
        try:
            async with self._http.request(method, url, json=body) as response:
                return response.status, await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, None
