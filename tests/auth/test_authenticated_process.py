"""The service as a process that asks for keys: made by its command, read from a file, and told to nobody."""

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from service.sessions.keys import Keys
from tests.auth.conftest import ENTRIES, KEYS, having, token_of
from tests.conftest import AGENT, USER, StartReplica
from tests.redis_server import RedisServer
from tests.replica import COMMAND, Replica
from tests.test_walkthrough import SESSIONS

BROKEN = "4716d2ea-673d-47d0-b1bd-33202db7411b"
NEW = {"agentId": AGENT, "userId": USER}
WRONG = "ssk_a-key-that-nobody-has-and-that-is-nowhere-to-be-seen"


def asked(replica: Replica, method: str, path: str, headers: Mapping[str, str], body: object = None) -> tuple[int, str]:
    """The status of an answer, and all that it says, headers and body."""
    address = urlsplit(replica.url)
    assert address.hostname is not None
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=20)) as connection:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, f"{answer.headers}{answer.read().decode()}"


def made(*words: str) -> str:
    """What the command says; no variable of the environment reaches it but one that would stop the service."""
    ended = subprocess.run(
        [*COMMAND, "key", *words],
        cwd=Path(__file__).parent.parent.parent,
        env={"PORT": "nonsense"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_a_key_that_the_command_made_opens_the_service(redis_server: RedisServer, start_replica: StartReplica) -> None:
    _, key, _, entry = (line.strip() for line in made("web", "--scopes", "write").splitlines())
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_API_KEYS=entry)

    answers = [asked(replica, "POST", SESSIONS, headers, NEW)[0] for headers in ({"X-API-KEY": key}, {})]

    assert answers == [201, 401]


def test_workers_ask_for_keys_too(redis_server: RedisServer, start_replica: StartReplica, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(ENTRIES)
    replica = start_replica(
        ["--workers", "2"], REDIS_URL=redis_server.url, SESSION_API_KEYS_FILE=str(tmp_path / "keys"), HOST="0.0.0.0"
    )

    answers = [asked(replica, "GET", "/metrics", headers)[0] for headers in ({}, having("read"), having("admin"))]

    assert answers == [401, 403, 200]


@pytest.mark.parametrize("words", [[], ["--workers", "2"]], ids=["alone", "workers"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"HOST": "0.0.0.0"}, "HOST=0.0.0.0: requires authentication"),
        ({"SESSION_API_KEYS": f"web:read:sha256:{WRONG}"}, "SESSION_API_KEYS: entry 1 (web): must end in sha256"),
        ({"SESSION_API_KEYS_FILE": "/nowhere"}, "SESSION_API_KEYS_FILE=/nowhere: No such file or directory"),
        ({"SESSION_API_KEYS_FILE": "/dev/null"}, "SESSION_API_KEYS_FILE=/dev/null: must hold at least one entry"),
        ({"SESSION_RATE_PER_CALLER": "9/day"}, "SESSION_RATE_PER_CALLER: requires authentication; set"),
        ({"SESSION_GUESSES_PER_CALLER": "9/day"}, "SESSION_GUESSES_PER_CALLER: requires authentication; set"),
    ],
    ids=range(6),
)
def test_what_is_wrong_stops_the_start_in_one_line(
    start_replica: StartReplica, words: list[str], settings: dict[str, str], said: str
) -> None:
    replica = start_replica(words, REDIS_URL="redis://127.0.0.1:1", **settings)

    assert replica.wait() == 1
    assert replica.output.startswith(said)
    assert replica.output.count("\n") == 1
    assert WRONG not in replica.output


def test_without_tokens_nothing_is_imported_that_judges_them() -> None:
    imports = "import sys, service.process.serve; assert not {'jwt', 'cryptography.hazmat'} & sys.modules.keys()"

    subprocess.run([sys.executable, "-c", imports], check=True, cwd=Path(__file__).parent.parent.parent, timeout=20)


async def test_keys_and_tokens_are_told_to_nobody(
    redis_server: RedisServer, real_redis: Redis, start_replica: StartReplica
) -> None:
    await real_redis.set(Keys("").session(BROKEN), "no hash", ex=60)
    forged = token_of(USER) + "x"
    replica = start_replica(
        REDIS_URL=redis_server.url,
        SESSION_API_KEYS=ENTRIES,
        SESSION_JWT_ISSUER="https://issuer.example",
        SESSION_JWT_AUDIENCE="sessions",
        SESSION_JWT_SECRET="another-secret-of-32-bytes-at-least",
        SESSION_LOG_LEVEL="debug",
        SESSION_LOG_FORMAT="json",
    )
    callers = [having("read"), {"X-API-KEY": WRONG}, {"Authorization": f"Bearer {forged}"}]

    answers = [asked(replica, "GET", "/metrics", headers) for headers in callers]
    answers += [asked(replica, "GET", f"{SESSIONS}/{BROKEN}", having("read"))]
    metrics = asked(replica, "GET", "/metrics", having("admin"))
    replica.stop()

    said = "".join([replica.output, metrics[1], *(told for _, told in answers)])
    assert [status for status, _ in answers] == [403, 401, 401, 500]
    assert len(re.findall(r'"event":"request"', said)) >= 4
    assert "Traceback" in said
    secret = [WRONG, forged, *(key.key for key in KEYS.values()), *(key.entry[-64:] for key in KEYS.values())]
    assert [word for word in secret if word in said or word.rpartition(".")[2] in said] == []
