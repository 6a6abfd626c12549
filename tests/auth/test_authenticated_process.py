"""Authentication of a service process, and the secrecy of keys and tokens."""

import http.client
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from service.sessions.keys import Keys
from tests.auth.conftest import AUDIENCE, ENTRIES, ISSUER, KEYS, key_headers, new_token
from tests.conftest import AGENT, USER, StartReplica
from tests.redis_server import RedisServer
from tests.replica import COMMAND, Replica
from tests.test_walkthrough import SESSIONS

ROOT = Path(__file__).parent.parent.parent
UNKNOWN_KEY = "ssk_an-unknown-key-that-must-not-appear-anywhere"


def request(
    replica: Replica, method: str, path: str, headers: Mapping[str, str], body: object = None
) -> tuple[int, str]:
    """Return the status, and the headers and the body as text."""
    address = urlsplit(replica.url)
    assert address.hostname is not None
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=50)) as connection:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, f"{response.headers}{response.read().decode()}"


def run_key_command(*words: str) -> str:
    """Return the output of `python -m service key`. Invalid settings do not affect it."""
    process = subprocess.run(
        [*COMMAND, "key", *words], cwd=ROOT, env={"PORT": "nonsense"}, capture_output=True, text=True, timeout=50
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def test_a_key_of_the_key_command_is_accepted(redis_server: RedisServer, start_replica: StartReplica) -> None:
    _, key, _, entry = (line.strip() for line in run_key_command("web", "--scopes", "write").splitlines())
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_API_KEYS=entry)

    body = {"agentId": AGENT, "userId": USER}
    statuses = [request(replica, "POST", SESSIONS, headers, body)[0] for headers in ({"X-API-KEY": key}, {})]

    assert statuses == [201, 401]


def test_workers_require_authentication(redis_server: RedisServer, start_replica: StartReplica, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(ENTRIES)
    replica = start_replica(
        ["--workers", "2"], REDIS_URL=redis_server.url, SESSION_API_KEYS_FILE=str(tmp_path / "keys"), HOST="0.0.0.0"
    )

    headers: list[dict[str, str]] = [{}, key_headers("read"), key_headers("admin")]
    statuses = [request(replica, "GET", "/metrics", each)[0] for each in headers]

    assert statuses == [401, 403, 200]


@pytest.mark.parametrize("words", [[], ["--workers", "2"]], ids=["one process", "workers"])
def test_an_unsafe_setting_stops_the_start_with_one_line(start_replica: StartReplica, words: list[str]) -> None:
    replica = start_replica(words, REDIS_URL="redis://127.0.0.1:1", HOST="0.0.0.0")

    assert replica.wait() == 1
    assert replica.output.startswith("HOST=0.0.0.0: requires authentication")
    assert replica.output.count("\n") == 1


def test_verification_of_tokens_is_not_imported_without_tokens() -> None:
    code = "import sys, service.process.serve; assert not {'jwt', 'cryptography.hazmat'} & sys.modules.keys()"

    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=50)


async def test_logs_metrics_and_responses_contain_no_keys_and_tokens(
    redis_server: RedisServer, real_redis: Redis, start_replica: StartReplica
) -> None:
    forged = new_token(USER) + "x"
    replica = start_replica(
        REDIS_URL=redis_server.url,
        SESSION_API_KEYS=ENTRIES,
        SESSION_JWT_ISSUER=ISSUER,
        SESSION_JWT_AUDIENCE=AUDIENCE,
        SESSION_JWT_SECRET="another-secret-of-32-bytes-at-least",
        SESSION_LOG_LEVEL="debug",
        SESSION_LOG_FORMAT="json",
    )
    credentials = [key_headers("read"), {"X-API-KEY": UNKNOWN_KEY}, {"Authorization": f"Bearer {forged}"}]

    responses = [request(replica, "GET", "/metrics", headers) for headers in credentials]
    _, created = request(replica, "POST", SESSIONS, key_headers("write"), {"agentId": AGENT, "userId": USER})
    session_id = json.loads(created[created.index("{") :])["sessionId"]
    await real_redis.set(Keys("").expiry(session_id[:2]), "not an index", ex=60)
    responses += [request(replica, "POST", f"{SESSIONS}/{session_id}/renew", key_headers("write"))]
    metrics = request(replica, "GET", "/metrics", key_headers("admin"))
    replica.stop()

    output = "".join([replica.output, metrics[1], *(text for _, text in responses)])
    assert [status for status, _ in responses] == [403, 401, 401, 500]
    assert output.count('"event":"request"') >= 4
    assert "Traceback" in output
    secrets = [UNKNOWN_KEY, forged, *(key.key for key in KEYS.values()), *(key.entry[-64:] for key in KEYS.values())]
    assert [secret for secret in secrets if secret in output or secret.rpartition(".")[2] in output] == []
