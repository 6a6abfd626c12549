"""The examples of docs/sessions.md run and return what it describes."""

import re
from pathlib import Path

from tests.docs import markdown, shell
from tests.replica import Replica

PAGE = markdown.document("docs/sessions.md")


def test_a_repeated_creation_returns_the_same_session(replica: Replica, tmp_path: Path) -> None:
    transcript = shell.run(markdown.blocks(PAGE, "sh"), replica.url, tmp_path)

    first, second = re.findall(r'"sessionId":"([^"]+)"', transcript.output)
    assert transcript.requests == ["POST 201", "POST 201"]
    assert first == second
