"""Tests that the ACL files in deploy/ grant nothing beyond the needs of the service.

All other tests run with these accounts (tests/redis_server.py), so they show that the permissions are sufficient.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import AuthenticationError

from tests.conftest import AGENT, USER, StartReplica
from tests.redis_server import Login, RedisServer, free_port
from tests.sentinel_servers import Sentinel, SentinelServers

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
SERVICE = Login("session-service", "p@ss/w%rd#?:1")

NO_PERMISSION = r"(?i)no permissions"

FORBIDDEN = {
    "delete all data": ("FLUSHALL",),
    "delete a database": ("FLUSHDB",),
    "list keys": ("KEYS", "*"),
    "scan keys": ("SCAN", "0"),
    "change the configuration": ("CONFIG", "SET", "maxmemory", "0"),
    "rewrite the configuration file": ("CONFIG", "REWRITE"),
    "flush scripts": ("SCRIPT", "FLUSH"),
    "list accounts": ("ACL", "LIST"),
    "create an account": ("ACL", "SETUSER", "mine", "on", "nopass", "+@all"),
    "list clients": ("CLIENT", "LIST"),
    "monitor commands": ("MONITOR",),
    "make it a replica": ("REPLICAOF", "127.0.0.1", "1"),
    "copy the data set": ("SYNC",),
    "shut down the server": ("SHUTDOWN", "NOSAVE"),
    "load a function": ("FUNCTION", "LOAD", "#!lua name=x\n"),
    "publish a message": ("PUBLISH", "channel", "word"),
    "remove a TTL": ("PERSIST", "session:{ab}:x"),
    "migrate a key": ("MIGRATE", "127.0.0.1", "1", "session:{ab}:x", "0", "1"),
    "rename a key": ("RENAME", "session:{ab}:x", "session:{ab}:y"),
    "read a foreign key": ("GET", "sessions-of-others"),
    "write a foreign key": ("SET", "other", "1"),
    "delete a foreign key": ("DEL", "other"),
    "read a foreign key from a script": ("EVAL", "return redis.call('GET', KEYS[1])", 1, "other"),
    "delete all data from a script": ("EVAL", "return redis.call('FLUSHALL')", 0),
}


def users_in(file: str) -> str:
    """The file with a password, as docs/redis.md describes."""
    return (
        (DEPLOY / file).read_text().replace("user session-service on", f"user session-service on >{SERVICE.password}")
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server on which only the service has a restricted account."""
    folder = tmp_path_factory.mktemp("r")
    (folder / "own.acl").write_text(users_in("redis-users.acl"))
    server = RedisServer(
        folder, port=free_port(), settings={"aclfile": str(folder / "own.acl")}, login=Login("default", "any")
    )
    server.start()
    yield server
    server.stop()


def service_client(server: RedisServer) -> redis.Redis:
    return redis.Redis(port=server.port, username=SERVICE.user, password=SERVICE.password)


@pytest.mark.parametrize("words", FORBIDDEN.values(), ids=FORBIDDEN)
def test_the_account_has_no_permission_to(server: RedisServer, words: tuple[str, ...]) -> None:
    with (
        service_client(server) as client,
        pytest.raises(redis.ResponseError, match=NO_PERMISSION),
    ):
        client.execute_command(*words)


def test_the_account_may_run_role(server: RedisServer) -> None:
    """Without ROLE the service skips the check silently, so no other test would notice."""
    with service_client(server) as client:
        assert client.role()[0] == b"master"


def test_the_service_works_with_this_account(server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(
        REDIS_URL=f"redis://{SERVICE.user}@127.0.0.1:{server.port}", REDIS_PASSWORD=SERVICE.password
    )

    status, session = replica.call("POST", "/api/messaging/sessions", {"agentId": AGENT, "userId": USER})

    assert status == 201
    assert replica.call("DELETE", f"/api/messaging/sessions/{session['sessionId']}")[0] == 200


def test_the_file_as_shipped_has_no_valid_password(redis_server: RedisServer) -> None:
    rules = (DEPLOY / "redis-users.acl").read_text().split()[2:]
    redis_server.command("ACL", "SETUSER", "as-shipped", *rules)

    with pytest.raises(AuthenticationError):
        redis.Redis.from_url(redis_server.url.replace("unix://", "unix://as-shipped:@")).ping()
    redis_server.command("ACL", "DELUSER", "as-shipped")


@pytest.mark.parametrize(
    "words",
    [
        ("SENTINEL", "FAILOVER", "sessions"),
        ("SENTINEL", "SET", "sessions", "quorum", "1"),
        ("SENTINEL", "REMOVE", "sessions"),
        ("SENTINEL", "CONFIG", "GET", "*"),
        ("PUBLISH", "+switch-master", "word"),
        ("SUBSCRIBE", "__sentinel__:hello"),
        ("SHUTDOWN",),
    ],
    ids=lambda words: " ".join(words),
)
def test_the_account_cannot_administer_sentinels(sentinel_servers: SentinelServers, words: tuple[str, ...]) -> None:
    sentinel: Sentinel = sentinel_servers.sentinels[0]

    with redis.Redis(port=sentinel.port) as client, pytest.raises(redis.ResponseError, match=NO_PERMISSION):
        client.execute_command(*words)


def test_the_account_may_run_every_command_that_scripts_call() -> None:
    texts = [path.read_text() for path in (DEPLOY.parent / "service" / "sessions" / "scripts").glob("*.lua")]
    called = {name.lower() for text in texts for name in re.findall(r"redis\.p?call\('([A-Z]+)'", text)}
    granted = {word[1:] for word in users_in("redis-users.acl").split() if word.startswith("+")}

    assert called - granted == set()
