"""The examples of docs/messages.md run and return what it describes."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.conftest import AGENT
from tests.docs import markdown, shell
from tests.docs.redis_commands import RedisCommand
from tests.redis_server import RedisServer
from tests.replica import Replica

PAGE = markdown.document("docs/messages.md")
PRINT_COMMAND = "import shlex, sys; print(shlex.join(['redis-cli', *sys.argv[1:]]))"
STATUSES = [
    "POST 201",  # create a session
    "POST 201",  # send
    "GET 200",  # history
    "GET 200",  # inbox
    "POST 202",  # chunk
    "POST 201",  # answer
    "POST 202",  # cancel
]


@pytest.fixture
def transcript(replica: Replica, tmp_path: Path) -> shell.Transcript:
    """The output of all commands of the page, in which redis-cli prints its command line."""
    redis_cli = tmp_path / "redis-cli"
    redis_cli.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-c", PRINT_COMMAND])} "$@"\n')
    redis_cli.chmod(0o755)
    return shell.run(markdown.blocks(PAGE, "sh"), replica.url, tmp_path)


def test_every_call_succeeds(transcript: shell.Transcript) -> None:
    assert transcript.requests == STATUSES


def test_the_calls_are_a_conversation(transcript: shell.Transcript) -> None:
    history, inbox, chunk, answer, _ = [
        json.loads(line) for line in transcript.output.splitlines() if line.startswith("{")
    ]

    assert [message["content"] for message in history["messages"]] == ["Hello"]
    assert [delivery["message"]["content"] for delivery in inbox["deliveries"]] == ["Hello"]
    assert chunk == {"success": True, "cancelled": False}
    assert (answer["content"], answer["authorId"]) == ("Hi there", AGENT)


def test_redis_cli_shows_the_messages_with_the_names_of_the_api(
    transcript: shell.Transcript, redis_server: RedisServer
) -> None:
    messages, inbox = [RedisCommand.parse(line) for line in transcript.output.splitlines() if line.startswith("redis")]

    reply = str(messages.run_on(redis_server.admin_url))

    assert all(f"'{word}'" in reply for word in ("content", "Hello", "Hi there", "authorId", "inReplyTo"))
    assert isinstance(inbox.run_on(redis_server.admin_url), list)
    assert inbox.words[1] == f"sessions:agent:{{{AGENT}}}:inbox"
