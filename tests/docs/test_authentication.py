"""docs/authentication.md lists the scope of every call, and its examples create keys and tokens that work."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import AGENT, USER, StartReplica
from tests.docs import console, markdown, shell
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

PAGE = markdown.document("docs/authentication.md")
[MAKE_KEY] = console.commands(markdown.blocks(PAGE, "console")[0])
[SAMPLE_ENTRY] = markdown.blocks(PAGE, "text")
SETTINGS_OF_TOKENS = dict(re.findall(r"`(SESSION_JWT_(?:ISSUER|AUDIENCE))=(\w+)`", PAGE))
SECRET = "a-secret-for-tests-of-at-least-32-bytes"


@pytest.fixture(scope="module")
def key_and_entry() -> list[str]:
    command = [sys.executable, *MAKE_KEY[1:]]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=markdown.ROOT).stdout
    return re.findall(r"^  (\S+)$", printed, re.MULTILINE)


@pytest.fixture
def guarded(redis_server: RedisServer, start_replica: StartReplica, key_and_entry: list[str]) -> Replica:
    redis_server.command("FLUSHALL")
    return start_replica(
        REDIS_URL=redis_server.url,
        SESSION_API_KEYS=key_and_entry[1],
        SESSION_JWT_SECRET=SECRET,
        **SETTINGS_OF_TOKENS,
    )


def test_the_command_prints_a_key_and_an_entry_like_the_sample(key_and_entry: list[str]) -> None:
    _, entry = key_and_entry

    assert entry.split(":")[:3] == SAMPLE_ENTRY.strip().split(":")[:3]
    assert len(entry) == len(SAMPLE_ENTRY.strip())


def test_keys_and_tokens_give_access(guarded: Replica, key_and_entry: list[str], tmp_path: Path) -> None:
    key, _ = key_and_entry
    _, session = guarded.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER}, {"X-API-KEY": key})

    transcript = shell.run(
        markdown.blocks(PAGE, "sh"),
        guarded.url,
        tmp_path,
        API=f"http://127.0.0.1:3000{SESSIONS}",
        ID=session["sessionId"],
        KEY=key,
        SESSION_JWT_SECRET=SECRET,
    )

    assert transcript.requests == ["GET 200"] * 3
    assert f'"sessionId":"{session["sessionId"]}"' in transcript.output


def test_every_call_is_listed_under_its_scope(guarded: Replica) -> None:
    _, openapi = guarded.call("GET", "/openapi.json")
    described = {
        (f"{method.upper()} {path}", "".join(call["security"][0]["key"]) if call["security"] else "none")
        for path, item in openapi["paths"].items()
        for method, call in item.items()
        if method != "parameters"
    }

    rows = markdown.table_rows(markdown.section(PAGE, "Scopes"))
    listed = {(call, scope.strip("`")) for scope, calls in rows for call in re.findall(r"`([^`]+)`", calls)}

    assert listed == described


def test_the_sample_command_is_complete() -> None:
    assert shlex.join(MAKE_KEY).startswith("python -m service key ")
