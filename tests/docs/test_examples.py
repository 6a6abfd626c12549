"""Run the Python and TypeScript clients of the README against a replica."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartReplica
from tests.docs import markdown
from tests.outages.incidents import without_replicas
from tests.redis_server import RedisServer
from tests.replica import Replica

README = markdown.document("README.md")
CONCURRENT_CALLS = 8

PYTHON_DRIVER = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
function, session, times = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
functions = {"openSession": lambda _: open_session(), "countTurn": count_turn}
with ThreadPoolExecutor(times) as pool:
    print(json.dumps(list(pool.map(functions[function], [session] * times))))
"""
NODE_DRIVER = """
const [name, session, times] = [process.argv[2], JSON.parse(process.argv[3]), Number(process.argv[4])];
const functions = { openSession: () => openSession(), countTurn };
const calls = Array.from({ length: times }, () => functions[name](session));
console.log(JSON.stringify(await Promise.all(calls)));
"""

Session = dict[str, Any]
Call = Callable[..., list[Session]]


@pytest.fixture(params=["python", "typescript"])
def write_example(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that writes the example for a replica and returns the command to run it."""
    command, file, driver = {
        "python": (sys.executable, "example.py", PYTHON_DRIVER),
        "typescript": (shutil.which("node"), "example.mjs", NODE_DRIVER),
    }[request.param]
    if command is None:
        pytest.fail("needs Node.js 20 or newer: apt-get install nodejs, or brew install node", pytrace=False)
    example = markdown.blocks(markdown.section(README, "Clients"), request.param)[0]
    functions, _, _ = example.rstrip().rpartition("\n")  # the last line calls them

    def write(url: str, *, with_driver: bool = True) -> list[str]:
        code = (functions + driver if with_driver else example).replace("http://127.0.0.1:3000", url)
        (tmp_path / file).write_text(without_types(code) if file.endswith(".mjs") else code)
        return [command, str(tmp_path / file)]

    return write


@pytest.fixture
def call_example(write_example: Callable[..., list[str]]) -> Call:
    def call(replica: Replica, function: str, session: Session | None = None, times: int = 1) -> list[Session]:
        command = [*write_example(replica.url), function, json.dumps(session), str(times)]
        completed = subprocess.run(command, capture_output=True, text=True, timeout=40, check=True)
        sessions: list[Session] = json.loads(completed.stdout)
        return sessions

    return call


@pytest.fixture
def short_replica(redis_server: RedisServer, start_replica: StartReplica) -> Replica:
    """A replica whose sessions expire after 60 ms."""
    short = {"SESSION_MIN_TIMEOUT_MINUTES": "0.001", "SESSION_DEFAULT_TIMEOUT_MINUTES": "0.001"}
    return start_replica(REDIS_URL=redis_server.url, **short)


def test_an_example_counts_one_turn_in_a_new_session(replica: Replica, write_example: Callable[..., list[str]]) -> None:
    command = write_example(replica.url, with_driver=False)

    completed = subprocess.run(command, capture_output=True, text=True, timeout=40, check=True)

    assert re.search(r"['\"]?turns['\"]?: 1\b", completed.stdout)


def test_a_turn_after_expiry_is_counted_in_a_new_session(
    replica: Replica, short_replica: Replica, call_example: Call
) -> None:
    [expired] = call_example(short_replica, "openSession")

    [counted] = call_example(replica, "countTurn", expired)

    assert counted["sessionId"] != expired["sessionId"]
    assert counted["metadata"] == {"turns": 1}
    assert replica.wait_for_line('"status":410')


def test_a_turn_after_a_deletion_is_counted_in_a_new_session(replica: Replica, call_example: Call) -> None:
    [deleted] = call_example(replica, "openSession")
    replica.call("DELETE", f"/api/messaging/sessions/{deleted['sessionId']}")

    [counted] = call_example(replica, "countTurn", deleted)

    assert counted["sessionId"] != deleted["sessionId"]
    assert counted["metadata"] == {"turns": 1}


def test_a_failed_change_is_not_repeated(redis_server: RedisServer, replica: Replica, call_example: Call) -> None:
    [session] = call_example(replica, "openSession")

    with without_replicas(redis_server), pytest.raises(subprocess.CalledProcessError):
        call_example(replica, "countTurn", session)

    replica.wait_for_line('"status":503')
    assert replica.output.count('"status":503') == 1


def test_a_rejected_creation_raises_an_error(
    redis_server: RedisServer, start_replica: StartReplica, call_example: Call
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_REQUIRE_KNOWN_AGENT="true")

    with pytest.raises(subprocess.CalledProcessError):
        call_example(replica, "openSession")

    assert replica.wait_for_line('"status":404')


def test_concurrent_changes_are_all_counted(replica: Replica, call_example: Call) -> None:
    [session] = call_example(replica, "openSession")

    changed = call_example(replica, "countTurn", session, times=CONCURRENT_CALLS)

    assert max(result["metadata"]["turns"] for result in changed) == CONCURRENT_CALLS
    assert replica.wait_for_line('"status":412')


def test_a_creation_succeeds_after_redis_was_unavailable(
    redis_server: RedisServer, start_replica: StartReplica, call_example: Call
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_STORE_TIMEOUT_SECONDS="2")
    redis_server.pause()
    resumption = threading.Thread(target=_resume_after_an_error, args=(redis_server, replica))
    resumption.start()

    [session] = call_example(replica, "openSession")

    resumption.join()
    assert replica.call("GET", f"/api/messaging/sessions/{session['sessionId']}")[0] == 200


def _resume_after_an_error(redis_server: RedisServer, replica: Replica) -> None:
    try:
        replica.wait_for_line('"status":503')
    finally:
        redis_server.resume()


def without_types(code: str) -> str:
    """Return the TypeScript code as JavaScript, because Node.js 20 does not accept type annotations."""
    return re.sub(r"\??: (any|string|object|number\[\]|Promise<\w+>)(?=[,)]| \{)", "", code)
