"""Run the quick start and the curl lines of the README, and compare its settings with docs/configuration.md."""

from pathlib import Path

import pytest

from tests.conftest import StartReplica
from tests.docs import console, markdown, shell
from tests.redis_server import RedisServer

README = markdown.document("README.md")
QUICK_START, ONE_SCREEN = markdown.blocks(README, "sh")
[MAKE_RUN] = console.commands(markdown.blocks(markdown.section(README, "Quick start"), "console")[0])


@pytest.fixture
def quick_start_url(redis_server: RedisServer, start_replica: StartReplica) -> str:
    redis_server.command("FLUSHALL")
    return start_replica(REDIS_URL=redis_server.url, **console.settings_of(MAKE_RUN)).url


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len(README.splitlines()) <= 200


def test_the_quick_start_ends_with_an_expired_session(quick_start_url: str, tmp_path: Path) -> None:
    transcript = shell.run([QUICK_START], quick_start_url, tmp_path)

    assert transcript.requests == ["POST 201", "GET 200", "GET 410"]
    assert '"code":"SESSION_EXPIRED"' in transcript.output.splitlines()[-1]


def test_the_curl_lines_succeed_in_their_order(replica_url: str, tmp_path: Path) -> None:
    transcript = shell.run([ONE_SCREEN], replica_url, tmp_path)

    assert transcript.requests[0] == "POST 201"
    assert {line.split()[1] for line in transcript.requests[1:]} == {"200"}
    assert len(transcript.requests) == ONE_SCREEN.count("curl ")


def test_the_settings_agree_with_the_configuration_page() -> None:
    rows = markdown.table_rows(markdown.section(README, "The ten settings people change"))
    documented = {
        name: default for name, default, *_ in markdown.table_rows(markdown.document("docs/configuration.md"))
    }

    assert len(rows) == 10
    assert {name: default for name, default, _ in rows}.items() <= documented.items()
