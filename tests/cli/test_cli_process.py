"""Commands as processes: `python -m service inspect` and `revoke`, also on a terminal."""

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.sessions.session import Session
from service.settings.redis_url import Kind
from tests.cli.operator import UNKNOWN, cells
from tests.conftest import USER, StartReplica
from tests.redis_contents import KEYS
from tests.redis_server import RedisServer
from tests.replica import COMMAND

TIMEOUT_SECONDS = 50


def run(words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [*COMMAND, *words.split()],
        cwd=Path(__file__).parent.parent.parent,
        env={**inherited, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


async def test_inspect_is_a_command_of_the_service(redis_server: RedisServer, session: Session) -> None:
    process = await asyncio.to_thread(run, "inspect", REDIS_URL=redis_server.url)

    assert (process.returncode, process.stderr) == (0, "")
    assert cells(next(line for line in process.stdout.splitlines() if line.startswith(session.id)))[2] == USER


def test_commands_use_the_embedded_server_of_the_service(start_replica: StartReplica, data_dir: Path) -> None:
    start_replica(SESSION_DATA_DIR=str(data_dir))

    process = run("inspect", SESSION_DATA_DIR=str(data_dir))

    assert (process.returncode, process.stderr) == (0, "")
    assert f"redis-cli -s {data_dir}/valkey.sock\n" in process.stdout


def test_commands_do_not_start_an_embedded_server(data_dir: Path) -> None:
    process = run("inspect", SESSION_DATA_DIR=str(data_dir))

    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == f"No embedded server runs in {data_dir}. Start the service, or set REDIS_URL.\n"
    assert list(data_dir.iterdir()) == []


def test_unknown_variables_are_reported() -> None:
    process = run("inspect", REDIS_URL="unix:///nowhere/redis.sock", SESSION_KEY_PREFX="staging:")

    assert process.stderr.startswith("SESSION_KEY_PREFX is not a setting of this service\n")


@pytest.mark.parametrize("words", ["inspect", f"inspect {UNKNOWN}", f"revoke --user {USER} --yes"])
def test_an_unavailable_redis_is_an_error_of_one_line_without_its_password(words: str) -> None:
    process = run(words, REDIS_URL="unix://user:hunter2@/nowhere/redis.sock")

    assert (process.returncode, process.stdout, process.stderr.count("\n")) == (1, "", 1)
    assert process.stderr.startswith("Redis is unavailable: ")
    assert "hunter2" not in process.stderr


async def test_the_password_is_never_shown(redis_server: RedisServer, session: Session) -> None:
    redis_server.command("ACL", "SETUSER", "chat", "on", ">hunter2", "allkeys", "allcommands")
    url = redis_server.url.replace("unix://", "unix://chat:hunter2@")

    processes = [
        await asyncio.to_thread(run, words, REDIS_URL=url)
        for words in ("inspect", f"inspect {session.id} --json", f"inspect --user {USER}")
    ]
    redis_server.command("ACL", "DELUSER", "chat")

    assert [(process.returncode, process.stderr, "hunter2" in process.stdout) for process in processes] == [
        (0, "", False)
    ] * 3
    assert "--user chat" in processes[0].stdout


def test_serving_does_not_load_the_commands() -> None:
    program = (
        "import sys, service.__main__; print([m for m in sys.modules if m in ('service.cli.commands', 'rich.live')])"
    )

    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert output == "[]\n"


# On a terminal


class RunningCommand:
    """A running command and its output so far, read from `descriptor`."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self._process = process
        self._descriptor = descriptor
        self.output = ""

    def read_until(self, words: str, times: int = 1) -> None:
        """Read until the output contains these words so many times."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.output.count(words) < times:
            assert select.select([self._descriptor], [], [], max(deadline - time.monotonic(), 0))[0], self.output
            self.output += os.read(self._descriptor, 65536).decode()

    def type(self, words: str) -> None:
        os.write(self._descriptor, words.encode())

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Return the exit code."""
        return self._process.wait(TIMEOUT_SECONDS)


Start = Callable[..., RunningCommand]


@pytest.fixture
def kind() -> Kind:
    """Commands connect like the service, so one kind is enough."""
    return "server"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts commands on a terminal or a pipe. They receive SIGINT even if this process ignores it."""
    started: list[tuple[subprocess.Popen[bytes], int]] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(words: str, url: str, ends: tuple[int, int]) -> RunningCommand:
        reading, writing = ends
        process = subprocess.Popen(
            [*COMMAND, *words.split()],
            cwd=Path(__file__).parent.parent.parent,
            env={"PATH": os.environ["PATH"], "REDIS_URL": url, "TERM": "xterm", "COLUMNS": "80", "LINES": "40"},
            stdin=writing if os.isatty(writing) else subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
        )
        os.close(writing)
        started.append((process, reading))
        return RunningCommand(process, reading)

    yield start
    signal.signal(signal.SIGINT, before)
    for process, reading in started:
        process.kill()
        process.wait()
        os.close(reading)


async def test_revoke_prompts_first(
    redis_server: RedisServer, session: Session, real_redis: Redis, start: Start
) -> None:
    command = start(f"revoke {session.id}", redis_server.url, pty.openpty())

    command.read_until("Revoke? [y/N]")
    exists_at_prompt = await real_redis.exists(KEYS.session(session.id))
    command.type("y\n")
    command.read_until("The session was revoked.")

    assert command.wait() == 0
    assert (exists_at_prompt, await real_redis.exists(KEYS.session(session.id))) == (1, 0)


# Watching


@pytest.mark.usefixtures("real_redis")
def test_watch_refreshes_in_place_on_a_terminal(redis_server: RedisServer, start: Start) -> None:
    command = start("inspect --watch 0.1", redis_server.url, pty.openpty())

    command.read_until("no sessions", 3)
    command.interrupt()

    assert command.wait() == 0
    assert command.output.count("\x1b[2K") > 10


@pytest.mark.usefixtures("real_redis")
def test_watch_prints_each_report_to_a_pipe(redis_server: RedisServer, start: Start) -> None:
    command = start("inspect --watch 0.1", redis_server.url, os.pipe())

    command.read_until("no sessions", 3)
    command.interrupt()

    assert command.wait() == 0
    assert "\x1b" not in command.output


def test_watch_continues_during_an_outage(data_dir: Path, start: Start) -> None:
    server = RedisServer(data_dir)
    command = start("inspect --watch 0.1", server.url, os.pipe())

    command.read_until("Redis is unavailable", 2)
    server.start()
    command.read_until("no sessions", 2)
    server.stop()
    command.read_until("Redis is unavailable", command.output.count("Redis is unavailable") + 1)
    command.interrupt()

    assert command.wait() == 0
