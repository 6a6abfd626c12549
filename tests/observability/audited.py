"""A replica with an audit log, shared by the tests of a module, and the records that a test causes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.conftest import AGENT
from tests.hashes import hashed_at
from tests.redis_server import wait_until
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

Record = dict[str, Any]


def policy_of(agent_id: str) -> str:
    return f"/api/messaging/agents/{agent_id}/timeout"


def some(record: Record, *names: str) -> Record:
    return {name: record.get(name) for name in names}


def new_session(user_id: str, **members: object) -> dict[str, object]:
    return {"agentId": AGENT, "userId": user_id, "metadata": {"channel": "a private channel"}, **members}


class Audited:
    """A replica, its audit log, and a user that only the current test uses."""

    def __init__(self, replica: Replica, path: Path, admin: Mapping[str, str]) -> None:
        self.replica = replica
        self.path = path
        self.user_id = str(uuid4())
        self._admin = admin
        self._position = len(path.read_text())

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        return self.replica.call(method, path, body, headers)

    def create(self, headers: Mapping[str, str] | None = None, **members: object) -> str:
        session_id: str = self.call("POST", SESSIONS, new_session(self.user_id, **members), headers)[1]["sessionId"]
        return session_id

    def hashed(self, id_: str) -> str:
        return hashed_at(self.replica.settings["REDIS_URL"], id_)

    def text(self) -> str:
        """Return the records of this test. A last record ends them, which another agent's policy causes."""
        agent_id = str(uuid4())
        self.call("PUT", policy_of(agent_id), {"timeoutMinutes": 60}, self._admin)
        end = f'"agent":"{self.hashed(agent_id)}"'
        wait_until(lambda: end in self.path.read_text(), "the last record")
        return "".join(line for line in self._lines() if end not in line)

    def records(self) -> list[Record]:
        return [json.loads(line) for line in self.text().splitlines()]

    def _lines(self) -> list[str]:
        return self.path.read_text()[self._position :].splitlines(keepends=True)


@contextmanager
def running(**settings: str) -> Iterator[Replica]:
    replica = Replica(**settings)
    replica.start()
    yield replica
    replica.stop()
