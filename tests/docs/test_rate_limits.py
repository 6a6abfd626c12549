"""docs/rate-limits.md names every limit, and shows the headers that its settings produce."""

import re
from pathlib import Path

from service.settings import Settings
from tests.auth.conftest import KEYS
from tests.conftest import StartReplica
from tests.docs import console, markdown, shell
from tests.redis_server import RedisServer
from tests.test_walkthrough import SESSIONS

PAGE = markdown.document("docs/rate-limits.md")
_, MAKE_RUN = console.commands(markdown.blocks(PAGE, "console")[0])
[HEADERS] = markdown.blocks(PAGE, "text")


def test_the_settings_produce_the_documented_headers(
    redis_server: RedisServer, start_replica: StartReplica, tmp_path: Path
) -> None:
    redis_server.command("FLUSHALL")
    admin = KEYS["admin"]
    settings = console.settings_of(MAKE_RUN)
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_API_KEYS=admin.entry, **settings)

    transcript = shell.run(
        markdown.blocks(PAGE, "sh"), replica.url, tmp_path, API=f"http://127.0.0.1:3000{SESSIONS}", KEY=admin.key
    )

    assert transcript.output == HEADERS


def test_every_limit_is_listed() -> None:
    listed = set(re.findall(r"^\| `(SESSION_\w+)`", PAGE, re.MULTILINE))

    assert listed == {name.upper() for name in Settings.model_fields if re.search(r"_(rate|guesses)_per_", name)}
