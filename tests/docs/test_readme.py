"""Run the quick start and the curl lines of the README, and compare its settings with docs/configuration.md."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import AGENT, USER, StartReplica
from tests.docs import console, markdown, shell
from tests.redis_server import RedisServer
from tests.replica import COMMAND, Replica
from tests.test_walkthrough import SESSIONS

TIMEOUT_SECONDS = 50
README = markdown.document("README.md")
QUICK_START, ONE_SCREEN = markdown.blocks(README, "sh")
MAKE_RUN, _ = console.commands(markdown.blocks(markdown.section(README, "Quick start"), "console")[0])


@pytest.fixture
def quick_start_url(redis_server: RedisServer, start_replica: StartReplica) -> str:
    redis_server.command("FLUSHALL")
    return start_replica(REDIS_URL=redis_server.url, **console.settings_of(MAKE_RUN)).url


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len(README.splitlines()) <= 200


@pytest.fixture
def demo_agent_of() -> Iterator[Callable[[str], None]]:
    """Starts the demo agent for a service."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(url: str) -> None:
        processes.append(subprocess.Popen([*COMMAND, "demo-agent", "--url", url], cwd=markdown.ROOT))

    yield start
    for process in processes:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)


def test_the_quick_start_has_a_conversation_and_an_expired_session(
    quick_start_url: str, demo_agent_of: Callable[[str], None], tmp_path: Path
) -> None:
    demo_agent_of(quick_start_url)

    transcript = shell.run([QUICK_START], quick_start_url, tmp_path)

    assert transcript.requests == ["POST 201", "POST 200", "GET 200", "POST 201", "GET 200", "GET 410"]
    assert re.findall(r"^event: (\w+)", transcript.output, re.MULTILINE) == ["user_message", "chunk", "chunk", "done"]
    assert '"content":"Hello you","authorId":"3c90c3cc-0d44-4b50-8888-8dd25736052a"' in transcript.output
    assert '"code":"SESSION_EXPIRED"' in transcript.output.splitlines()[-1]


def test_the_curl_lines_succeed_in_their_order(replica_url: str, tmp_path: Path) -> None:
    variables = "\n".join(QUICK_START.splitlines()[:3])

    transcript = shell.run([variables, ONE_SCREEN], replica_url, tmp_path)

    assert transcript.requests[0] == "POST 201"
    assert {line.split()[1] for line in transcript.requests[1:]} == {"200"}
    assert len(transcript.requests) == 1 + ONE_SCREEN.count("curl ")


@pytest.fixture
def readme_agent(replica: Replica, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The agent of the README as a process."""
    [agent] = markdown.blocks(markdown.section(README, "An agent"), "python")
    (tmp_path / "agent.py").write_text(agent.replace("http://127.0.0.1:3000", replica.url))
    process = subprocess.Popen([sys.executable, str(tmp_path / "agent.py")])
    yield process
    process.terminate()
    process.wait(TIMEOUT_SECONDS)


def send(replica: Replica, **message: str) -> Any:
    _, session = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})
    _, sent = replica.call("POST", f"{SESSIONS}/{session['sessionId']}/messages", {"transport": "http", **message})
    return sent


@pytest.mark.usefixtures("readme_agent")
def test_the_agent_answers_messages(replica: Replica) -> None:
    sent = [send(replica, content=content) for content in ("Hello", "you")]

    assert [message["agentResponse"]["text"] for message in sent] == ["You wrote: Hello", "You wrote: you"]


@pytest.mark.usefixtures("readme_agent")
def test_the_agent_answers_the_longest_message(replica: Replica) -> None:
    sent = send(replica, content="x" * 4000, transport="http")

    assert sent["agentResponse"]["text"].startswith("You wrote: xxx")


def test_the_settings_agree_with_the_configuration_page() -> None:
    rows = markdown.table_rows(markdown.section(README, "The ten settings people change"))
    documented = {
        name: default for name, default, *_ in markdown.table_rows(markdown.document("docs/configuration.md"))
    }

    assert len(rows) == 10
    assert {name: default for name, default, _ in rows}.items() <= documented.items()
