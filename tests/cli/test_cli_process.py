"""The operator's terminal as its users have it: `python -m service inspect` and `revoke` as processes."""

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
from tests.cli.test_commands import UNKNOWN, cells
from tests.conftest import USER, StartReplica
from tests.redis_server import RedisServer
from tests.replica import COMMAND
from tests.sessions.evidence import KEYS

SOON = 20


def typed(words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [*COMMAND, *words.split()],
        cwd=Path(__file__).parent.parent.parent,
        env={**inherited, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SOON,
    )


async def test_it_is_a_verb_of_the_service(redis_server: RedisServer, session: Session) -> None:
    ended = await asyncio.to_thread(typed, "inspect", REDIS_URL=redis_server.url)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert cells(next(line for line in ended.stdout.splitlines() if line.startswith(session.id)))[2] == USER


async def test_what_it_ends_is_ended(redis_server: RedisServer, session: Session, real_redis: Redis) -> None:
    revoking = f"revoke --user {USER} --yes"
    ended = await asyncio.to_thread(typed, revoking, REDIS_URL=redis_server.url, SESSION_AUDIT_LOG="off")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "1 session ended."
    assert not await real_redis.exists(KEYS.session(session.id))


async def test_data_of_another_layout_is_refused_in_one_line(
    redis_server: RedisServer, session: Session, real_redis: Redis
) -> None:
    await real_redis.set(KEYS.layout, "2")

    ended = await asyncio.to_thread(typed, f"revoke --user {USER} --yes", REDIS_URL=redis_server.url)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "The data in Redis is of layout 2; this version reads 1.\n"
    assert await real_redis.exists(KEYS.session(session.id))


def test_it_finds_the_server_that_the_service_brought(start_replica: StartReplica, data_dir: Path) -> None:
    start_replica(SESSION_DATA_DIR=str(data_dir))

    ended = typed("inspect", SESSION_DATA_DIR=str(data_dir))

    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"redis-cli -s {data_dir}/valkey.sock\n" in ended.stdout


def test_it_starts_no_server_of_its_own(data_dir: Path) -> None:
    ended = typed("inspect", SESSION_DATA_DIR=str(data_dir))

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"No embedded server runs in {data_dir}; start the service, or set REDIS_URL.\n"
    assert list(data_dir.iterdir()) == []


def test_a_variable_that_no_knob_reads_is_told() -> None:
    ended = typed("inspect", REDIS_URL="unix:///nowhere/redis.sock", SESSION_KEY_PREFX="staging:")

    assert ended.stderr.startswith("SESSION_KEY_PREFX is not a setting of this service\n")


@pytest.mark.parametrize("words", ["inspect", f"inspect {UNKNOWN}", f"revoke --user {USER} --yes"])
def test_a_redis_that_is_away_is_told_in_one_line_without_its_password(words: str) -> None:
    ended = typed(words, REDIS_URL="unix://user:hunter2@/nowhere/redis.sock")

    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert ended.stderr.startswith("Redis is not available: ")
    assert "hunter2" not in ended.stderr


async def test_a_password_is_in_nothing_that_is_shown(redis_server: RedisServer, session: Session) -> None:
    redis_server.command("ACL", "SETUSER", "chat", "on", ">hunter2", "allkeys", "allcommands")
    url = redis_server.url.replace("unix://", "unix://chat:hunter2@")

    shown = [
        await asyncio.to_thread(typed, words, REDIS_URL=url)
        for words in ("inspect", f"inspect {session.id} --json", f"inspect --user {USER}")
    ]
    redis_server.command("ACL", "DELUSER", "chat")

    assert [(ended.returncode, ended.stderr, "hunter2" in ended.stdout) for ended in shown] == [(0, "", False)] * 3
    assert "--user chat" in shown[0].stdout


def test_serving_needs_none_of_it() -> None:
    loaded = (
        "import sys, service.__main__; print([m for m in sys.modules if m in ('service.cli.commands', 'rich.live')])"
    )

    said = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout

    assert said == "[]\n"


# On a terminal


class UnderWay:
    """A command under way, whose output is read from `descriptor`."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self._process = process
        self._descriptor = descriptor
        self.output = ""

    def until(self, words: str, times: int = 1) -> None:
        """Read on until these words were said so many times."""
        latest = time.monotonic() + SOON
        while self.output.count(words) < times:
            assert select.select([self._descriptor], [], [], max(latest - time.monotonic(), 0))[0], self.output
            self.output += os.read(self._descriptor, 65536).decode()

    def type(self, words: str) -> None:
        os.write(self._descriptor, words.encode())

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """The exit code."""
        return self._process.wait(SOON)


Start = Callable[..., UnderWay]


@pytest.fixture
def kind() -> Kind:
    """One is enough: a process finds its servers as the service does."""
    return "server"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts commands, on a terminal or into a pipe; they hear SIGINT, even where this process was told not to."""
    started: list[tuple[subprocess.Popen[bytes], int]] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(words: str, url: str, ends: tuple[int, int]) -> UnderWay:
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
        return UnderWay(process, reading)

    yield start
    signal.signal(signal.SIGINT, before)
    for process, reading in started:
        process.kill()
        process.wait()
        os.close(reading)


async def test_it_asks_before_it_ends_anything(
    redis_server: RedisServer, session: Session, real_redis: Redis, start: Start
) -> None:
    command = start(f"revoke {session.id}", redis_server.url, pty.openpty())

    command.until("Revoke? [y/N]")
    there_while_it_asks = await real_redis.exists(KEYS.session(session.id))
    command.type("y\n")
    command.until("The session has ended.")

    assert command.wait() == 0
    assert (there_while_it_asks, await real_redis.exists(KEYS.session(session.id))) == (1, 0)


# Watching


@pytest.mark.usefixtures("real_redis")
def test_on_a_terminal_it_refreshes_in_place(redis_server: RedisServer, start: Start) -> None:
    command = start("inspect --watch 0.1", redis_server.url, pty.openpty())

    command.until("no sessions", 3)
    command.interrupt()

    assert command.wait() == 0
    assert command.output.count("\x1b[2K") > 10


@pytest.mark.usefixtures("real_redis")
def test_into_a_pipe_it_is_printed_anew(redis_server: RedisServer, start: Start) -> None:
    command = start("inspect --watch 0.1", redis_server.url, os.pipe())

    command.until("no sessions", 3)
    command.interrupt()

    assert command.wait() == 0
    assert "\x1b" not in command.output


def test_it_goes_on_through_an_outage(data_dir: Path, start: Start) -> None:
    server = RedisServer(data_dir)
    command = start("inspect --watch 0.1", server.url, os.pipe())

    command.until("Redis is not available", 2)
    server.start()
    command.until("no sessions", 2)
    server.stop()
    command.until("Redis is not available", command.output.count("Redis is not available") + 1)
    command.interrupt()

    assert command.wait() == 0
