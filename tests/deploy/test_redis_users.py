"""The accounts in deploy/ that the service needs on its Redis and on its Sentinels.

That they are enough shows in every other test, whose servers let the service do no more (tests/redis_server.py).
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
SERVICE = Login("session-service", "a-password")

REFUSED = r"(?i)no permissions"

FORBIDDEN = {
    "to empty it": ("FLUSHALL",),
    "to empty a database": ("FLUSHDB",),
    "to list all keys": ("KEYS", "*"),
    "to walk over all keys": ("SCAN", "0"),
    "to change its settings": ("CONFIG", "SET", "maxmemory", "0"),
    "to read settings and change none": ("CONFIG", "REWRITE"),
    "to forget scripts": ("SCRIPT", "FLUSH"),
    "to see accounts": ("ACL", "LIST"),
    "to make an account": ("ACL", "SETUSER", "mine", "on", "nopass", "+@all"),
    "to see who is connected": ("CLIENT", "LIST"),
    "to hear what others ask": ("MONITOR",),
    "to make it follow another": ("REPLICAOF", "127.0.0.1", "1"),
    "to have all it holds": ("SYNC",),
    "to stop it": ("SHUTDOWN", "NOSAVE"),
    "to load a function": ("FUNCTION", "LOAD", "#!lua name=x\n"),
    "to send to others": ("PUBLISH", "channel", "word"),
    "to take the end from a session": ("PERSIST", "session:{ab}:x"),
    "to move a key": ("MIGRATE", "127.0.0.1", "1", "session:{ab}:x", "0", "1"),
    "to rename a key": ("RENAME", "session:{ab}:x", "session:{ab}:y"),
    "to read another's key": ("GET", "sessions-of-others"),
    "to write another's key": ("SET", "other", "1"),
    "to delete another's key": ("DEL", "other"),
    "to do so by a script": ("EVAL", "return redis.call('GET', KEYS[1])", 1, "other"),
    "to empty it by a script": ("EVAL", "return redis.call('FLUSHALL')", 0),
}


def users_in(file: str) -> str:
    """The file as README says to fill it in."""
    return (
        (DEPLOY / file).read_text().replace("user session-service on", f"user session-service on >{SERVICE.password}")
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that lets in the service, by its name and password, and everyone else do everything."""
    folder = tmp_path_factory.mktemp("r")
    (folder / "own.acl").write_text(users_in("redis-users.acl"))
    server = RedisServer(
        folder, port=free_port(), settings={"aclfile": str(folder / "own.acl")}, login=Login("default", "any")
    )
    server.start()
    yield server
    server.stop()


def as_the_service(server: RedisServer) -> redis.Redis:
    return redis.Redis(port=server.port, username=SERVICE.user, password=SERVICE.password)


@pytest.mark.parametrize("words", FORBIDDEN.values(), ids=FORBIDDEN)
def test_the_service_may_not(server: RedisServer, words: tuple[str, ...]) -> None:
    with (
        as_the_service(server) as client,
        pytest.raises(redis.ResponseError, match=REFUSED),
    ):
        client.execute_command(*words)


def test_the_service_may_ask_whether_that_is_the_primary(server: RedisServer) -> None:
    """Where it may not, it goes without a word by what it knew, so that no other test would miss this."""
    with as_the_service(server) as client:
        assert client.role()[0] == b"master"


def test_the_service_serves_as_that_user(server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=f"redis://{SERVICE}127.0.0.1:{server.port}")

    status, session = replica.call("POST", "/api/messaging/sessions", {"agentId": AGENT, "userId": USER})

    assert status == 201
    assert replica.call("DELETE", f"/api/messaging/sessions/{session['sessionId']}")[0] == 200


def test_as_the_file_stands_nobody_knows_the_password(redis_server: RedisServer) -> None:
    rules = (DEPLOY / "redis-users.acl").read_text().split()[2:]
    redis_server.command("ACL", "SETUSER", "as-it-stands", *rules)

    with pytest.raises(AuthenticationError):
        redis.Redis.from_url(redis_server.url.replace("unix://", "unix://as-it-stands:@")).ping()
    redis_server.command("ACL", "DELUSER", "as-it-stands")


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
def test_the_service_may_not_tell_sentinels_what_to_do(
    sentinel_servers: SentinelServers, words: tuple[str, ...]
) -> None:
    sentinel: Sentinel = sentinel_servers.sentinels[0]

    with redis.Redis(port=sentinel.port) as client, pytest.raises(redis.ResponseError, match=REFUSED):
        client.execute_command(*words)


def test_the_file_has_every_command_that_scripts_call() -> None:
    texts = [path.read_text() for path in (DEPLOY.parent / "service" / "life" / "scripts").glob("*.lua")]
    called = {name.lower() for text in texts for name in re.findall(r"redis\.p?call\('([A-Z]+)'", text)}
    granted = {word[1:] for word in users_in("redis-users.acl").split() if word.startswith("+")}

    assert called - granted == set()
