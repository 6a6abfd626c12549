"""A Sentinel deployment for tests: a primary, two replicas and three Sentinels.

All of them are local processes with short timeouts: a failover takes one or two seconds.

    servers = SentinelServers(folder)
    servers.start()
    primary = servers.primary
    primary.kill()
    servers.wait_until_replaced(primary)
    primary.start()                        # becomes a replica
"""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import redis

from tests.redis_server import ADMIN, REDIS_PROGRAM, Login, RedisServer, acl_of, free_port, service_acl, wait_until

MASTER = "sessions"
QUORUM = 2
DOWN_AFTER_MS = 500
FAILOVER_TIMEOUT_MS = 3000

_PERIODS_MS = {
    "info-period": 100,
    "ping-period": 300,  # a replica can be promoted if it responded within five periods; it is polled every second
    "ask-period": 100,
    "publish-period": 500,  # a Sentinel waits four periods before it demotes a server that another one promotes
    "tilt-period": 1000,
}


class Logins(NamedTuple):
    """The only users that may log in: `service` and `admin` on the servers, `sentinel` on the Sentinels."""

    service: Login = Login("service", "of-the-service")
    admin: Login = Login("admin", "of-the-admin")
    sentinel: Login = Login("watcher", "of-the-watcher")


class SentinelServers:
    """Three servers and three Sentinels, with their files in `folder`. The path of the folder must be short.

    `settings` are options of the servers. With `logins`, connections must authenticate; otherwise the default user
    has the permissions of the service.
    """

    def __init__(
        self, folder: Path, *, settings: Mapping[str, str] | None = None, logins: Logins | None = None
    ) -> None:
        self._folder = folder
        self._settings = settings or {}
        self._logins = logins
        self.servers = [self._server(number) for number in range(3)]
        self.sentinels = [Sentinel(_subfolder(folder, f"s{number}"), logins) for number in range(3)]

    @property
    def url(self) -> str:
        """The value of REDIS_URL."""
        addresses = ",".join(sentinel.address for sentinel in self.sentinels)
        if self._logins is None:
            return f"redis+sentinel://{addresses}/{MASTER}/0"
        user, password = self._logins.sentinel
        sentinel_login = f"sentinel_username={user}&sentinel_password={password}"
        return f"redis+sentinel://{self._logins.service}{addresses}/{MASTER}/0?{sentinel_login}"

    @property
    def primary(self) -> RedisServer:
        """The server that most Sentinels name as the primary."""
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
            wait_until(lambda replica=replica: _follows(replica, self.servers[0]), "a replica is in sync")  # type: ignore[misc]
        for sentinel in self.sentinels:
            sentinel.start(self.servers[0].port)
        self.wait_until_settled()

    def stop(self) -> None:
        for sentinel in self.sentinels:
            sentinel.stop()
        for server in self.servers:
            server.stop()

    def fail_over(self) -> None:
        """Request a failover, and wait until it is complete."""
        self.wait_until_settled()
        old = self.primary
        self.sentinels[0].command("SENTINEL", "FAILOVER", MASTER)
        self.wait_until_replaced(old)

    def wait_until_replaced(self, old: RedisServer) -> RedisServer:
        """Wait until every running Sentinel names another primary, and that server accepts writes."""
        wait_until(lambda: self._is_replaced(old), "another server is the primary")
        return self.primary

    def wait_until_following(self, *replicas: RedisServer) -> None:
        """Wait until these replicas, by default all, are in sync with the primary."""
        for replica in replicas or self.replicas:
            wait_until(lambda replica=replica: _follows(replica, self.primary), "a replica is in sync")  # type: ignore[misc]

    def wait_until_settled(self) -> None:
        """Wait until every Sentinel sees all servers and Sentinels up, and no failover in progress."""
        wait_until(
            lambda: all(sentinel.is_settled() for sentinel in self.sentinels), "the Sentinels see all servers up"
        )

    def _is_replaced(self, old: RedisServer) -> bool:
        named = {sentinel.primary_port() for sentinel in self.sentinels if sentinel.is_running}
        return len(named) == 1 and old.port not in named and _role(self.primary) == b"master"

    def _server(self, number: int) -> RedisServer:
        folder = _subfolder(self._folder, f"r{number}")
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
    """One Sentinel process. It rewrites its configuration file in `folder`."""

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
        """Start the Sentinel for this primary, or with the configuration of its last run."""
        configuration = self._folder / "sentinel.conf"
        if primary_port is not None:
            configuration.write_text("\n".join(self._configuration(primary_port)))
        self._process = subprocess.Popen(
            [REDIS_PROGRAM, str(configuration), "--sentinel"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: self.command("PING") is not None, "a Sentinel responds")
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
        """The port of the server that this Sentinel names as the primary."""
        return int(cast(tuple[bytes, int], self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER))[1])

    def is_settled(self) -> bool:
        """Whether this Sentinel sees both replicas and both other Sentinels up, and no failover."""
        commands = (("MASTERS",), ("REPLICAS", MASTER), ("SENTINELS", MASTER))
        instances = [instance for command in commands for instance in self._listed(*command)]
        # Sentinels keep the flag master_down of another Sentinel for longer than the primary is down.
        flags = [instance[b"flags"].removesuffix(b",master_down") for instance in instances]
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
    """Whether a replica is connected to this primary and in sync with it."""
    role, *details = cast(list[object], replica.command("ROLE"))
    if role != b"slave" or details[1:3] != [primary.port, b"connected"]:
        return False
    written = cast(list[object], primary.command("ROLE"))[1]
    return int(cast(int, cast(list[object], replica.command("ROLE"))[4])) >= int(cast(int, written))


def _subfolder(folder: Path, name: str) -> Path:
    subfolder = folder / name
    subfolder.mkdir()
    return subfolder
